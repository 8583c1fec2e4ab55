"""A Verilated accelerator in a process of its own: its registers, its memory, and what its engines did.

`hls/rtl/sim/accelerator_main.cpp` is the other end. One process runs many calls, one after the other, on as many
images, programs and kinds of memory as one likes.
"""

from __future__ import annotations

import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from common.errors import CheckError, InputError

Bytes = NDArray[np.uint8]

RECORD_BYTES = 64
"""Record of a job."""

_LAST_LINES = 10
_HEADER = np.dtype(
    [
        ("job", "<i4"),
        ("engine", "<i4"),
        ("start", "<i8"),
        ("end", "<i8"),
        ("rows", "<u4"),
        ("bytes", "<u4"),
    ]
)


@dataclass(frozen=True)
class Memory:
    """The board's memory, as all ports together see it.

    Attributes:
        latency: cycles from a request to its first beat.
        bytes_per_cycle: of all ports together, shared in turns; None where only the ports' widths limit it.
        stalls: longest run of cycles in which a channel of a port stands still at random; 0 for none.
        seed: of these stalls.
        outstanding: bursts that are taken from a port before the first is answered, 64 at most.
    """

    latency: int = 80
    bytes_per_cycle: float | None = None
    stalls: int = 0
    seed: int = 1
    outstanding: int = 32


@dataclass(frozen=True)
class Plan:
    """Place of a job's results in the accelerator's memories.

    Row r lies in memory `banks[r % len(banks)]`, from word `first + (r // len(banks)) * stride` on.

    Attributes:
        job: number of the job in the table.
        banks: numbers of memories, in the order in which `watch` was given them.
        first: word of the first row.
        stride: words from a row to the next one of the same memory.
        words: of a row.
        rows: so many; None for as many as the job has.
    """

    job: int
    banks: Sequence[int]
    first: int
    stride: int
    words: int
    rows: int | None = None


@dataclass(frozen=True)
class JobEnd:
    """One job that an engine ended.

    Attributes:
        job: its number in the table; None where no table was given.
        engine: number of the engine.
        start: cycle in which it started; None where the accelerator does not say.
        end: cycle in which it ended.
        rows: that it worked on.
        contents: bytes of the memories of its plans, plan after plan, row after row.
    """

    job: int | None
    engine: int
    start: int | None
    end: int
    rows: int
    contents: Bytes


class Depth(NamedTuple):
    """Size of a memory of the accelerator: its words, and the bytes that one takes in `JobEnd.contents`."""

    words: int
    word_bytes: int


class RtlProcess:
    """The process, from its start until `close`; also a context manager."""

    def __init__(self, program: Path, *, seed: int = 1) -> None:
        """Start a simulator.

        Args:
            program: what `codegen.rtl.accelerator_build` made.
            seed: of the state that no reset sets.

        Raises:
            InputError: the program cannot be started.
        """
        # It writes what assertions say, however much that is, and nobody reads meanwhile.
        self._log: IO[bytes] = tempfile.TemporaryFile(prefix="edgemoe-rtl-")  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log
            )
        except OSError as error:
            self._log.close()
            raise InputError(f"{program}: cannot be started: {error.strerror}") from None
        # It ends with this object, whoever forgets to close it.
        self._end = weakref.finalize(self, _end, self._process, self._log)
        try:
            self.renew(seed)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RtlProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process; a second time does nothing."""
        self._end()

    # --- The accelerator

    def renew(self, seed: int = 1) -> None:
        """Begin anew: no buffer, no plan, a fresh random state, reset."""
        self._ask("new", seed)

    def reset(self) -> None:
        """Pull the accelerator's reset; memories keep what they hold."""
        self._ask("reset")

    def write_register(self, offset: int, value: int) -> None:
        """Write 32 bits of the control interface."""
        self._ask("set", offset, value & 0xFFFF_FFFF)

    def read_register(self, offset: int) -> int:
        """Read 32 bits of the control interface."""
        return int(self._ask("get", offset)[0])

    def run(self, cycles: int) -> tuple[bool, int]:
        """Let the clock run until the interrupt, or for so many cycles.

        Returns:
            Whether the interrupt is high, and the number of cycles since the process or its last `renew` began.

        Raises:
            CheckError: the accelerator broke a rule of AXI or one of its own assertions, or hangs.
        """
        high, cycle = self._ask("run", cycles)
        return high == "1", int(cycle)

    def idle(self, cycles: int) -> bool:
        """Let the clock run for so many cycles; whether no access to memory is under way then."""
        return self._ask("idle", cycles)[0] == "1"

    def set_patience(self, cycles: int) -> None:
        """Give up after so many cycles in which no port moves and no job ends."""
        self._ask("limit", cycles)

    def record(self, waveform: Path | None) -> None:
        """Write a waveform from now on, or end it; for builds that can."""
        self._ask("record", *([] if waveform is None else [waveform.resolve()]))

    # --- The board's memory

    def set_memory(self, memory: Memory) -> None:
        """Change the kind of memory, from the next request on."""
        share = 0 if memory.bytes_per_cycle is None else max(1, round(1000 * memory.bytes_per_cycle))
        self._ask("memory", memory.latency, share, memory.outstanding)
        self._ask("stalls", memory.seed, memory.stalls)

    def add_buffer(self, address: int, nbytes: int, *ports: str) -> None:
        """Let ports (such as `gmem_image`) touch so many bytes, which are 0; all others are out of their range."""
        self._ask("region", address, nbytes, *ports)

    def forget_buffers(self) -> None:
        """Take all buffers away."""
        self._ask("forget")

    def write(self, address: int, data: NDArray[Any]) -> None:
        """Fill bytes of a buffer."""
        content = np.ascontiguousarray(data).view(np.uint8).ravel()
        self._ask("write", address, content.size, payload=content.tobytes())

    def read(self, address: int, nbytes: int) -> Bytes:
        """Bytes of a buffer."""
        return np.frombuffer(self._ask_data("read", address, nbytes), np.uint8)

    def traffic(self) -> dict[str, int]:
        """Bytes that have passed each port."""
        words = self._ask("traffic")
        return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    # --- What the engines do

    def watch(self, scope: str, memories: Sequence[str] = ()) -> list[Depth]:
        """Note when the jobs of a module end.

        Args:
            scope: instance path of the module that has `event_done` and `event_job`; empty to note nothing.
            memories: instance paths of memories (`edgemoe_memory`) that plans may name.

        Returns:
            The size of each memory.

        Raises:
            CheckError: there is no such module or memory.
        """
        self._ask("watch", *([scope] if scope else []))
        found = [map(int, self._ask("words", memory)) for memory in memories]
        return [Depth(*sizes) for sizes in found]

    def set_table(self, records: bytes, plans: Sequence[Plan] = ()) -> None:
        """Say which jobs there will be, and what is to be kept of each."""
        self._ask("table", len(records) // RECORD_BYTES, payload=records)
        for plan in plans:
            rows = -1 if plan.rows is None else plan.rows
            self._ask("plan", plan.job, rows, plan.first, plan.stride, plan.words, *plan.banks)

    def begin_call(self, *, keep: bool = False) -> None:
        """Say that the jobs start from the table's first; `keep` the contents of memories beside the cycles."""
        self._ask("call", int(keep))

    def jobs(self) -> list[JobEnd]:
        """The jobs that ended since this was asked for last, in their order."""
        data = np.frombuffer(self._ask_data("jobs"), np.uint8)
        found, at = [], 0
        while at < len(data):
            (header,) = data[at : at + _HEADER.itemsize].view(_HEADER)
            at += _HEADER.itemsize
            job, engine, start, end, rows, size = (int(value) for value in header)
            contents = data[at : at + size]
            found.append(
                JobEnd(job if job >= 0 else None, engine, start if start >= 0 else None, end, rows, contents)
            )
            at += size
        return found

    # --- Commands and answers

    def _ask(self, *words: object, payload: bytes = b"") -> list[str]:
        first, *others = self._answer(words, payload).split()
        assert first == "ok", first
        return others

    def _ask_data(self, *words: object) -> bytes:
        name, size = self._answer(words, b"").split()
        assert name == "data", name
        assert self._process.stdout is not None
        data = self._process.stdout.read(int(size))
        if len(data) != int(size):
            raise self._ended()
        return data

    def _answer(self, words: Sequence[object], payload: bytes) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(" ".join(map(str, words)).encode() + b"\n" + payload)
            self._process.stdin.flush()
        except OSError:
            raise self._ended() from None
        line = self._process.stdout.readline().decode(errors="replace")
        if not line.endswith("\n"):
            raise self._ended()
        if line.startswith("error "):
            raise CheckError(
                "\n".join([f"accelerator: {line.removeprefix('error ').strip()}", *self._said()])
            )
        return line

    def _ended(self) -> CheckError:
        code = self._process.wait()
        return CheckError("\n".join([f"accelerator: its simulator ended with {code}", *self._said()]))

    def _said(self) -> list[str]:
        """The last lines that the simulator printed: what an assertion says."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace").splitlines()[-_LAST_LINES:]


def _end(process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
    process.kill()
    process.communicate()
    log.close()
