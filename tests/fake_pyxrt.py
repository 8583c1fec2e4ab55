"""`pyxrt` as `host.xrt_board` uses it, over the compiled kernel of a build: the names of XRT's Python module.

Each argument has a bank of its own, and a buffer of another bank is refused, as on a card. The kernel sees what a
buffer holds only after a `sync`.
"""

from __future__ import annotations

import threading
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from common.contract import REPORT, REPORT_BYTES
from host.emulated import EmulatedKernel, EmulatedMemory
from host.hwh import read_hwh
from host.manifest import Manifest


class State(IntEnum):
    """States of a command, with the values of XRT's `ert.h`."""

    ERT_CMD_STATE_NEW = 1
    ERT_CMD_STATE_QUEUED = 2
    ERT_CMD_STATE_RUNNING = 3
    ERT_CMD_STATE_COMPLETED = 4
    ERT_CMD_STATE_ERROR = 5
    ERT_CMD_STATE_ABORT = 6
    ERT_CMD_STATE_SUBMITTED = 7
    ERT_CMD_STATE_TIMEOUT = 8
    ERT_CMD_STATE_NORESPONSE = 9


class Direction(IntEnum):
    """Directions of a copy."""

    XCL_BO_SYNC_BO_TO_DEVICE = 0
    XCL_BO_SYNC_BO_FROM_DEVICE = 1


class FakeXrt:
    """The module, for one build. `mode` says what is wrong: never (a call does not end), state (it ends in `ended`).

    Attributes:
        memory: of the card.
        started: arguments of every start, by number.
        loaded: binaries that were loaded, in order.
    """

    mode = ""
    ended = State.ERT_CMD_STATE_COMPLETED
    ert_cmd_state = State
    xclBOSyncDirection = Direction  # noqa: N815 - XRT's spelling

    def __init__(self, host: Path, library: Path) -> None:
        self.manifest = Manifest.load(host)
        self.memory = EmulatedMemory()
        kernel = read_hwh(host / "emulated/edgemoe.hwh", self.manifest.kernel)
        self.hardware = EmulatedKernel(library, self.manifest, kernel, self.memory)
        self.inputs = [argument for argument in self.manifest.arguments if not argument.output]
        self.started: list[dict[int, Any]] = []
        self.loaded: list[str] = []
        self.busy = False
        fake = self

        class Device:
            def __init__(self, number: int) -> None:
                if number:
                    raise RuntimeError(f"No such device with index '{number}'")

            def load_xclbin(self, path: str) -> str:
                if Path(path).read_bytes() == b"of another platform":
                    raise RuntimeError("failed to load xclbin: Invalid argument")
                fake.loaded.append(path)
                return "uuid"

        class Kernel:
            exclusive = "exclusive"

            def __init__(self, device: Device, uuid: str, name: str, mode: str) -> None:
                assert (uuid, name, mode) == ("uuid", fake.manifest.kernel, "exclusive")
                if fake.busy:
                    raise RuntimeError("failed to open ip context: Device or resource busy")

            def group_id(self, number: int) -> int:
                return 100 + number

        class Bo:
            normal = "normal"

            def __init__(self, device: Device, nbytes: int, flags: str, bank: int) -> None:
                assert flags == "normal"
                self.bank = bank
                self.buffer = fake.memory.allocate(nbytes)

            def address(self) -> int:
                return self.buffer.address

            def map(self) -> memoryview:
                return self.buffer.array.data

            def sync(self, direction: Direction, nbytes: int, offset: int) -> None:
                if direction == Direction.XCL_BO_SYNC_BO_TO_DEVICE:
                    self.buffer.flush(offset, nbytes)
                else:
                    self.buffer.invalidate(offset, nbytes)

            def __del__(self) -> None:
                if hasattr(self, "buffer"):
                    self.buffer.free()

        class Run:
            def __init__(self, kernel: Kernel) -> None:
                self._arguments: dict[int, Any] = {}
                self._state = State.ERT_CMD_STATE_NEW
                self._end = threading.Event()

            def set_arg(self, number: int, value: Any) -> None:
                if isinstance(value, Bo):
                    assert value.bank == 100 + number, "a buffer in another bank than the argument's"
                self._arguments[number] = value

            def start(self) -> None:
                assert self._state != State.ERT_CMD_STATE_RUNNING
                self._state = State.ERT_CMD_STATE_RUNNING
                self._end.clear()
                # Not the buffers themselves, which would stay.
                values = {n: v.address() if isinstance(v, Bo) else v for n, v in self._arguments.items()}
                fake.started.append(values)
                threading.Thread(target=self._work, daemon=True).start()

            def _work(self) -> None:
                if fake.mode == "never":
                    return
                fake.execute(self._arguments)
                self._state = fake.ended
                self._end.set()

            def state(self) -> State:
                return self._state

            def wait(self, milliseconds: int) -> State:
                assert milliseconds > 0, "0 waits for ever"
                return self._state if self._end.wait(milliseconds / 1000) else State.ERT_CMD_STATE_TIMEOUT

        self.device, self.kernel, self.bo, self.run = Device, Kernel, Bo, Run

    def execute(self, arguments: dict[int, Any]) -> None:
        """Run the compiled kernel, and put its outputs where the last argument points."""
        assert sorted(arguments) == list(range(len(self.inputs) + 1)), "every argument is set"
        values = {
            argument.name: arguments[number].address() if argument.bits == 64 else arguments[number]
            for number, argument in enumerate(self.inputs)
        }
        outputs = self.hardware.execute(values)
        assert outputs is not None, self.hardware.fault
        report = arguments[len(self.inputs)].buffer
        assert len(report.dram) == REPORT_BYTES
        report.dram[:] = 0
        for number, name in enumerate(REPORT):
            report.dram.view("<u8")[number] = outputs[name]


def module(fake: FakeXrt) -> Any:
    """What `import pyxrt` gives."""
    names = ("device", "kernel", "bo", "run", "ert_cmd_state", "xclBOSyncDirection")
    return SimpleNamespace(**{name: getattr(fake, name) for name in names})
