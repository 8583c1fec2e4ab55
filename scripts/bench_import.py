"""Measure the import of checkpoints: seconds and peak memory, each in a process of its own.

Writes synthetic M3ViT checkpoints with random weights and convolutional decoders, and the same networks as ONNX,
into a temporary folder; "copy" is the time that reading and writing as many bytes takes::

    python scripts/bench_import.py
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from frontend.onnx_export import export_model
from frontend.zoo import find_spec
from pysim.model import Model, init_model

TARGETS: Final = {"m3vit-tiny": (5.0, 1.0), "m3vit-small-nyud": (20.0, 2.0)}
"""Seconds and GB that the import of a checkpoint may take."""

DECODER_WIDTH: Final = 256

MEASURED: Final = r"""
import json, re, sys, time
start = time.perf_counter()
from pathlib import Path
from frontend.importing import import_model
from frontend.options import Options
source, output, *given = sys.argv[1:]
options = Options()
if given:
    top_k, heads, height, width = map(int, given)
    options = Options(top_k=top_k, heads=heads, image_size=(height, width))
imported = import_model(Path(source), options)
imported.save(Path(output))
# Not getrusage, whose maximum a process inherits from the one that started it.
peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1e6
print(json.dumps({"seconds": time.perf_counter() - start, "gigabytes": peak, "parameters": imported.model.parameters}))
"""


def m3vit_checkpoint(model: Model, path: Path) -> None:
    """Write a Model as M3ViT's training script would."""
    spec, prefix = model.spec, "module.backbone."
    state: dict[str, Any] = {}
    assert spec.moe is not None
    for name, tensor in model.weights.items():
        if name.startswith("heads."):
            continue
        key = name.replace("patch_embed.", "patch_embed.proj.").replace(".moe.fc1.", ".mlp.experts.htoh4.")
        key = key.replace(".moe.fc2.", ".mlp.experts.h4toh.")
        if name == "pos_embed":
            tensor = tensor[None]
        if name.endswith("gate.weight"):
            stem = key.replace(".moe.gate.weight", ".mlp.gate")
            state |= {f"{prefix}{stem}.{task}.w_gate": gate.T for task, gate in enumerate(tensor)}
        else:
            state[prefix + key] = tensor
    state[f"{prefix}cls_token"] = np.zeros((1, 1, spec.dim), np.float32)
    for task in spec.tasks:
        state |= {f"module.decoders.{task}.{name}": tensor for name, tensor in decoder(spec.dim).items()}
    tensors = {key: torch.from_numpy(np.array(tensor)) for key, tensor in state.items()}
    torch.save({"epoch": 1, "state_dict": tensors}, path)


def decoder(dim: int) -> dict[str, Any]:
    """Tensors of a decoder of five convolutions."""
    tensors: dict[str, Any] = {
        "norm.weight": np.ones(dim, np.float32),
        "norm.bias": np.zeros(dim, np.float32),
    }
    for stage in range(4):
        inputs = DECODER_WIDTH if stage else dim
        tensors[f"conv_{stage}.weight"] = np.zeros((DECODER_WIDTH, inputs, 3, 3), np.float32)
        tensors[f"conv_{stage}.bias"] = np.zeros(DECODER_WIDTH, np.float32)
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensors[f"syncbn_fc_{stage}.{part}"] = np.ones(DECODER_WIDTH, np.float32)
    last = np.zeros((8, DECODER_WIDTH, 1, 1), np.float32)
    return tensors | {"conv_4.weight": last, "conv_4.bias": last[:, 0, 0, 0]}


def measure(source: Path, output: Path, options: list[int]) -> dict[str, float]:
    """Import in a fresh process."""
    command = [sys.executable, "-c", MEASURED, str(source), str(output), *map(str, options)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def copy_seconds(source: Path, target: Path) -> float:
    """Seconds of reading a file and writing it again: what no import can do without."""
    start = time.perf_counter()
    target.write_bytes(source.read_bytes())
    return time.perf_counter() - start


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Measure the import of checkpoints.")
    parser.add_argument(
        "--onnx", action="store_true", help="measure ONNX files too, which takes a minute more"
    )
    arguments = parser.parse_args()
    missed = []
    print(
        f"{'network':20}{'source':14}{'M params':>9}{'MB':>7}{'seconds':>9}{'copy':>7}{'peak GB':>9}   target"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, (seconds, gigabytes) in TARGETS.items():
            model = init_model(find_spec(name))
            spec = model.spec
            assert spec.moe is not None
            sources = {"checkpoint": folder / f"{name}.pth"}
            m3vit_checkpoint(model, sources["checkpoint"])
            if arguments.onnx:
                sources["ONNX"] = folder / f"{name}.onnx"
                export_model(model, sources["ONNX"])
            for kind, source in sources.items():
                options = [spec.moe.top_k, spec.heads, *spec.image_size] if kind == "checkpoint" else []
                copied = copy_seconds(source, folder / "copy")
                found = measure(source, folder / f"{name}-{kind}", options)
                target = f"{seconds:g} s, {gigabytes:g} GB" if kind == "checkpoint" else ""
                print(
                    f"{name:20}{kind:14}{found['parameters'] / 1e6:9.1f}{source.stat().st_size / 1e6:7.0f}"
                    f"{found['seconds']:9.2f}{copied:7.2f}{found['gigabytes']:9.2f}   {target}"
                )
                if target and (found["seconds"] > seconds or found["gigabytes"] > gigabytes):
                    missed.append(name)
    if missed:
        raise SystemExit(f"over target: {', '.join(missed)}")


if __name__ == "__main__":
    main()
