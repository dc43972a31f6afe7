"""Functions of `import servd` in addition to the client."""

from __future__ import annotations

import os

from servd.config.load import load as load_with_places
from servd.config.model import Config


def load(path: str | os.PathLike[str]) -> Config:
    """Returns the validated configuration in the file or folder at `path`.

    Raises `servd.ConfigError` with all errors.
    """
    return load_with_places(os.fspath(path), os.environ).require().config
