"""GPUs that a file describes: what the helper of servd reads with SERVD_GPU_BACKEND=fake:FILE."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GIB = 1 << 30

MEMORY_BYTES = 80 * GIB
"""Memory of a GPU that `FakeGpus` makes."""

ALLOCATION = '''
import json as _json, os as _os

def allocate(memory, gpu=None):
    """This process holds `memory` bytes of `gpu`, by default the first that it may see."""
    gpu = gpu or _os.environ["CUDA_VISIBLE_DEVICES"].split(",")[0]
    path = _os.path.join({folder!r}, f"{{_os.getpid()}}.json")
    with open(path + "~", "w") as file:
        _json.dump({{"gpu": gpu, "memory": memory}}, file)
    _os.replace(path + "~", path)
'''
"""A function `allocate` for the code of a worker, or of a child of one."""


class FakeGpus:
    """A file of GPUs: `GPU-fake-0` (number "0") and so on, each of 80 GiB, or those that are given.
    Every change is there at the next look of the helper.
    """

    def __init__(self, path: Path, gpus: int | Sequence[dict[str, Any]] = 1) -> None:
        self.path = path
        self.folder = Path(f"{path}.d")
        """Where processes write what they hold: PID.json, by `gpu` (id or number) and `memory`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        given = [fake_gpu(n) for n in range(gpus)] if isinstance(gpus, int) else list(gpus)
        self.document: dict[str, Any] = {
            "driver": "fake 1",
            "names_processes": True,
            "gpus": [dict(each) for each in given],
            "faults": [],
            "hang": False,
        }
        self.write()

    @property
    def backend(self) -> str:
        """The value of SERVD_GPU_BACKEND."""
        return f"fake:{self.path}"

    @property
    def environ(self) -> dict[str, str]:
        """What a daemon or a command needs in its environment to see these GPUs."""
        return {"SERVD_GPU_BACKEND": self.backend}

    @property
    def app_fragment(self) -> str:
        """Code that defines `allocate(memory, gpu=None)`, for the head of an app."""
        return ALLOCATION.format(folder=str(self.folder))

    def write(self, **changes: Any) -> None:
        """Writes the document, with `changes` of it."""
        self.document.update(changes)
        _replace(self.path, json.dumps(self.document))

    def change(self, gpu: str, **changes: Any) -> None:
        """Changes fields of a GPU."""
        self._gpu(gpu).update(changes)
        self.write()

    def hold(self, gpu: str, pid: int, memory: int, name: str = "") -> None:
        """Lets a process hold memory; 0 bytes: none any more. Dead processes hold nothing."""
        one = self._gpu(gpu)
        others = [holder for holder in one.get("holders", []) if holder["pid"] != pid]
        mine = [{"pid": pid, "memory": memory, "name": name}] if memory else []
        self.change(gpu, holders=[*others, *mine])

    def allocate(self, gpu: str, pid: int, memory: int) -> None:
        """Does what `allocate` of the fragment does, for a process that cannot do it itself."""
        _replace(self.folder / f"{pid}.json", json.dumps({"gpu": gpu, "memory": memory}))

    def fault(self, gpu: str, xid: int, text: str = "") -> None:
        """Lets the driver report an error."""
        faults = self.document["faults"]
        found = {"gpu": gpu, "xid": xid, "text": text, "serial": len(faults) + 1}
        self.write(faults=[*faults, found])

    def vanish(self, gpu: str) -> None:
        """Takes a GPU off the bus."""
        rest = [each for each in self.document["gpus"] if each["id"] != gpu]
        self.write(gpus=rest, lost=[*self.document.get("lost", ()), gpu])

    def hang(self, *, hang: bool = True) -> None:
        """Lets every question to the driver wait until this is called with `hang=False`."""
        self.write(hang=hang)

    def _gpu(self, gpu: str) -> dict[str, Any]:
        found: dict[str, Any] = next(
            each for each in self.document["gpus"] if gpu in (each["id"], each.get("number"))
        )
        return found


def fake_gpu(place: int, /, **fields: Any) -> dict[str, Any]:
    """A GPU of 80 GiB, without load."""
    return {
        "id": f"GPU-fake-{place}",
        "number": str(place),
        "name": "Fake H100",
        "total": MEMORY_BYTES,
        "utilization": 0.0,
        "temperature": 40.0,
        "power": 70.0,
        "errors": 0,
        **fields,
    }


def _replace(path: Path, text: str) -> None:
    """Writes a file that its readers see whole."""
    new = path.with_name(f"{path.name}~")
    new.write_text(text)
    os.replace(new, path)
