"""The base of every table of the configuration, and the values that several tables share."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from servd.config.command_line import split_command
from servd.config.scalars import ONE_OR_MANY, Text, one_or_many
from servd.config.tree import UntypedText

Word = Annotated[Text, Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(one_or_many), ONE_OR_MANY]
Command = Annotated[
    tuple[Text, ...],
    BeforeValidator(split_command),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]

_TRUE, _FALSE = ("true", "yes", "on"), ("false", "no", "off")

Switchable = BeforeValidator(
    lambda value: None if value is False or value in (*_FALSE, "none") else value
)
"""`limits = false` switches an inherited table off."""


class Table(BaseModel):
    """Base of every table: immutable, without unknown keys or silent conversions."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)
    # only the whole configuration is validated: its tables need no validators of their own

    @classmethod
    def unset(cls) -> Self:
        """Returns the table of a file that sets none of its keys, all of which have defaults."""
        return cls.model_construct()  # type: ignore[return-value]  # the plugin says Table

    @field_validator("*", mode="before")
    @classmethod
    def _read_text(cls, value: object, info: ValidationInfo) -> object:
        """Converts words such as `off` to the boolean that the key expects, and text of the
        environment also to a number.
        """
        if not isinstance(value, str):
            return value
        field = cls.model_fields[info.field_name or ""]
        wanted, word = _types_in(field.annotation), value.lower()
        if bool in wanted and word in (*_TRUE, *_FALSE):
            return word in _TRUE
        if type(value) is not UntypedText:
            return value
        if Switchable in field.metadata and word == "false":
            return False
        if int in wanted and re.fullmatch(r"-?\d{1,18}", value):
            return int(value)
        if float in wanted and re.fullmatch(r"-?\d+(\.\d+)?", value):
            return float(value)
        return str(value)


def _types_in(annotation: Any) -> set[Any]:
    """Returns the types of a union, or the type itself."""
    return set(get_args(annotation)) or {annotation}
