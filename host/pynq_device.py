"""The emulated board behind PYNQ's own extension point: `Overlay`, `allocate`, `MMIO` and `register_map` run for real.

A subclass of `pynq.pl_server.device.Device`, as for every kind of board that PYNQ knows. This module needs PYNQ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pynq import Device
from pynq.buffer import PynqBuffer
from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser
from pynqmetadata.frontends import Metadata

from common.contract import EMULATED_HWH
from host.emulated import TIMEOUT, EmulatedBuffer, EmulatedKernel, EmulatedMemory, Hardware
from host.hwh import read_hwh
from host.manifest import Manifest


class EmulatedPynqBuffer(PynqBuffer):
    """A PYNQ buffer over emulated memory."""

    emulated_buffer: EmulatedBuffer | None = None

    def freebuffer(self) -> None:
        """Give the addresses back; the memory itself belongs to NumPy."""
        if self.emulated_buffer is not None:
            self.emulated_buffer.free()


class EmulatedPynqMemory:
    """Memory that PYNQ asks for buffers."""

    def __init__(self, device: EmulatedDevice, memory: EmulatedMemory) -> None:
        """Buffers of a device."""
        self._device, self.memory = device, memory

    def allocate(
        self, shape: int | tuple[int, ...], dtype: Any, cacheable: bool = True, **_: Any
    ) -> EmulatedPynqBuffer:
        """A buffer of PYNQ's kind."""
        dtype = np.dtype(dtype)
        buffer = self.memory.allocate(int(np.prod(shape)) * dtype.itemsize)
        array = EmulatedPynqBuffer(
            shape,
            dtype,
            buffer=buffer.array.data,
            device=self._device,
            device_address=buffer.address,
            bo=buffer.address,
            coherent=not cacheable,
        )
        array.emulated_buffer = buffer
        return array


class EmulatedDevice(Device):
    """The emulated board as a PYNQ device.

    Attributes:
        hardware: the kernel behind the registers.
        memory: the memory behind the buffers.
    """

    emulated = True
    timeout = TIMEOUT
    capabilities: ClassVar[dict[str, bool]] = {"REGISTER_RW": True}

    def __init__(self, manifest: Manifest, library: Path, hardware: Hardware = EmulatedKernel) -> None:
        """A device for a build: see `host.emulated.EmulatedBoard`."""
        super().__init__("edgemoe-emulated")
        self.hwh = manifest.path.parent / EMULATED_HWH
        self._kernel = read_hwh(self.hwh, manifest.kernel)
        self.memory = EmulatedMemory()
        self.default_memory = EmulatedPynqMemory(self, self.memory)
        self.hardware = hardware(library, manifest, self._kernel, self.memory)
        self.timestamp = ""
        self.bitfile_name = ""

    @property
    def compiled(self) -> bool:
        """Whether the kernel is C++ compiled for this computer."""
        return self.hardware.compiled

    @property
    def fault(self) -> str:
        """Why the kernel is stuck."""
        return self.hardware.fault

    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False) -> Any:
        """Metadata that PYNQ's own parser makes of the `.hwh` beside a bitstream."""
        return RuntimeMetadataParser(Metadata(input=str(Path(bitfile_name).with_suffix(".hwh"))))

    def read_registers(self, address: int, length: int) -> bytes:
        """Registers at a physical address; outside the kernel's there are zeros."""
        words = [self.hardware.read(offset) for offset in self._offsets(address, length)]
        return np.array(words, "<u4").tobytes()

    def write_registers(self, address: int, data: Any) -> None:
        """Set registers at a physical address."""
        values: NDArray[np.uint32] = np.frombuffer(bytes(data), "<u4")
        for offset, value in zip(self._offsets(address, 4 * len(values)), values, strict=False):
            self.hardware.write(offset, int(value))

    def _offsets(self, address: int, length: int) -> range:
        start = address - self._kernel.address
        if not 0 <= start < self._kernel.address_range:
            return range(0)
        return range(start, start + length, 4)

    def flush(self, bo: int, offset: int, virtual_address: int, nbytes: int) -> None:
        """Carry the processor's copy of a range to the DRAM."""
        buffer = self._buffer(bo + offset, nbytes)
        buffer.flush(bo + offset - buffer.address, nbytes)

    def invalidate(self, bo: int, offset: int, virtual_address: int, nbytes: int) -> None:
        """Carry the DRAM's copy of a range to the processor."""
        buffer = self._buffer(bo + offset, nbytes)
        buffer.invalidate(bo + offset - buffer.address, nbytes)

    def _buffer(self, address: int, nbytes: int) -> EmulatedBuffer:
        buffer = self.memory.find(address, nbytes)
        if buffer is None:
            raise RuntimeError(f"no buffer of {nbytes} bytes at {address:#x}")
        return buffer

    def reset_kernel(self) -> None:
        """Stop the kernel, as loading the bitstream anew does."""
        self.hardware.reset()

    def download(self, bitstream: Any, parser: Any = None) -> None:
        """Load a bitstream: the kernel is the one that was compiled, whatever the file holds."""
        self.reset_kernel()
        self.post_download(bitstream, parser)
