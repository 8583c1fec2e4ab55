"""Proofs of the accelerator's library modules: all that their assertions say, for any inputs and any time.

Each is broken as well, in one place, to see that the proof would notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from formal import prove

pytestmark = pytest.mark.rtl


@dataclass(frozen=True)
class Proof:
    """Small parameters of a module, steps of the induction, and places to break: module, text, what replaces it."""

    parameters: Mapping[str, int]
    depth: int
    damages: tuple[tuple[str, str, str], ...]


PROOFS = {
    "edgemoe_register_slice": Proof(
        {"WIDTH": 3}, 3, (("edgemoe_register_slice", "spare_valid ? spare : in_data", "in_data"),)
    ),
    "edgemoe_frame_guard": Proof(
        {"WIDTH": 3}, 3, (("edgemoe_frame_guard", "(in_valid && in_last) dropping", "(in_valid) dropping"),)
    ),
    "edgemoe_fifo": Proof(
        {"WIDTH": 3, "DEPTH": 4}, 4, (("edgemoe_fifo", "in_ready = !count[COUNT_BITS-1]", "in_ready = 1'b1"),)
    ),
    "edgemoe_ring_buffer": Proof(
        {"PORTS": 2, "WIDTH": 4, "DEPTH": 4, "COUNT_BITS": 5},
        5,
        (
            ("edgemoe_ring_buffer", "left != '0 && owes == '0", "left != '0"),
            ("edgemoe_ring_buffer", "behind == '0 && credit", "!behind[0] && credit"),
            ("edgemoe_ring_buffer", "credit != '0", "1'b1"),
        ),
    ),
    "edgemoe_axi_bursts": Proof(
        {"DATA_BITS": 512, "ADDRESS_BITS": 16, "COUNT_BITS": 10},
        4,
        (("edgemoe_axi_bursts", "- {1'b0, next[BURST_BITS-1:0]}", ""),),
    ),
    "edgemoe_axi_read": Proof(
        {"DATA_BITS": 64, "ADDRESS_BITS": 16, "COUNT_BITS": 8, "MAX_BURST": 16, "OUTSTANDING": 3},
        4,
        (("edgemoe_axi_bursts", "(!valid || ready)", "1'b1"),),
    ),
    "edgemoe_axi_write": Proof(
        {"DATA_BITS": 64, "ADDRESS_BITS": 16, "COUNT_BITS": 8, "MAX_BURST": 4, "OUTSTANDING": 2},
        4,
        (("edgemoe_axi_write", "under_way != UNDER_WAY_BITS'(OUTSTANDING)", "1'b1"),),
    ),
    "edgemoe_scoreboard": Proof(
        {"ENGINES": 2, "JOB_BITS": 1, "EXPERTS": 1, "TOKEN_BITS": 1, "COUNT_BITS": 4},
        3,
        (
            ("edgemoe_scoreboard", " && blocked == '0", ""),
            ("edgemoe_scoreboard", "(held == 2'd0 || (held == 2'd1 && taken))", "held == 2'd0"),
        ),
    ),
    "edgemoe_bank_address": Proof(
        {"TOKEN_TILE": 3, "TOKEN_BITS": 7, "ROW_WORDS": 5, "WORD_BITS": 3},
        4,
        (("edgemoe_bank_address", "+ 64'(TOKEN_TILE) - 64'd1", ""),),
    ),
    "edgemoe_positions": Proof(
        {
            "LANES": 1,
            "RESIDUAL_BITS": 2,
            "BEAT_BITS": 32,
            "WORD_BEATS": 1,
            "TOKEN_BITS": 4,
            "WORD_BITS": 2,
        },
        4,
        (("edgemoe_positions", "taking && (!holds || last_image)", "taking"),),
    ),
    "edgemoe_patch_queue": Proof(
        {"TOKEN_BITS": 4}, 3, (("edgemoe_patch_queue", "image_left  <= patches", "image_left  <= '0"),)
    ),
    "edgemoe_gather": Proof(
        {"TOKEN_BITS": 4, "WORD_BITS": 3, "EXPERT_BITS": 1, "WIDTH": 1, "QUEUE": 1, "READ": 2},
        4,
        (("edgemoe_gather", "last_word ? words : words_left", "words_left"),),
    ),
}

DAMAGES = [(top, number) for top, proof in PROOFS.items() for number in range(len(proof.damages))]


@pytest.mark.parametrize("top", PROOFS)
def test_assertions_hold_always(top: str, tmp_path: Path) -> None:
    proof = PROOFS[top]
    assert prove(top, proof.parameters, proof.depth, tmp_path) == "PASS"


@pytest.mark.parametrize(("top", "number"), DAMAGES)
def test_a_broken_module_is_not_proved(top: str, number: int, tmp_path: Path) -> None:
    proof = PROOFS[top]
    assert prove(top, proof.parameters, proof.depth, tmp_path, proof.damages[number]) in ("FAIL", "UNKNOWN")
