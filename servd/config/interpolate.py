"""References in strings: `${VAR}`, `${VAR:-default}`, `${VAR:?text}`, `${file:PATH}`, `$$`. The
text after `:-` and `:?` can contain references.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from servd.config.tree import Node, Path, Reference, UntypedText, dotted, map_scalars
from servd.core.diagnostics import Diagnostic
from servd.core.secrets import is_secret_name

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
        text = resolver.resolve(node.value)
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

    def resolve(self, text: str) -> str:
        """Returns the text with its references replaced; a default can contain more."""
        found, at = "", 0
        while (dollar := text.find("$", at)) >= 0:
            found += text[at:dollar]
            if text.startswith("$$", dollar):
                found, at = f"{found}$", dollar + 2
            elif text.startswith("${", dollar):
                end = _end_of_reference(text, dollar)
                if end < 0:
                    return found + self.refuse(
                        '"${" has no closing "}"', 'write "$$" for a dollar sign'
                    )
                found, at = found + self.reference(text[dollar:end]), end
            else:
                found, at = f"{found}$", dollar + 1
        return found + text[at:]

    def reference(self, written: str) -> str:
        """Returns the text for one reference."""
        inside = written[2:-1]
        if inside.startswith("file:"):
            text = self.from_file(inside.removeprefix("file:"))
            self.references.append(Reference(written, text))
            return text
        variable = _VARIABLE.fullmatch(inside)
        if variable is None:
            sign = re.match(r"[A-Za-z_]\w*([-?+=])", inside)
            hint = "write ${VAR} or ${file:PATH}"
            if sign is not None and sign[1] in "-?":
                hint = f'write "${{{inside.replace(sign[1], ":" + sign[1], 1)}}}"'
            return self.refuse(f'"{written}" is not a valid reference', hint)
        text = self.from_environment(variable["name"], variable["kind"], variable["rest"] or "")
        if text == self.environ.get(variable["name"]):
            self.references.append(Reference(written, text))
        return text

    def from_environment(self, name: str, kind: str | None, rest: str) -> str:
        self.replaced = True
        value = self.environ.get(name)
        if kind == ":-":
            value = value or self.resolve(rest)
        elif kind == ":?" and not value:
            return self.refuse(self.resolve(rest) or f"{name} is not set", f"set variable {name}")
        if value is None:
            hint = f"set it, or write ${{{name}:-default}}"
            return self.refuse(f"variable {name} is not set", hint)
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


def _end_of_reference(text: str, start: int) -> int:
    """Returns the index after the brace that closes the reference at `start`; -1 without one."""
    depth, at = 0, start
    while at < len(text):
        if text.startswith("${", at):
            depth, at = depth + 1, at + 2
        elif text.startswith("$$", at):
            at += 2
        else:
            depth -= text[at] == "}"
            at += 1
            if depth == 0:
                return at
    return -1
