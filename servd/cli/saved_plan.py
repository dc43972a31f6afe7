"""Plans in files: `servd plan -o FILE` writes one, `servd reload FILE` applies it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from servd.cli.render.output import say
from servd.control.client import NoDaemonError
from servd.core.errors import ServdError
from servd.core.quick_dataclass import dataclass

_FORMAT = "servd plan 1"


@dataclass(frozen=True, slots=True)
class SavedPlan:
    """What a reload needs of a saved plan: its ETag, and whether it replaces every service."""

    etag: str
    roll: bool


def save(answer: Mapping[str, Any], path: str, *, roll: bool) -> None:
    """Writes the daemon's answer to a file that only its owner can read, since it may contain
    configuration values. Raises `NoDaemonError` for the plan of a first start, and `ServdError`.
    """
    if "etag" not in answer:
        raise NoDaemonError("servd is not running: only the plan of a running servd can be saved")
    text = json.dumps({"format": _FORMAT, "roll": roll, **answer}, indent=2, ensure_ascii=False)
    beside = f"{path}.{os.getpid()}"
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text + "\n")
        os.replace(beside, path)
    except OSError as error:
        raise ServdError(f"cannot write {path}: {error.strerror}") from None
    say(f"saved: `servd reload {path}` applies exactly this plan")


def read(path: str) -> SavedPlan:
    """Returns the plan in a file. Raises `ServdError`."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise ServdError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("format") != _FORMAT:
        raise ServdError(
            f"{path} is not a saved plan (see `servd plan -o`); use -c for a configuration"
        )
    return SavedPlan(str(found["etag"]), bool(found["roll"]))
