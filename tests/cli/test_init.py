"""`servd init && servd` serves an app: the one in the folder, or a new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.apps import OK
from support.harness import Servd, command


def test_a_fresh_folder_is_served_after_init(servd: Servd) -> None:
    done = command("init", folder=servd.folder)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.splitlines() == [
        "wrote servd.toml",
        "wrote main.py",
        "Start it with `servd`, then open http://127.0.0.1:8000.",
        "While you edit the code, `servd dev` restarts it after each change.",
    ]
    config = (servd.folder / "servd.toml").read_text()
    assert 'listen = "127.0.0.1:8000"' in config
    checked = command("check", folder=servd.folder)
    assert (checked.returncode, checked.stderr) == (0, "")
    daemon = servd(config.replace("127.0.0.1:8000", "127.0.0.1:0")).ready()
    assert daemon.get("web").json() == {"message": "Hello from servd"}


def test_init_serves_the_app_of_the_folder(servd: Servd) -> None:
    servd.write(main_py="import sys\n", site_py=OK, other_py=OK)
    done = command("init", folder=servd.folder)
    assert "it serves other:app (also found: site:app; choose with --app)" in done.stderr
    assert (servd.folder / "main.py").read_text() == "import sys\n"
    text = (servd.folder / "servd.toml").read_text()
    daemon = servd(text.replace("127.0.0.1:8000", "127.0.0.1:0")).ready()
    assert daemon.get("web").text == "ok"


def test_init_serves_a_factory_and_a_class_of_bentoml(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("def create_app():\n    return 1\n")
    assert command("init", folder=tmp_path).returncode == 0
    text = (tmp_path / "servd.toml").read_text()
    assert 'app = "main:create_app"\nlisten = "127.0.0.1:8000"\nfactory = true\n' in text
    assert "# factory" not in text
    assert command("check", folder=tmp_path).stderr == ""
    (tmp_path / "main.py").write_text("import bentoml\n@bentoml.service\nclass Model: ...\n")
    assert command("init", "--force", folder=tmp_path).returncode == 0
    assert 'bento = "main:Model"' in (tmp_path / "servd.toml").read_text()
    assert command("check", folder=tmp_path).returncode == 0


@pytest.mark.parametrize(
    ("app", "file"),
    [
        ("shop:site", "shop.py"),
        ("shop/web.py:site", "shop/web.py"),
        ("shop.web:site", "shop/web.py"),
        ("gone.web:site", None),
        ("json:loads", None),
        ("shop:site.inner", None),
    ],
)
def test_init_writes_the_app_that_it_is_told(tmp_path: Path, app: str, file: str | None) -> None:
    if file == "shop/web.py":
        (tmp_path / "shop").mkdir()
    done = command("init", "--app", app, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f'app = "{app}"' in (tmp_path / "servd.toml").read_text()
    written = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.py")]
    assert written == ([file] if file else [])
    if file:
        assert "site = FastAPI()" in (tmp_path / file).read_text()
    else:
        assert f"it serves {app}" in done.stderr


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "servd.yaml").write_text("services: {}\n")
    for arguments, said in (
        ([], "servd.yaml exists already"),
        (["servd.yaml"], "servd.yaml"),
        (["a.yaml", "--app", "main"], "--app must be MODULE:NAME or FILE.py:NAME"),
    ):
        done = command("init", *arguments, folder=tmp_path)
        assert done.returncode in (1, 2)
        assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["servd.yaml"]
    (tmp_path / "main.py").write_text("app = 'mine'\n")
    (tmp_path / "inner").mkdir()
    done = command("init", "a.yaml", folder=tmp_path)
    assert "wrote app.py" in done.stderr
    assert "Start it with `servd --config a.yaml`" in done.stderr
    assert (tmp_path / "main.py").read_text() == "app = 'mine'\n"
    assert command("init", "inner", folder=tmp_path).returncode == 0
    assert (tmp_path / "inner" / "main.py").exists()


def test_init_on_standard_output_writes_no_file(tmp_path: Path) -> None:
    done = command("init", "-", folder=tmp_path)
    assert done.stdout.startswith("#:schema file:///")
    assert 'app = "main:app"' in done.stdout
    assert (done.stderr, list(tmp_path.iterdir())) == ("", [])
