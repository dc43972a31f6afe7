"""Configurations from text, and their plans, without a daemon."""

from __future__ import annotations

import textwrap

from servd.config.find import Disk, Source
from servd.config.load import Loaded, load_sources
from servd.host.facts import inspect_host
from servd.plan.build import build_loaded
from servd.plan.model import Plan

RUNTIME_DIR = "/run/x"


def loaded_text(text: str, path: str = "servd.toml") -> Loaded:
    """A configuration, with every mistake in it."""
    source = Source(path, textwrap.dedent(text).encode())
    return load_sources([source], path, {}, Disk())


def plan_text(text: str) -> Plan:
    """The plan of a valid configuration."""
    loaded = loaded_text(text).require()
    return build_loaded(loaded, inspect_host(loaded.config, {}), RUNTIME_DIR)
