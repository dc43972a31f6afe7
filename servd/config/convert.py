"""Writes a configuration in another language, or for another folder, as it is written."""

from __future__ import annotations

import os
from collections.abc import Sequence

from servd.config.dump import to_text
from servd.config.find import Format, Source, config_error
from servd.config.load import folder_of, parse_source
from servd.config.merge import merge, rebase
from servd.config.tree import plain
from servd.core.errors import ConfigError


def converted(sources: Sequence[Source], folder: str, form: Format) -> str:
    """Returns the text of one file in `folder` that means what `sources` mean together. References
    and includes stay as they are written. Raises `ConfigError`.
    """
    parsed = [parse_source(source, {}) for source in sources]
    if found := [diagnostic for each in parsed for diagnostic in each.diagnostics]:
        raise ConfigError(found)
    target = os.path.abspath(folder)
    root, found = merge([rebase(each.root, folder_of, target) for each in parsed])
    if found:
        raise ConfigError(found)
    try:
        return to_text(plain(root), form)
    except ValueError as error:
        raise config_error(str(error), file=sources[0].file) from None
