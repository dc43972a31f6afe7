"""The end of the process that started this one."""

from __future__ import annotations

import ctypes
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int) -> None:
    """Asks the kernel to send `signum` when the parent dies (prctl(2), PR_SET_PDEATHSIG; Linux). A
    change of user clears the setting, so the process makes it itself, afterwards.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
