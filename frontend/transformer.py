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

REGISTERS = "reg_token"
PREFIX_TOKENS = {"cls_token": "class token", "dist_token": "distillation token", REGISTERS: "register token"}
"""Tensors of tokens in front of the patches, in their order, and what they hold."""


PARTS = ("weight", "bias")
"""Tensors of a linear layer."""


def fold_scale(scale: FloatArray, weight: FloatArray, bias: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Weight (outputs, inputs) and bias (outputs,) of a layer whose results are multiplied by (outputs,) factors.

    Each product is rounded to float32 once: the layer computes what both did.
    """
    return weight * scale[:, None], bias * scale


class TransformerReader:
    """Reads the tensors of a ViT one group after the other, and keeps them by our names.

    Attributes:
        weights: what was read, by the names of a Model.
        dim: channels of a token.
        channels: channels of an image.
        patch_size: rows and columns of a patch.
        prefix: names of the tensors of tokens in front of the patches, and how many each of them holds.
        patches: patches of an image.
        depth: number of blocks.
        qkv_bias: whether queries, keys and values have biases.
        without_key_bias: whether queries and values alone have them.
        has_layer_scale: whether branches end with a factor for each channel.
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
        biases = ("qkv.bias", "q.bias", "k.bias", "v.bias", "q_bias", "v_bias")
        self.qkv_bias = any(f"blocks.0.attn.{name}" in state for name in biases)
        # BEiT: softmax does not see what a bias of the keys adds to all scores of a query.
        self.without_key_bias = self.qkv_bias and not any(
            f"blocks.0.attn.{name}" in state for name in ("qkv.bias", "k.bias")
        )
        self.prefix = {name: state.shape(name, 3)[1] for name in PREFIX_TOKENS if name in state}
        self.patches = self._count_patches()
        if options.heads is None:
            raise InputError(
                f"{state.source}: --heads needed: the file does not say",
                hint=f"ViT and DeiT of dim {self.dim} have {max(self.dim // 64, 1)}",
            )
        self.heads = options.heads
        scales = (f"blocks.{layer}.ls{number}.gamma" for layer in range(self.depth) for number in (1, 2))
        self.has_layer_scale = any(key in state for key in scales)

    def _count_patches(self) -> int:
        """Patches of an image, by the rows of the position table, which prefix tokens may have none of."""
        rows, prefix = self.state.shape("pos_embed", 3)[1], self.prefix
        all_tokens = sum(prefix.values())
        without_registers = all_tokens - prefix.get(REGISTERS, 0)
        counts = [rows - own for own in (without_registers, 0, all_tokens) if own < rows]
        return next(filter(self._makes_an_image, counts), counts[0])

    def _makes_an_image(self, patches: int) -> bool:
        """Whether so many patches are an image of the size that was given, or of a square one."""
        if self.options.image_size is None:
            return math.isqrt(patches) ** 2 == patches
        return math.prod(side // self.patch_size for side in self.options.image_size) == patches

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
            "prefix_tokens": sum(self.prefix.values()),
            "dim": self.dim,
            "depth": self.depth,
            "heads": self.heads,
            "activation": self.options.activation or "gelu",
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
        """Patch embedding with the image normalisation folded in, position with prefix tokens; says what."""
        weight = self._take(
            "patch_embed.proj.weight", self.dim, self.channels, self.patch_size, self.patch_size
        )
        bias = self._take("patch_embed.proj.bias", self.dim)
        where = self.state.called("patch_embed.proj.weight")
        normalization, shown = fold_normalization(self.options.normalization, self.channels, where)
        folded = normalization.fold(weight.astype(np.float64), bias.astype(np.float64))
        self._keep("patch_embed.weight", folded[0])
        self._keep("patch_embed.bias", folded[1])
        rows = self.state.shape("pos_embed", 3)[1]
        position, own = self._take("pos_embed", 1, rows, self.dim)[0], rows - self.patches
        tokens = [self._take(name, 1, count, self.dim)[0] for name, count in self.prefix.items()]
        prefix = np.concatenate([np.zeros((0, self.dim), np.float32), *tokens])
        prefix[:own] += position[:own]
        self._keep("pos_embed", np.concatenate([prefix, position[own:]]))
        return f"{shown}; {self._folded_prefix()}"

    def _folded_prefix(self) -> str:
        if not self.prefix:
            return "no class token"
        names = ", ".join(
            f"{count} {PREFIX_TOKENS[name]}s" if count > 1 else PREFIX_TOKENS[name]
            for name, count in self.prefix.items()
        )
        last = sum(self.prefix.values()) - 1
        return f"{names} into position row{f's 0 to {last}' if last else ' 0'}"

    def read_attention(self, layer: int) -> None:
        """Both norms and the attention of a block, with q, k and v joined or apart."""
        block, dim = f"blocks.{layer}", self.dim
        for norm in ("norm1", "norm2"):
            self.read_linear(f"{block}.{norm}", f"{block}.{norm}", (dim,))
        parts = ("weight", "bias") if self.qkv_bias else ("weight",)
        for part in parts:
            tail = (dim,) if part == "weight" else ()
            if part == "bias" and self.without_key_bias:
                query, value = (self._take(self._bias(block, name), dim) for name in "qv")
                joined = np.concatenate([query, np.zeros(dim, np.float32), value])
                self.weights[f"{block}.attn.qkv.bias"] = joined
            elif f"{block}.attn.q.weight" in self.state:
                split = [self._take(f"{block}.attn.{name}.{part}", dim, *tail) for name in "qkv"]
                self.weights[f"{block}.attn.qkv.{part}"] = np.concatenate(split)
            else:
                self.weights[f"{block}.attn.qkv.{part}"] = self._take(
                    f"{block}.attn.qkv.{part}", 3 * dim, *tail
                )
        self.read_linear(f"{block}.attn.proj", f"{block}.attn.proj", (dim, dim))
        self._fold_scale(f"{block}.ls1.gamma", f"{block}.attn.proj")

    def _bias(self, block: str, name: str) -> str:
        """Name of a bias that stands beside the joined weights, or beside its own."""
        joined = f"{block}.attn.{name}_bias"
        return joined if joined in self.state else f"{block}.attn.{name}.bias"

    def read_mlp(self, layer: int, hidden: int) -> None:
        """The dense MLP of a block."""
        block = f"blocks.{layer}"
        self.read_linear(f"{block}.mlp.fc1", f"{block}.mlp.fc1", (hidden, self.dim))
        self.read_linear(f"{block}.mlp.fc2", f"{block}.mlp.fc2", (self.dim, hidden))
        self._fold_scale(f"{block}.ls2.gamma", f"{block}.mlp.fc2")

    def _fold_scale(self, key: str, name: str) -> None:
        """Layer scale, a factor for each channel of a branch, into the layer that ends the branch."""
        if self.has_layer_scale:
            scaled = fold_scale(self._take(key, self.dim), *(self.weights[f"{name}.{p}"] for p in PARTS))
            for part, tensor in zip(PARTS, scaled, strict=True):
                self.weights[f"{name}.{part}"] = tensor

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
