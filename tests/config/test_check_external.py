"""What services that run elsewhere, or follow their load, take of `[defaults]`; warnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from servd.config.load import Loaded, load


def loaded(folder: Path, text: str) -> Loaded:
    (folder / "main.py").write_text("app = None")
    (folder / "servd.toml").write_text(text)
    return load(str(folder / "servd.toml"), {})


def test_a_service_elsewhere_takes_over_probes_and_nothing_of_workers(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        """
        [defaults]
        workers = 3
        health = { path = "/up", start_failures = 3 }
        timeouts = { startup = "7s", drain = "9s" }
        tls = { certfile = "missing.pem" }
        env = { A = "1" }
        [services.far]
        external = "https://host2/"
        """,
    ).require()
    far = found.config.services["far"]
    assert far.external == "https://host2"
    assert far.health is not None
    assert (far.health.path, far.health.start_failures) == ("/up", 30)
    assert (far.timeouts.startup, far.timeouts.drain) == (7.0, 30.0)
    assert (far.tls, far.workers) == (None, 1)


@pytest.mark.parametrize(
    ("shared", "own", "workers", "most"),
    [
        ("autoscale = { max = 5 }", "", 1, 5),
        ("autoscale = { max = 5 }", "workers = 2", 2, None),
        ("autoscale = { max = 5 }", "autoscale = { max = 7 }", 1, 7),
        ("autoscale = { max = 5 }", "autoscale = false", 1, None),
        ("workers = 3", "autoscale = { max = 7 }", 1, 7),
        ("workers = 3", "autoscale = false", 3, None),
    ],
)
def test_a_number_of_workers_is_fixed_or_follows(
    tmp_path: Path, shared: str, own: str, workers: int, most: int | None
) -> None:
    text = f"[defaults]\n{shared}\n[services.web]\napp = 'main:app'\n{own}\n"
    web = loaded(tmp_path, text).require().config.services["web"]
    assert web.workers == workers
    assert (web.autoscale.max if web.autoscale is not None else None) == most


@pytest.mark.parametrize(("target", "warns"), [("1.5", False), ("2", True), ("9", True)])
def test_a_target_that_no_load_exceeds_is_warned_of(
    tmp_path: Path, target: str, warns: bool
) -> None:
    found = loaded(
        tmp_path,
        f"""
        [services.web]
        app = "main:app"
        limits = {{ concurrency = 1, queue = 1 }}
        autoscale = {{ target_in_flight = {target} }}
        """,
    )
    assert found.errors == []
    told = [warning.path for warning in found.warnings]
    assert told == ["services.web.autoscale.target_in_flight"] * warns
