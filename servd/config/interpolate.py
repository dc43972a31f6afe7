"""References in strings: `${VAR}`, `${VAR:-default}`, `${VAR:?text}`, `${file:PATH}`, `$$`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from servd.config.tree import Node, Path, Reference, UntypedText, dotted, map_scalars
from servd.core.diagnostics import Diagnostic
from servd.core.secrets import is_secret_name

_REFERENCE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<inside>[^}]*)(?P<end>\})?)")
_VARIABLE = re.compile(
    r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?:(?P<kind>:-|:\?)(?P<rest>.*))?", re.DOTALL
)

ReadFile = Callable[[str, str], str]
"""`(path, file)`: reads `path`, relative to the config file `file`. Raises OSError."""


def interpolate(
    root: Node, environ: Mapping[str, str], read: ReadFile
) -> tuple[Node, list[Diagnostic]]:
    """Returns the tree with replaced references and marked secrets, and what failed."""
    found: list[Diagnostic] = []

    def change(path: Path, node: Node) -> Node:
        names = [step for step in path if isinstance(step, str)]
        secret = bool(names) and is_secret_name(names[-1])
        if not isinstance(node.value, str) or "$" not in node.value:
            return replace(node, secret=True) if secret and isinstance(node.value, str) else node
        resolver = _Resolver(path, node, environ, read)
        text = _REFERENCE.sub(resolver, node.value)
        found.extend(resolver.diagnostics)
        value = UntypedText(text) if resolver.replaced else text
        references = tuple(resolver.references)
        secret = secret or resolver.secret
        return replace(node, value=value, secret=secret, references=references)

    return map_scalars(root, change), found


class _Resolver:
    """Replaces the references of one string."""

    def __init__(self, path: Path, node: Node, environ: Mapping[str, str], read: ReadFile) -> None:
        self.path, self.node, self.environ, self.read = path, node, environ, read
        self.secret = self.replaced = False
        self.diagnostics: list[Diagnostic] = []
        self.references: list[Reference] = []

    def __call__(self, match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if not match["end"]:
            return self.refuse('"${" is not closed', 'write "$$" for a dollar')
        inside = match["inside"]
        if inside.startswith("file:"):
            text = self.from_file(inside.removeprefix("file:"))
            self.references.append(Reference(match[0], text))
            return text
        variable = _VARIABLE.fullmatch(inside)
        if variable is None:
            hint = "write ${VAR} or ${file:PATH}"
            return self.refuse(f'"${{{inside}}}" is not a reference', hint)
        text = self.from_environment(variable["name"], variable["kind"], variable["rest"] or "")
        if text == self.environ.get(variable["name"]):
            self.references.append(Reference(match[0], text))
        return text

    def from_environment(self, name: str, kind: str | None, rest: str) -> str:
        self.replaced = True
        value = self.environ.get(name)
        if kind == ":-":
            value = value or rest
        elif kind == ":?" and not value:
            return self.refuse(rest or f"{name} is not set", f"set the variable {name}")
        if value is None:
            hint = f"set it, or write ${{{name}:-default}}"
            return self.refuse(f"the variable {name} is not set", hint)
        self.secret |= is_secret_name(name) or "env" in self.path
        return value

    def from_file(self, path: str) -> str:
        self.secret = self.replaced = True
        try:
            return self.read(path, self.node.place.file).rstrip("\r\n")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return self.refuse(f"cannot read {path}: {reason}", "")

    def refuse(self, message: str, hint: str) -> str:
        where = (self.node.place, message, dotted(self.path), hint)
        self.diagnostics.append(Diagnostic(*where, code="interpolation"))
        return ""
