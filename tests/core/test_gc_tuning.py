"""The garbage collector rests while an app is loaded, and then does as the app has said."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from servd.core import gc_tuning


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


def test_a_pause_ends_even_where_two_overlap() -> None:
    assert gc.isenabled()
    first, second = gc_tuning.paused(), gc_tuning.paused()
    with first:
        assert not gc.isenabled()
        second.__enter__()
    assert gc.isenabled()
    second.__exit__(None, None, None)
    assert gc.isenabled()
    with pytest.raises(KeyError), gc_tuning.paused():
        raise KeyError
    assert gc.isenabled()


def test_what_is_exempt_is_not_looked_at_again() -> None:
    code = (
        "import gc; from servd.core import gc_tuning\n"
        "gc_tuning.exempt(); print(gc.get_freeze_count() > 1000, len(gc.get_objects()) < 100)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "True True", done.stderr
