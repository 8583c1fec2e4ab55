"""Calls of the kernel: start, wait, and getting the board back when a call goes wrong."""

from __future__ import annotations

import time
from collections.abc import Mapping

from common.capacities import CAPACITIES, Capacities, lacking_text
from common.contract import DONE, IDLE, STATUS_BATCH, STATUS_DONE, STATUS_MEMORY, STATUS_TABLE, STATUS_TASK
from host.board import Board
from host.errors import AcceleratorError
from host.hwh import Kernel
from host.manifest import Manifest
from host.registers import Registers

WAIT_SLICE = 0.05
"""Seconds after which the control register is looked at even without an interrupt, which may have been lost."""
GRACE = 2.0
"""Seconds that an interrupted program grants the running call to end, before it resets the board."""

_WRITTEN = ("hardware_id", "status")
"""Outputs that every call writes, beside its counters."""


class Caller:
    """The kernel of an open board.

    Attributes:
        registers: of the kernel.
        timeout: seconds that a call may take.
        running: whether a call was started and its end not yet seen.
        cancelled: whether nobody wants to wait for a call any more.
    """

    def __init__(self, board: Board, kernel: Kernel, manifest: Manifest, timeout: float) -> None:
        """Check that the kernel has a register for every argument, and that nobody else runs it."""
        self.registers = Registers(board, kernel, manifest.arguments)
        self.timeout = timeout
        self.running = self.cancelled = False
        self._board, self._kernel, self._manifest = board, kernel, manifest
        self._outputs = (*_WRITTEN, *manifest.counters)
        # A program that ended in the middle of a call may have left one running, or its end unread.
        self._drain(time.monotonic() + timeout)
        self._prepare()

    def identify(self) -> tuple[int, Capacities | None]:
        """Ask the kernel which hardware it is, by a call without images, which touches no memory.

        Returns:
            Images that it takes in one call at most; and its capacities, where it has registers for them.

        Raises:
            AcceleratorError: another one than the manifest describes, or no answer.
        """
        self.start({"batch": 0, "task": 0})
        self.wait()
        most = self.registers.get("max_batch")
        if most != self._manifest.max_batch:
            raise AcceleratorError(
                f"the accelerator on the board takes {most} image(s) in one call, "
                f"but {self._manifest.path} says max_batch = {self._manifest.max_batch}",
                hint="manifest.json was changed: copy the whole host folder of the build again",
            )
        if self._manifest.runtime == "xrt":
            return most, None
        found = Capacities(**{name: self.registers.get(name) for name in CAPACITIES})
        lacking = found.lacking(self._manifest.needs)
        if lacking:
            raise AcceleratorError(
                f"the accelerator on the board does not hold {self._manifest.name}: {lacking_text(lacking)}",
                hint="manifest.json was changed: copy the whole host folder of the build again",
            )
        return most, found

    def start(self, arguments: Mapping[str, int]) -> None:
        """Start a call.

        Raises:
            AcceleratorError: the kernel is running already, or claims to be done with what nobody started.
        """
        self._require_wanted()
        # An interrupt between a start and its wait leaves a call that nobody waits for any more.
        self.settle()
        control = self.registers.control()
        if control & DONE or not control & IDLE:
            state = self.registers.state()
            self._recover()
            claims = "is done, but nothing was started" if control & DONE else "is running, but not for us"
            raise AcceleratorError(
                f"the accelerator reports that it {claims}: CTRL was {control:#x}; now {state}",
                hint="is another program using it? Are .bit and .hwh from one build?",
            )
        for name in self._outputs:
            self.registers.take_valid(name)
        for name, value in arguments.items():
            self.registers.set(name, value)
        self.running = True
        self.registers.start()

    def wait(self) -> int | None:
        """Wait for the call to end.

        Returns:
            Its clock cycles; None where the kernel has no counter.

        Raises:
            AcceleratorError: it took longer than the timeout, did not do its work, was refused by the kernel or
                cancelled, or is of other hardware. The board can be used again; where it was stuck, it was reset.
        """
        try:
            done = self._until_done(time.monotonic() + self.timeout, cancellable=True)
        except BaseException:  # Interrupted: the board must be quiet before anyone frees its buffers.
            self.settle()
            raise
        if not done:
            state, why = self.registers.state(), self._board.diagnose()
            self._recover()
            raise AcceleratorError(
                f"the accelerator was not done after {self.timeout:g} s: {state}"
                + (f"; {why}" if why else ""),
                hint="the board was reset and can be used again; if it happens again, see docs/board.md",
            )
        self.running = False
        fresh = [self.registers.take_valid(name) for name in self._outputs]
        if not all(fresh):
            state = self.registers.state()
            self._recover()
            raise AcceleratorError(
                f"the accelerator reports that it is done, but did not run: it wrote no result: {state}",
                hint="the board was reset and can be used again",
            )
        found = f"{self.registers.get('hardware_id'):016x}"
        if found != self._manifest.hardware_id:
            raise AcceleratorError(
                f"the accelerator on the board is hardware {found}, "
                f"but {self._manifest.path} is for hardware {self._manifest.hardware_id}",
                hint="take .bit, .hwh and manifest.json from one build",
            )
        status = self.registers.get("status")
        if status != STATUS_DONE:
            raise AcceleratorError(f"the accelerator refused the call: {self._refusal(status)}")
        return next(map(self.registers.get, self._manifest.counters), None)

    def cancel(self) -> None:
        """Let whoever waits for a call give up, and nobody start one; `settle` works as before."""
        self.cancelled = True

    def settle(self) -> None:
        """Let a running call end, for a short while; then reset the board."""
        if not self.running:
            return
        try:
            done = self._until_done(time.monotonic() + min(GRACE, self.timeout))
        except BaseException:
            self._recover()
            raise
        if done:
            self.running = False
        else:
            self._recover()

    def _refusal(self, status: int) -> str:
        batch, task = self.registers.get("batch"), self.registers.get("task")
        reasons = {
            STATUS_BATCH: f"it takes 0 to {self.registers.get('max_batch')} images, not {batch}",
            STATUS_TASK: f"it has no task {task}",
            STATUS_TABLE: "it cannot read the job table: the weights in memory are of another release or damaged",
            STATUS_MEMORY: "memory refused an access: a pointer leads out of what the board's memory ports reach",
        }
        return reasons.get(status, f"status = {status}, which this driver does not know")

    def _require_wanted(self) -> None:
        if self.cancelled:
            raise AcceleratorError("the accelerator is closed: its call was given up", hint="open a new one")

    def _until_done(self, deadline: float, *, cancellable: bool = False) -> bool:
        while not self.registers.control() & DONE:
            if cancellable:
                self._require_wanted()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._board.wait(min(left, WAIT_SLICE))
        self.registers.clear_interrupt()
        return True

    def _drain(self, deadline: float) -> None:
        while not self.registers.control() & IDLE:
            left = deadline - time.monotonic()
            if left <= 0:
                self._board.reset()
                return
            self._board.wait(min(left, WAIT_SLICE))
        self.registers.clear_interrupt()

    def _recover(self) -> None:
        self.running = False
        self.registers.forget()
        self._board.reset()
        self._prepare()

    def _prepare(self) -> None:
        if self._kernel.interrupt:
            self.registers.enable_interrupt()
