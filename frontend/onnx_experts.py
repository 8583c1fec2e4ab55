"""A mixture of experts in an ONNX graph, as `frontend.network.Network` exports it: every expert on every token."""

from __future__ import annotations

from typing import Any

import numpy as np

from frontend.onnx_eval import Array, softmax
from frontend.onnx_graph import Node
from frontend.onnx_match import LINEAR, LinearLayer, Matcher, Norm
from pysim.files import Tensors
from pysim.gates import GateKind


def read_experts(
    matcher: Matcher,
    norm: Norm,
    region: list[Node],
    branch: Node,
    end: str,
    block: str,
    weights: Tensors,
    task: str | None,
) -> dict[str, Any]:
    """Gate and experts from a norm to the residual sum `branch`; returns their sizes and kind."""
    best = [node for node in region if node.op == "TopK"]
    if len(best) != 1:
        raise matcher.mismatch(best[1], "expected one choice of experts")
    experts = [
        layer for node in region if node.op in LINEAR and (layer := _expert_layer(matcher, node)) is not None
    ]
    if len(experts) != 2:
        raise matcher.mismatch(best[0], f"expected two linear layers for each expert, found {len(experts)}")
    first, second = experts
    count, hidden, dim = first.weight.shape
    if second.weight.shape != (count, dim, hidden) or dim != len(norm.weight):
        raise matcher.mismatch(
            second.node, f"weights of shape {second.weight.shape}, expected {(count, dim, hidden)}"
        )
    activation, _ = matcher.activation(first.output, [second.node.inputs[0]], matcher.value)
    for name, layer in (("fc1", first), ("fc2", second)):
        weights[f"{block}.moe.{name}.weight"] = layer.weight
        weights[f"{block}.moe.{name}.bias"] = layer.bias_or_zero

    gate = _gate(matcher, best[0], count)
    kept = _by_task(matcher, gate, task)
    weights[f"{block}.moe.gate.weight"] = np.stack([layer.weight for layer in kept])
    biased = gate.bias is not None
    if biased:
        weights[f"{block}.moe.gate.bias"] = np.stack([layer.bias_or_zero for layer in kept])
    gates = len(kept)
    if gates > 1 and all(np.array_equal(layer.weight, kept[0].weight) for layer in kept):
        weights[f"{block}.moe.gate.weight"] = weights[f"{block}.moe.gate.weight"][:1]
        gates = 1

    top_k = int(matcher.value(best[0].inputs[1]).ravel()[0])
    logits = matcher.value(gate.output).reshape(-1, count)
    outputs = matcher.value(second.output).reshape(count, -1, dim)
    found = matcher.value(end)
    for kind in GateKind:
        scores = _scores(logits, top_k, kind)
        if matcher.agree(found, (outputs * scores.T[:, :, None]).sum(axis=0).reshape(found.shape)):
            break
    else:
        raise matcher.mismatch(branch, "expected the sum of the chosen experts, weighted by a softmax")
    return {
        "activation": activation,
        "experts": count,
        "hidden_dim": hidden,
        "top_k": top_k,
        "gate": kind.value,
        "gate_bias": biased,
        "gates": gates,
        "gate_tasks": len(kept),
    }


def _expert_layer(matcher: Matcher, node: Node) -> LinearLayer | None:
    """A product with the weights of all experts."""
    image = [name for name in node.inputs[:2] if name in matcher.tainted]
    if len(image) != 1:
        return None
    other = matcher.constant_operand(node, of=image[0])
    if other is None or matcher.value(other).ndim != 3:
        return None
    return matcher.linear_at(node, image[0], "the linear layers of the experts")


def _gate(matcher: Matcher, best: Node, experts: int) -> LinearLayer:
    """The linear layer whose logits a choice of experts is made of."""
    before = matcher.backward(best.inputs[0], lambda node: matcher.is_layout(node) or node.op == "Softmax")
    node = matcher.graph.producer.get(before)
    if node is not None and node.op == "Add":
        products = [name for name in node.inputs if name in matcher.tainted]
        node = matcher.graph.producer.get(products[0]) if len(products) == 1 else None
    if node is None or node.op not in LINEAR:
        raise matcher.mismatch(
            node or best, "expected the logits of a gate, a linear layer, in front of the choice"
        )
    layer = matcher.linear_at(node, node.inputs[0], "the gate of the experts")
    if layer.output != before or len(layer.weight) != experts or layer.weight.ndim != 2:
        raise matcher.mismatch(node, f"expected a gate with one logit for each of {experts} experts")
    return layer


def _by_task(matcher: Matcher, gate: LinearLayer, task: str | None) -> list[LinearLayer]:
    """The gate once for each task; one alone where it does not depend on the task."""
    tasks = _task_count(matcher, gate, task)
    if task is None or tasks == 1:
        return [gate]
    layers, original = [], matcher.value.feeds[task]
    for number in range(tasks):
        matcher.value.feeds[task] = np.full_like(original, number)
        matcher.value.forget()
        layers.append(matcher.linear_at(gate.node, gate.node.inputs[0], "the gate of the experts"))
    matcher.value.feeds[task] = original
    matcher.value.forget()
    return layers


def _task_count(matcher: Matcher, gate: LinearLayer, task: str | None) -> int:
    """Rows of the table that the task picks a gate, or a bias, from."""
    if task is None:
        return 1
    dependent = {task}
    for node in matcher.graph.nodes:
        if dependent.intersection(node.inputs) and not matcher.tainted.intersection(node.inputs):
            dependent.update(node.outputs)
    readers = matcher.readers(gate.node.outputs[0])
    waiting = [name for node in (gate.node, *readers) for name in node.inputs if name in dependent]
    while waiting:
        source = matcher.graph.producer.get(waiting.pop())
        if source is None:
            continue
        if source.op == "Gather" and source.inputs[1] in dependent and source.inputs[0] not in dependent:
            return int(matcher.value(source.inputs[0]).shape[source.attributes.get("axis", 0)])
        waiting.extend(name for name in source.inputs if name in dependent)
    return 1


def _scores(logits: Array, top_k: int, kind: GateKind) -> Array:
    """(rows, experts) weights of the chosen experts, 0 for the others."""
    best = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    picked = np.take_along_axis(logits, best, 1)
    values = softmax(picked) if kind.over_selected else np.take_along_axis(softmax(logits), best, 1)
    scores = np.zeros_like(logits)
    np.put_along_axis(scores, best, values, 1)
    return scores
