"""Tokens of each expert, layer by layer and task by task: what `simulate` found, in a file for the estimate."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from common.errors import InputError
from common.reading import read_json
from pysim.files import new_file, validate
from pysim.spec import ModelSpec

Queues = dict[int, list[int]]
"""Tokens of each expert, by layer."""


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int = Field(ge=1, le=1)
    network: str
    images: PositiveInt
    tasks: dict[str, dict[str, list[NonNegativeInt]]]


def write_queues(
    path: Path, spec: ModelSpec, images: int, tasks: Mapping[str, Mapping[int, Sequence[int]]]
) -> None:
    """Write tokens of each expert to a new JSON file.

    Args:
        path: the file.
        spec: shape of the network.
        images: how many images went through.
        tasks: by task and layer, the tokens of each expert over all images.
    """
    content = {
        "version": 1,
        "network": spec.name,
        "images": images,
        "tasks": {
            task: {str(layer): list(tokens) for layer, tokens in layers.items()}
            for task, layers in tasks.items()
        },
    }
    with new_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def read_queues(path: Path, spec: ModelSpec, task: str | None = None, batch: int = 1) -> Queues:
    """Tokens of each expert in a batch, on average over the images of a file.

    Args:
        path: what `write_queues` wrote.
        spec: shape of the network that it is for.
        task: the task; the first of the file where it is not given.
        batch: images of the batch.

    Raises:
        InputError: not such a file, one of another network, or a task that it lacks.
    """
    content = validate(_File, read_json(path), path)
    if not content.tasks:
        raise InputError(f"{path}: no task", hint="`edgemoe simulate --queues-out` writes such a file")
    name = next(iter(content.tasks)) if task is None else task
    if name not in content.tasks:
        raise InputError(
            f"{path}: no task {name[:60]!r}", hint=f"it has {', '.join(content.tasks)}; --task chooses one"
        )
    moe, found = spec.moe, {}
    for layer, tokens in content.tasks[name].items():
        if not layer.isdecimal() or int(layer) not in spec.moe_layers:
            raise InputError(
                f"{path}: layer {layer[:20]!r} of {spec.name} has no experts",
                hint="give the queues of this network",
            )
        assert moe is not None
        chosen = content.images * spec.tokens * moe.top_k
        if len(tokens) != moe.experts or sum(tokens) != chosen:
            raise InputError(
                f"{path}: layer {layer}: {sum(tokens)} tokens of {len(tokens)} experts, expected {chosen} "
                f"({content.images} images x {spec.tokens} tokens x {moe.top_k}) of {moe.experts}",
                hint="give the queues of this network",
            )
        found[int(layer)] = _shares(tokens, content.images, batch)
    return found


def _shares(tokens: Sequence[int], images: int, batch: int) -> list[int]:
    """Shares of a batch, rounded so that none is lost: what is left over goes to the largest remainders."""
    shares = [count * batch // images for count in tokens]
    left = sum(tokens) * batch // images - sum(shares)
    order = sorted(range(len(tokens)), key=lambda expert: (-(tokens[expert] * batch % images), expert))
    for expert in order[:left]:
        shares[expert] += 1
    return shares
