"""Reading a `.hwh`, which Vivado writes beside a bitstream: where a kernel is and where its registers are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common.errors import InputError
from common.reading import read_bytes

MAX_BYTES = 64 << 20
"""No `.hwh` is larger."""


@dataclass(frozen=True)
class Kernel:
    """A kernel of Vitis HLS in a block design.

    Attributes:
        source: the `.hwh`.
        instance: its name in the block design.
        vlnv: vendor, library, name and version of the IP.
        address: physical address of its control interface.
        address_range: bytes of that interface.
        registers: offset of each register of the control interface.
        interrupt: whether its interrupt is connected.
        clock_mhz: the clock it runs at; None where the file does not say.
    """

    source: Path
    instance: str
    vlnv: str
    address: int
    address_range: int
    registers: Mapping[str, int]
    interrupt: bool
    clock_mhz: float | None


def read_hwh(path: Path, name: str) -> Kernel:
    """Find a kernel in a `.hwh` by the name of its IP.

    Args:
        path: the file.
        name: of the IP, which is the name of the kernel's top function.

    Raises:
        InputError: no such file, not a `.hwh`, or one without that kernel, its address or its registers.
    """
    root = _parse(path)
    modules = [module for module in root.iter("MODULE") if module.get("MODTYPE") == name]
    if len(modules) != 1:
        others = sorted({module.get("MODTYPE", "?") for module in root.iter("MODULE")})
        raise InputError(
            f"{path}: {'no' if not modules else len(modules)} IP {name}, expected one",
            hint=f"the block design holds {', '.join(others[:10]) or 'nothing'}: is it the bitstream of this build?",
        )
    module = modules[0]
    instance = module.get("INSTANCE", name)
    address, size = _address(root, module, instance, path)
    return Kernel(
        path,
        instance,
        module.get("VLNV", ""),
        address,
        size,
        _registers(module, path),
        _interrupt(module),
        _clock(module),
    )


def _parse(path: Path) -> ElementTree.Element:
    hint = "a .hwh belongs beside the .bit, with the same name: Vivado writes both"
    data = read_bytes(path, MAX_BYTES, hint=hint)
    if re.search(rb"<!\s*(DOCTYPE|ENTITY)", data, re.IGNORECASE):
        raise InputError(f"{path}: declares a document type, which no .hwh does")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise InputError(f"{path}: not XML: {error}", hint="copy it again from the build") from None
    if root.tag != "EDKSYSTEM":
        raise InputError(f"{path}: not a .hwh: its root is {ascii(root.tag)[:40]}, expected EDKSYSTEM")
    return root


def _number(text: str | None, what: str, path: Path) -> int:
    try:
        return int(text or "", 0)
    except ValueError:
        raise InputError(f"{path}: {what} is {ascii(text)[:40]}, expected a number") from None


def _address(
    root: ElementTree.Element, module: ElementTree.Element, instance: str, path: Path
) -> tuple[int, int]:
    """Base address and size of the control interface: from a processor's memory map, or the kernel's parameters."""
    for range_ in root.iter("MEMRANGE"):
        if range_.get("INSTANCE") == instance and range_.get("MEMTYPE") == "REGISTER":
            base = _number(range_.get("BASEVALUE"), f"BASEVALUE of {instance}", path)
            return base, _number(range_.get("HIGHVALUE"), f"HIGHVALUE of {instance}", path) - base + 1
    values = {p.get("NAME", ""): p.get("VALUE") for p in module.iter("PARAMETER")}
    for name, value in values.items():
        if re.fullmatch(r"C_S_AXI_\w+_BASEADDR", name):
            base = _number(value, name, path)
            return base, _number(values.get(name.replace("BASE", "HIGH")), name, path) - base + 1
    raise InputError(
        f"{path}: {instance} has no address", hint="the block design was not finished: assign_bd_address"
    )


def _registers(module: ElementTree.Element, path: Path) -> dict[str, int]:
    registers = {}
    for register in module.iter("REGISTER"):
        name = register.get("NAME", "")
        # Fields have properties of the same names: only the register's own count.
        properties = {p.get("NAME"): p.get("VALUE") for p in register.findall("PROPERTY")}
        registers[name] = _number(properties.get("ADDRESS_OFFSET"), f"ADDRESS_OFFSET of {name}", path)
    if "CTRL" not in registers:
        raise InputError(
            f"{path}: {module.get('INSTANCE')} has no register CTRL", hint="is it a kernel of Vitis HLS?"
        )
    return registers


def _interrupt(module: ElementTree.Element) -> bool:
    ports = (
        port for port in module.iter("PORT") if port.get("SIGIS") == "INTERRUPT" and port.get("DIR") == "O"
    )
    return any(port.find("CONNECTIONS/CONNECTION") is not None for port in ports)


def _clock(module: ElementTree.Element) -> float | None:
    for port in module.iter("PORT"):
        frequency = port.get("CLKFREQUENCY", "")
        if port.get("NAME") == "ap_clk" and re.fullmatch("[1-9][0-9]{0,10}", frequency):
            return int(frequency) / 1e6
    return None
