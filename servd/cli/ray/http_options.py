"""The options of Ray's proxies, which are fixed once Serve runs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from servd.core.errors import ServdError
from servd.export.ray.fitness import is_narrower

_RESTART = "only `serve shutdown` and a new deployment change it"


class FixedOptionError(ServdError):
    """The proxies would serve more openly than the configuration says."""


def check_http_options(document: Mapping[str, Any], details: Mapping[str, Any]) -> Iterator[str]:
    """Yields a line for each option that the running proxies have otherwise. Raises
    `FixedOptionError` if they are open to others, or without TLS.
    """
    wanted, there = document.get("http_options"), details.get("http_options")
    if not wanted or not there or not details.get("proxies"):
        return
    if is_narrower(wanted["host"], there.get("host") or "127.0.0.1"):
        raise FixedOptionError(
            f"the proxies of this cluster listen on {there['host']}, and the configuration says"
            f" {wanted['host']}: {_RESTART}"
        )
    if wanted.get("ssl_certfile") and not there.get("ssl_certfile"):
        raise FixedOptionError(f"the proxies of this cluster serve without TLS: {_RESTART}")
    for key, value in wanted.items():
        if there.get(key, value) != value:
            yield f"http_options.{key} stays {there[key]}, not {value}: {_RESTART}"
