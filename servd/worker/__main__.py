"""`python -P -m servd.worker FD`: runs one app, as the spec on the channel FD says."""

from __future__ import annotations

import sys

from servd.core import gc_tuning
from servd.worker.channel import Channel
from servd.worker.run import run


def main() -> None:
    """Runs the worker; exits 3 when its app cannot be imported or started."""
    gc_tuning.pause()
    channel = Channel(int(sys.argv[1]))
    sys.argv[1:] = []
    run(channel)


if __name__ == "__main__":
    main()
