"""`python -I -S guardian.py FD LIST TURN`: waits for the daemon's end, and ends what it has left.

Programs are told by the kernel when the daemon dies (`die_with_parent`), but not what they have
started. FD reaches its end with the daemon; a daemon that ends as it should has removed LIST. This
process is no child of the daemon's: its parent ends at a moment that the daemon chooses, over the
socket TURN, since it adopts nobody then.
"""

from __future__ import annotations

import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from servd.core.orphans import end_all, read_list

_PAUSE_SECONDS = 0.05


def main() -> None:
    """Waits, in its own process."""
    descriptor, path, turn = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if os.fork():
        os.write(turn, b".")
        os.read(turn, 1)
        os._exit(0)
    os.close(turn)
    while os.read(descriptor, 64):
        continue
    end_all(read_list(path), time.monotonic, lambda: time.sleep(_PAUSE_SECONDS))


if __name__ == "__main__":
    main()
