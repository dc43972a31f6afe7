"""Workers see the GPUs that they are given, and no others; too much is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.apps import OK
from support.harness import Servd, ServdProcess, command
from support.with_bentoml import PYTHON, environ

CONFIG = """
    [daemon]
    gpus = 2
    [services.big]
    app = "main:app"
    gpus = 1
    [services.small]
    app = "main:app"
    workers = 2
    gpus = 0.5
"""


def visible(daemon: ServdProcess, service: str) -> list[str]:
    """CUDA_VISIBLE_DEVICES of each worker."""
    found = []
    for pid in daemon.pids(service):
        entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        found += [e.partition("=")[2] for e in entries if e.startswith("CUDA_VISIBLE_DEVICES=")]
    return found


def test_each_worker_sees_its_own(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=OK).ready()
    assert visible(daemon, "big") == ["0"]
    assert visible(daemon, "small") == ["1", "1"]
    before = daemon.pids("small"), daemon.pids("big")
    refused = daemon.cli("scale", "big=2")
    assert refused.returncode == 1
    assert (
        "3 GPUs requested (big 2 x 1 + small 2 x 0.5), but this machine has 2 GPUs: nothing was"
        in refused.stderr
    )
    report = daemon.ask("POST", "/v1/reload").json()
    assert report["outcome"] == "unchanged"
    daemon.edit(CONFIG.replace("gpus = 0.5", "gpus = 1"))
    done = daemon.cli("reload")
    assert done.returncode == 1
    assert "servd.toml:10:8: services.small.gpus: 3 GPUs requested" in done.stderr
    assert (daemon.pids("small"), daemon.pids("big")) == before
    daemon.edit(CONFIG.replace("gpus = 2", "gpus = [4, 7, 9]"))
    assert daemon.cli("reload").returncode == 0
    assert (visible(daemon, "big"), visible(daemon, "small")) == (["4"], ["7", "9"])


def test_a_first_start_that_asks_for_too_much_is_a_config_error(servd: Servd) -> None:
    servd.write(servd_toml=CONFIG.replace("gpus = 1", "gpus = 4"), main_py=OK)
    for arguments in (("--config", "servd.toml"), ("check",), ("plan",)):
        done = command(*arguments, folder=servd.folder)
        assert done.returncode == 78, arguments
        assert (
            "services.big.gpus: 4 GPUs requested (big 4), but this machine has 2 GPUs"
            in done.stderr
            or "5 GPUs requested (big 4 + small 2 x 0.5), but this machine has 2 GPUs"
            in done.stderr
        )


BAD = [
    ("gpus = 1.5", "must be a whole number or a share of one GPU such as 0.5, got 1.5"),
    ("gpus = -1", "must be a whole number or a share of one GPU such as 0.5, got -1"),
    ('gpus = "all"', '"all" is not a number of GPUs'),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_is_no_number_of_gpus_is_a_mistake(servd: Servd, text: str, message: str) -> None:
    servd.write(servd_toml=f'[services.web]\napp = "main:app"\n{text}\n', main_py=OK)
    done = command("check", folder=servd.folder)
    assert done.returncode == 78
    assert f"servd.toml:3:8: services.web.gpus: {message}" in done.stderr


BENTO = """
    import os
    import bentoml

    @bentoml.service(workers=2, resources={"gpu": 2})
    class Model:
        @bentoml.api
        def seen(self) -> str:
            return os.environ.get("CUDA_VISIBLE_DEVICES", "none")
"""


def test_what_the_code_of_a_bentoml_service_asks_for_is_for_all_its_workers(servd: Servd) -> None:
    """As `bentoml serve` does, whose users pick `cuda:{worker_index - 1}` among them."""
    config = f"""
        [daemon]
        gpus = 3
        [services.model]
        bento = "service:Model"
        python = "{PYTHON}"
        [services.web]
        app = "main:app"
        gpus = 1
    """
    daemon = servd(config, service_py=BENTO, main_py=OK, environ=environ(servd.folder)).ready()
    assert visible(daemon, "model") == ["0,1", "0,1"]
    assert visible(daemon, "web") == ["2"]
    daemon.edit(config.replace("gpus = 3", "gpus = 2"))
    done = daemon.cli("reload")
    assert "3 GPUs requested (model 2 + web 1), but this machine has 2 GPUs" in done.stderr


def test_a_machine_without_gpus_does_without_those_of_the_code(servd: Servd) -> None:
    """As `bentoml serve` does; but says so."""
    config = f'[services.model]\nbento = "service:Model"\npython = "{PYTHON}"\n'
    there = {**environ(servd.folder), "CUDA_VISIBLE_DEVICES": ""}
    daemon = servd(config, service_py=BENTO, environ=there).ready()
    (warning,) = daemon.find("config warning")
    assert "model requests 2 GPUs in its code, but this machine has none" in warning["warning"]
    assert set(visible(daemon, "model")) == {""}
