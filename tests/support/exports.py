"""Exports of samples and of texts, by the command itself.

`PYTHONPATH=tests .venv/bin/python -m support.exports` writes the expected files of the samples
again (`tests/export/*/golden`).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from ruamel.yaml import YAML

from support.harness import DEADLINE
from support.manifests import Object
from support.with_bentoml import PYTHON as WITH_BENTOML

ROOT = Path(__file__).parents[2]
SAMPLES = ROOT / "sample-configs"
NAMES = sorted(path.parent.name for path in SAMPLES.glob("*/servd.toml"))
EXPORTS = ROOT / "tests" / "export"
GOLDEN = EXPORTS / "kubernetes" / "golden"
IN_ENGINES = {
    GOLDEN: ("kubernetes",),
    EXPORTS / "compose" / "golden": ("compose",),
    EXPORTS / "dockerfiles": ("dockerfile", "--python", "3.13"),
}
ENDINGS = {"kubernetes": ".yaml", "compose": ".yaml", "dockerfile": ".Dockerfile"}
"""The folders of expected files, each with what makes them."""

RAY_GOLDEN = EXPORTS / "ray" / "golden"
RAY_NAMES = ("bentoml", "container", "gateway", "hosts", "minimal")
"""The samples that Ray Serve can run."""
BENTOML_NAMES = ("bentoml", "models")
"""Those with BentoML services."""

IMAGE = "registry.example.com/app:1"
_CHOSEN = (
    "ADDRESS", "BALANCER", "BEAT_SCHEDULE", "CELERY", "METRICS_PORT", "PORT", "REDIS_PORT",
    "GPUS", "LLM_PORT", "PYTHON", "SENTIMENT_PORT", "WORDS_PORT",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export prints, and ends with."""

    status: int
    text: str
    told: str

    @property
    def objects(self) -> list[Object]:
        """The documents on stdout."""
        return documents(self.text)


def documents(text: str) -> list[Object]:
    """The documents of a YAML text."""
    return [one for one in YAML(typ="safe", pure=True).load_all(text) if one is not None]


def export(
    folder: Path, engine: str, *options: str, interpreter: str = sys.executable,
    environ: dict[str, str] | None = None,
) -> Exported:  # fmt: skip
    """Runs `servd export ENGINE` in a folder."""
    around = {name: text for name, text in os.environ.items() if name not in _CHOSEN}
    done = subprocess.run(
        [interpreter, "-m", "servd", "export", engine, *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**around, **(environ or {})},
    )
    return Exported(done.returncode, done.stdout, done.stderr)


def export_sample(name: str, folder: Path, *options: str, engine: str = "kubernetes") -> Exported:
    """Exports a copy of a sample, with the certificates that its README makes."""
    copy = folder / name
    if not copy.exists():
        shutil.copytree(SAMPLES / name, copy, ignore=shutil.ignore_patterns("__pycache__", "run"))
    if (copy / "make-certs.sh").exists():
        subprocess.run(["sh", "make-certs.sh"], cwd=copy, check=True, capture_output=True)
    interpreter = WITH_BENTOML if name in BENTOML_NAMES else sys.executable
    image = ("--image", IMAGE) if engine in ("kubernetes", "compose") else ()
    return export(copy, engine, "-c", "servd.toml", *image, *options, interpreter=interpreter)


def export_to_ray(name: str, folder: Path) -> Exported:
    """Exports a sample to Ray Serve, without the digest of its code."""
    exported = export_sample(name, folder, "--working-dir", "s3://code/app.zip", engine="ray")
    return replace(exported, text=re.sub(r"(?m)^ *digest: .*\n", "", exported.text))


def main() -> None:
    """Writes the expected files."""
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        for golden, (engine, *options) in IN_ENGINES.items():
            golden.mkdir(exist_ok=True, parents=True)
            for name in NAMES:
                exported = export_sample(name, Path(folder), *options, engine=engine)
                assert exported.status == 0, exported.told
                (golden / f"{name}{ENDINGS[engine]}").write_text(exported.text)
        RAY_GOLDEN.mkdir(exist_ok=True)
        for name in RAY_NAMES:
            exported = export_to_ray(name, Path(folder))
            assert exported.status == 0, exported.told
            (RAY_GOLDEN / f"{name}.yaml").write_text(exported.text)


if __name__ == "__main__":
    main()
