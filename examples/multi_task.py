"""Several tasks on every frame of a video or a folder of images, with the results drawn beside the input.

    python examples/multi_task.py                                   # out of the box: the shipped network, emulated
    python examples/multi_task.py BUILD --frames photos/ --emulate  # any build with its task heads, emulated
    python3 multi_task.py . --frames video.mp4                      # on a board, in the host folder of a build

Leaves `frame-0000.png`, `frame-0001.png`, ... and `frames.gif` in the output folder. Pictures, folders of them and
animations (GIF, WebP) are read with pillow; other videos need OpenCV, which the images of PYNQ boards have.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageSequence

from common.errors import EdgeMoeError, InputError
from common.pictures import fit_picture, image_files
from host import Accelerator, Result

PANEL = 256
"""Height of a drawn panel in pixels."""
CAPTION = 18
NEAREST = 0
"""Pillow's number for it: the name has moved between its releases."""
GIF_MS = 400
VIDEOS = {".mp4", ".avi", ".mkv", ".mov", ".webm"}
DEMO_FRAMES = 12


def read_frames(source: Path) -> Iterator[Image.Image]:
    """Frames of a video or an animation, or the images of a folder."""
    if source.suffix.lower() in VIDEOS:
        yield from read_video(source)
        return
    for file in image_files([source]):
        try:
            with Image.open(file) as picture:
                for frame in ImageSequence.Iterator(picture):
                    yield frame.convert("RGB")
        except (OSError, ValueError) as error:
            raise InputError(f"{file}: not a readable image: {error}") from None


def read_video(source: Path) -> Iterator[Image.Image]:
    """Frames of a video file."""
    try:
        import cv2
    except ImportError:
        raise InputError(
            f"{source}: reading videos needs OpenCV",
            hint="pip install opencv-python-headless, or give a folder of images or a GIF",
        ) from None
    video = cv2.VideoCapture(str(source))
    try:
        if not video.isOpened():
            raise InputError(f"{source}: cannot be read as a video")
        while True:
            there, frame = video.read()
            if not there:
                return
            yield Image.fromarray(frame[:, :, ::-1])
    finally:
        video.release()


def colours(values: np.ndarray[Any, Any], classes: int) -> Image.Image:
    """A map as a picture: a colour for each class, or grey from the least value to the largest."""
    if classes == 1:
        low, high = values.min(), values.max()
        grey = (255 * (values - low) / max(high - low, 1e-12)).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB")
    hues = (values * 255 // classes).astype(np.uint8)
    full = np.full_like(hues, 200)
    return Image.merge("HSV", [Image.fromarray(part) for part in (hues, full, full)]).convert("RGB")


def panel(picture: Image.Image, size: tuple[int, int], caption: str) -> Image.Image:
    """A picture at a size, with a line of text above it."""
    framed = Image.new("RGB", (size[0], size[1] + CAPTION), "white")
    framed.paste(picture.resize(size, NEAREST), (0, CAPTION))
    ImageDraw.Draw(framed).text((3, 3), caption, fill="black")
    return framed


def draw(frame: Image.Image, results: list[Result]) -> Image.Image:
    """The frame and what every task made of it, side by side."""
    size = (round(PANEL * frame.width / frame.height), PANEL)
    panels = [panel(frame, size, "input")]
    for result in results:
        if result.output is None:
            raise InputError(
                f"task {result.task} has no head in this build",
                hint="generate it with the heads: edgemoe generate DESIGN -o BUILD --model MODEL",
            )
        if result.output.ndim == 1:
            panels.append(
                panel(Image.new("RGB", (1, 1), "white"), size, f"{result.task}: {result.guesses[0].name}")
            )
        else:
            picture = colours(np.asarray(result.map), result.output.shape[-1])
            panels.append(panel(picture, size, result.task))
    sheet = Image.new("RGB", (sum(each.width for each in panels), panels[0].height), "white")
    left = 0
    for each in panels:
        sheet.paste(each, (left, 0))
        left += each.width
    return sheet


def run(
    accelerator: Accelerator, frames: Iterable[Image.Image], tasks: list[str]
) -> Iterator[tuple[Image.Image, list[Result]]]:
    """Every frame with the results of all tasks; the next frame is prepared while the accelerator works."""
    waiting: list[Image.Image] = []

    def pixels() -> Iterator[np.ndarray[Any, Any]]:
        for frame in frames:
            waiting.append(frame)
            yield fit_picture(frame, accelerator.manifest.images.shape, accelerator.manifest.fit)

    results: list[Result] = []
    for result in accelerator.stream(pixels(), tasks):
        results.append(result)
        if len(results) == len(tasks):
            yield waiting.pop(0), results
            results = []


def save(sheets: list[Image.Image], folder: Path) -> None:
    """A PNG for every sheet, and all of them as a GIF."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, sheet in enumerate(sheets):
        sheet.save(folder / f"frame-{number:04}.png")
    sheets[0].save(folder / "frames.gif", save_all=True, append_images=sheets[1:], duration=GIF_MS, loop=0)


def digits_build(folder: Path) -> tuple[Path, list[Image.Image]]:
    """A build of the shipped two-task network, and some images that it has not seen."""
    import edgemoe
    from edgemoe.demo import MODEL
    from frontend import digits

    model = edgemoe.load_model(MODEL)
    design = edgemoe.quantize(model, digits.load_scenes("train").images[:128], "w8a8")
    edgemoe.generate(design, folder / "build", "zcu102", model=model)
    scenes = digits.load_scenes("heldout").images[:DEMO_FRAMES, 0]
    return folder / "build", [Image.fromarray(scene).convert("RGB") for scene in scenes]


def open_accelerator(build: Path, *, emulate: bool) -> Accelerator:
    """The accelerator of a build, on the board or emulated."""
    if not emulate:
        return Accelerator(build)
    import edgemoe

    return edgemoe.Accelerator(build, emulate=True)


def main() -> int:
    """Run the example and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("build", type=Path, nargs="?", help="build folder, or on a board its host folder")
    parser.add_argument("--frames", type=Path, help="folder of images, animation or video")
    parser.add_argument("--task", action="append", help="task; repeatable; all if not given")
    parser.add_argument("--limit", type=int, default=100, help="frames at most (100)")
    parser.add_argument("--emulate", action="store_true", help="without a board")
    parser.add_argument("--out", type=Path, default=Path("multi-task"), help="output folder (multi-task)")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            return show(options, Path(temporary))
    except EdgeMoeError as error:
        hint = [f"hint: {error.hint}"] if error.hint else []
        print(f"error: {error.message}", *hint, sep="\n", file=sys.stderr)
        return error.exit_code


def show(options: argparse.Namespace, temporary: Path) -> int:
    """Run all frames, print the rate, and save what was drawn."""
    frames: Iterable[Image.Image]
    if options.build is None:
        print("quantising and generating the shipped network, and compiling it for the emulated board")
        build, frames = digits_build(temporary)
    else:
        if options.frames is None:
            raise InputError(
                "no frames", hint="--frames FOLDER, --frames animation.gif or --frames video.mp4"
            )
        build, frames = options.build, read_frames(options.frames)
    sheets, cycles = [], 0
    with open_accelerator(build, emulate=options.emulate or options.build is None) as accelerator:
        tasks = options.task or list(accelerator.tasks)
        start = time.perf_counter()
        for frame, results in run(accelerator, itertools.islice(frames, options.limit), tasks):
            sheets.append(draw(frame, results))
            cycles += sum(result.cycles or 0 for result in results)
        seconds = time.perf_counter() - start
        emulated, clock = accelerator.emulated, accelerator.clock_mhz
    if not sheets:
        raise InputError(f"{options.frames}: no frame")
    named, rate = ", ".join(tasks), len(sheets) / seconds
    print(f"{len(sheets)} frames, {len(tasks)} tasks ({named}) in {seconds:.2f} s: {rate:.1f} frames/s")
    if emulated:
        print("on the emulated board: the rate is this computer's, not the hardware's")
    else:
        print(f"in the accelerator: {cycles / len(sheets) / clock / 1e3:.3f} ms a frame")
    save(sheets, options.out)
    print(f"saved {len(sheets)} pictures and frames.gif in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
