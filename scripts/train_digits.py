"""Train the demo network: a multi-task mixture-of-experts ViT on the handwritten digit scenes.

The network follows M3ViT: a pre-norm ViT whose odd blocks replace the MLP by experts that each token
chooses through the gate of the task at hand. It is ``frontend.network.Network`` in the shape of the
``model.toml`` that the package ships, and what is written is a Model folder.

Run it from an environment with the package, torch and scikit-learn::

    python scripts/train_digits.py --out digits

Training is seeded and repeats exactly on the same machine with the same number of threads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.errors import InputError
from frontend import digits
from frontend.fashion import Garments
from frontend.network import Network
from pysim.files import require_new
from pysim.spec import read_spec

SHAPE: Final = Path(digits.__file__).parent / "data" / "digits" / "model.toml"
TASKS: Final = ("digit", "segment")

PIXEL_MEAN: Final = 0.2
PIXEL_STD: Final = 0.2
POSITION_SCALE: Final = 0.5

BATCH: Final = 48
LEARNING_RATE: Final = 3e-3
WEIGHT_DECAY: Final = 0.05
WARMUP: Final = 0.08
LABEL_SMOOTHING: Final = 0.05
BALANCE: Final = 0.01
CLIP_NORM: Final = 1.0


def sine_positions(dim: int, side: int) -> Tensor:
    """Waves over the rows and columns of patches, ``(side**2, dim)``: a start that already knows neighbours."""
    places = torch.arange(side)
    waves = dim // 4
    angles = places[:, None] * torch.pi / side * (1 + torch.arange(waves) / 2)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)
    rows, columns = torch.meshgrid(places, places, indexing="ij")
    return torch.cat([line[rows.flatten()], line[columns.flatten()]], dim=1) * POSITION_SCALE


def fresh_network(shape: Path = SHAPE, mean: float = PIXEL_MEAN, std: float = PIXEL_STD) -> Network:
    """A network with random weights, in a shape that the package ships, for pixels of this mean and deviation."""
    net = Network(read_spec(shape))
    with torch.no_grad():
        # Start as if the pixels had zero mean and unit variance, which the weights then absorb.
        net.patch_embed.weight /= std
        net.patch_embed.bias.copy_(-mean * net.patch_embed.weight.sum(dim=(1, 2, 3)))
        side = net.spec.image_size[0] // net.spec.patch_size
        net.pos_embed[1:] = sine_positions(net.spec.dim, side)
    return net


@dataclass(frozen=True)
class Batch:
    """Tensors of some scenes: ``images`` as the network reads them, and the labels of each task."""

    images: Tensor
    labels: dict[str, Tensor]


def to_batch(scenes: digits.Scenes | Garments) -> Batch:
    """Convert labelled images to tensors; the network reads the pixel ``p`` as ``p / 256``."""
    return Batch(
        images=torch.from_numpy(scenes.images).float() / 256,
        labels={task: torch.from_numpy(labels) for task, labels in scenes.labels.items()},
    )


def batches(sources: digits.Sources, rng: np.random.Generator) -> Iterator[Batch]:
    """One epoch of shuffled batches, of scenes that are composed afresh; an incomplete batch is dropped."""
    whole = to_batch(digits.compose(sources, rng, jitter=1.0))
    order = torch.from_numpy(rng.permutation(len(whole.images)))
    for rows in order[: len(order) // BATCH * BATCH].view(-1, BATCH):
        yield Batch(whole.images[rows], {task: labels[rows] for task, labels in whole.labels.items()})


def balance_loss(net: Network) -> Tensor:
    """Squared coefficient of variation of the experts' importance (sum of kept scores), over all layers.

    It goes by the last call, so it treats every task on its own.
    """
    importance = torch.stack([moe.scores.sum(dim=0) for _, moe in net.moes()])
    return (importance.var(dim=1) / importance.mean(dim=1) ** 2).sum()


def task_loss(net: Network, batch: Batch, task: str) -> Tensor:
    """Cross-entropy of one task plus its balance loss."""
    logits = net.predict(batch.images, task)
    fit = functional.cross_entropy(
        logits.flatten(0, -2), batch.labels[task].flatten(), label_smoothing=LABEL_SMOOTHING
    )
    return fit + BALANCE * balance_loss(net)


def make_optimizer(net: Network, learning_rate: float = LEARNING_RATE) -> torch.optim.AdamW:
    """AdamW; norms, biases, embeddings and gates are not decayed."""
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in net.named_parameters():
        is_matrix = name.endswith("weight") and parameter.ndim > 1 and "gate" not in name
        (decayed if is_matrix else plain).append(parameter)
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98))


def cosine(steps: int) -> Callable[[int], float]:
    """Learning rate factor by step: linear warm-up, then half a cosine down to zero."""
    warmup = max(1, round(WARMUP * steps))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + float(np.cos(np.pi * (step - warmup) / max(1, steps - warmup))))

    return factor


def train(net: Network, sources: digits.Sources, epochs: int, seed: int) -> None:
    """Train in place, both tasks on each batch, and print the mean loss of every epoch."""
    rng = np.random.default_rng(seed)
    optimizer = make_optimizer(net)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(epochs * (len(sources.digits) // BATCH)))
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in batches(sources, rng):
            optimizer.zero_grad()
            parts = torch.stack([task_loss(net, batch, task) for task in TASKS])
            torch.autograd.backward(parts.sum())
            nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
            losses.append(parts.detach())
        means = torch.stack(losses).mean(dim=0).tolist()
        shown = "  ".join(f"{task} {mean:.4f}" for task, mean in zip(TASKS, means, strict=True))
        print(f"epoch {epoch:3d}/{epochs}  loss: {shown}  {time.perf_counter() - start:6.1f} s", flush=True)


@torch.no_grad()
def evaluate(net: Network, scenes: Batch) -> None:
    """Print the accuracy of every task and how often each task chooses each expert."""
    for task in net.spec.tasks:
        right = net.predict(scenes.images, task).argmax(dim=-1) == scenes.labels[task]
        print(f"held-out accuracy, {task}: {100 * right.double().mean().item():.2f} % of {right.numel()}")
        for layer, moe in net.moes():
            share = (moe.scores > 0).double().mean(dim=0) / moe.top_k
            print(
                f"  experts in layer {layer} (%): "
                + " ".join(f"{100 * part:5.1f}" for part in share.tolist())
            )


def make_repeatable(seed: int, threads: int) -> None:
    """Seed torch, and have it add in the same order every time."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    # Filling new tensors only guards against reading uninitialised memory, and costs a tenth of the time.
    setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)  # noqa: B010


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the digits demo network.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new model folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and augmentation")
    parser.add_argument("--epochs", type=int, default=60, help="passes over the training images")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> None:
    """Train, evaluate on the held-out split, and write the model folder."""
    require_new(arguments.out)
    make_repeatable(arguments.seed, arguments.threads)
    net = fresh_network()
    print(f"{sum(parameter.numel() for parameter in net.parameters())} parameters")
    start = time.perf_counter()
    train(net, digits.load_sources("train"), arguments.epochs, arguments.seed)
    print(f"trained in {time.perf_counter() - start:.0f} s")
    evaluate(net, to_batch(digits.load_scenes("heldout")))
    net.to_model().save(arguments.out)
    print(f"wrote {arguments.out}")


def run_script(run: Callable[[], None]) -> None:
    """Run a script; what a user did wrong ends it with a sentence."""
    try:
        run()
    except InputError as error:
        raise SystemExit(f"error: {error}" + (f" ({error.hint})" if error.hint else "")) from None


if __name__ == "__main__":
    run_script(lambda: run(parse_arguments()))
