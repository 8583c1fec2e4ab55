"""The pragmas of Vitis HLS: their clauses, and what values each clause takes.

Facts from AMD's UG1399 (Vitis High-Level Synthesis User Guide, "HLS Pragmas", 2020.2 to 2025.2) and from the option
table of the tool's published front end (github.com/Xilinx/hls-llvm-project, `XlxPragmaOption.td`). Names and words may
be written in either case. What the guide calls deprecated is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """Kind of value that the front end reads after `clause =`."""

    VARIABLE = "an expression that names a variable"
    FUNCTION = "the name of a function"
    INTEGER = "a constant integer expression"
    NUMBER = "a constant number"
    WORD = "one of its words"
    NAME = "a name"
    FLAG = "nothing: it stands alone"


@dataclass(frozen=True)
class Clause:
    """One clause of a pragma.

    Attributes:
        kind: what it takes.
        words: of a WORD, in lower case.
        required: whether the pragma is incomplete without it.
        bare: whether its words may stand without `clause =`.
        least: smallest value of an INTEGER.
        most: largest value of an INTEGER, where there is one.
    """

    kind: Kind
    words: frozenset[str] = frozenset()
    required: bool = False
    bare: bool = False
    least: int = 1
    most: int | None = None


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _variable() -> Clause:
    return Clause(Kind.VARIABLE, required=True)


def _integer(least: int = 1, *, required: bool = False, most: int | None = None) -> Clause:
    return Clause(Kind.INTEGER, required=required, least=least, most=most)


def _words(text: str, *, required: bool = False, bare: bool = False) -> Clause:
    return Clause(Kind.WORD, _set(text), required=required, bare=bare)


_FLAG = Clause(Kind.FLAG)
_SWITCH = Clause(Kind.WORD, frozenset({"true", "false"}), bare=False)
_PARTITION = {
    "variable": _variable(),
    "type": _words("block cyclic complete", bare=True),
    "factor": _integer(),
    "dim": _integer(0),
    "off": _SWITCH,
}

INTEGER_OPERATIONS = frozenset({"add", "mul", "sub"})
FLOATING_OPERATIONS = _set(
    "dadd ddiv dexp dlog dmul drecip drsqrt dsqrt dsub fadd fdiv fexp flog fmul frecip frsqrt fsqrt fsub "
    "hadd hdiv hmul hsqrt hsub"
)
ALLOCATED_OPERATIONS = (
    INTEGER_OPERATIONS | FLOATING_OPERATIONS | _set("ashr icmp lshr sdiv shl srem udiv urem")
)
"""Operations that `allocation operation` may limit."""

PRAGMAS: Mapping[str, Mapping[str, Clause]] = {
    "aggregate": {"variable": _variable(), "compact": _words("auto bit byte none", bare=True)},
    "alias": {"ports": _variable(), "distance": _integer(0), "offset": _integer(0)},
    "allocation": {
        "type": _words("function operation", bare=True),
        "instances": Clause(Kind.FUNCTION, required=True),
        "limit": _integer(required=True),
    },
    "array_partition": _PARTITION,
    "array_reshape": _PARTITION | {"object": _FLAG},
    "bind_op": {
        "variable": _variable(),
        "op": Clause(Kind.WORD, INTEGER_OPERATIONS | FLOATING_OPERATIONS, required=True),
        "impl": _words("dsp fabric fulldsp maxdsp meddsp primitivedsp"),
        "latency": _integer(-1),
    },
    "bind_storage": {
        "variable": _variable(),
        "type": _words("fifo ram_1p ram_1wnr ram_2p ram_s2p ram_t2p rom_1p rom_2p rom_np", required=True),
        "impl": _words("auto bram bram_ecc lutram memory srl uram uram_ecc"),
        "latency": _integer(-1, most=3),
    },
    "dataflow": {"disable_start_propagation": _FLAG},
    "dependence": {
        "variable": _variable(),
        "class": _words("array pointer", bare=True),
        "type": _words("inter intra", bare=True),
        "direction": _words("raw war waw", bare=True),
        "distance": _integer(),
        "dependent": _words("false true", bare=True),
    },
    "disaggregate": {"variable": _variable()},
    "expression_balance": {"off": _FLAG},
    "function_instantiate": {"variable": _variable()},
    "inline": {"off": _FLAG, "recursive": _FLAG},
    "interface": {
        "mode": Clause(Kind.WORD, required=True, bare=True),
        "port": Clause(Kind.VARIABLE, required=True),
        "name": Clause(Kind.NAME),
    },
    "latency": {"min": _integer(0), "max": _integer(0)},
    "loop_flatten": {"off": _FLAG},
    "loop_merge": {"force": _FLAG},
    "loop_tripcount": {"min": _integer(0), "max": _integer(0, required=True), "avg": _integer(0)},
    "occurrence": {"cycle": _integer()},
    "performance": {"target_ti": Clause(Kind.NUMBER), "target_tl": Clause(Kind.NUMBER)},
    "pipeline": {"ii": _integer(), "off": _FLAG, "rewind": _FLAG, "style": _words("flp frp stp")},
    "protocol": {"mode": _words("fixed floating", bare=True)},
    "reset": {"variable": _variable(), "off": _FLAG},
    "stable": {"variable": _variable()},
    "stream": {"variable": _variable(), "depth": _integer(), "type": _words("fifo pipo shared unsync")},
    "top": {"name": Clause(Kind.NAME)},
    "unroll": {"factor": _integer(2), "skip_exit_check": _FLAG, "off": _SWITCH},
}

_DEPTH = {"depth": _integer()}
_REGISTER = {"register": _FLAG} | _DEPTH
_MEMORY = _DEPTH | {
    "latency": _integer(),
    "storage_type": Clause(Kind.NAME),
    "storage_impl": Clause(Kind.NAME),
}

MODES: Mapping[str, Mapping[str, Clause]] = {
    "m_axi": {
        "bundle": Clause(Kind.NAME),
        "depth": _integer(),
        "offset": _words("direct off slave"),
        "latency": _integer(0),
        "channel": _integer(0),
        "num_read_outstanding": _integer(),
        "num_write_outstanding": _integer(),
        "max_read_burst_length": _integer(2, most=256),
        "max_write_burst_length": _integer(2, most=256),
        "max_widen_bitwidth": _integer(0, most=1024),
    },
    "s_axilite": {
        "bundle": Clause(Kind.NAME),
        "clock": Clause(Kind.NAME),
        "offset": _integer(16),
        "register": _FLAG,
        "storage_impl": _words("auto bram uram"),
    },
    "axis": {
        "register": _FLAG,
        "register_mode": _words("both forward off reverse"),
        "depth": _integer(),
    },
    "ap_memory": _MEMORY,
    "bram": _MEMORY,
    "ap_none": _REGISTER,
    "ap_stable": _REGISTER,
    "ap_fifo": _REGISTER,
    "ap_ack": _REGISTER,
    "ap_vld": _REGISTER | {"interrupt": _integer(16, most=31)},
    "ap_hs": _REGISTER | {"interrupt": _integer(16, most=31)},
    "ap_ovld": _REGISTER,
    "ap_ctrl_none": {},
    "ap_ctrl_hs": {},
    "ap_ctrl_chain": {},
}
"""Clauses of `interface`, by its mode."""

CONTROL_MODES = frozenset({"ap_ctrl_none", "ap_ctrl_hs", "ap_ctrl_chain"})
"""Modes that only `port = return` takes."""


@dataclass(frozen=True)
class Storage:
    """A shape of memory that `bind_storage` names.

    Attributes:
        implementations: what it can be made of.
        reads: ports that only read.
        writes: ports that only write.
        shared: ports that do either.
        any_reads: whether there are as many ports to read as are needed.
    """

    implementations: frozenset[str]
    reads: int = 0
    writes: int = 0
    shared: int = 0
    any_reads: bool = False


STORAGE: Mapping[str, Storage] = {
    "fifo": Storage(_set("auto bram lutram memory srl uram"), reads=1, writes=1),
    "ram_1p": Storage(_set("auto bram lutram uram"), shared=1),
    "ram_1wnr": Storage(_set("auto bram lutram uram"), writes=1, any_reads=True),
    "ram_2p": Storage(_set("auto bram lutram uram"), reads=1, shared=1),
    "ram_s2p": Storage(_set("auto bram bram_ecc lutram uram uram_ecc"), reads=1, writes=1),
    "ram_t2p": Storage(_set("auto bram uram"), shared=2),
    "rom_1p": Storage(_set("auto bram lutram"), reads=1),
    "rom_2p": Storage(_set("auto bram lutram"), reads=2),
    "rom_np": Storage(_set("auto bram lutram"), any_reads=True),
}
"""Shapes of memory: UG1399, "pragma HLS bind_storage", tables 1 and 2."""
