"""The estimate: figures for the network of the original, resources, fit."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

import edgemoe
from blank import on_hardware
from boards import FAMILIES, load_board
from codegen import original
from codegen.architecture import Architecture
from codegen.estimate import Scheduler, beats_per_cycle
from codegen.fit import require_fit
from codegen.hardware import Hardware, default_hardware
from codegen.loops import Loop, loops_of
from codegen.memories import Memory
from codegen.performance import (
    Performance,
    estimate,
    evaluate,
    on_board,
)
from codegen.resources import (
    ADDRESS_PRODUCTS,
    CONTROL_FACTOR,
    RTL_STYLE,
    dsp_by_engine,
    packed_sum_luts,
)
from codegen.weight_image import pack_weights
from common.errors import InputError
from doc_tables import MARK, marked_tables, read_page
from edgemoe.cli import main
from frontend.zoo import find_spec
from pysim.design import Design
from pysim.network import Network
from pysim.precision import PRESETS

TARGET_MS = {"w16a16": 4.6, "w8a8": 3.4}


@pytest.fixture(scope="module")
def tiny() -> dict[str, Network]:
    """M3ViT-tiny in both widths."""
    return {preset: Network(find_spec("m3vit-tiny"), PRESETS[preset]) for preset in TARGET_MS}


@pytest.fixture(scope="module")
def networks() -> dict[str, Network]:
    """The micro network in all presets."""
    return {preset: Network(find_spec("micro"), precision) for preset, precision in PRESETS.items()}


@pytest.mark.parametrize("preset", TARGET_MS)
def test_target_of_the_original_network(preset: str, tiny: dict[str, Network]) -> None:
    performance = estimate(tiny[preset], load_board("zcu102"))
    assert performance.ms <= TARGET_MS[preset]
    assert performance.share("dsp") <= 0.85
    assert all(performance.share(name) <= 0.7 for name in ("bram36", "lut"))
    assert performance.cycles == sum(stage.cycles for stage in performance.stages)
    assert performance.ms < original.ideal_ms() < original.NARROW_PORTS_MS < original.PUBLISHED_MS


def performances(tiny: dict[str, Network]) -> dict[str, Performance]:
    """Columns of the table of M3ViT-tiny, by heading."""
    board = load_board("zcu102")
    return {
        f"`{preset}`, {batch}": estimate(tiny[preset], board, batch) for preset in tiny for batch in (1, 8)
    }


def test_every_mark_has_a_table() -> None:
    marks = {name: re.findall(MARK, read_page(name)) for name in ("hls.md", "estimate.md")}
    assert marks == {"hls.md": ["memories", "loops"], "estimate.md": ["what-if", "m3vit-tiny"]}
    assert all(list(marked_tables(read_page(name))) == found for name, found in marks.items())


def test_memories_of_the_page(tiny: dict[str, Network]) -> None:
    rows = marked_tables(read_page("hls.md"))["memories"]
    held = estimate(tiny["w8a8"], load_board("zcu102")).memories
    expected = [
        {
            "Memory": memory.name,
            "Variable": memory.variable or "-",
            "Banks": f"{memory.copies:,}",
            "Words": f"{memory.depth:,}",
            "Bits": f"{memory.width:,}",
            "Built as": memory.built_as,
            "BRAM36": f"{memory.bram18 / 2:g}",
        }
        for memories in held.values()
        for memory in memories
    ]
    assert rows == expected


def test_loops_of_the_page(tiny: dict[str, Network]) -> None:
    rows = marked_tables(read_page("hls.md"))["loops"]
    expected = [
        {
            "Loop": total.loop.label,
            "Flattened into it": "`, `".join(total.loop.nest) or "-",
            "Function": total.loop.function,
            "II": str(total.loop.ii),
            "Depth": str(total.loop.depth),
            "Entered": f"{total.entries:,}",
            "Iterations": f"{total.iterations:,}",
        }
        for total in estimate(tiny["w8a8"], load_board("zcu102")).loops
    ]
    assert rows == expected


def test_what_the_assumptions_are_worth(tiny: dict[str, Network]) -> None:
    architecture = on_hardware(tiny["w8a8"])
    beats, loops = beats_per_cycle(architecture, load_board("zcu102")), loops_of(architecture)

    def cycles(changed: Mapping[str, Loop] | None = None, **options: bool) -> int:
        schedule = Scheduler(architecture, 1, beats, loops=changed, **options)
        return sum(stage.cycles for stage in schedule.run())

    first_run = " ".join(read_page("vitis.md").split())
    for row in marked_tables(read_page("estimate.md"))["what-if"]:
        if "one after the other" in row["If"]:
            more = cycles(overlap=False)
        elif row["If"].startswith("every depth"):
            deeper = {name: dataclasses.replace(loop, depth=loop.depth + 10) for name, loop in loops.items()}
            more = cycles(deeper)
        else:
            name = row["If"].removesuffix(" II 2").strip("`")
            more = cycles(loops | {name: dataclasses.replace(loops[name], ii=2)})
        more -= cycles()
        assert row["Cycles more"] == f"{more:,}", row
        assert row["%"] == f"{100 * more / cycles():.1f}"
        # What the page on the first run says it is worth.
        assert f"+{more:,}" in first_run or row["If"].startswith(("every depth", "`GATHER", "GATHER"))


def test_figures_of_the_page(tiny: dict[str, Network]) -> None:
    found = performances(tiny)
    resources = {"DSP of 2,520": "dsp", "BRAM36 of 912": "bram36", "LUT of 274,080": "lut"}
    for row in marked_tables(read_page("estimate.md"))["m3vit-tiny"]:
        figure = row.pop("Figure")
        # The tables' reader takes the marks of code off both ends of a cell only.
        row = {f"`{heading.replace('`', '')}".replace(",", "`,", 1): text for heading, text in row.items()}
        for heading, performance in found.items():
            if figure in resources:
                used = performance.resources[resources[figure]][0]
                expected = f"{used:,.10g} ({100 * performance.share(resources[figure]):.1f} %)"
            else:
                expected = {
                    "ms an image": f"{performance.ms:.2f}",
                    "cycles": f"{performance.cycles:,}",
                    "DRAM MB an image": f"{performance.dram_bytes / 1e6:.1f}",
                    "DRAM GB/s of 17.1": f"{performance.dram_gb_s[0]:.1f}",
                }.get(figure) or f"{_cycles_of(performance, figure.split(', ')):,}"
            assert row[heading] == expected, (figure, heading)


def _cycles_of(performance: Performance, kinds: Sequence[str]) -> int:
    return sum(stage.cycles for stage in performance.stages if stage.name.rsplit(".", 1)[-1] in kinds)


def test_batch_shares_weights(tiny: dict[str, Network]) -> None:
    board = load_board("zcu102")
    one, eight = (estimate(tiny["w16a16"], board, batch) for batch in (1, 8))
    assert eight.ms < 0.8 * one.ms
    assert eight.dram_bytes < 0.2 * one.dram_bytes


def test_original_is_recognised() -> None:
    assert original.describes(find_spec("m3vit-tiny"))
    assert not original.describes(find_spec("micro"))
    assert sum(original.STAGE_CYCLES.values()) == 5_814_258
    assert original.TOTAL_CYCLES - sum(original.STAGE_CYCLES.values()) == 22_032


@pytest.mark.parametrize(
    ("bits", "slices"),
    [
        ((16, 16), 1),
        ((18, 27), 1),
        ((19, 27), 2),
        ((28, 18), 2),
        ((25, 16), 1),
        ((35, 35), 4),
        # Split over the narrow port, which takes more.
        ((48, 17), 3),
        ((36, 17), 3),
    ],
)
def test_multipliers(bits: tuple[int, int], slices: int) -> None:
    assert FAMILIES["zynq-ultrascale+"].multiplier_dsp(*bits) == slices


@pytest.mark.parametrize(
    ("memory", "bram18"),
    [
        (Memory("one", 1, 512, 36), 1),
        (Memory("deep", 1, 513, 36), 2),
        (Memory("narrow", 1, 1024, 18), 1),
        (Memory("banks", 4, 2048, 9), 4),
        (Memory("luts", 3, 64, 100), 0),
    ],
)
def test_memories(memory: Memory, bram18: int) -> None:
    assert memory.bram18 == bram18
    assert (memory.luts > 0) == (bram18 == 0)


@pytest.mark.parametrize(
    ("memory", "built"),
    [
        (Memory("one", 1, 512, 36), "1 BRAM18 of 512 x 36"),
        (Memory("banks", 16, 512, 512), "16 x 15 BRAM18 of 512 x 36"),
        (Memory("deep", 1, 1548, 256), "29 BRAM18 of 2048 x 9"),
        (Memory("luts", 2, 64, 7), "LUT memory, 16 LUTs"),
        (Memory("deep luts", 1, 129, 7, bound="lutram"), "LUT memory, 38 LUTs"),
        (Memory("shallow", 1, 16, 8, bound="bram"), "1 BRAM18 of 512 x 36"),
        (Memory("read twice", 1, 512, 36, two_readers=True), "2 BRAM18 of 1024 x 18"),
        (Memory("ultra", 2, 5000, 100, bound="uram"), "2 x 4 ultra RAM of 4096 x 72"),
    ],
)
def test_shape_that_the_tool_should_choose(memory: Memory, built: str) -> None:
    assert memory.built_as == built


def test_reviewed_hardware(tiny: dict[str, Network]) -> None:
    """16 x 32 x 4, 19 query rows, w8a8: figures that a review of the C++ worked out by hand."""
    architecture = on_hardware(tiny["w8a8"])
    hardware = architecture.hardware
    shape = (
        hardware.lanes,
        hardware.outputs,
        hardware.token_tile,
        hardware.attention_rows,
    )
    assert shape == (16, 32, 4, 19)
    performance = estimate(tiny["w8a8"], load_board("zcu102"))
    # Before long products were split where a slice ends, 2,056, worked out by hand as well: of a lane, one slice less
    # for each multiplier of the write-back (two), two less for each mantissa, one for the number of channels.
    assert sum(dsp_by_engine(architecture, RTL_STYLE).values()) + ADDRESS_PRODUCTS == 2056
    # Of the router, one less for each of four requantisations and for the mantissa of scores.
    assert performance.resources["dsp"][0] == 2056 - 16 * (2 + 2 + 2 + 1) - (4 + 1)
    held = {memory.name: memory for memory in performance.memories["linear"]}
    assert held["weight halves"].bram18 == 2 * 120
    assert (held["weight halves"].copies, held["weight halves"].width) == (2 * 8, 512)
    # Sums of four packed products are split where every product was: about 30,000 LUTs, with control.
    fewer = packed_sum_luts(architecture, 1) - packed_sum_luts(architecture, architecture.packed_chain)
    assert 25_000 <= CONTROL_FACTOR * fewer <= 35_000


@pytest.mark.parametrize(
    ("weight", "activation", "chain"), [(8, 8, 4), (8, 9, 3), (9, 8, 3), (8, 10, 1), (4, 4, 4)]
)
def test_chains_of_packed_products(
    weight: int, activation: int, chain: int, networks: dict[str, Network]
) -> None:
    widths = {"weight_width": weight, "activation_width": activation}
    network = networks["w8a8"]
    network = Network(network.spec, network.precision.model_copy(update=widths))
    found = on_hardware(network).packed_chain
    assert found == chain
    largest = 1 << (weight + activation - 2)
    # The sum of the lower products stays in its 18 bits; one more of them would not, or is not wanted.
    assert found * largest < 1 << 17 or found == 1
    assert found == 4 or (found + 1) * largest >= 1 << 17


def test_sums_of_packed_products_are_cheaper_in_chains(networks: dict[str, Network]) -> None:
    architecture = on_hardware(networks["w8a8"])
    costs = [packed_sum_luts(architecture, chain) for chain in (1, 2, 4)]
    assert costs == sorted(costs, reverse=True)
    assert costs[2] < costs[0] / 2
    assert packed_sum_luts(on_hardware(networks["w16a16"]), 1) == 0


def test_packed_products_halve_the_dsp_slices(networks: dict[str, Network]) -> None:
    shared, single = (Architecture(networks[preset], Hardware()) for preset in ("w8a8", "w16a16"))
    assert 2 * dsp_by_engine(shared)["linear"] == dsp_by_engine(single)["linear"]


def test_a_design_that_does_not_fit_names_what_is_short_and_what_fits(networks: dict[str, Network]) -> None:
    board = load_board("ultra96v2")
    large = on_board(networks["w16a16"], board, Hardware(outputs=32, clock_mhz=board.clock_mhz_default))
    with pytest.raises(InputError, match=r"does not fit ultra96v2: dsp \d+ of 360") as caught:
        require_fit(large, board)
    assert "the fastest that fits takes" in caught.value.hint
    # The hint can be typed.
    settings = re.findall(r"--set (\S+)", caught.value.hint)
    hardware = default_hardware(networks["w16a16"], board).with_settings(settings)
    assert evaluate(on_board(networks["w16a16"], board, hardware), board).fits


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lanes": 16, "outputs": 24}, "outputs = 24 is not a multiple of lanes = 16"),
        ({"axi_width": 32}, "axi_width = 32"),
        ({"weight_rows": 1}, "weight_rows = 1"),
    ],
)
def test_hardware_that_cannot_be_built(
    changes: dict[str, int], complaint: str, networks: dict[str, Network]
) -> None:
    hardware = Hardware().changed(**changes)
    with pytest.raises(InputError, match=complaint):
        Architecture(networks["w16a16"], hardware)


def test_weight_buffer_holds_one_block_at_least(networks: dict[str, Network]) -> None:
    """Of the layer with the most operand words, to the row."""

    def built(rows: int) -> Architecture:
        hardware = Hardware(lanes=4, outputs=4, weight_rows=rows)
        return Architecture(networks["w16a16"], hardware)

    roomy = built(512)
    words = {kind: shape.in_words for kind, shape in roomy.shapes.items()}
    most = max(words.values())
    (longest,) = [name for name in ("patch", "fc2") if words[name] == most]
    assert built(most).shapes[longest].group == 1
    with pytest.raises(
        InputError, match=f"weight_rows = {most - 1} do not hold one block of layer {longest}, "
    ):
        built(most - 1)


def test_command_line(tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path_factory.mktemp("estimate")
    model = edgemoe.init_model("micro")
    edgemoe.quantize(model, edgemoe.random_images(model, 2)).save(folder / "design")
    assert main(["estimate", str(folder / "design"), "--json", "--batch", "4"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"cycles", "ms", "stages", "dram_bytes", "resources", "fits"} <= set(result)
    assert {"name", "cycles", "bound_by"} <= set(result["stages"][0])
    assert result["resources"]["dsp"].keys() >= {"used", "available"}
    assert {"label", "function", "ii", "depth", "entries", "trips", "cycles"} == set(result["loops"][0])
    assert sum(loop["trips"] for loop in result["loops"] if loop["label"] == "ROUNDS") > 0
    memories = {memory["name"]: memory for memory in result["memories"]}
    assert memories["operands"]["engine"] == "linear"
    blocks = sum(memory["bram36"] for memory in result["memories"])
    assert blocks == result["resources"]["bram36"]["used"]
    assert result["batch"] == 4
    assert np.isclose(result["ms"], result["cycles"] / 300e3 / 4)
    assert main(["estimate", str(folder / "design"), "--details"]) == 0
    shown = capsys.readouterr().out
    assert "ROUNDS" in shown and "ping_weights, pong_weights" in shown
    assert main(["boards", "--json"]) == 0
    assert "zcu102" in [board["name"] for board in json.loads(capsys.readouterr().out)["boards"]]


def test_shape_and_precision_are_all_that_an_estimate_takes(designs: dict[str, Design]) -> None:
    """A Design's network is the one that is made from the shape and the preset, weight image's layout included."""
    for preset, design in designs.items():
        made, given = on_hardware(Network(design.spec, PRESETS[preset])), on_hardware(design)
        assert made.layout == given.layout and made.hardware_id == given.hardware_id
        assert evaluate(made, load_board("zcu102")) == evaluate(given, load_board("zcu102"))
        assert len(pack_weights(design, made)) == made.sections["end"]
