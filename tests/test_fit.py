"""The search for the fastest hardware: against the estimate, against trying everything, and on the command line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgemoe
from boards import Board, board_names, load_board
from codegen.build import Build
from codegen.fit import Limits, Search, advise, fit, limits_of, space, space_of
from codegen.fit.search import OTHERS
from codegen.fit.space import KINDS, ROUTER_LANES, Frame, buffers
from codegen.hardware import Hardware
from codegen.performance import evaluate, on_board
from codegen.queues import read_queues, write_queues
from codegen.resources import engine_resources, estimate_resources
from common.errors import InputError
from doc_tables import marked_tables, read_page
from edgemoe.cli import main
from foreign import m3vit_state, saved, timm_state
from frontend.options import Options
from frontend.zoo import find_spec
from pysim.design import Design
from pysim.model import Model
from pysim.network import Network
from pysim.precision import PRESETS
from scripts import fit_boards

SMALL = Limits(dsp=300, bram36=40, uram=0, lut=40_000, ff=60_000)


@pytest.fixture(scope="module")
def micro_w8a8() -> Network:
    return Network(find_spec("micro"), PRESETS["w8a8"])


def drawn(generator: random.Random) -> tuple[Network, Board, Hardware]:
    """A network on hardware of any size; all memories of block RAM."""
    network = Network(
        find_spec(generator.choice(["micro", "m3vit-tiny", "vit-tiny"])),
        PRESETS[generator.choice([*PRESETS])],
    )
    board, lanes = load_board(generator.choice(board_names())), generator.randint(2, 40)
    outputs = lanes * generator.randint(1, 8)
    hardware = Hardware(
        lanes=lanes,
        outputs=outputs * (1 + outputs % 2),
        token_tile=generator.randint(1, 12),
        attention_rows=generator.randint(1, min(40, network.spec.tokens)),
        weight_ports=generator.randint(1, 4),
        axi_width=generator.choice([64, 128, 256]),
        weight_rows=generator.randint(400, 1200),
        router_lanes=generator.choice(ROUTER_LANES),
        max_batch=generator.choice([1, 1, 2]),
        clock_mhz=board.clock_mhz_default,
        family=board.family,
        score_memory="block",
    )
    return network, board, hardware


@pytest.mark.parametrize("seed", range(12))
def test_cycles_of_arrays_are_those_of_the_estimate(seed: int) -> None:
    network, board, hardware = drawn(random.Random(seed))
    frame = Frame(hardware.lanes, hardware.weight_ports, hardware.axi_width)
    search = Search(network, board, batch=hardware.max_batch, fixed={"lanes": hardware.lanes})
    arrays = {
        name: np.array([getattr(hardware, name)] * 2) for name in ("outputs", "token_tile", "weight_rows")
    }
    many = search.times(search.sizes(frame, **arrays))
    router = search.times(search.sizes(frame, router_lanes=hardware.router_lanes)).router()
    plain = search.times(search.sizes(frame))
    attention = plain.attention(np.array([hardware.attention_rows]))
    found = many.linear() + plain.fixed() + attention + router
    expected = evaluate(on_board(network, board, hardware), board, hardware.max_batch).cycles
    np.testing.assert_array_equal(found, [expected] * 2)
    assert (many.least_linear() <= many.linear()).all()


@pytest.mark.parametrize("seed", range(12))
def test_costs_of_arrays_are_those_of_the_estimate(seed: int) -> None:
    generator = random.Random(seed)
    network, board, hardware = drawn(generator)
    frame = Frame(hardware.lanes, hardware.weight_ports, hardware.axi_width)
    search = Search(network, board, batch=hardware.max_batch)
    open_kinds = {name: generator.choice(kinds) for name, kinds in search.kinds.items()}
    hardware = hardware.changed(**open_kinds)
    sizes = search.sizes(
        frame,
        **{
            name: np.array([getattr(hardware, name)])
            for name in ("outputs", "token_tile", "weight_rows", "attention_rows")
        },
        router_lanes=hardware.router_lanes,
    )
    architecture = on_board(network, board, hardware)
    engines = (*OTHERS, "linear", "attention", "router")
    assert set(engine_resources(architecture)) | {"router"} == set(engines)
    costs = search.costs(sizes, engines, 1)
    total = costs.base[0].copy()
    for name, (kinds, uses) in costs.kinds.items():
        total += uses[0, kinds.index(open_kinds[name])]
    used = estimate_resources(architecture)
    np.testing.assert_array_equal(total, [used.dsp, 2 * used.bram36, used.uram, used.lut, used.ff])


@pytest.mark.parametrize(("blocks", "words"), [(7, 3), (24, 12), (1, 5), (10, 1)])
def test_rows_between_two_choices_make_the_same_groups(blocks: int, words: int) -> None:
    def pairs(rows: int) -> int:
        return -(-blocks // (2 * (rows // words)))

    chosen = buffers(blocks, words).tolist()
    for rows in range(words, words * blocks + 2):
        like = max(choice for choice in chosen if choice <= rows)
        assert pairs(rows) == pairs(like)


@pytest.fixture
def narrow_space(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few sizes, so that all of them can be tried."""
    monkeypatch.setattr(space, "MOST_BLOCKS", 2)
    monkeypatch.setattr(space, "MOST_TOKEN_TILE", 2)
    monkeypatch.setattr(space, "MOST_PORTS", 1)
    yield


FIXED = {"router_lanes": 4, "axi_width": 64, "table_memory": "block", "choice_memory": "block"}
ROWS, QUERIES = (12, 16, 18, 24, 32), (1, 2, 5, 9)


@pytest.fixture(scope="module")
def tried(micro_w8a8: Network) -> list[tuple[int, Hardware]]:
    """Cycles of every hardware of a grid, the fastest first."""
    board, found = small_board(), []
    for lanes, blocks, tile, rows, queries in product((3, 4), (1, 2), (1, 2), ROWS, QUERIES):
        try:
            hardware = Hardware(
                lanes=lanes,
                outputs=blocks * lanes,
                token_tile=tile,
                weight_rows=rows,
                attention_rows=queries,
                weight_ports=1,
                clock_mhz=100,
                **FIXED,
            )
            found.append((evaluate(on_board(micro_w8a8, board, hardware), board).cycles, hardware))
        except InputError:
            continue
    return sorted(found, key=lambda each: each[0])


def small_board() -> Board:
    return load_board("pynq-z2").model_copy(update={"family": "zynq-ultrascale+"})


@pytest.mark.parametrize("limits", [SMALL, SMALL.but(lut=30_000), SMALL.but(lut=38_000, bram36=14)])
def test_equals_the_search_of_everything(
    limits: Limits, narrow_space: None, micro_w8a8: Network, tried: list[tuple[int, Hardware]]
) -> None:
    board = small_board()
    best = []
    for lanes in (3, 4):
        found = Search(micro_w8a8, board, fixed={**FIXED, "lanes": lanes}).run(limits)
        grid = ((count, hardware) for count, hardware in tried if hardware.lanes == lanes)
        cycles = next((count for count, each in grid if fits(micro_w8a8, board, each, limits)), None)
        if found is None:
            assert cycles is None
            continue
        best.append(found.performance.cycles)
        assert fits(micro_w8a8, board, found.hardware, limits, kinds=False)
        # Sizes between those of the grid may be faster.
        on_grid = found.hardware.weight_rows in ROWS and found.hardware.attention_rows in QUERIES
        assert cycles is None or found.performance.cycles <= cycles
        assert not on_grid or found.performance.cycles == cycles
    whole = Search(micro_w8a8, board, fixed=FIXED).run(limits)
    assert whole is not None and whole.performance.cycles <= min(best)


def fits(network: Network, board: Board, hardware: Hardware, limits: Limits, kinds: bool = True) -> bool:
    """Whether hardware is within limits, with memories of one kind or another."""
    choices = {name: each for name, each in KINDS.items() if name not in ("table_memory", "choice_memory")}
    for picks in product(*(each if kinds else (getattr(hardware, name),) for name, each in choices.items())):
        if "ultra" in picks:
            continue
        like = hardware.changed(**dict(zip(choices, picks, strict=True)))
        used = estimate_resources(on_board(network, board, like))
        if all(
            getattr(used, name) <= getattr(limits, name) for name in ("dsp", "bram36", "uram", "lut", "ff")
        ):
            return True
    return False


def test_what_is_found_is_within_the_margins(micro_w8a8: Network) -> None:
    target = load_board("kv260")
    found, limits = fit(micro_w8a8, target), limits_of(target)
    for name, (used, available) in found.performance.resources.items():
        assert used <= getattr(limits, name) <= available
    assert evaluate(on_board(micro_w8a8, target, found.hardware), target) == found.performance


def test_less_room_takes_more_time_and_more_room_less(micro_w8a8: Network) -> None:
    board = load_board("pynq-z2")
    search, limits = Search(micro_w8a8, board, fixed={"lanes": 4, "weight_ports": 1}), limits_of(board)
    best = search.fastest(limits)
    advice = advise(search, limits, best)
    assert all(ms <= best.performance.ms for ms in advice.gains.values())
    assert advice.limited_by and list(advice.gains.values()) == sorted(advice.gains.values())
    times = [each.performance.ms for each in advice.pareto]
    assert times[0] == best.performance.ms and times == sorted(times) and len(times) > 1
    # Another may be as fast with less of one resource and more of another.
    for slower in (each for each in advice.pareto if each.hardware != best.hardware):
        less = [
            slower.performance.resources[name][0] < best.performance.resources[name][0]
            for name in ("dsp", "bram36", "lut")
        ]
        assert any(less)


def test_what_is_set_stays(micro_w8a8: Network) -> None:
    fixed = {
        "lanes": 5,
        "outputs": 10,
        "attention_rows": 3,
        "weight_rows": 60,
        "axi_width": 64,
        "score_memory": "block",
    }
    found = fit(micro_w8a8, load_board("kv260"), fixed=fixed).hardware
    assert {name: getattr(found, name) for name in fixed} == fixed
    assert found.clock_mhz == load_board("kv260").clock_mhz_default


def test_nothing_fits(micro_w8a8: Network) -> None:
    board = load_board("pynq-z2").model_copy(update={"bram36": 2})
    with pytest.raises(
        InputError, match=r"no hardware for micro in w8a8 fits pynq-z2: bram36 is short: about \d"
    ) as caught:
        fit(micro_w8a8, board)
    assert "--margin" in caught.value.hint


def test_margins() -> None:
    board = load_board("u280")
    assert limits_of(board).dsp == int(int(board.dsp * 0.9) * 0.9)
    assert limits_of(board, {"lut": 85, "bram36": 50}).lut == int(int(board.lut * 0.9) * 0.85)
    assert limits_of(load_board("kv260")).bram36 == 129.5
    for wrong in ({"luts": 80.0}, {"lut": 0.0}, {"lut": 101.0}):
        with pytest.raises(InputError, match="margin"):
            limits_of(board, wrong)


# --- Command line -------------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    assert main([*map(str, arguments), "--json"]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_fit_writes_hardware_that_generate_takes(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hardware.toml"
    found = printed(
        capsys, "fit", "micro", "--board", "kv260", "--precision", "w8a8", "--margin", "lut=50", "-o", file
    )
    assert {"ms", "cycles", "hardware", "resources", "limited_by", "pareto"} <= set(found)
    assert found["hardware"] == Hardware.load(file).model_dump()
    assert found["resources"]["lut"]["used"] <= found["resources"]["lut"]["limit"] == 117120 // 2
    assert found["pareto"][0]["ms"] == found["ms"]
    for source in (folders / "model", folders / "model/model.toml", "micro"):
        again = printed(
            capsys, "estimate", source, "--precision", "w8a8", "--board", "kv260", "--hardware", file
        )
        assert again["cycles"] == found["cycles"] and again["fits"]
    same = printed(capsys, "estimate", folders / "w8a8", "--board", "kv260", "--hardware", file)
    assert same["cycles"] == found["cycles"]
    build = printed(
        capsys, "generate", folders / "w8a8", "-o", tmp_path / "build", "--board", "kv260", "--hardware", file
    )
    assert build["fits"] and build["hardware"] == found["hardware"]


def test_backend_is_that_of_the_option_or_of_the_file(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hardware.toml"
    Hardware(lanes=4, outputs=8, token_tile=2, attention_rows=9, backend="rtl").save(file)
    source = ["micro", "--precision", "w8a8", "--hardware", file]
    rtl, hls = (printed(capsys, "estimate", *source, *more) for more in ([], ["--backend", "hls"]))
    assert [each["hardware"]["backend"] for each in (rtl, hls)] == ["rtl", "hls"]
    assert rtl["cycles"] != hls["cycles"]
    # What is set stays, capacities too; a build says all of them.
    file.write_text(file.read_text().replace('"rtl"', '"hls"'))
    build = printed(
        capsys,
        "generate",
        folders / "w8a8",
        *("--hardware", file, "--backend", "rtl", "--set", "max_tokens=20", "-o", tmp_path / "build"),
    )
    hardware = build["hardware"]
    assert (hardware["backend"], hardware["lanes"], hardware["max_tokens"], hardware["max_experts"]) == (
        *("rtl", 4),
        *(20, 5),
    )
    assert "rtl/accelerator/edgemoe_top.sv" in build["accelerator"]
    assert {"package.tcl", "edgemoe_ip.v"} <= {path.name for path in (tmp_path / "build/vivado").iterdir()}
    assert Build.load(tmp_path / "build").architecture.hardware_id == build["hardware_id"]
    assert "backend 'vhdl': unknown" in printed(capsys, "fit", "micro", "--backend", "vhdl", code=2)["error"]


def test_a_build_that_does_not_fit_says_so(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    large = ["--set", "lanes=16", "--set", "outputs=64", "--set", "token_tile=8", "--set", "attention_rows=9"]
    arguments = ["generate", folders / "w16a16", "--board", "ultra96v2", "-o", tmp_path / "build", *large]
    refused = printed(capsys, *arguments, code=2)
    assert (
        "does not fit ultra96v2: dsp" in refused["error"] and "the fastest that fits takes" in refused["hint"]
    )
    assert not (tmp_path / "build").exists()
    built = printed(capsys, *arguments, "--any-size")
    assert not built["fits"]
    assert "fits = false" in (tmp_path / "build/build.toml").read_text()
    found = main(["estimate", str(folders / "w16a16"), "--board", "ultra96v2", *large])
    output = capsys.readouterr()
    assert found == 0
    assert "does not fit ultra96v2 (dsp" in output.err and "faster than published" not in output.out


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--margin", "lut"], "--margin lut: expected NAME=PERCENT"),
        (["--margin", "lut=much"], "--margin lut=much: expected NAME=PERCENT"),
        (["--margin", "lut=80", "--margin", "lut=70"], "lut is given twice"),
        (["--margin", "luts=80"], "margin 'luts': no such resource"),
        (["--clock", "900"], "clock_mhz = 900, expected at most 333 on zcu102"),
        (["--precision", "w9a9"], "precision 'w9a9' is unknown"),
        (["--board", "zcu103"], "no board 'zcu103'"),
    ],
)
def test_wrong_arguments(arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert error in printed(capsys, "fit", "micro", *arguments, code=2)["error"]


def test_wrong_sources(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside = printed(capsys, "fit", folders / "w8a8", "--precision", "w16a16", code=2)
    assert "a Design has its own precision" in beside["error"]
    assert "no checkpoint in this folder" in printed(capsys, "fit", tmp_path, code=2)["error"]
    assert "neither a file nor a name in the zoo" in printed(capsys, "estimate", "vit-tny", code=2)["error"]


M3VIT = ("--heads", "2", "--top-k", "2", "--image-size", "8x16")


def test_a_checkpoint_is_a_source(
    micro_with: Callable[..., Model], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the shape counts: the estimate is that of the Model that `import` makes of it, on the same hardware."""
    source = saved(tmp_path / "m3vit.pth", m3vit_state(micro_with(task_heads={})), epoch=1)
    edgemoe.import_model(source, Options(top_k=2, heads=2, image_size=(8, 16))).save(tmp_path / "model")
    fixed = ("--set", "lanes=8", "--set", "outputs=16", "--set", "token_tile=2", "--set", "attention_rows=4")
    found = printed(capsys, "estimate", source, *M3VIT, *fixed, "--precision", "w8a8")
    assert found == printed(capsys, "estimate", tmp_path / "model", *fixed, "--precision", "w8a8")
    others = ("--heads", "4", *M3VIT[2:])
    assert found != printed(capsys, "estimate", source, *others, *fixed, "--precision", "w8a8")
    missing = printed(capsys, "estimate", source, code=2)
    assert "--heads, --image-size, --top-k needed" in missing["error"]


def test_checkpoints_of_vits_and_graphs(
    micro_with: Callable[..., Model], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vit = micro_with(moe=None, tasks=["classify"])
    checkpoint = saved(tmp_path / "deit.pth", timm_state(vit))
    fixed = ("--set", "lanes=8", "--set", "outputs=16", "--set", "attention_rows=4")
    options = ("--kind", "vit", "--heads", "2", "--image-size", "8x16")
    cycles = printed(capsys, "estimate", checkpoint, *options, *fixed)["cycles"]
    edgemoe.export_onnx(vit, tmp_path / "net.onnx")
    assert printed(capsys, "estimate", tmp_path / "net.onnx", *fixed)["cycles"] == cycles
    refused = printed(capsys, "estimate", tmp_path / "net.onnx", *options[2:4], *fixed, code=2)
    assert "--heads does not apply to --kind onnx" in refused["error"]
    best = printed(capsys, "fit", checkpoint, *options, "--board", "pynq-z2")
    assert best["cycles"] > cycles


@pytest.mark.parametrize("source", ["micro", "model", "w8a8"])
def test_what_a_source_tells_itself_is_refused(
    source: str, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = source if source == "micro" else folders / source
    assert "--heads is for checkpoints" in printed(capsys, "fit", path, "--heads", "2", code=2)["error"]


# --- Queues -------------------------------------------------------------------------------------------------


def test_queues_go_from_simulate_to_estimate(
    folders: Path, designs: dict[str, Design], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, design = tmp_path / "queues.json", folders / "w8a8"
    hardware = ["--set", "lanes=8", "--set", "outputs=16", "--hardware", tmp_path / "hardware.toml"]
    edgemoe.default_hardware(designs["w8a8"]).save(tmp_path / "hardware.toml")
    printed(capsys, "simulate", design, "--image", folders / "images", "--task", "all", "--queues-out", file)
    even = printed(capsys, "estimate", design, *hardware)
    spec, tasks = designs["w8a8"].spec, designs["w8a8"].spec.tasks
    for task in tasks:
        real = printed(capsys, "estimate", design, *hardware, "--queues", file, "--task", task)
        queues = read_queues(file, spec, task)
        assert set(queues) == spec.moe_layers
        assert all(sum(tokens) == spec.tokens * spec.moe.top_k for tokens in queues.values() if spec.moe)
        architecture = on_board(designs["w8a8"].network, load_board("zcu102"), Hardware(**real["hardware"]))
        assert real["cycles"] == evaluate(architecture, load_board("zcu102"), 1, queues).cycles
        assert [stage["name"] for stage in real["stages"]] == [stage["name"] for stage in even["stages"]]
    assert printed(capsys, "simulate", design, "--image", folders / "images", "--queues-out", file, code=2)
    wrong = printed(capsys, "estimate", design, *hardware, "--queues", file, "--task", "none", code=2)
    assert "no task 'none'" in wrong["error"]


def test_shares_of_a_batch_lose_no_token(tmp_path: Path) -> None:
    spec = find_spec("micro")
    assert spec.moe is not None
    experts, layer = spec.moe.experts, min(spec.moe_layers)
    total = 3 * spec.tokens * spec.moe.top_k
    tokens = [1, total - 1, *[0] * (experts - 2)]
    write_queues(tmp_path / "queues.json", spec, 3, {"any": {layer: tokens}})
    for batch in (1, 2, 3):
        found = read_queues(tmp_path / "queues.json", spec, None, batch)[layer]
        assert sum(found) == batch * spec.tokens * spec.moe.top_k
        assert all(abs(share - count * batch / 3) < 1 for share, count in zip(found, tokens, strict=True))
    write_queues(tmp_path / "other.json", spec, 2, {"any": {layer: tokens}})
    with pytest.raises(InputError, match="expected"):
        read_queues(tmp_path / "other.json", spec)
    write_queues(tmp_path / "dense.json", spec, 3, {"any": {spec.depth: tokens}})
    with pytest.raises(InputError, match="has no experts"):
        read_queues(tmp_path / "dense.json", spec)


@pytest.mark.compile
@pytest.mark.parametrize(("board", "preset"), [("kv260", "w8a8"), ("pynq-z2", "w8a8-lean")])
def test_fitted_builds_return_the_simulators_integers(board: str, preset: str, tmp_path: Path) -> None:
    """Of every board, `scripts/fit_boards.py` proves a larger network's."""
    found, values, mismatches = fit_boards.verify("micro", preset, board, tmp_path / "build")
    assert values > 10_000 and mismatches == 0
    assert found.performance.fits


@pytest.mark.compile
def test_every_kind_of_memory_returns_the_simulators_integers(
    designs: dict[str, Design], tmp_path: Path
) -> None:
    kinds = {name: kinds[-1] for name, kinds in KINDS.items()}
    hardware = Hardware(
        lanes=5, outputs=10, token_tile=3, attention_rows=4, weight_rows=48, router_lanes=2, **kinds
    )
    build = edgemoe.generate(
        designs["w16a16"],
        tmp_path / "build",
        "kv260",
        hardware=hardware.changed(clock_mhz=200),
        must_fit=False,
    )
    top = (build.hls / "src/top.cpp").read_text()
    assert top.count("impl = uram") >= 6
    assert "impl = lutram" in (build.hls / "src/router.cpp").read_text()
    result = edgemoe.verify(tmp_path / "build")
    assert result.values > 10_000 and result.failed == 0


# --- The page ------------------------------------------------------------------------------------------------


def test_the_table_of_boards_has_all_of_them() -> None:
    rows = marked_tables(read_page("boards.md"))["fit"]
    assert [row["Board"] for row in rows] == [*board_names()]
    heads = [f"{network} {preset}" for network, preset in fit_boards.TABLE]
    assert [heading.replace("`", "") for heading in rows[0]] == ["Board", *heads]


@pytest.mark.parametrize(
    ("board", "network", "preset"),
    [("zcu102", "m3vit-tiny", "w8a8"), ("kv260", "vit-tiny", "w8a8"), ("pynq-z2", "m3vit-tiny", "w8a8-lean")],
)
def test_cells_of_the_table_are_what_fit_finds(board: str, network: str, preset: str) -> None:
    """Of a few: `scripts/fit_boards.py --table` writes all."""
    (row,) = (row for row in marked_tables(read_page("boards.md"))["fit"] if row["Board"] == board)
    (cell,) = (text for heading, text in row.items() if heading.replace("`", "") == f"{network} {preset}")
    assert cell == fit_boards.cell(fit_boards.fitted(network, preset, board))


# --- RTL


@pytest.mark.parametrize("name", ["ultra96v2", "zcu102"])
def test_an_rtl_accelerator_fits_and_no_neighbour_is_faster(micro_w8a8: Network, name: str) -> None:
    """What is found is within the limits, and no size next to it is both there and faster."""
    board = load_board(name)
    limits, searched = limits_of(board), space_of(micro_w8a8, board, fixed={"backend": "rtl"})
    found = searched.fastest(limits)
    used = {resource: used for resource, (used, _) in found.performance.resources.items()}
    assert all(used[resource] <= getattr(limits, resource) for resource in used), used
    assert found.hardware.backend == "rtl"
    for field, step in (("token_tile", 1), ("token_tile", -1), ("attention_rows", 1), ("attention_rows", -1)):
        value = getattr(found.hardware, field) + step
        if value < 1:
            continue
        other = searched.fitted(found.hardware.changed(**{field: value})).performance
        fits = all(there <= getattr(limits, resource) for resource, (there, _) in other.resources.items())
        assert not fits or other.cycles >= found.performance.cycles, (field, value)


def test_given_fields_of_an_rtl_accelerator_are_kept(micro_w8a8: Network) -> None:
    fixed = {"backend": "rtl", "lanes": 8, "token_tile": 2, "stream_kib": 16, "max_experts": 20}
    found = fit(micro_w8a8, load_board("zcu104"), fixed=fixed)
    assert {name: getattr(found.hardware, name) for name in fixed} == fixed


def test_an_rtl_accelerator_that_fits_nowhere_is_refused(micro_w8a8: Network) -> None:
    board = load_board("pynq-z2")
    tiny = board.model_copy(update={"lut": 2000})
    with pytest.raises(InputError, match="lut is short"):
        fit(micro_w8a8, tiny, fixed={"backend": "rtl"})
