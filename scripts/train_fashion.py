"""Train the Fashion-MNIST network: a mixture-of-experts ViT of two tasks on photographs of garments.

Larger than the demo's network and trained on real pictures: what a precision costs is measured on it, over the 10,000
test images, by ``scripts/evaluate_fashion.py``. The data set is that of Debian's package ``dataset-fashion-mnist``.

Run it from an environment with the package and torch::

    python scripts/train_fashion.py --out fashion

After every epoch a checkpoint is written beside the output; the same command goes on from there after an interruption.
Training is seeded and repeats exactly on the same machine with the same number of threads, interrupted or not. It takes
about 12 minutes of one core.
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
from numpy.typing import NDArray
from torch import nn
from train_digits import (
    CLIP_NORM,
    Batch,
    cosine,
    evaluate,
    fresh_network,
    make_optimizer,
    make_repeatable,
    run_script,
    task_loss,
    to_batch,
)

from common.errors import InputError
from frontend import fashion
from frontend.network import Network
from pysim.files import require_new

SHAPE: Final = Path(fashion.__file__).parent / "data" / "fashion" / "model.toml"

PIXEL_MEAN: Final = 0.29
PIXEL_STD: Final = 0.35
MOST_SHIFT: Final = 1
"""Pixels by which a training image is moved at most."""

BATCH: Final = 64
"""Images of each task in one step: a task has images of its own, so that an epoch shows every image once."""

LEARNING_RATE: Final = 2.5e-3
GLANCE: Final = 2000
"""Test images that are looked at in the end."""


def vary(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Mirror half of the images (n, 1, 28, 28) and move all of them by up to `MOST_SHIFT` pixels."""
    count, _, height, width = images.shape
    padded = np.pad(images[:, 0], ((0, 0), (MOST_SHIFT, MOST_SHIFT), (MOST_SHIFT, MOST_SHIFT)))
    rows, columns = rng.integers(0, 2 * MOST_SHIFT + 1, (2, count, 1))
    across = np.arange(width)
    mirrored = np.where(rng.random((count, 1)) < 0.5, across, across[::-1])
    here = np.arange(count)[:, None, None]
    return padded[here, (rows + np.arange(height))[:, :, None], (columns + mirrored)[:, None, :]][:, None]


def batches(garments: fashion.Garments, rng: np.random.Generator) -> Iterator[dict[str, Batch]]:
    """One epoch of shuffled, varied images, a batch for each task; an incomplete step is dropped."""
    tasks, order = fashion.TASKS, rng.permutation(len(garments))
    for rows in order[: steps_of(garments) * len(tasks) * BATCH].reshape(-1, len(tasks) * BATCH):
        varied = fashion.label(vary(garments.images[rows], rng), garments.labels["garment"][rows])
        whole = to_batch(varied)
        yield {
            task: Batch(whole.images[part], {task: whole.labels[task][part]})
            for task, part in zip(tasks, torch.arange(len(rows)).view(len(tasks), -1), strict=True)
        }


def steps_of(garments: fashion.Garments) -> int:
    """Steps of one epoch."""
    return len(garments) // (len(fashion.TASKS) * BATCH)


def cooled(steps: int) -> Callable[[int], float]:
    """Learning rate factor by step: the warm-up and cosine of a longer training, cooled to zero in the second half.

    Half a cosine alone would spend much of so short a training at low rates.
    """
    longer, cooling = cosine(round(1.5 * steps)), steps - steps // 2
    return lambda step: longer(step) * min(1.0, (steps - step) / cooling)


@dataclass
class Training:
    """A network on its way, with all that the next epoch depends on."""

    net: Network
    optimizer: torch.optim.AdamW
    schedule: torch.optim.lr_scheduler.LambdaLR
    seed: int
    epochs: int
    done: int = 0

    @property
    def settings(self) -> dict[str, int]:
        """What a checkpoint must have been made with."""
        return {"seed": self.seed, "epochs": self.epochs, "threads": torch.get_num_threads()}

    def save(self, path: Path) -> None:
        """Write a checkpoint, which replaces the last one whole."""
        parts = {name: getattr(self, name).state_dict() for name in ("net", "optimizer", "schedule")}
        temporary = path.with_name(f"{path.name}.part")
        torch.save(parts | {"done": self.done, "settings": self.settings}, temporary)
        temporary.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            InputError: it was made with other settings.
        """
        parts = torch.load(path, weights_only=True)
        if parts["settings"] != self.settings:
            raise InputError(
                f"{path}: made with {parts['settings']}, expected {self.settings}",
                hint="remove it to begin anew",
            )
        for name in ("net", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(parts[name])
        self.done = parts["done"]

    def epoch(self, garments: fashion.Garments) -> dict[str, float]:
        """Train for one epoch; returns the mean loss of each task."""
        # Every epoch has a generator of its own, so that a checkpoint need not hold one.
        rng, losses = np.random.default_rng([self.seed, self.done]), []
        for step in batches(garments, rng):
            self.optimizer.zero_grad()
            parts = torch.stack([task_loss(self.net, batch, task) for task, batch in step.items()])
            torch.autograd.backward(parts.sum())
            nn.utils.clip_grad_norm_(self.net.parameters(), CLIP_NORM)
            self.optimizer.step()
            self.schedule.step()
            losses.append(parts.detach())
        self.done += 1
        return dict(zip(fashion.TASKS, torch.stack(losses).mean(dim=0).tolist(), strict=True))


def start(garments: fashion.Garments, seed: int, epochs: int) -> Training:
    """A training that has not begun."""
    net = fresh_network(SHAPE, PIXEL_MEAN, PIXEL_STD)
    optimizer = make_optimizer(net, LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cooled(epochs * steps_of(garments)))
    return Training(net, optimizer, schedule, seed, epochs)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the Fashion-MNIST network.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new model folder")
    parser.add_argument(
        "--data", type=Path, default=fashion.FOLDER, metavar="DIR", help="folder of the data set"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and augmentation")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the training images")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    return parser.parse_args()


def run(arguments: argparse.Namespace) -> None:
    """Train, say the accuracy on the test images, and write the model folder."""
    require_new(arguments.out)
    make_repeatable(arguments.seed, arguments.threads)
    garments = fashion.load_garments("train", arguments.data)
    training = start(garments, arguments.seed, arguments.epochs)
    checkpoint = arguments.out.with_name(f"{arguments.out.name}.checkpoint.pt")
    if checkpoint.exists():
        training.resume(checkpoint)
        print(f"goes on after epoch {training.done}, from {checkpoint}")
    while training.done < training.epochs:
        begun = time.perf_counter(), time.process_time()
        losses = training.epoch(garments)
        training.save(checkpoint)
        shown = "  ".join(f"{task} {loss:.4f}" for task, loss in losses.items())
        wall, cpu = time.perf_counter() - begun[0], time.process_time() - begun[1]
        print(
            f"epoch {training.done:3d}/{training.epochs}  loss: {shown}  {wall:6.1f} s ({cpu:.1f} s of a core)",
            flush=True,
        )
    # Some of the test images, to see that it learned; all of them are what evaluate_fashion.py takes.
    evaluate(training.net.eval(), to_batch(fashion.load_garments("test", arguments.data).first(GLANCE)))
    training.net.to_model().save(arguments.out)
    checkpoint.unlink()
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    run_script(lambda: run(parse_arguments()))
