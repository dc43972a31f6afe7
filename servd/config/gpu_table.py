"""The tables of a service for models on GPUs: what it needs of them, and how it is warmed up."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, WithJsonSchema

from servd.config.scalars import GPU_AMOUNT, Duration, SizeOrNone
from servd.config.table import Table, Word

_AMOUNT, _TABLE = "<amount>", "<table>"
FORM_TAGS = frozenset({_AMOUNT, _TABLE})
"""Steps that pydantic puts into the place of a mistake: the form of a value, which no file has."""


class GpuNeeds(Table):
    """What a worker needs of GPUs: a share of one or a count of whole ones, and their memory."""

    share: float = Field(
        0.0, ge=0, le=1, description="Share of one GPU, such as 0.25. Other workers may share it."
    )
    count: int = Field(
        0,
        ge=0,
        le=1024,
        description="Number of whole GPUs, which no other worker has. Without share, 1.",
    )
    memory: SizeOrNone = Field(
        None,
        description="Memory of one worker on each of its GPUs. What cannot fit is a mistake, and a "
        "worker starts when there is room. none: a share counts as its part of the memory.",
    )
    topology: Literal["any", "near"] = Field(
        "any", description='Which GPUs one worker gets: "any", or those "near" each other.'
    )


def gpus_each(asked: float | tuple[int | str, ...] | str | GpuNeeds) -> float:
    """Returns the number of GPUs that `gpus` gives to each worker, or its share of one."""
    if isinstance(asked, GpuNeeds):
        return float(asked.count or asked.share or 1)
    if isinstance(asked, tuple):
        return float(len(asked))
    return 0.0 if isinstance(asked, str) else float(asked)


def _form(value: Any) -> str:
    return _TABLE if isinstance(value, dict | GpuNeeds) else _AMOUNT


Gpus = Annotated[
    Annotated[float | tuple[int | str, ...] | Literal["none"], *GPU_AMOUNT, Tag(_AMOUNT)]
    | Annotated[GpuNeeds, Tag(_TABLE)],
    Discriminator(_form),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "string"}]}},
                {"enum": ["none"]},
                {"table": "GpuNeeds"},
            ]
        }
    ),
]


class Warmup(Table):
    """Requests that a worker answers well before it accepts others."""

    request: Word = Field(description="File with the request: a request line, headers, and a body.")
    times: int = Field(1, ge=1, le=1000, description="How often it is sent, one after the other.")
    timeout: Duration = Field(180.0, description="Time limit for all of them together.")
