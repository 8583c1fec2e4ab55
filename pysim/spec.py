"""The shape of a network: everything in `model.toml`, validated."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from common.errors import InputError
from common.fits import RESIZES, Fit
from common.heads import LEAST_PREFIX, MEANS, Head, HeadKind
from common.printable import shown
from common.toml import read_toml
from pysim.activations import ACTIVATIONS
from pysim.files import validate
from pysim.gates import GATE_KINDS, GateKind

Count = Annotated[int, Field(ge=1, le=1 << 20, strict=True)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ClassName = Annotated[str, Field(min_length=1, max_length=200)]

MOST_BYTES = 8 << 20
"""Limit of a `model.toml`: room for the names of 50,000 classes."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MoeSpec(_Strict):
    """Experts of a network: their layers, their number, and how tokens choose among them (M3ViT, section 3)."""

    layers: Literal["odd", "even", "all"] | list[Annotated[int, Field(ge=0, strict=True)]]
    experts: Count
    hidden_dim: Count
    top_k: Count
    gate: Literal["softmax-topk", "topk-softmax"] = "softmax-topk"
    renormalize: bool = False
    shared_gate: bool = False
    """One gate for all tasks instead of one gate a task."""
    gate_bias: bool = False
    """A bias per task on the logits: what a task-conditioned gate folds into."""

    @model_validator(mode="after")
    def _top_k_within_experts(self) -> MoeSpec:
        if self.top_k > self.experts:
            raise ValueError(f"top_k = {self.top_k} is more than experts = {self.experts}")
        return self

    @property
    def gate_kind(self) -> GateKind:
        """The computation that `gate` and `renormalize` name.

        Softmax over the chosen logits equals softmax over all logits renormalised over the chosen ones, so
        `topk-softmax` and `softmax-topk` with `renormalize` are one computation.
        """
        return GateKind.OVER_SELECTED if self.renormalize else GATE_KINDS[self.gate]


class HeadSpec(_Strict):
    """A task head, run in float on the backbone's tokens by the host."""

    kind: HeadKind = "none"
    """Tokens that it reads: see `common.heads.HEAD_KINDS`."""
    out_channels: Annotated[int, Field(ge=1, strict=True)] | None = None
    norm: bool = True
    """A LayerNorm before all else: the network's final norm, which task heads of M3ViT have one each of."""
    norm_eps: Annotated[float, Field(gt=0, le=0.1)] | None = None
    """Epsilon of the head's LayerNorms, where it is not that of the blocks."""
    fc_norm: bool = False
    """A LayerNorm between a mean of tokens and the linear layer."""
    classes: list[ClassName] = []
    """Names of the output's channels, where they are classes and have names."""

    @field_validator("classes")
    @classmethod
    def _classes_printable(cls, classes: list[str]) -> list[str]:
        for name in classes:
            if not name.isprintable():
                raise ValueError(f"the name {name[:60]!r} has control characters")
        return classes

    @model_validator(mode="after")
    def _channels_given(self) -> HeadSpec:
        if self.kind != "none" and self.out_channels is None:
            raise ValueError(f"kind = {self.kind!r} needs out_channels")
        if self.fc_norm and self.kind not in MEANS:
            raise ValueError(f"fc_norm is a norm of a mean of tokens, but kind = {self.kind!r} has none")
        if self.norm_eps is not None and not (self.norm or self.fc_norm):
            raise ValueError(f"norm_eps = {self.norm_eps:g} is given, but the head has no norm")
        if self.classes and len(self.classes) != self.out_channels:
            raise ValueError(
                f"classes has {len(self.classes)} names, but out_channels = {self.out_channels or 'none'}"
            )
        return self


class PictureSpec(_Strict):
    """The way in which pictures of other sizes were made to fit when the network was trained and measured."""

    resize: Literal["crop", "stretch", "pad"] = "crop"
    crop: Annotated[float, Field(gt=0.01, le=1)] = 1.0
    """Share of the resized picture's sides that is kept, in the middle."""
    resample: Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"] = "bilinear"

    @property
    def fit(self) -> Fit:
        """The same for those who resize."""
        return Fit(self.resize, self.crop, self.resample)


class ModelSpec(_Strict):
    """The shape of a multi-task (mixture-of-experts) Vision Transformer.

    Prefix tokens and one token a patch; pre-norm blocks; no norm after the last block (task heads have
    their own). Pixels are 8-bit and stand for `p / 256`; any normalisation is folded into the patch weights.
    """

    name: Name
    image_size: tuple[Count, Count]
    """Height and width in pixels."""
    in_channels: Count = 3
    patch_size: Count
    prefix_tokens: Annotated[int, Field(ge=0, le=1024, strict=True)] = 1
    """Tokens in front of the patches: 0, or a class token, then others such as distillation and registers."""
    dim: Count
    depth: Annotated[int, Field(ge=1, le=1024, strict=True)]
    heads: Count
    mlp_dim: Count
    activation: str = "gelu"
    """Activation function of the MLPs: one of `pysim.activations.ACTIVATIONS`."""
    qkv_bias: bool = True
    norm_eps: Annotated[float, Field(gt=0, le=0.1)] = 1e-6
    tasks: Annotated[list[Name], Field(min_length=1, max_length=256)]
    moe: MoeSpec | None = None
    task_heads: dict[str, HeadSpec] = {}
    pictures: PictureSpec | None = None
    """Way to make pictures fit, where it is known; results for given pixels do not depend on it."""
    notes: str = ""
    """Anything a user of the weights must know, for example that some of them are random."""

    @field_validator("activation")
    @classmethod
    def _activation_known(cls, activation: str) -> str:
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation {activation[:60]!r} is unknown: one of {', '.join(ACTIVATIONS)}")
        return activation

    @field_validator("tasks")
    @classmethod
    def _tasks_differ(cls, tasks: list[str]) -> list[str]:
        if len(set(tasks)) != len(tasks):
            raise ValueError("task names must differ")
        return tasks

    @model_validator(mode="after")
    def _shapes_divide(self) -> ModelSpec:
        height, width = self.image_size
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"image_size {height}x{width} is not a multiple of patch_size = {self.patch_size}"
            )
        if self.dim % self.heads:
            raise ValueError(f"dim = {self.dim} is not a multiple of heads = {self.heads}")
        if self.moe is not None and isinstance(self.moe.layers, list):
            beyond = [layer for layer in self.moe.layers if layer >= self.depth]
            if beyond:
                raise ValueError(f"moe.layers names layer {beyond[0]}, but depth = {self.depth}")
        unknown = sorted(set(self.task_heads) - set(self.tasks))
        if unknown:
            raise ValueError(f"task_heads.{unknown[0]} is not one of the tasks {self.tasks}")
        for task, head in self.task_heads.items():
            least = LEAST_PREFIX.get(head.kind, 0)
            if self.prefix_tokens < least:
                raise ValueError(
                    f"task_heads.{task}.kind = {head.kind!r} reads {least} prefix token{'s' * (least > 1)}, "
                    f"but prefix_tokens = {self.prefix_tokens}"
                )
        return self

    @property
    def patches(self) -> int:
        """Patches of one image."""
        return self.grid[0] * self.grid[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        return (self.in_channels, *self.image_size)

    @property
    def tokens(self) -> int:
        """Tokens of one image: prefix tokens, then one a patch."""
        return self.prefix_tokens + self.patches

    @property
    def patch_values(self) -> int:
        """Pixel values in one patch, over all channels."""
        return self.in_channels * self.patch_size**2

    @property
    def head_dim(self) -> int:
        """Channels of one attention head."""
        return self.dim // self.heads

    @cached_property
    def moe_layers(self) -> frozenset[int]:
        """Numbers of the layers that hold experts."""
        if self.moe is None:
            return frozenset()
        layers = self.moe.layers
        if isinstance(layers, list):
            return frozenset(layers)
        start, step = {"odd": (1, 2), "even": (0, 2), "all": (0, 1)}[layers]
        return frozenset(range(start, self.depth, step))

    def head(self, task: str) -> HeadSpec:
        """The head of a task (kind "none" where the model has none)."""
        return self.task_heads.get(task, HeadSpec(kind="none"))

    def fit(self, method: str | None = None) -> Fit:
        """Way to make pictures fit.

        Args:
            method: one of `common.pictures.RESIZES`; the network's own, or `crop` where that is not known.

        Raises:
            InputError: an unknown method.
        """
        own = Fit() if self.pictures is None else self.pictures.fit
        if method is None or method == own.method:
            return own
        if method not in RESIZES:
            raise InputError(f"resize = {shown(method)}, expected one of {', '.join(RESIZES)}")
        return Fit(method, resample=own.resample)

    def decoder(self, task: str) -> Head:
        """The head that decodes the tokens of a task."""
        head = self.head(task)
        epsilon = self.norm_eps if head.norm_eps is None else head.norm_eps
        return Head(head.kind, head.norm, epsilon, head.fc_norm, self.prefix_tokens)

    def shape(self) -> dict[str, Any]:
        """The fields that decide sizes and results, as JSON values: names, heads and notes do not."""
        fields = {"image_size", "in_channels", "patch_size", "dim", "depth", "heads", "mlp_dim", "moe"}
        # Fields that came later count where they differ from their defaults: identities of older Designs stay.
        later = self.model_dump(include={"prefix_tokens", "activation"}, exclude_defaults=True)
        return self.model_dump(include=fields, mode="json") | later | {"tasks": len(self.tasks)}

    def to_toml(self) -> dict[str, Any]:
        """The spec as `model.toml` holds it, defaults that carry no information left out."""
        data = self.model_dump(exclude_none=True)
        for name in ("moe", "task_heads", "notes"):
            if not data.get(name):
                data.pop(name, None)
        for head in data.get("task_heads", {}).values():
            if not head["classes"]:
                del head["classes"]
        data["image_size"] = list(data["image_size"])
        return {"model": data}


class _ModelFile(_Strict):
    model: ModelSpec


def read_spec(path: Path) -> ModelSpec:
    """Read and validate a `model.toml`."""
    return validate(_ModelFile, read_toml(path, MOST_BYTES), path).model
