"""The parts that all ViT checkpoints share, read by timm's names: embedding, attention, norms, dense MLPs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import InputError
from frontend.checkpoint import FloatArray, State
from frontend.options import Options
from frontend.pixels import fold_normalization
from pysim.files import Tensors

MOST_LAYERS = 1024


class TransformerReader:
    """Reads the tensors of a ViT one group after the other, and keeps them by our names.

    Attributes:
        weights: what was read, by the names of a Model.
        dim: channels of a token.
        channels: channels of an image.
        patch_size: rows and columns of a patch.
        patches: patches of an image.
        depth: number of blocks.
        qkv_bias: whether queries, keys and values have biases.
    """

    def __init__(self, state: State, options: Options) -> None:
        self.state, self.options = state, options
        self.weights: Tensors = {}
        self.dim, self.channels, self.patch_size, columns = state.shape("patch_embed.proj.weight", 4)
        if self.patch_size != columns:
            raise InputError(
                f"{state.called('patch_embed.proj.weight')}: patches of {self.patch_size} x {columns}, expected square"
            )
        self.depth = self._count_blocks()
        self.qkv_bias = any(f"blocks.0.attn.{name}.bias" in state for name in ("qkv", "q", "k", "v"))
        tokens = state.shape("pos_embed", 3)[1]
        self.patches = tokens - 1
        if options.heads is None:
            raise InputError(
                f"{state.source}: --heads needed: the file does not say",
                hint=f"ViT and DeiT of dim {self.dim} have {max(self.dim // 64, 1)}",
            )
        self.heads = options.heads

    def _count_blocks(self) -> int:
        numbers = {
            int(match[1]) for key in self.state.entries if (match := re.match(r"blocks\.(\d{1,6})\.", key))
        }
        depth = 1 + max(numbers, default=-1)
        if depth > MOST_LAYERS:
            raise InputError(f"{self.state.source}: block {depth - 1}, expected at most {MOST_LAYERS} blocks")
        if len(numbers) < depth or not depth:
            absent = next((number for number in range(depth) if number not in numbers), 0)
            missing = self.state.file_name(f"blocks.{absent}.norm1.weight")
            raise InputError(
                f"{self.state.source}: missing tensor {missing}", hint="is the checkpoint complete?"
            )
        return depth

    @property
    def geometry(self) -> dict[str, Any]:
        """Fields of a `ModelSpec` that the embedding and the blocks tell."""
        return {
            "in_channels": self.channels,
            "patch_size": self.patch_size,
            "dim": self.dim,
            "depth": self.depth,
            "heads": self.heads,
            "qkv_bias": self.qkv_bias,
        }

    def image_size(self, *, guess_square: bool) -> tuple[int, int]:
        """Height and width: as given, or of a square image with as many patches, where that may be guessed."""
        given, side = self.options.image_size, math.isqrt(self.patches)
        where = self.state.called("pos_embed")
        if given is None:
            if not guess_square or side * side != self.patches or not side:
                raise InputError(
                    f"{where}: {self.patches} patches of {self.patch_size} x {self.patch_size} pixels: "
                    "--image-size needed: the file does not say",
                    hint="--image-size HxW, such as 128x256",
                )
            return side * self.patch_size, side * self.patch_size
        height, width = given
        made = (height // self.patch_size) * (width // self.patch_size)
        if height % self.patch_size or width % self.patch_size or made != self.patches:
            raise InputError(
                f"{where}: {self.patches} patches, but {height}x{width} pixels make {made} of "
                f"{self.patch_size} x {self.patch_size}",
                hint="give the image size that the network was trained on with --image-size",
            )
        return given

    def read_embedding(self) -> str:
        """Patch embedding with the image normalisation folded in, position with the class token; says what."""
        weight = self._take(
            "patch_embed.proj.weight", self.dim, self.channels, self.patch_size, self.patch_size
        )
        bias = self._take("patch_embed.proj.bias", self.dim)
        where = self.state.called("patch_embed.proj.weight")
        normalization, shown = fold_normalization(self.options.normalization, self.channels, where)
        folded = normalization.fold(weight.astype(np.float64), bias.astype(np.float64))
        self._keep("patch_embed.weight", folded[0])
        self._keep("patch_embed.bias", folded[1])
        position = self._take("pos_embed", 1, self.patches + 1, self.dim)[0].copy()
        position[0] += self._take("cls_token", 1, 1, self.dim)[0, 0]
        self._keep("pos_embed", position)
        return f"{shown}; class token into position row 0"

    def read_attention(self, layer: int) -> None:
        """Both norms and the attention of a block, with q, k and v joined or apart."""
        block, dim = f"blocks.{layer}", self.dim
        for norm in ("norm1", "norm2"):
            self.read_linear(f"{block}.{norm}", f"{block}.{norm}", (dim,))
        parts = ("weight", "bias") if self.qkv_bias else ("weight",)
        for part in parts:
            tail = (dim,) if part == "weight" else ()
            if f"{block}.attn.q.weight" in self.state:
                split = [self._take(f"{block}.attn.{name}.{part}", dim, *tail) for name in "qkv"]
                self.weights[f"{block}.attn.qkv.{part}"] = np.concatenate(split)
            else:
                self.weights[f"{block}.attn.qkv.{part}"] = self._take(
                    f"{block}.attn.qkv.{part}", 3 * dim, *tail
                )
        self.read_linear(f"{block}.attn.proj", f"{block}.attn.proj", (dim, dim))

    def read_mlp(self, layer: int, hidden: int) -> None:
        """The dense MLP of a block."""
        block = f"blocks.{layer}.mlp"
        self.read_linear(f"{block}.fc1", f"{block}.fc1", (hidden, self.dim))
        self.read_linear(f"{block}.fc2", f"{block}.fc2", (self.dim, hidden))

    def read_linear(self, name: str, key: str, shape: tuple[int, ...]) -> None:
        """Weight of this shape and the bias that belongs to it, kept as `name`."""
        self.weights[f"{name}.weight"] = self._take(f"{key}.weight", *shape)
        self.weights[f"{name}.bias"] = self._take(f"{key}.bias", *(shape[:-1] or shape))

    def _take(self, key: str, *shape: int) -> FloatArray:
        return self.state.take(key, shape)

    def _keep(self, name: str, values: NDArray[np.float64] | FloatArray) -> None:
        self.weights[name] = np.asarray(values, np.float32)


Rules = tuple[tuple[str, str], ...]
"""Pairs of names, theirs and ours, of whole tensors or of layers; `{i}` is the number of a block."""


def translator(rules: Rules, *, to_ours: bool) -> Callable[[str], str]:
    """Rename tensors by the first rule that fits; others keep their names."""
    compiled = []
    for theirs, ours in rules:
        source, target = (theirs, ours) if to_ours else (ours, theirs)
        pattern = re.escape(source).replace(r"\{i\}", r"(?P<i>\d+)")
        compiled.append((re.compile(rf"{pattern}(?P<part>\.weight|\.bias)?"), target))

    def translate(key: str) -> str:
        for pattern, target in compiled:
            match = pattern.fullmatch(key)
            if match is not None:
                found = match.groupdict()
                return target.replace("{i}", found.get("i") or "") + (found["part"] or "")
        return key

    return translate
