"""What quantisation says about Designs that hardly compute their network: the layer, and a figure."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import edgemoe
from pysim import reference
from pysim.design import Design
from pysim.doubts import LEAST_AGREEMENT, LEAST_SQNR_DB, examine
from pysim.model import Model
from pysim.precision import PRESETS
from pysim.quantizer import quantize
from pysim.simulator import simulate

Pixels = NDArray[np.uint8]
MakeModel = Callable[..., Model]


def scaled(model: Model, factor: float, *parts: str) -> Model:
    """A copy whose tensors with one of these parts in their names (all, if none is given) are multiplied."""
    weights = {
        name: tensor * np.float32(factor) if not parts or any(part in name for part in parts) else tensor
        for name, tensor in model.weights.items()
    }
    return Model(model.spec, weights)


def noise(warnings: tuple[str, ...]) -> tuple[str, float, float]:
    """Stage, its figure and that of the final tokens, of the one warning that tells of noise."""
    (text,) = [text for text in warnings if "signal to noise" in text]
    found = re.match(r"(\S+): .* is (\S+) dB, .* tokens have (\S+) dB$", text)
    assert found, text
    return found[1], float(found[2]), float(found[3])


def test_sound_designs_leave_no_doubt(designs: dict[str, Design]) -> None:
    for preset, design in designs.items():
        assert design.warnings == (), preset


@pytest.mark.parametrize("preset", PRESETS)
def test_networks_of_zeros_leave_no_doubt(micro: Model, images: Pixels, preset: str) -> None:
    assert quantize(scaled(micro, 0.0), images, PRESETS[preset]).warnings == ()


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
def test_values_that_vanish(micro: Model, images: Pixels, preset: str) -> None:
    """Smaller than the finest unit of the stream, which LayerNorm's epsilon sets."""
    design = quantize(scaled(micro, 1e-12), images, PRESETS[preset])
    assert not edgemoe.simulate(design, images[:2]).integers.any()
    assert noise(design.warnings) == ("embed", 0.0, 0.0)
    assert "all its values round to 0" in design.warnings[-1]
    assert not any("gate" in text for text in design.warnings)


def test_weights_that_vanish(micro: Model, images: Pixels) -> None:
    """Their layer adds nothing, and the rest is sound: still worth a sentence."""
    model = scaled(micro, 1e-13, "blocks.2.mlp.fc1", "blocks.3.moe.fc1")
    design = quantize(model, images, PRESETS["w16a16"])
    assert not design.tensors["blocks.2.fc1.weight"].any()
    (warning,) = design.warnings
    largest = np.abs(model["blocks.2.mlp.fc1.weight"]).max()
    unit = max(report.scale for report in design.reports if report.name == "blocks.2.fc1")
    assert warning == (
        f"blocks.2.fc1: all weights quantise to 0 (the largest is {largest:.2g}, a unit is {unit:.2g}), "
        "and so do those of 5 more tensors"
    )


def test_a_single_vanished_tensor(micro: Model, images: Pixels) -> None:
    design = quantize(scaled(micro, 1e-13, "blocks.2.mlp.fc1"), images, PRESETS["w16a16"])
    assert design.warnings[0].startswith("blocks.2.fc1: ") and design.warnings[0].endswith(")")


def test_the_first_stage_that_is_noise_is_named(micro: Model, images: Pixels) -> None:
    """iccad23 has one type for all features: the layer that is too small for it, and what comes of it."""
    design = quantize(scaled(micro, 1e-2), images, PRESETS["iccad23"])
    stage, here, final = noise(design.warnings)
    run = edgemoe.simulate(design, images, 0, trace=True)
    compared = edgemoe.compare(scaled(micro, 1e-2), design, images, 0, simulation=run)
    figures = {error.name: error.sqnr_db for error in compared.stages}
    assert stage == "blocks.0.attn_residual"
    assert figures["embed"] > LEAST_SQNR_DB > figures[stage]
    assert (here, final) == (round(figures[stage], 1), round(figures["blocks.3.output"], 1))
    assert not any("wrap" in text for text in design.warnings)


def test_wrapped_values_are_counted(micro: Model, images: Pixels) -> None:
    design = quantize(scaled(micro, 100.0), images, PRESETS["iccad23"])
    stage, here, _ = noise(design.warnings)
    (wrapped,) = [report.clipped for report in design.reports if report.name == stage]
    assert (stage, wrapped > 0.9) == ("blocks.0.attn_residual", True)
    assert abs(here) < 1
    assert f"; {wrapped:.2%} of its values are beyond 512 and wrap; " in design.warnings[-1]


def test_logits_too_close_for_the_router(micro: Model, images: Pixels) -> None:
    model = scaled(micro, 1e-5, "blocks.3.moe.gate")
    design = quantize(model, images, PRESETS["w16a16"])
    run = edgemoe.simulate(design, images, 0)
    forced = {layer: routing.experts for layer, routing in run.routing.items()}
    chosen = reference.run(model, images, experts=forced).experts
    shares = {
        layer: np.mean(
            [len({*ours} & {*theirs}) / 2 for ours, theirs in zip(forced[layer], own, strict=True)]
        )
        for layer, own in chosen.items()
    }
    assert shares[1] > LEAST_AGREEMENT > shares[3]
    (warning,) = design.warnings
    assert warning.startswith(f"blocks.3.gate: {shares[3]:.1%} of the experts chosen are those of the float")


def test_few_images_are_run(micro: Model, images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as make 256 tokens, and one at least."""
    seen: list[int] = []

    def counted(design: Design, pixels: Pixels, **options: Any) -> Any:
        seen.append(len(pixels))
        return simulate(design, pixels, **options)

    monkeypatch.setattr("pysim.doubts.simulate", counted)
    design = quantize(micro, images, PRESETS["w16a16"])
    monkeypatch.setattr("pysim.doubts.CHECKED_TOKENS", 5 * micro.spec.tokens - 1)
    examine(micro, design, images)
    monkeypatch.setattr("pysim.doubts.CHECKED_TOKENS", 1)
    examine(micro, design, images)
    assert seen == [min(12, 256 // micro.spec.tokens), 4, 1]


# --- Where they are shown -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def doubtful(micro: Model, images: Pixels) -> Design:
    return quantize(scaled(micro, 1e-8), images, PRESETS["iccad23"])


def test_the_facade_warns(micro: Model, images: Pixels, doubtful: Design) -> None:
    with pytest.warns(edgemoe.QuantizationWarning) as caught:
        design = edgemoe.quantize(scaled(micro, 1e-8), images, "iccad23")
    assert tuple(str(warning.message) for warning in caught) == design.warnings == doubtful.warnings
    assert {warning.filename for warning in caught} == {__file__}
    assert len(design.warnings) == 2


def test_warnings_stay_with_the_design(doubtful: Design, tmp_path: Path) -> None:
    doubtful.save(tmp_path / "design")
    loaded = edgemoe.load_design(tmp_path / "design")
    assert loaded.warnings == doubtful.warnings != ()
    assert loaded.with_attention_rows(2).warnings == doubtful.warnings
    assert loaded.weights_sha256 == doubtful.weights_sha256
