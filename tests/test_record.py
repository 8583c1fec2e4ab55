"""Integers of every stage, as they were: whatever is rewritten, these stay.

    python tests/test_record.py                   renews tests/record.json
    python tests/test_record.py --full OUT.json   the same of quantised networks, to be compared on one machine:
                                                  digits, an odd shape and M3ViT-tiny, before and after a rewrite

The Designs of the first are random integers: those of a quantised network depend on the machine in their last bits.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgemoe
from codegen.architecture import Architecture
from codegen.hardware import Hardware, default_hardware
from codegen.weight_image import pack_weights
from designs import random_design
from frontend.zoo import find_spec
from pysim.design import Design
from pysim.model import Model, init_model
from pysim.precision import PRESETS
from pysim.quantizer import quantize
from pysim.simulator import simulate
from pysim.spec import ModelSpec

FILE = Path(__file__).parent / "record.json"
DIGITS = Path(__file__).parents[1] / "frontend/data/digits"
NARROW = Hardware(lanes=8, outputs=16, attention_rows=4, axi_width=64, weight_ports=2)

Record = dict[str, dict[str, str]]


def specs() -> dict[str, ModelSpec]:
    micro = find_spec("micro").model_dump() | {"task_heads": {}}
    moe = {
        "layers": [0, 2],
        "experts": 3,
        "hidden_dim": 13,
        "top_k": 3,
        "renormalize": True,
        "shared_gate": True,
    }
    odd = {"image_size": (12, 20), "in_channels": 1, "dim": 21, "heads": 3, "mlp_dim": 33, "depth": 3}
    odd |= {"qkv_bias": False, "moe": moe | {"gate_bias": True}}
    return {"micro": ModelSpec.model_validate(micro), "odd": ModelSpec.model_validate(micro | odd)}


CASES = [(shape, preset) for shape in specs() for preset in PRESETS]


def _hash(*arrays: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(str(array.shape).encode() + np.ascontiguousarray(array, "<i8").tobytes())
    return digest.hexdigest()[:16]


def stages(design: Design, images: NDArray[np.uint8], hardware: Hardware | None = None) -> dict[str, str]:
    """A hash of each stage over all tasks, of the weight image and of the integers that both are made from."""
    runs = [simulate(design, images, task, trace=True) for task in design.spec.tasks]
    found = {name: _hash(*(run.trace[name] for run in runs)) for name in runs[0].trace}
    for layer in runs[0].routing:
        found[f"blocks.{layer}.experts"] = _hash(*(run.routing[layer].experts for run in runs))
    whole = {name: tensor for name, tensor in design.tensors.items() if tensor.dtype.kind in "iu"}
    found["tensors"] = _hash(*(whole[name] for name in sorted(whole)))
    architecture = Architecture(design.network, hardware or default_hardware(design.network))
    found["weight image"] = _hash(pack_weights(design, architecture))
    return found


def portable(shape: str, preset: str) -> dict[str, str]:
    """What `tests/record.json` holds of a case."""
    design = random_design(specs()[shape], PRESETS[preset], NARROW.attention_rows, seed=1)
    return stages(design, edgemoe.random_images(design, 2, seed=2), NARROW)


@pytest.mark.parametrize(("shape", "preset"), CASES)
def test_integers_are_what_they_were(shape: str, preset: str) -> None:
    expected = json.loads(FILE.read_text())[f"{shape}/{preset}"]
    found = portable(shape, preset)
    assert found.keys() == expected.keys()
    changed = [name for name in found if found[name] != expected[name]]
    assert not changed, f"{len(changed)} of {len(found)} stages differ, the first is {changed[0]}"


@pytest.mark.parametrize(("shape", "preset"), CASES)
def test_random_designs_exercise_their_ranges(shape: str, preset: str) -> None:
    """A record of nothing but zeros or of saturated values would notice little."""
    design = random_design(specs()[shape], PRESETS[preset], NARROW.attention_rows, seed=1)
    run = simulate(design, edgemoe.random_images(design, 2, seed=2), trace=True)
    for name, integers in run.trace.items():
        most = np.bincount(np.unique(integers, return_inverse=True)[1].ravel()).max()
        assert most <= max(integers.size // 2, 2), name


def _full() -> Iterator[tuple[str, Model]]:
    yield "digits", Model.load(DIGITS)
    yield "odd", init_model(specs()["odd"], seed=3)
    yield "m3vit-tiny", init_model(find_spec("m3vit-tiny"), seed=7)


def main() -> None:
    if sys.argv[1:2] == ["--full"]:
        record: Record = {}
        for name, model in _full():
            images = edgemoe.random_images(model, 4, seed=5)
            for preset, precision in PRESETS.items():
                record[f"{name}/{preset}"] = stages(quantize(model, images, precision), images[:1])
        file = Path(sys.argv[2])
    else:
        record, file = {f"{shape}/{preset}": portable(shape, preset) for shape, preset in CASES}, FILE
    file.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
