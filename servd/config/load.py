"""Loads a configuration: find, parse, interpolate, include, merge, anchor, layer, validate."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import field, replace

from servd.config.addresses import check_addresses
from servd.config.bento.declared import Part
from servd.config.check import check
from servd.config.files import check_files
from servd.config.find import STDIN, STDIN_NAME, Disk, Files, Source, is_yaml, sources_of
from servd.config.find_module import check_modules
from servd.config.interpolate import interpolate
from servd.config.layers import Layers, environment_tree, validate
from servd.config.merge import anchor, merge
from servd.config.model import Config
from servd.config.redact import redact_all
from servd.config.request_files import request_files_of
from servd.config.shorthand import written_out
from servd.config.tree import Node, Parsed, empty, walk
from servd.config.trust import check_trust
from servd.config.unused_variables import unused_variables
from servd.config.validation_context import ValidationContext
from servd.core.basedir import absolute, base_dir
from servd.core.diagnostics import Diagnostic, Place, errors_in, in_order
from servd.core.errors import ConfigError
from servd.core.quick_dataclass import dataclass

_MAX_FILES = 1000


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration with its sources; `config` is complete only without `errors`. `texts` maps
    file names of places to text, `secrets` are the paths of values that are never shown, `digest`
    changes with any byte of the files. `read` are further files (`${file:}`), `patterns` the globs
    of includes, all absolute. `parts` are known after `servd.bento.discovery`.
    """

    config: Config
    path: str
    files: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    secrets: frozenset[tuple[str | int, ...]] = frozenset()
    diagnostics: tuple[Diagnostic, ...] = ()
    digest: str = ""
    read: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    layers: Layers | None = field(default=None, repr=False)
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def errors(self) -> list[Diagnostic]:
        """The diagnostics that make the configuration unusable."""
        return errors_in(self.diagnostics)

    @property
    def warnings(self) -> list[Diagnostic]:
        """The diagnostics that leave the configuration usable."""
        return [d for d in self.diagnostics if d.severity == "warning"]

    def require(self) -> Loaded:
        """Returns itself, or raises `ConfigError` with all errors."""
        if self.errors:
            raise LoadError(self)
        return self


class LoadError(ConfigError):
    """A `ConfigError` with the text of the files, so that lines can be shown."""

    def __init__(self, loaded: Loaded) -> None:
        super().__init__(loaded.diagnostics)
        self.loaded = loaded


def load(path: str, environ: Mapping[str, str], files: Files | None = None) -> Loaded:
    """Returns the configuration at `path`, with every mistake in it in `diagnostics`; `require`
    raises them. Raises `ConfigError` only when nothing can be read.
    """
    files = files or Disk()
    sources = sources_of(path, files)
    return load_sources(sources, STDIN_NAME if path == STDIN else path, environ, files)


def load_sources(
    sources: Sequence[Source], path: str, environ: Mapping[str, str], files: Files
) -> Loaded:
    """Returns the configuration of `sources` and their includes. See `load`."""
    gathered = _gather(sources, environ, files)
    root, found = merge(gathered.roots) if gathered.roots else (empty(path), [])
    found = [*gathered.diagnostics, *found]
    root = anchor(written_out(root), folder_of)
    layers = Layers(anchor(environment_tree(environ), folder_of), root)
    config, invalid = validate(layers, damaged=gathered.damaged)
    checked = ValidationContext(config, layers, gathered.damaged)
    found += [*invalid, *check(checked)]
    found += [*check_addresses(checked), *check_files(checked)]
    if not errors_in(found):
        found += check_modules(checked)
    found += unused_variables(environ, gathered.texts.values(), config)
    found = redact_all(found, root)
    named = {*_env_files(config), *request_files_of(config)}
    found += check_trust(gathered.texts, (*gathered.read, *gathered.patterns, *named))
    return Loaded(
        config=config,
        path=path,
        files=tuple(gathered.texts),
        texts=gathered.texts,
        secrets=frozenset(way for way, node in walk(root) if node.secret),
        diagnostics=tuple(in_order(found)),
        digest=gathered.digest.hexdigest(),
        read=tuple(gathered.read),
        patterns=tuple(gathered.patterns),
        layers=layers,
    )


def _env_files(config: Config) -> set[str]:
    return {
        file.path for each in (config.defaults, *config.services.values()) for file in each.env_file
    }


def folder_of(file: str) -> str:
    """Returns the folder that relative paths in `file` start from; the base one for no file."""
    return base_dir() if file.startswith("<") else os.path.dirname(absolute(file))


@dataclass(slots=True)
class _Gathered:
    """The trees of all files, with the mistakes in them."""

    roots: list[Node] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    damaged: bool = False
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    read: list[str] = field(default_factory=list)
    patterns: list[str] = field(default_factory=list)

    def refuse(self, place: Place, message: str, code: str = "file") -> None:
        """Adds a mistake in what is included."""
        self.diagnostics.append(Diagnostic(place, message, "include", code=code))


def _gather(sources: Sequence[Source], environ: Mapping[str, str], files: Files) -> _Gathered:
    """Parses and interpolates `sources` and all their includes."""
    gathered = _Gathered()
    waiting = list(sources)
    seen = {os.path.realpath(absolute(source.file)) for source in sources}

    def read(path: str, file: str) -> str:
        path = os.path.join(folder_of(file), path)
        gathered.read.append(path)
        content = files.read(path)
        gathered.digest.update(content)
        return content.decode("utf-8")

    while waiting:
        source = waiting.pop(0)
        gathered.digest.update(source.content)
        parsed = parse_source(source, gathered.texts)
        root, unresolved = interpolate(_without_extensions(parsed.root), environ, read)
        gathered.roots.append(root)
        gathered.diagnostics += [*parsed.diagnostics, *unresolved]
        gathered.damaged |= parsed.damaged
        for file, place in _included(root, files, gathered):
            if os.path.realpath(absolute(file)) in seen:
                continue
            seen.add(os.path.realpath(absolute(file)))
            if len(seen) > _MAX_FILES:
                gathered.refuse(place, f"includes more than {_MAX_FILES} files", code="invalid")
                return gathered
            try:
                waiting.append(Source(file, files.read(file)))
            except OSError as error:
                gathered.refuse(place, f"cannot read {file}: {error.strerror}")
    return gathered


def _without_extensions(root: Node) -> Node:
    """Returns the tree without the `x-` keys at its top: they are for anchors, as in Compose."""
    kept = {key: node for key, node in root.table.items() if not key.startswith("x-")}
    return replace(root, value=kept) if isinstance(root.value, dict) else root


def parse_source(source: Source, texts: dict[str, str]) -> Parsed:
    """Returns the tree of one file, and adds its text to `texts`."""
    try:
        text = source.content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = source.content[: error.start]
        texts[source.file] = source.content.decode("utf-8", errors="replace")
        place = Place(source.file, before.count(b"\n") + 1, error.start - before.rfind(b"\n"))
        mistake = Diagnostic(place, "the file is not UTF-8", code="syntax")
        return Parsed(empty(source.file), (mistake,), damaged=True)
    texts[source.file] = text
    text = text.replace("\r\n", "\n")
    if is_yaml(source):  # parsers are imported on demand: YAML's takes 80 ms
        from servd.config.parse_yaml import parse_yaml

        return parse_yaml(text, source.file)
    from servd.config.parse_toml import parse_toml

    return parse_toml(text, source.file)


def _included(root: Node, files: Files, gathered: _Gathered) -> list[tuple[str, Place]]:
    """Returns the files that a tree includes; one named without wildcards must exist."""
    node = root.table.get("include")
    patterns = () if node is None else (node.items or (node,))
    result: list[tuple[str, Place]] = []
    for pattern in patterns:
        if not isinstance(pattern.value, str) or not pattern.value:
            continue
        folder = folder_of(pattern.place.file)
        gathered.patterns.append(os.path.join(folder, pattern.value))
        try:
            matches = files.glob(gathered.patterns[-1])
        except OSError as error:
            gathered.refuse(pattern.place, f"cannot search for {pattern.value}: {error.strerror}")
            continue
        if not matches and not any(sign in pattern.value for sign in "*?["):
            gathered.refuse(pattern.place, f"file not found: {pattern.value}")
        if not os.path.isabs(pattern.value):
            matches = [os.path.relpath(file, base_dir()) for file in matches]
        result += [(file, pattern.place) for file in matches]
    return result
