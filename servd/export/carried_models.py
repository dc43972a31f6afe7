"""What is carried over to other engines of the keys for models on GPUs."""

from __future__ import annotations

from typing import Any

from servd.export.fate import CarriedRow, carried, case, lost, refused, row


def is_list(value: Any) -> bool:
    """Whether the value is a list with items."""
    return isinstance(value, list) and bool(value)


def _is_fraction(value: Any) -> bool:
    return isinstance(value, float) and not value.is_integer()


_NO_WARMUP = lost("warm up in the lifespan of the app")

MODEL_ROWS: tuple[CarriedRow, ...] = (
    row(
        "inputs",
        kubernetes=lost("mount a volume at this path, or copy it into the image"),
        compose=lost("mount a volume at this path, or copy it into the image"),
        dockerfile=lost("mount a volume at this path, or copy it into the image"),
        ray=lost("Ray watches no files"),
    ),
    row(
        "gpus",
        case(
            "a list of ids",
            is_list,
            kubernetes=refused("the scheduler chooses GPUs: write a number"),
            compose=carried("device_ids of the reservation"),
            ray=refused("the scheduler chooses GPUs: write a number"),
        ),
        case(
            "a share of one",
            _is_fraction,
            kubernetes=lost("pods share no GPU: each asks for a whole one"),
            compose=carried("a whole one is reserved"),
        ),
        kubernetes=carried("nvidia.com/gpu: gpus x workers"),
        compose=carried("deploy.resources.reservations.devices"),
        ray=carried("num_gpus"),
    ),
    row(
        "gpus.share",
        kubernetes=lost("pods share no GPU: each asks for a whole one"),
        compose=carried("a whole one is reserved"),
        ray=carried("num_gpus"),
    ),
    row(
        "gpus.count",
        kubernetes=carried("nvidia.com/gpu: count x workers"),
        compose=carried("deploy.resources.reservations.devices"),
        ray=carried("num_gpus"),
    ),
    row(
        "gpus.memory",
        kubernetes=carried("servd waits for room in the pod; the scheduler does not know it"),
        compose=carried("servd waits for room in the container"),
        ray=lost("Ray looks at no GPU memory"),
    ),
    row(
        "gpus.topology",
        kubernetes=carried("servd chooses among the GPUs of the pod"),
        compose=carried("servd chooses among the GPUs of the container"),
        ray=lost("Ray chooses GPUs"),
    ),
    row(
        "warmup.request",
        kubernetes=carried("below /app in the image"),
        compose=carried("below /app in the image"),
        dockerfile=carried("copied to /app"),
        ray=_NO_WARMUP,
    ),
    row("warmup.times warmup.timeout", ray=_NO_WARMUP),
)
