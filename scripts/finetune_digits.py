"""Fine-tune the shipped digits network for a precision, and say what it gained.

Calibrates and quantises the network, trains its weights for some epochs through the fake-quantised forward, quantises
them again, and simulates both Designs on the held-out scenes::

    python scripts/finetune_digits.py                       # w8a8, which loses nothing to begin with
    python scripts/finetune_digits.py --bits 4              # weights and activations of 4 bits
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from train_digits import BATCH, CLIP_NORM, LABEL_SMOOTHING, TASKS, batches, cosine, run_script

import edgemoe
from common.errors import InputError
from frontend import digits
from frontend.fake_quant import FakeQuantized
from frontend.network import Network
from pysim import reference
from pysim.design import Design
from pysim.files import require_new
from pysim.model import Model
from pysim.precision import Precision, preset
from pysim.quantizer import quantize

MODEL: Final = Path(digits.__file__).parent / "data" / "digits"
CALIBRATION_SCENES: Final = 128
LEARNING_RATE: Final = 3e-4


def accuracies(model: Model, scenes: digits.Scenes, design: Design | None = None) -> dict[str, float]:
    """Percent right of each task: of the simulated Design, or of the float64 network without one."""
    result = {}
    for number, task in enumerate(model.spec.tasks):
        if design is None:
            tokens = reference.run(model, scenes.images, number).tokens
        else:
            tokens = edgemoe.simulate(design, scenes.images, task).tokens
        logits = reference.apply_head(model, task, tokens)
        assert logits is not None
        result[task] = 100 * float((logits.argmax(-1) == scenes.labels[task]).mean())
    return result


def finetune(net: Network, design: Design, epochs: int, seed: int) -> None:
    """Train in place, both tasks on each batch, through the forward of the Design."""
    fake, rng, sources = FakeQuantized(net, design), np.random.default_rng(seed), digits.load_sources("train")
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, cosine(epochs * (len(sources.digits) // BATCH)))
    start = time.perf_counter()
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in batches(sources, rng):
            optimizer.zero_grad()
            logits = [fake.predict(batch.images, task) for task in TASKS]
            parts = torch.stack(
                [
                    functional.cross_entropy(
                        logit.flatten(0, -2), batch.labels[task].flatten(), label_smoothing=LABEL_SMOOTHING
                    )
                    for logit, task in zip(logits, TASKS, strict=True)
                ]
            )
            parts.sum().backward()
            nn.utils.clip_grad_norm_(net.parameters(), CLIP_NORM)
            optimizer.step()
            schedule.step()
            losses.append(parts.detach())
        shown = "  ".join(
            f"{task} {mean:.4f}"
            for task, mean in zip(TASKS, torch.stack(losses).mean(dim=0).tolist(), strict=True)
        )
        print(f"epoch {epoch:3d}/{epochs}  loss: {shown}  {time.perf_counter() - start:6.1f} s", flush=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Fine-tune the digits network for a precision.")
    parser.add_argument("--precision", default="w8a8", help="preset to start from")
    parser.add_argument("--bits", type=int, help="width of weights and activations instead of the preset's")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the training images")
    parser.add_argument("--seed", type=int, default=0, help="seed of the augmentation")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--out", type=Path, metavar="DIR", help="new folder for the fine-tuned Model")
    return parser.parse_args()


def chosen_precision(arguments: argparse.Namespace) -> Precision:
    """The preset, with other widths if they are given."""
    start = preset(arguments.precision)
    if arguments.bits is None:
        return start
    if not 4 <= arguments.bits <= 18:
        raise InputError(f"--bits {arguments.bits}, expected 4 to 18")
    name = f"w{arguments.bits}a{arguments.bits}"
    return start.model_copy(
        update={"name": name, "weight_width": arguments.bits, "activation_width": arguments.bits}
    )


def run(arguments: argparse.Namespace) -> None:
    """Quantise, fine-tune, quantise again, and print the accuracies."""
    if arguments.out is not None:
        require_new(arguments.out)
    torch.set_num_threads(arguments.threads)
    precision = chosen_precision(arguments)
    scenes, calibration = (
        digits.load_scenes("heldout"),
        digits.load_scenes("train").images[:CALIBRATION_SCENES],
    )
    model = Model.load(MODEL)
    design = quantize(model, calibration, precision)
    rows = {"float64": accuracies(model, scenes), precision.name: accuracies(model, scenes, design)}
    net = Network.from_model(model)
    finetune(net, design, arguments.epochs, arguments.seed)
    tuned = net.to_model()
    again = quantize(tuned, calibration, precision)
    rows["float64, fine-tuned"] = accuracies(tuned, scenes)
    rows[f"{precision.name}, fine-tuned"] = accuracies(tuned, scenes, again)
    print(f"{'':24}" + "".join(f"{task:>10}" for task in TASKS))
    for name, row in rows.items():
        print(f"{name:24}" + "".join(f"{row[task]:8.2f} %" for task in TASKS))
    if arguments.out is not None:
        tuned.save(arguments.out)
        print(f"wrote {arguments.out}")


if __name__ == "__main__":
    run_script(lambda: run(parse_arguments()))
