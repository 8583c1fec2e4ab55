"""A card with XRT: its binary, buffers in the banks of its memory, and calls, behind the registers of a board.

XRT sets a kernel's arguments and starts it by itself; `pyxrt` reads no registers back (XRT, src/python/pybind11, and
UG1393, Scalars). So an argument that the driver writes is kept here until the start, and the outputs are read from the
memory that the kernel's last argument, `report`, points to.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.contract import DONE, IDLE, READY, REPORT, REPORT_BYTES, START, Argument
from common.errors import InputError
from host.board import give_back, take
from host.errors import AcceleratorError
from host.hwh import Kernel
from host.manifest import Manifest

TIMEOUT = 10.0
PLACEHOLDER = 4096
"""Bytes of the buffer that a pointer has before the driver gives it one."""
FIRST_ARGUMENT = 0x10
PATIENCE = 2.0
"""Seconds that a reset waits for a call: XRT cannot stop one."""


def names_of(argument: Argument) -> list[str]:
    """Registers of an argument, low word first, as Vitis HLS names them."""
    words = argument.bits // 32
    return [argument.name] if words == 1 else [f"{argument.name}_{word + 1}" for word in range(words)]


def layout(arguments: Sequence[Argument]) -> dict[str, int]:
    """Offsets of registers that stand for a kernel's arguments and control bits, by name."""
    names = [name for argument in arguments for name in names_of(argument)]
    return {"CTRL": 0} | {name: FIRST_ARGUMENT + 4 * number for number, name in enumerate(names)}


def read_report(report: NDArray[np.uint8]) -> dict[str, int]:
    """Outputs of a call, by name, from the memory that the kernel wrote them to: (REPORT_BYTES,) uint8."""
    words = report.view("<u8")
    return {name: int(word) for name, word in zip(REPORT, words, strict=False)}


class _Cards:
    """The cards of this computer, of which this process opens one at a time."""


_CARDS = _Cards()


class XrtBuffer:
    """Memory of the card, with a copy in the computer's."""

    def __init__(self, board: XrtBoard, argument: str, bo: Any, nbytes: int) -> None:
        """Wrap a buffer object: what `XrtBoard.allocate` returns."""
        self._board, self._argument, self._bo, self._nbytes = board, argument, bo, nbytes
        self.address = int(bo.address())
        self.array: NDArray[np.uint8] = np.frombuffer(bo.map(), np.uint8)[:nbytes]

    def flush(self) -> None:
        """Carry the computer's copy to the card."""
        self._board.sync(self._bo, self._nbytes, to_card=True)

    def invalidate(self) -> None:
        """Carry the card's copy to the computer."""
        self._board.sync(self._bo, self._nbytes, to_card=False)

    def free(self) -> None:
        """Give the memory back."""
        # The view first: it must not outlive what it looks at.
        self.array = np.zeros(0, np.uint8)
        self._board.forget(self._argument, self.address)
        self._bo = None


class XrtBoard:
    """The card that XRT finds."""

    emulated = compiled = False
    timeout = TIMEOUT

    def __init__(self, xclbin: Path, manifest: Manifest, device: int = 0) -> None:
        """Name the files; the card is not touched before `open`.

        Args:
            xclbin: the binary that `v++ --link` wrote.
            manifest: of the build.
            device: number of the card.

        Raises:
            InputError: XRT's Python module is not installed here.
        """
        try:
            import pyxrt
        except ImportError as error:
            raise InputError(
                f"XRT cannot be imported: {error}",
                hint="source /opt/xilinx/xrt/setup.sh, with the Python that this XRT is for; "
                "without a card, `--emulate` (Python: emulate=True)",
            ) from None
        self._xrt: Any = pyxrt
        self._xclbin, self._manifest, self._number = xclbin, manifest, device
        self._inputs = [argument for argument in manifest.arguments if not argument.output]
        self._layout = layout(manifest.arguments)
        self._names = {offset: name for name, offset in self._layout.items()}
        self._values: dict[str, int] = {}
        self._buffers: dict[tuple[str, int], Any] = {}
        self._run: Any = None
        self._placeholders: dict[str, Any] = {}
        self._failures = [
            getattr(pyxrt.ert_cmd_state, f"ERT_CMD_STATE_{name}")
            for name in ("ERROR", "ABORT", "TIMEOUT", "NORESPONSE")
        ]
        self._started = self._done = False

    def open(self) -> Kernel:
        """Take the card and load the binary."""
        if not self._xclbin.is_file():
            raise InputError(
                f"{self._xclbin}: no such file",
                hint="`v++ --link` with vitis/link.cfg of the build leaves it in the host folder; "
                "without a card, `--emulate` (Python: emulate=True)",
            )
        take(_CARDS)
        try:
            self._load()
        except BaseException:
            self.close()
            raise
        name = self._manifest.kernel
        return Kernel(
            self._xclbin, f"{name}_1", name, 0, 0x10000, self._layout, interrupt=False, clock_mhz=None
        )

    def _load(self) -> None:
        xrt = self._xrt
        try:
            self._device = xrt.device(self._number)
            uuid = self._device.load_xclbin(str(self._xclbin.resolve()))
            # Nobody else may run the kernel between two calls: what it holds on chip is one call's.
            self._kernel = xrt.kernel(self._device, uuid, self._manifest.kernel, xrt.kernel.exclusive)
            self._run = xrt.run(self._kernel)
        except (RuntimeError, OSError, ValueError) as error:
            raise AcceleratorError(
                f"{self._xclbin}: XRT cannot load it: {error}",
                hint="was it linked for the platform on this card (`xbutil examine`)? Does another program use it?",
            ) from None
        # The order of the C++: `report` comes last.
        self._report = self._buffer(REPORT_BYTES, len(self._inputs))
        self._placeholders = {
            argument.name: self._buffer(PLACEHOLDER, number)
            for number, argument in enumerate(self._inputs)
            if argument.bits == 64
        }

    def _buffer(self, nbytes: int, number: int) -> Any:
        """Memory in the bank that an argument of the kernel is connected to."""
        xrt = self._xrt
        try:
            return xrt.bo(self._device, nbytes, xrt.bo.normal, self._kernel.group_id(number))
        except (RuntimeError, MemoryError, OSError) as error:
            raise AcceleratorError(
                f"{nbytes:,} bytes of the card's memory are not to be had: {error}",
                hint="close other programs that hold buffers",
            ) from None

    def allocate(self, nbytes: int, argument: str) -> XrtBuffer:
        """Memory in the bank that an argument is connected to."""
        number = [each.name for each in self._inputs].index(argument)
        bo = self._buffer(nbytes, number)
        buffer = XrtBuffer(self, argument, bo, nbytes)
        self._buffers[argument, buffer.address] = bo
        return buffer

    def forget(self, argument: str, address: int) -> None:
        """Take a buffer for freed."""
        self._buffers.pop((argument, address), None)

    def sync(self, bo: Any, nbytes: int, *, to_card: bool) -> None:
        """Carry one copy of a buffer over the other."""
        directions = self._xrt.xclBOSyncDirection
        direction = directions.XCL_BO_SYNC_BO_TO_DEVICE if to_card else directions.XCL_BO_SYNC_BO_FROM_DEVICE
        try:
            bo.sync(direction, nbytes, 0)
        except (RuntimeError, OSError) as error:
            raise AcceleratorError(f"XRT cannot copy {nbytes:,} bytes: {error}") from None

    def read(self, offset: int) -> int:
        """An argument, an output, or the control bits as Vitis HLS lays them out."""
        if offset == self._layout["CTRL"]:
            return self._control()
        return self._values.get(self._names.get(offset, ""), 0)

    def write(self, offset: int, value: int) -> None:
        """Keep an argument for the next start, or start the kernel."""
        if offset != self._layout["CTRL"]:
            self._values[self._names[offset]] = value
        elif value & START:
            self._start()

    def _control(self) -> int:
        if self._started:
            state = self._state()
            if state in self._failures:
                self._started = False
                raise AcceleratorError(
                    f"XRT gave the call up: {state}", hint="`xbutil examine` says what is wrong with the card"
                )
            # All other states are of calls that wait or run; pyxrt has no name for the latter.
            if state != self._xrt.ert_cmd_state.ERT_CMD_STATE_COMPLETED:
                return START
            self._started, self._done = False, True
            self._take_report()
        flags = IDLE | (DONE | READY if self._done else 0)
        self._done = False
        return flags

    def _state(self) -> Any:
        try:
            return self._run.state()
        except (RuntimeError, OSError) as error:
            self._started = False
            raise AcceleratorError(f"XRT does not know what became of the call: {error}") from None

    def _take_report(self) -> None:
        self.sync(self._report, REPORT_BYTES, to_card=False)
        outputs = read_report(np.frombuffer(self._report.map(), np.uint8)[:REPORT_BYTES])
        for argument in self._manifest.arguments:
            if argument.output:
                for word, name in enumerate(names_of(argument)):
                    self._values[name] = outputs[argument.name] >> 32 * word & 0xFFFF_FFFF

    def _start(self) -> None:
        try:
            for number, argument in enumerate(self._inputs):
                words = [self._values.get(name, 0) for name in names_of(argument)]
                if argument.bits == 64:
                    address = words[0] | words[1] << 32
                    bo = self._buffers.get((argument.name, address), self._placeholders[argument.name])
                    self._run.set_arg(number, bo)
                else:
                    self._run.set_arg(number, int(np.uint32(words[0]).astype(np.int32)))
            self._run.set_arg(len(self._inputs), self._report)
            self._run.start()
        except (RuntimeError, OSError) as error:
            raise AcceleratorError(f"XRT cannot start the kernel: {error}") from None
        self._started, self._done = True, False

    def wait(self, seconds: float) -> None:
        """Sleep until the call's end, or for that long."""
        if self._started:
            # 0 would wait for ever.
            self._run.wait(max(1, round(seconds * 1000)))

    def reset(self) -> None:
        """Wait for a call that is running, for a short while: XRT cannot stop it.

        Raises:
            AcceleratorError: it does not end.
        """
        if self._started:
            self.wait(PATIENCE)
            if self._control() & START:
                raise AcceleratorError(
                    "the kernel on the card does not end, and XRT cannot stop it",
                    hint="`xbutil reset --device` resets the card",
                )
        self._values.clear()
        self._done = False

    def diagnose(self) -> str:
        """Nothing: a card tells no more than the state of a call."""
        return ""

    def close(self) -> None:
        """Give the card back; the binary stays on it."""
        self._run = self._kernel = self._device = self._report = None
        self._placeholders.clear()
        self._buffers.clear()
        give_back(_CARDS)
