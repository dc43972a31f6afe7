"""Which services see no GPU, and which see what the operator allows."""

from __future__ import annotations

import pytest

from servd.host.facts import inspect_host
from servd.host.gpus import equipped
from servd.plan.build import build_loaded
from servd.plan.model import Plan

from support.config_texts import loaded_text

TEXT = """
    [daemon]
    gpus = 2
    [services.engine]
    command = ["sleep"]
    gpus = {engine}
    [services.plain]
    command = ["sleep"]
    [services.zero]
    command = ["sleep"]
    gpus = 0
    [services.hidden]
    command = ["sleep"]
    gpus = "none"
"""


def seen(text: str, **environ: str) -> dict[str, str | None]:
    """CUDA_VISIBLE_DEVICES of each service's first worker; None where it is not set."""
    loaded = loaded_text(text).require()
    plan = build_loaded(loaded, inspect_host(loaded.config, environ), "/run/x")
    plan, _ = equipped(loaded, plan, environ, Plan())
    return {
        service.name: ",".join(service.gpus[0])
        if service.gpus
        else service.environment.get("CUDA_VISIBLE_DEVICES")
        for service in plan.services
    }


def test_zero_hides_them_where_others_have_some() -> None:
    found = seen(TEXT.format(engine=1))
    assert found == {"engine": "0", "plain": None, "zero": "", "hidden": ""}


def test_zero_hides_nothing_where_nobody_has_any() -> None:
    found = seen(TEXT.format(engine=0))
    assert found == {"engine": None, "plain": None, "zero": None, "hidden": ""}


def test_zero_leaves_what_env_says() -> None:
    own = 'gpus = 0\n    env.CUDA_VISIBLE_DEVICES = "1"'
    found = seen(TEXT.format(engine=1).replace("gpus = 0", own))
    assert found == {"engine": "0", "plain": None, "zero": "1", "hidden": ""}
    limited = seen(TEXT.format(engine=1), CUDA_VISIBLE_DEVICES="0,1")
    assert limited["zero"] == ""


@pytest.mark.parametrize("limit", ["1", "0,1", ""])
def test_what_the_operator_allows_holds_for_every_service(limit: str) -> None:
    found = seen(TEXT.format(engine=0), CUDA_VISIBLE_DEVICES=limit)
    assert found == {"engine": limit, "plain": limit, "zero": limit, "hidden": ""}


def test_a_clash_with_env_is_said() -> None:
    clash = """
        [services.a]
        command = ["sleep"]
        gpus = {gpus}
        env = {{ CUDA_VISIBLE_DEVICES = "1" }}
    """
    assert not loaded_text(clash.format(gpus=0)).warnings
    (warning,) = loaded_text(clash.format(gpus=1)).warnings
    assert "gpus sets CUDA_VISIBLE_DEVICES" in warning.message
