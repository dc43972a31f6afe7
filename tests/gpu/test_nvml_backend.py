"""What the helper makes of the answers of NVIDIA's driver."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from servd.gpu import nvml as nvml_module
from servd.gpu.backend import BackendError, open_backend
from servd.gpu.nvml import NvmlBackend, cpus_of
from servd.wire.gpus import Gpu, GpuFault

from support.fake_nvml import GIB, FakeNvml, fake_device, process

ME = os.getpid()

Install = Callable[[FakeNvml], NvmlBackend]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    def install(module: FakeNvml) -> NvmlBackend:
        monkeypatch.setitem(sys.modules, "pynvml", module)
        return NvmlBackend()

    return install


def only(backend: NvmlBackend) -> Gpu:
    """The one GPU that there is."""
    (gpu,) = backend.look().gpus
    return gpu


@pytest.fixture
def gone() -> int:
    """The pid of no process."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    return ended.pid


def test_a_gpu_is_described_by_all_that_the_driver_tells(install: Install) -> None:
    one = fake_device(0, compute=[process(ME, 20 * GIB)], ecc=3)
    snapshot = install(FakeNvml(one)).look()
    (gpu,) = snapshot.gpus
    assert (snapshot.driver, snapshot.names_processes) == ("580.1", True)
    assert (gpu.id, gpu.number, gpu.name) == ("GPU-0", "0", "NVIDIA H100 80GB HBM3")
    assert (gpu.total, gpu.free, gpu.used) == (80 * GIB, 79 * GIB, GIB)
    assert (gpu.utilization, gpu.temperature, gpu.power, gpu.errors) == (0.42, 55, 123.4, 3)
    assert (gpu.trouble, gpu.parent) == ("", "")
    (holder,) = gpu.holders
    assert (holder.pid, holder.memory) == (ME, 20 * GIB)
    assert holder.name


def test_what_the_driver_does_not_tell_is_unknown(install: Install) -> None:
    silent = dict.fromkeys(
        ("rates", "temperature", "milliwatts", "ecc", "rows", "retired", "bus", "graphics")
    )
    gpu = only(install(FakeNvml(fake_device(0, compute=[process(ME, None)], **silent))))
    assert (gpu.utilization, gpu.temperature, gpu.power, gpu.errors) == (None, None, None, None)
    assert (gpu.trouble, gpu.cpus, gpu.near) == ("", (), {})
    assert [holder.memory for holder in gpu.holders] == [None]


def test_a_process_that_computes_and_draws_holds_its_memory_once(install: Install) -> None:
    both = fake_device(
        0,
        compute=[process(ME, 3 * GIB)],
        graphics=[process(ME, 2 * GIB), process(os.getppid(), GIB)],
    )
    held = {holder.pid: holder.memory for holder in only(install(FakeNvml(both))).holders}
    assert held == {ME: 3 * GIB, os.getppid(): GIB}


def test_instances_are_gpus_of_their_own_and_name_the_processes(install: Install) -> None:
    part = fake_device(
        0, uuid="MIG-1", name="MIG 1g.10gb", total=10 * GIB, free=9 * GIB,
        compute=[process(ME, GIB)], rates=None, graphics=None,
    )  # fmt: skip
    whole = fake_device(0, mig=1, instances=[part], compute=[process(ME, GIB)], rows=(0, 1, 1, 0))
    first, second = install(FakeNvml(whole)).look().gpus
    assert (first.number, first.holders) == ("0", ())
    assert (second.id, second.number, second.parent) == ("MIG-1", "", "GPU-0")
    assert (second.total, second.utilization) == (10 * GIB, None)
    assert [holder.pid for holder in second.holders] == [ME]
    assert first.trouble == second.trouble != ""


def test_a_gpu_without_memory_of_its_own_is_listed_all_the_same(install: Install) -> None:
    gpu = only(install(FakeNvml(fake_device(0, total=None))))
    assert (gpu.id, gpu.total, gpu.free) == ("GPU-0", 0, 0)


def test_an_instance_that_is_taken_down_meanwhile_is_left_out(install: Install) -> None:
    module = FakeNvml(fake_device(0, mig=1))
    gone = fake_device(0, uuid="MIG-1")
    module.devices[0].instances = [gone, fake_device(0, uuid="MIG-2")]
    ask = module.nvmlDeviceGetUUID

    def uuid(handle: SimpleNamespace) -> str:
        if handle is gone:
            raise module.error("NotSupported")
        return ask(handle)

    module.nvmlDeviceGetUUID = uuid  # type: ignore[method-assign]
    assert [gpu.id for gpu in install(module).look().gpus] == ["GPU-0", "MIG-2"]


def test_nearness_and_cpus_are_told(install: Install, tmp_path: Path) -> None:
    devices = [
        fake_device(0, levels={"GPU-1": 10}),
        fake_device(1, levels={"GPU-0": 10}),
        fake_device(2),
    ]
    gpus = install(FakeNvml(*devices)).look().gpus
    assert [gpu.near for gpu in gpus] == [{"GPU-1": 10}, {"GPU-0": 10}, {}]
    device = tmp_path / "0000:3b:00.0"
    device.mkdir()
    (device / "local_cpulist").write_text("0-2,8\n")
    assert cpus_of("00000000:3B:00.0", str(tmp_path)) == (0, 1, 2, 8)
    assert cpus_of("00000000:3C:00.0", str(tmp_path)) == ()


@pytest.mark.parametrize(
    ("fields", "trouble"),
    [
        ({"rows": (1, 0, 0, 0)}, ""),
        ({"rows": (0, 1, 1, 0)}, "a row of its memory waits to be remapped: reset the GPU"),
        ({"rows": (0, 1, 1, 1)}, "a row of its memory cannot be remapped"),
        ({"rows": None, "retired": 1}, "a row of its memory waits to be remapped: reset the GPU"),
    ],
)
def test_memory_that_cannot_be_relied_on_is_trouble(
    install: Install, fields: dict[str, object], trouble: str
) -> None:
    assert only(install(FakeNvml(fake_device(0, **fields)))).trouble == trouble


def test_a_gpu_off_the_bus_is_not_listed_and_the_others_keep_their_numbers(
    install: Install,
) -> None:
    first, second = fake_device(0), fake_device(1)
    backend = install(FakeNvml(first, second))
    assert [gpu.number for gpu in backend.look().gpus] == ["0", "1"]
    first.lost = True
    assert [(gpu.id, gpu.number) for gpu in backend.look().gpus] == [("GPU-1", "1")]
    second.lost = True
    assert backend.look().gpus == ()


def test_pids_of_another_namespace_are_noticed(
    install: Install, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = fake_device(0, compute=[process(ME, GIB), process(gone, GIB)])
    monkeypatch.setattr(nvml_module, "_is_in_container", lambda: True)
    found = install(FakeNvml(strange)).look()
    assert not found.names_processes
    assert [holder.name for holder in found.gpus[0].holders] == ["", ""], "names of strangers"
    monkeypatch.setattr(nvml_module, "_is_in_container", lambda: False)
    found = install(FakeNvml(strange)).look()
    assert found.names_processes, "a process that ends slowly does not hide the others"
    assert found.gpus[0].holders[0].name != ""


def test_a_driver_that_knows_only_the_second_version_of_a_question_answers(
    install: Install,
) -> None:
    module = FakeNvml(fake_device(0, compute=[process(ME, GIB)]))
    module.is_old_driver = True
    assert [(h.pid, h.memory) for h in only(install(module)).holders] == [(ME, GIB)]


def test_a_question_that_pynvml_lacks_is_not_told(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(FakeNvml, "nvmlDeviceGetRemappedRows")
    monkeypatch.delattr(FakeNvml, "NVMLLibraryMismatchError")
    assert only(install(FakeNvml(fake_device(0)))).trouble == ""


def test_clients_of_mps_are_holders(install: Install) -> None:
    gpu = only(install(FakeNvml(fake_device(0, mps=[process(ME, GIB)]))))
    assert [(holder.pid, holder.memory) for holder in gpu.holders] == [(ME, GIB)]


def test_figures_that_cannot_be_are_unknown(install: Install) -> None:
    processes = [process(ME, (1 << 64) - 1), process(1 << 31, GIB)]
    device = fake_device(0, free=90 * GIB, ecc=(1 << 64) - 1, compute=processes)
    gpu = only(install(FakeNvml(device)))
    assert (gpu.free, gpu.errors) == (gpu.total, None)
    assert [(holder.pid, holder.memory) for holder in gpu.holders] == [(ME, None)]


def test_a_gpu_is_lost_by_the_word_of_the_driver_only(install: Install) -> None:
    first, second = fake_device(0), fake_device(1)
    backend = install(FakeNvml(first, second))
    backend.look()
    first.fails = second.lost = True
    found = backend.look()
    assert (found.gpus, found.lost) == ((), ("GPU-1",))


def test_an_error_of_a_gpu_that_is_lost_already_is_told(install: Install) -> None:
    device = fake_device(0)
    module = FakeNvml(device)
    told: SimpleQueue[GpuFault] = SimpleQueue()
    install(module).watch(told.put)
    device.lost = True
    module.events.append((device, 79))
    assert told.get(timeout=60) == GpuFault("GPU-0", 79, "Xid 79")


def test_a_process_that_has_just_ended_is_no_other_namespace(
    install: Install, gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvml_module, "_is_in_container", lambda: True)
    device = fake_device(0, compute=[process(ME, GIB)])
    backend = install(FakeNvml(device))
    assert backend.look().names_processes
    device.compute = [process(gone, GIB)]
    assert backend.look().names_processes
    assert not backend.look().names_processes


def test_memory_that_no_process_holds_means_a_container(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = install(FakeNvml(fake_device(0, free=40 * GIB)))
    monkeypatch.setattr(nvml_module, "_is_in_container", lambda: False)
    assert backend.look().names_processes
    monkeypatch.setattr(nvml_module, "_is_in_container", lambda: True)
    assert not backend.look().names_processes


def test_errors_of_gpus_come_as_they_happen(install: Install) -> None:
    one, two = fake_device(0), fake_device(1, events=0)
    module = FakeNvml(one, two)
    module.events = [module.error("GpuIsLost"), (one, 79), (one, 79), (one, 31)]
    backend = install(module)
    told: SimpleQueue[GpuFault] = SimpleQueue()
    backend.watch(told.put)
    found = [told.get(timeout=60) for _ in range(2)]
    assert found == [GpuFault("GPU-0", 79, "Xid 79"), GpuFault("GPU-0", 31, "Xid 31")]
    assert module.registered == ["GPU-0"]


def test_a_machine_without_a_driver_is_told(install: Install) -> None:
    module = FakeNvml()
    module.fails = type(module.error("LibraryNotFound"))
    with pytest.raises(BackendError, match="LibraryNotFound"):
        install(module)
    module.fails = None
    backend = install(module)
    module.fails = type(module.error("Uninitialized"))
    with pytest.raises(BackendError, match="Uninitialized"):
        backend.look()


def test_a_machine_without_pynvml_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(BackendError, match="nvidia-ml-py is not installed"):
        open_backend("nvml")


def test_the_module_of_the_tests_has_only_names_of_the_real_one() -> None:
    real = pytest.importorskip("pynvml")
    names = [name for name in dir(FakeNvml) if name.lower().startswith("nvml")]
    assert len(names) > 30
    assert [name for name in names if not hasattr(real, name)] == []
    constants = [name for name in names if isinstance(getattr(FakeNvml, name), int)]
    assert [getattr(FakeNvml, name) for name in constants] == [
        getattr(real, name) for name in constants
    ]
    assert real.NVMLError_GpuIsLost().value == FakeNvml().error("GpuIsLost").value
