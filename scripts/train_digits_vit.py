"""Train the plain ViT that the tutorials import: which digit is it?

A pre-norm ViT in plain torch, with the names that timm gives its tensors, on the handwritten digit scenes of
``frontend.digits``. What is written is a file of half-precision tensors, as one would save a network of one's own::

    python scripts/train_digits_vit.py --out digits-vit.safetensors

Training is seeded and repeats exactly on the same machine with the same number of threads.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from train_digits import (
    BATCH,
    CLIP_NORM,
    LABEL_SMOOTHING,
    PIXEL_MEAN,
    PIXEL_STD,
    batches,
    cosine,
    make_optimizer,
    make_repeatable,
    to_batch,
)

from frontend import digits
from pysim.files import require_new

DIM: Final = 48
DEPTH: Final = 3
HEADS: Final = 3
HIDDEN: Final = 96


class Attention(nn.Module):
    """Self-attention, queries, keys and values in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(DIM, 3 * DIM), nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        count, tokens, _ = x.shape
        q, k, v = self.qkv(x).reshape(count, tokens, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).reshape(count, tokens, DIM))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(DIM, HIDDEN), nn.Linear(HIDDEN, DIM)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(DIM, eps=1e-6), nn.LayerNorm(DIM, eps=1e-6)
        self.attn, self.mlp = Attention(), Mlp()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbedding(nn.Module):
    """A convolution over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, DIM, digits.PATCH_SIZE, digits.PATCH_SIZE)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class Vit(nn.Module):
    """The network: images (n, 1, 32, 32), normalised by the mean and deviation of pixels / 255, to logits (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbedding()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, DIM))
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, 1 + digits.PATCHES_PER_SIDE**2, DIM))
        self.blocks = nn.Sequential(*(Block() for _ in range(DEPTH)))
        self.norm, self.head = nn.LayerNorm(DIM, eps=1e-6), nn.Linear(DIM, digits.DIGIT_CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed((images - PIXEL_MEAN) / PIXEL_STD)
        tokens = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


def pixels(images: Tensor) -> Tensor:
    """From pixels / 256, as ``to_batch`` gives them, to pixels / 255."""
    return images * (256 / 255)


def main() -> None:
    """Train, print the accuracy on the held-out split, and write the file."""
    parser = argparse.ArgumentParser(description="Train the plain ViT of the tutorials.")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="new .safetensors file")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and augmentation")
    parser.add_argument("--epochs", type=int, default=120, help="passes over the training images")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    options = parser.parse_args()
    require_new(options.out)
    make_repeatable(options.seed, options.threads)
    net = Vit()
    sources, rng = digits.load_sources("train"), np.random.default_rng(options.seed)
    optimizer = make_optimizer(net)
    steps = options.epochs * (len(sources.digits) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(steps))
    for epoch in range(1, options.epochs + 1):
        for batch in batches(sources, rng):
            optimizer.zero_grad()
            logits = net(pixels(batch.images))
            loss = functional.cross_entropy(logits, batch.labels["digit"], label_smoothing=LABEL_SMOOTHING)
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch}/{options.epochs}  loss {loss.item():.4f}", flush=True)
    held_out = to_batch(digits.load_scenes("heldout"))
    with torch.no_grad():
        right = net(pixels(held_out.images)).argmax(dim=-1) == held_out.labels["digit"]
    print(f"held-out accuracy: {100 * right.double().mean().item():.2f} % of {len(right)}")
    save_file({name: tensor.half() for name, tensor in net.state_dict().items()}, options.out)


if __name__ == "__main__":
    main()
