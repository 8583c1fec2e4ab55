"""The code for a real board, against a stand-in for PYNQ: loading, resetting, locking, freeing.

`test_pynq.py` runs PYNQ itself, which can download no bitstream here.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import edgemoe
from codegen.build import Build
from common.contract import EMULATED_HWH
from common.errors import InputError
from emulation import FaultyKernel
from host import Accelerator, AcceleratorError, Manifest
from host.emulated import EmulatedBuffer, EmulatedMemory
from host.hwh import read_hwh

Pixels = NDArray[np.uint8]


class FakeBuffer(np.ndarray[Any, Any]):
    """What `pynq.allocate` returns, as far as the driver uses it."""

    emulated: EmulatedBuffer
    physical_address: int

    def flush(self) -> None:
        self.emulated.flush()

    def invalidate(self) -> None:
        self.emulated.invalidate()

    def freebuffer(self) -> None:
        self.emulated.free()


class FakePynq(types.ModuleType):
    """PYNQ on a board: a device, overlays, contiguous memory."""

    def __init__(self, folder: Path, library: Path) -> None:
        super().__init__("pynq")
        self.log: list[str] = []
        self.memory = EmulatedMemory()
        manifest = Manifest.load(folder)
        kernel = read_hwh(folder / "edgemoe.hwh", manifest.kernel)
        self.hardware = FaultyKernel(library, manifest, kernel, self.memory)
        self.Device = types.SimpleNamespace(active_device=FakeDevice())
        self.fails = False
        self.interrupts = 0

    def Overlay(self, path: str, *, download: bool, device: Any) -> Any:  # noqa: N802
        if self.fails:
            raise OSError("no FPGA manager")
        self.log.append(f"{Path(path).name} {'downloaded' if download else 'kept'}")
        self.hardware.reset()
        hardware = self.hardware

        async def wait() -> None:
            while not hardware.interrupt.is_set():
                await asyncio.sleep(0.001)
            self.interrupts += 1

        interrupt = types.SimpleNamespace(wait=wait)
        ip = types.SimpleNamespace(read=hardware.read, write=hardware.write, interrupt=interrupt)
        return types.SimpleNamespace(edgemoe_top_0=ip)

    def allocate(self, shape: tuple[int], dtype: Any, target: Any) -> FakeBuffer:
        try:
            emulated = self.memory.allocate(shape[0])
        except AcceleratorError as error:
            raise RuntimeError(f"Failed to allocate: {error}") from None
        buffer = emulated.array.view(FakeBuffer)
        buffer.emulated, buffer.physical_address = emulated, emulated.address
        return buffer


class FakeDevice:
    """A device that can be taken: PYNQ's have an identity and a tag."""

    tag = "fake"


@pytest.fixture
def folder(built: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is copied to a board."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    target = tmp_path / "host"
    shutil.copytree(built.host, target)
    (target / "edgemoe.bit").touch()
    shutil.copy(target / EMULATED_HWH, target / "edgemoe.hwh")
    return target


@pytest.fixture
def pynq(folder: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePynq]:
    module = FakePynq(folder, library)
    monkeypatch.setitem(sys.modules, "pynq", module)
    yield module
    assert not module.memory.buffers


def test_runs(folder: Path, built: Build, pynq: FakePynq, images: Pixels) -> None:
    design = edgemoe.load_design(built.folder / "design")
    expected = edgemoe.simulate(design, images[:3], "depth").integers
    with Accelerator(folder / "edgemoe.bit") as accelerator:
        assert not accelerator.emulated
        results = list(accelerator.stream(images[:3], "depth"))
    assert_array_equal(np.stack([result.integers for result in results]), expected)
    assert pynq.log == ["edgemoe.bit downloaded"]
    assert pynq.interrupts > 0, "the interrupt was waited for"


def test_stuck(folder: Path, pynq: FakePynq, images: Pixels) -> None:
    with Accelerator(folder, timeout=0.3) as accelerator:
        first = accelerator.run(images[0]).integers
        pynq.hardware.mode = "never"
        with pytest.raises(AcceleratorError, match=r"not done after 0.3 s"):
            accelerator.run(images[0])
        assert pynq.log == ["edgemoe.bit downloaded"] * 2
        pynq.hardware.mode = ""
        assert_array_equal(accelerator.run(images[0]).integers, first)


def test_another_program_has_the_board(folder: Path, pynq: FakePynq) -> None:
    with Accelerator(folder):
        # Another process has another device object; the lock is what they share.
        pynq.Device.active_device = FakeDevice()
        for _ in range(2):
            with pytest.raises(AcceleratorError, match="of another program"):
                Accelerator(folder)
        assert pynq.log == ["edgemoe.bit downloaded"], "the other program's kernel is left alone"
    with Accelerator(folder):
        pass


def test_same_program_has_the_board(folder: Path, pynq: FakePynq) -> None:
    with Accelerator(folder), pytest.raises(AcceleratorError, match="of this program"):
        Accelerator(folder)


def test_no_memory(folder: Path, pynq: FakePynq) -> None:
    pynq.memory.capacity = 10
    with pytest.raises(AcceleratorError, match="contiguous memory are not to be had: Failed to allocate"):
        Accelerator(folder)
    pynq.memory.capacity = 1 << 30
    with Accelerator(folder):
        pass


def test_cannot_be_loaded(folder: Path, pynq: FakePynq) -> None:
    pynq.fails = True
    with pytest.raises(AcceleratorError, match="PYNQ cannot load it: no FPGA manager"):
        Accelerator(folder)
    pynq.fails = False
    with Accelerator(folder):
        pass


@pytest.mark.parametrize("name", ["edgemoe.bit", "edgemoe.hwh"])
def test_missing_files(folder: Path, pynq: FakePynq, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(InputError, match=rf"{name}: no such file"):
        Accelerator(folder)
    assert pynq.log == []


def test_linked_lock_is_not_followed(folder: Path, pynq: FakePynq, tmp_path: Path) -> None:
    (tmp_path / "tmp/edgemoe-fake.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(AcceleratorError, match="cannot be opened"):
        Accelerator(folder)
    assert not (tmp_path / "victim").exists()
