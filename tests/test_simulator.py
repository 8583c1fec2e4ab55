"""The whole network: against the oracles joined end to end, bit for bit, and in every shape against float."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

import edgemoe
import oracles
from common.errors import InputError
from pysim.compare import expert_usage
from pysim.datapath import GELU_INPUT, PROBABILITY, SCORE
from pysim.design import Design
from pysim.model import Model
from pysim.precision import PRESETS

Pixels = NDArray[np.uint8]
Matrix = list[list[int]]
MakeModel = Callable[..., Model]


class OracleNetwork:
    """One image through the formulas of `oracles`, in plain Python integers, for exact-sum presets."""

    def __init__(self, design: Design, task: int) -> None:
        self.design, self.task = design, task
        self.width = design.residual.width

    def values(self, name: str) -> Any:
        return self.design.tensors[name].tolist()

    def linear(
        self, name: str, x: Matrix, width: int, addend: Matrix | None = None, index: Any = ()
    ) -> Matrix:
        weight, bias = (self.design.tensors[f"{name}.{part}"][index].tolist() for part in ("weight", "bias"))
        return self.requantised(name, oracles.sums_of(x, weight, bias), width, addend, index)

    def requantised(
        self, name: str, values: Matrix, width: int, addend: Matrix | None = None, index: Any = ()
    ) -> Matrix:
        channels = len(values[0])
        shift = np.broadcast_to(self.design.tensors[f"{name}.shift"][index], channels).tolist()
        multiplier = self.design.tensors.get(f"{name}.multiplier")
        factor = [1] * channels
        if multiplier is not None:
            factor = np.broadcast_to(multiplier[index], channels).tolist()
        return oracles.requantised(values, factor, shift, addend, width)

    def norm(self, name: str, x: Matrix, shift: str, width: int) -> Matrix:
        (epsilon,), (by,) = self.values("epsilon"), self.values(f"{name}.{shift}")
        gamma, beta = self.values(f"{name}.gamma"), self.values(f"{name}.beta")
        result: Matrix = oracles.layernorm(x, epsilon, gamma, beta, by, width)["y"]
        return result

    def run(self, image: Pixels) -> Matrix:
        design, spec = self.design, self.design.spec
        multiplier = design.tensors.get("patch.multiplier", np.ones(spec.dim, np.int64))
        x: Matrix = oracles.embed(
            [image.tolist()],
            spec.patch_size,
            self.values("patch.weight"),
            self.values("patch.bias"),
            np.broadcast_to(multiplier, spec.dim).tolist(),
            np.broadcast_to(design.tensors["patch.shift"], spec.dim).tolist(),
            self.values("position"),
            self.width,
        )["y"]
        for layer in range(spec.depth):
            x = self.mlp(layer, self.attention(layer, x))
        return x

    def attention(self, layer: int, x: Matrix) -> Matrix:
        spec, precision, block = self.design.spec, self.design.precision, f"blocks.{layer}"
        y = self.norm(f"{block}.norm1", x, "shift", precision.activation_width)
        qkv = np.array(self.linear(f"{block}.qkv", y, precision.attention_width))
        q, k, v = qkv.reshape(spec.tokens, 3, spec.heads, spec.head_dim).transpose(1, 2, 0, 3).tolist()
        mixed = oracles.attention(
            q,
            k,
            v,
            self.design.attention_rows,
            self.design.scalar(f"{block}.score_shift"),
            self.design.scalar(f"{block}.attention_shift"),
            precision.activation_width,
        )["output"]
        joined = np.array(mixed).transpose(1, 0, 2).reshape(spec.tokens, spec.dim).tolist()
        return self.linear(f"{block}.proj", joined, self.width, x)

    def mlp(self, layer: int, x: Matrix) -> Matrix:
        spec, precision, block = self.design.spec, self.design.precision, f"blocks.{layer}"
        y = self.norm(f"{block}.norm2", x, "shift", precision.activation_width)
        if layer not in spec.moe_layers:
            return self.linear(f"{block}.fc2", self.hidden(block, y, (), 0), self.width, x)
        assert spec.moe is not None
        to_gate = self.norm(f"{block}.norm2", x, "gate_shift", precision.gate_width)
        logits = self.logits(block, to_gate)
        routed = oracles.router(logits, spec.moe.top_k, int(spec.moe.gate_kind.over_selected))
        result = []
        for token, stream, chosen, scores in zip(y, x, routed["experts"], routed["scores"], strict=True):
            for expert, score in sorted(zip(chosen, scores, strict=True)):
                hidden = self.hidden(block, [token], (expert,), expert)
                out = self.linear(f"{block}.fc2", hidden, self.width, index=(expert,))[0]
                gated = oracles.requantised(
                    [[v * score for v in out]],
                    [1] * spec.dim,
                    [PROBABILITY.frac] * spec.dim,
                    [stream],
                    self.width,
                )
                stream = gated[0]
            result.append(stream)
        return result

    def logits(self, block: str, y: Matrix) -> Matrix:
        weight, bias = self.values(f"{block}.gate.weight"), self.values(f"{block}.gate.bias")
        gate = self.task if len(weight) > 1 else 0
        sums = oracles.sums_of(y, weight[gate], bias[self.task])
        return self.requantised(f"{block}.gate", sums, SCORE.width, index=(gate,))

    def hidden(self, block: str, y: Matrix, index: Any, expert: int) -> Matrix:
        before = self.linear(f"{block}.fc1", y, GELU_INPUT.width, index=index)
        activated = [[oracles.gelu_of(value) for value in row] for row in before]
        zero = self.values(f"{block}.hidden.zero")[expert]
        zeros = [[zero] * len(row) for row in activated]
        width = self.design.precision.activation_width
        return self.requantised(f"{block}.hidden", activated, width, zeros, index or (0,))


@pytest.mark.parametrize("preset", ["w16a16", "w8a8"])
@pytest.mark.parametrize("task", [0, 1])
def test_equals_the_oracles_joined_end_to_end(
    designs: dict[str, Design], images: Pixels, preset: str, task: int
) -> None:
    simulated = edgemoe.simulate(designs[preset], images[:2], task).integers
    for image, integers in zip(images, simulated, strict=False):
        assert_array_equal(integers, OracleNetwork(designs[preset], task).run(image))


def test_equals_the_oracles_with_renormalised_shared_biased_gates(micro_with: MakeModel) -> None:
    model = micro_with(
        {"renormalize": True, "shared_gate": True, "gate_bias": True, "layers": "all"}, depth=2
    )
    images = edgemoe.random_images(model, 3)
    design = edgemoe.quantize(model, images, "w8a8", attention_rows=4)
    for task in (0, 1):
        simulated = edgemoe.simulate(design, images[:1], task).integers
        assert_array_equal(simulated[0], OracleNetwork(design, task).run(images[0]))


@pytest.mark.parametrize("preset", PRESETS)
def test_an_image_does_not_depend_on_its_batch(
    designs: dict[str, Design], images: Pixels, preset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    design = designs[preset]
    whole = edgemoe.simulate(design, images, trace=True)
    alone = [edgemoe.simulate(design, image[None]).integers[0] for image in images]
    assert_array_equal(whole.integers, alone)
    monkeypatch.setattr("pysim.simulator.BATCH_TOKENS", 5 * design.spec.tokens)
    batched = edgemoe.simulate(design, images, trace=True)
    assert_array_equal(whole.integers, batched.integers)
    for layer, routing in whole.routing.items():
        assert_array_equal(routing.experts, batched.routing[layer].experts)
        assert_array_equal(routing.scores, batched.routing[layer].scores)
    for name, integers in whole.trace.items():
        assert_array_equal(integers, batched.trace[name])


@pytest.mark.parametrize("preset", PRESETS)
def test_a_trace_changes_nothing_and_has_every_stage(
    micro: Model, designs: dict[str, Design], images: Pixels, preset: str
) -> None:
    design = designs[preset]
    traced = edgemoe.simulate(design, images, "depth", trace=True)
    plain = edgemoe.simulate(design, images, "depth")
    assert_array_equal(traced.integers, plain.integers)
    assert plain.trace == {} and plain.real == {}
    assert list(traced.trace) == list(traced.real) == list(_stages(micro))
    assert_array_equal(traced.trace["blocks.3.output"].reshape(traced.integers.shape), traced.integers)
    compared = edgemoe.compare(micro, design, images, "depth", simulation=traced)
    assert {stage.name for stage in compared.stages} == set(traced.trace)


def _stages(model: Model) -> Iterator[str]:
    yield "embed"
    for layer in range(model.spec.depth):
        parts = ["norm1", "q", "k", "v", "scores", "attention", "attn_residual", "norm2"]
        if layer in model.spec.moe_layers:
            parts += ["logits", "gate_scores"]
        yield from (f"blocks.{layer}.{part}" for part in [*parts, "hidden", "output"])


@pytest.mark.parametrize("preset", PRESETS)
def test_tasks_differ_only_by_their_gates(designs: dict[str, Design], images: Pixels, preset: str) -> None:
    semseg, depth = (
        edgemoe.simulate(designs[preset], images, task, trace=True) for task in ("semseg", "depth")
    )
    assert_array_equal(semseg.trace["blocks.1.norm2"], depth.trace["blocks.1.norm2"])
    assert (semseg.trace["blocks.1.logits"] != depth.trace["blocks.1.logits"]).any()
    assert_array_equal(semseg.integers, edgemoe.simulate(designs[preset], images, 0).integers)


@pytest.mark.parametrize(("preset", "least"), [("w16a16", 75), ("w8a8", 38), ("iccad23", 45)])
@pytest.mark.parametrize("task", ["semseg", "depth"])
def test_close_to_float(
    micro: Model, designs: dict[str, Design], images: Pixels, preset: str, least: float, task: str
) -> None:
    compared = edgemoe.compare(micro, designs[preset], images, task)
    assert compared.sqnr_db_same_routing > least
    assert compared.choices == 2 * 2 * len(images) * micro.spec.tokens
    assert compared.equal_choices >= 0.98 * compared.choices
    assert 0 < compared.mean_error <= compared.max_error


@pytest.mark.parametrize("position", [0.004, 0.3])
def test_norms_of_constant_tokens_are_the_originals(micro: Model, images: Pixels, position: float) -> None:
    """Without a picture and with equal positions, layer 0 normalises tokens that have no variance."""
    weights = {name: tensor.copy() for name, tensor in micro.weights.items()}
    weights["pos_embed"][:] = position
    for part in ("weight", "bias"):
        weights[f"patch_embed.{part}"][:] = 0
    design = edgemoe.quantize(Model(micro.spec, weights), images[:2], "iccad23")
    trace = edgemoe.simulate(design, images[:1], 0, trace=True).trace
    norm_frac = design.scalar("frac.norm")
    for layer in range(micro.spec.depth):
        block = f"blocks.{layer}"
        source = "embed" if layer == 0 else f"blocks.{layer - 1}.output"
        for norm, x in (("norm1", trace[source]), ("norm2", trace[f"{block}.attn_residual"])):
            gamma, beta = (design.tensors[f"{block}.{norm}.{part}"].tolist() for part in ("gamma", "beta"))
            y = oracles.iccad23_layernorm(x.reshape(-1, micro.spec.dim).tolist(), gamma, beta, norm_frac)["y"]
            assert_array_equal(trace[f"{block}.{norm}"].reshape(-1, micro.spec.dim), y)


SHAPES: dict[str, dict[str, Any]] = {
    "plain ViT": {"moe": None},
    "experts in every layer": {"moe": {"layers": "all"}},
    "experts in even layers": {"moe": {"layers": "even"}},
    "experts in listed layers": {"moe": {"layers": [0, 3]}},
    "no layer listed": {"moe": {"layers": []}},
    "one expert": {"moe": {"experts": 1, "top_k": 1}},
    "every expert chosen": {"moe": {"top_k": 5}},
    "one chosen": {"moe": {"top_k": 1}},
    "one task": {"tasks": ["semseg"]},
    "three tasks": {"tasks": ["semseg", "depth", "edges"]},
    "shared gate": {"moe": {"shared_gate": True, "gate_bias": True}},
    "gate bias": {"moe": {"gate_bias": True}},
    "topk-softmax": {"moe": {"gate": "topk-softmax"}},
    "renormalised": {"moe": {"renormalize": True}},
    "no qkv bias": {"qkv_bias": False},
    "one patch": {"image_size": (4, 4)},
    "one layer": {"depth": 1},
    "one head": {"heads": 1},
    "grey": {"in_channels": 1},
    "five channels, tall": {"in_channels": 5, "image_size": (24, 4)},
    "odd sizes": {"dim": 21, "heads": 3, "mlp_dim": 37, "moe": {"hidden_dim": 11, "experts": 7, "top_k": 3}},
}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(micro_with: MakeModel, shape: str, preset: str) -> None:
    model = micro_with(**SHAPES[shape])
    images = edgemoe.random_images(model, 6)
    design = edgemoe.quantize(model, images, preset)
    task = model.spec.tasks[-1]
    run = edgemoe.simulate(design, images, task, trace=True)
    assert run.integers.shape == (6, model.spec.tokens, model.spec.dim)
    assert set(run.routing) == model.spec.moe_layers
    compared = edgemoe.compare(model, design, images, task, simulation=run)
    assert compared.sqnr_db_same_routing > {"w16a16": 65, "w8a8": 30, "w8a10": 35, "iccad23": 35}[preset]
    for layer in expert_usage(run.routing):
        assert model.spec.moe is not None
        assert sum(layer.tokens) == model.spec.moe.top_k * 6 * model.spec.tokens
        assert [layer.tokens[expert] for expert in layer.unused] == [0] * len(layer.unused)


def test_gates_that_sum_to_one_are_one_computation(micro_with: MakeModel) -> None:
    """Softmax over the chosen equals softmax over all, renormalised."""
    runs = []
    for moe in ({"gate": "topk-softmax"}, {"renormalize": True}):
        model = micro_with(moe)
        images = edgemoe.random_images(model, 3)
        runs.append(edgemoe.simulate(edgemoe.quantize(model, images), images).integers)
    assert_array_equal(runs[0], runs[1])


def test_the_row_block_is_part_of_the_result(micro: Model, images: Pixels) -> None:
    by_rows = {rows: edgemoe.quantize(micro, images, attention_rows=rows) for rows in (1, 4, 64)}
    assert len({design.design_id for design in by_rows.values()}) == 3
    assert len({design.weights_sha256 for design in by_rows.values()}) == 1
    for design in by_rows.values():
        assert edgemoe.compare(micro, design, images).sqnr_db_same_routing > 75


def test_no_image_is_no_error(designs: dict[str, Design]) -> None:
    nothing = np.zeros((0, 3, 8, 16), np.uint8)
    run = edgemoe.simulate(designs["w16a16"], nothing, trace=True)
    assert run.integers.shape == run.tokens.shape == (0, 9, 24)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros((1, 3, 8, 16)), "dtype float64, expected uint8"),
        (np.zeros((3, 8, 16), np.uint8), r"shape \(3, 8, 16\), expected \(images, 3, 8, 16\)"),
        (np.zeros((1, 3, 16, 8), np.uint8), r"shape \(1, 3, 16, 8\)"),
    ],
)
def test_wrong_images(designs: dict[str, Design], wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        edgemoe.simulate(designs["w16a16"], wrong)


@pytest.mark.parametrize("task", ["flow", 2, -1, ""])
def test_unknown_task(designs: dict[str, Design], images: Pixels, task: str | int) -> None:
    with pytest.raises(InputError, match="is unknown") as raised:
        edgemoe.simulate(designs["w16a16"], images, task)
    assert raised.value.hint == "the network's tasks are semseg, depth"


def test_unknown_preset_and_no_images(micro: Model, images: Pixels) -> None:
    with pytest.raises(InputError, match="precision 'w4a4' is unknown"):
        edgemoe.quantize(micro, images, "w4a4")
    with pytest.raises(InputError, match="no calibration image"):
        edgemoe.quantize(micro, images[:0])


def test_reference_of_another_shape(
    micro_with: MakeModel, designs: dict[str, Design], images: Pixels
) -> None:
    with pytest.raises(InputError, match="the reference model has mlp_dim = 41, the design 40"):
        edgemoe.compare(micro_with(mlp_dim=41), designs["w16a16"], images)


def test_progress_counts_layers(designs: dict[str, Design], images: Pixels) -> None:
    seen: list[tuple[int, int]] = []
    edgemoe.simulate(designs["w16a16"], images, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
