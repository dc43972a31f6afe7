"""The garbage collector rests while an app is loaded, and then does as the app has said."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("pass", "(700, 10, 10)"),
        ("gc.set_threshold(0)", "(0, 10, 10)"),
        ("gc.set_threshold(9000, 20, 20)", "(9000, 20, 20)"),
    ],
)
def test_what_an_app_sets_up_stays(app: str, expected: str) -> None:
    code = (
        "import gc; gc.set_threshold(700, 10, 10)\n"
        "from servd.core import gc_tuning; gc_tuning.pause()\n"
        f"{app}\ngc_tuning.resume(); print(gc.get_threshold(), gc.get_freeze_count() > 1000)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == f"{expected} True", done.stderr
