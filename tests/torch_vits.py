"""ViTs as other people write them in torch, to export to ONNX in every style the importer must recognise."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


class ManualAttention(nn.Module):
    """timm without fused attention: scores scaled after the product, or queries before it; q, k, v joined or apart."""

    def __init__(self, dim: int, heads: int, style: str) -> None:
        super().__init__()
        self.heads, self.style = heads, style
        if style == "split":
            self.q, self.k, self.v = (nn.Linear(dim, dim) for _ in range(3))
        else:
            self.qkv = nn.Linear(dim, 3 * dim, bias=style != "no-bias")
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, dim = x.shape
        size = dim // self.heads
        if self.style == "split":
            q, k, v = (
                layer(x).view(batch, count, self.heads, size).transpose(1, 2)
                for layer in (self.q, self.k, self.v)
            )
        else:
            q, k, v = self.qkv(x).reshape(batch, count, 3, self.heads, size).permute(2, 0, 3, 1, 4).unbind(0)
        if self.style == "scaled-queries":
            scores = (q * size**-0.5) @ k.transpose(-2, -1)
        elif self.style == "wrong-scale":
            scores = q @ k.transpose(-2, -1)
        else:
            scores = (q @ k.transpose(-2, -1)) / size**0.5
        mixed = scores.softmax(dim=-1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))


class FusedAttention(ManualAttention):
    def forward(self, x: Tensor) -> Tensor:
        batch, count, dim = x.shape
        q, k, v = self.qkv(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))


class MaskedAttention(ManualAttention):
    """Hugging Face: projections apart, and a mask that masks nothing; by SDPA, or by hand."""

    def __init__(self, dim: int, heads: int, style: str) -> None:
        super().__init__(dim, heads, "split")
        self.by_hand = style == "masked-by-hand"

    def forward(self, x: Tensor) -> Tensor:
        batch, count, dim = x.shape
        q, k, v = (
            layer(x).view(batch, count, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        mask = torch.ones(batch, 1, count, count, dtype=torch.bool)
        if self.by_hand:
            scores = (q @ k.transpose(2, 3)) * (dim // self.heads) ** -0.5 + (1 - mask.float()) * -1e9
            mixed = nn.functional.dropout(scores.softmax(dim=-1), 0.1, training=self.training) @ v
        else:
            mixed = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, dim))


class TorchAttention(nn.Module):
    """torchvision: nn.MultiheadAttention."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=False)[0]


class LayerScale(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(dim) - 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class ForeignBlock(nn.Module):
    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        style: str,
        activation: nn.Module,
        eps: float,
        *,
        layer_scale: bool = False,
    ) -> None:
        super().__init__()
        self.ls1, self.ls2 = (LayerScale(dim) if layer_scale else nn.Identity() for _ in range(2))
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=eps), nn.LayerNorm(dim, eps=eps)
        if style == "torchvision":
            self.attn: nn.Module = TorchAttention(dim, heads)
        elif style.startswith("masked"):
            self.attn = MaskedAttention(dim, heads, style)
        elif style == "fused":
            self.attn = FusedAttention(dim, heads, style)
        else:
            self.attn = ManualAttention(dim, heads, style)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), activation, nn.Linear(hidden, dim))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class ForeignVit(nn.Module):
    """A ViT with a classifier on the normalised class token, or on a mean of tokens.

    Args:
        registers: tokens between the class token and the patches, put there behind the positions.
        distilled: a second token with a classifier of its own, whose result is averaged with the first.
        pool: `patches` or `all`: the tokens whose mean is classified.
        fc_norm: the norm comes behind the mean.
        head_eps: epsilon of the last norm.
        layer_scale: each branch ends with a factor for each channel.
    """

    def __init__(
        self,
        style: str = "manual",
        activation: nn.Module | None = None,
        *,
        eps: float = 1e-6,
        cls_token: bool = True,
        norm_pre: bool = False,
        registers: int = 0,
        distilled: bool = False,
        pool: str = "",
        fc_norm: bool = False,
        head_eps: float | None = None,
        layer_scale: bool = False,
        dim: int = 24,
        heads: int = 2,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, dim, 4, stride=4)
        embedded = cls_token + distilled
        self.cls = nn.Parameter(torch.randn(1, embedded, dim)) if embedded else None
        self.registers = nn.Parameter(torch.randn(1, registers, dim)) if registers else None
        self.prefix, self.pool, self.fc_norm = embedded + registers, pool, fc_norm
        self.position = nn.Parameter(torch.randn(1, 8 + embedded, dim))
        self.norm_pre = nn.LayerNorm(dim) if norm_pre else nn.Identity()
        blocks = (
            ForeignBlock(dim, heads, 40, style, activation or nn.GELU(), eps, layer_scale=layer_scale)
            for _ in range(2)
        )
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(dim, eps=eps if head_eps is None else head_eps)
        self.head = nn.Linear(dim, 5)
        self.second = nn.Linear(dim, 5) if distilled else None
        with torch.no_grad():  # fresh norms and biases would hide what is mixed up
            for name, parameter in self.named_parameters():
                if "norm" in name or name.endswith("bias"):
                    parameter += 0.2 * torch.randn_like(parameter)

    def features(self, images: Tensor) -> Tensor:
        x = self.patch(images).flatten(2).transpose(1, 2)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(images.shape[0], -1, -1), x], dim=1)
        x = x + self.position
        if self.registers is not None:
            x = torch.cat([x[:, :1], self.registers.expand(images.shape[0], -1, -1), x[:, 1:]], dim=1)
        return self.blocks(self.norm_pre(x))

    def forward(self, images: Tensor) -> Tensor:
        x = self.features(images)
        if not self.fc_norm:
            x = self.norm(x)
        if self.second is not None:
            return (self.head(x[:, 0]) + self.second(x[:, 1])) / 2
        if not self.pool:
            return self.head(x[:, 0])
        x = (x[:, self.prefix :] if self.pool == "patches" else x).mean(1)
        return self.head(self.norm(x) if self.fc_norm else x)


def export(module: nn.Module, path: Path, example: Any, *, dynamo: bool, **options: Any) -> Path:
    """Export with one of torch's exporters, whose remarks are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(module.eval(), example, dynamo=True, verbose=False, **options)
            program.save(path)
        else:
            torch.onnx.export(module.eval(), example, path, dynamo=False, **options)
    return path
