"""Videos as input, and films of what commands paint. The tests make their videos themselves."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import imageio.v2
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image, ImageSequence

import edgemoe
from codegen.build import Build
from common import video
from common.errors import InputError
from common.fits import Fit
from common.outputs import csv_text, flat, kind_of
from common.pictures import SUFFIXES, each_picture, load_picture, load_pictures
from common.video import Video, frame_rate, is_video, quiet, require_readable
from edgemoe import animation
from edgemoe.animation import animate
from edgemoe.cli import main
from edgemoe.runs import tokens_sha256
from host.cli import main as host_main
from host.cli import sources
from pysim.design import Design
from pysim.images import named_images

Pixels = NDArray[np.uint8]
FPS = 12
GREYS = (20, 120, 230)
"""Grey of each frame."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames of 32 x 16 pixels, each of one grey."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with (
        quiet(),
        imageio.v2.get_writer(path, format="FFMPEG", mode="I", fps=FPS, macro_block_size=2) as writer,
    ):
        for grey in GREYS:
            writer.append_data(np.full((16, 32, 3), grey, np.uint8))
    return path


def no_ffmpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)


class TestReading:
    def test_frames(self, clip: Path) -> None:
        with Video(clip) as opened:
            assert opened.fps == FPS
            frames = list(opened)
        assert [frame.shape for frame in frames] == [(16, 32, 3)] * 3
        for frame, grey in zip(frames, GREYS, strict=True):
            assert np.abs(frame.astype(int) - grey).max() < 8
        assert frame_rate([clip.with_suffix(".png"), clip]) == FPS
        assert frame_rate([clip.with_suffix(".png"), 0]) is None
        assert is_video(0) and is_video(Path("a.MOV")) and not is_video(Path("a.gif"))

    def test_made_to_fit(self, clip: Path) -> None:
        pixels = load_pictures(clip, (1, 8, 16), fit=Fit(), frames=2)
        assert pixels.shape == (2, 1, 8, 16)
        assert np.abs(pixels[1].astype(int) - GREYS[1]).max() < 8
        named = list(each_picture([clip], (3, 16, 32)))
        assert [image.name for image in named] == [f"{clip}[{number}]" for number in range(3)]
        with pytest.raises(InputError, match="32x16 pixels of mode RGB, expected 16x8 of mode RGB"):
            load_pictures(clip, (3, 8, 16))
        with pytest.raises(InputError, match="a video, expected one image"):
            load_picture(clip, (3, 8, 16))

    def test_names_of_all_kinds(self, clip: Path, designs: dict[str, Design], tmp_path: Path) -> None:
        spec = designs["w8a8"].spec
        np.save(tmp_path / "batch.npy", np.zeros((2, *spec.image_shape), np.uint8))
        Image.new("RGB", (16, 8)).save(tmp_path / "a.png")
        names, pixels = named_images([tmp_path, clip], spec, resize="stretch", frames=1)
        assert names == [
            f"{tmp_path / 'a.png'}",
            f"{tmp_path / 'batch.npy'}[0]",
            f"{tmp_path / 'batch.npy'}[1]",
            f"{clip}[0]",
        ]
        assert pixels.shape == (4, *spec.image_shape)
        assert_array_equal(edgemoe.load_images(clip, designs["w8a8"], resize="stretch", frames=1), pixels[3:])

    def test_what_is_no_video(self, tmp_path: Path) -> None:
        (tmp_path / "bad.mp4").write_bytes(b"nonsense" * 50)
        with pytest.raises(InputError, match=r"bad\.mp4: not readable as a video"):
            load_pictures(tmp_path / "bad.mp4", (3, 8, 16), fit=Fit())
        with pytest.raises(InputError, match=r"none\.mp4: no such video"):
            load_pictures(tmp_path / "none.mp4", (3, 8, 16), fit=Fit())

    def test_files_name_nothing_but_files(self, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lists of streams may pass for videos: ffmpeg is told to open files only, by their whole path."""
        opened: list[tuple[str, list[str]]] = []

        def reader(uri: str, **options: Any) -> Any:
            opened.append((uri, options["input_params"]))
            raise RuntimeError

        monkeypatch.setattr(imageio.v2, "get_reader", reader)
        monkeypatch.chdir(clip.parent)
        with pytest.raises(InputError, match="not readable as a video: RuntimeError"):
            Video(Path("clip.mp4"))
        assert opened == [(str(clip.resolve()), ["-protocol_whitelist", "file"])]

    def test_without_ffmpeg(self, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        no_ffmpeg(monkeypatch)
        with pytest.raises(InputError, match="needs the packages imageio and imageio-ffmpeg") as caught:
            Video(clip)
        assert "edgemoe[video]" in caught.value.hint

    def test_a_camera(self, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A camera is what imageio calls `<video0>`; its frames are taken as they come, so many and no more."""
        real, opened = imageio.v2.get_reader, []

        def reader(uri: str, **options: Any) -> Any:
            opened.append((uri, options["input_params"]))
            return real(str(clip), format="FFMPEG", mode="I")

        monkeypatch.setattr(imageio.v2, "get_reader", reader)
        found = list(each_picture([3], (3, 16, 32), frames=2))
        assert [image.name for image in found] == ["camera 3[0]", "camera 3[1]"]
        assert opened == [("<video3>", [])]
        monkeypatch.setattr("common.pictures.CAMERA_FRAMES", 1)
        assert len(list(each_picture([0], (3, 16, 32)))) == 1
        assert len(list(each_picture([clip], (3, 16, 32)))) == 3

    def test_cameras_that_are_not_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(video, "_DEVICES", tmp_path)
        monkeypatch.setattr(sys, "platform", "linux")
        with pytest.raises(InputError, match=f"camera 1: there is no {tmp_path}/video1") as caught:
            require_readable(1)
        assert "no camera is connected" in caught.value.hint
        for number in (0, 2):
            (tmp_path / f"video{number}").touch()
        with pytest.raises(InputError) as caught:
            sources([], 1)
        assert caught.value.hint == "cameras here: 0, 2"
        assert sources([Path("a.png"), Path("b.mp4")], 2) == [Path("a.png"), Path("b.mp4"), 2]
        no_ffmpeg(monkeypatch)
        for source in (2, Path("b.mp4")):
            with pytest.raises(InputError, match="needs the packages imageio and imageio-ffmpeg"):
                require_readable(source)
        require_readable(Path("a.png"))

    def test_no_camera(self) -> None:
        if Path("/dev/video77").exists():
            pytest.skip("this computer has 78 cameras")
        with pytest.raises(InputError, match="camera 77: not readable as a video") as caught:
            Video(77)
        assert "is it connected" in caught.value.hint


class TestFilms:
    def test_gif_and_mp4(self, tmp_path: Path) -> None:
        sizes = ((40, 20), (40, 25), (41, 20))
        files = [tmp_path / f"{number}.png" for number in range(3)]
        for file, size, grey in zip(files, sizes, GREYS, strict=True):
            Image.new("RGB", size, (grey, grey, grey)).save(file)
        notes: list[str] = []
        films = animate(tmp_path / "a.b", files, 10, notes.append)
        assert [film.name for film in films] == ["a.b.gif", "a.b.mp4"] and not notes
        with Image.open(films[0]) as gif:
            frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(gif)]
            assert gif.info["duration"] == 100
        with Video(films[1]) as film:
            assert film.fps == 10
            shown = list(film)
        assert len(frames) == len(shown) == 3
        for frame, other, (width, height), grey in zip(frames, shown, sizes, GREYS, strict=True):
            assert frame.shape == other.shape == (26, 42, 3)
            assert (frame[:height, :width] == grey).all() and (frame[height:] == 255).all()
            assert np.abs(other[: height - 2, : width - 2].astype(int) - grey).max() < 12

    def test_one_picture_is_no_film(self, tmp_path: Path) -> None:
        assert animate(tmp_path / "a", [tmp_path / "a.png"], None, print) == []

    def test_long_films(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(animation, "MOST_GIF_FRAMES", 2)
        no_ffmpeg(monkeypatch)
        file = tmp_path / "a.png"
        files = []
        for number in range(5):
            files.append(file.with_name(f"{number}.png"))
            Image.new("RGB", (8, 8), (50 * number, 0, 0)).save(files[-1])
        notes: list[str] = []
        (gif,) = animate(tmp_path / "film", files, None, notes.append)
        assert notes[0].startswith("no MP4 beside film.gif: pip install 'edgemoe[video]'")
        with Image.open(gif) as opened:
            reds = [np.asarray(frame.convert("RGB"))[0, 0, 0] for frame in ImageSequence.Iterator(opened)]
            assert opened.info["duration"] == 1500
        assert reds == [0, 150]


class TestOut:
    def test_kinds(self) -> None:
        assert [kind_of(Path(name)) for name in ("a", "a.npz", "b.CSV", "c.d.json")] == [
            "npz",
            "npz",
            "csv",
            "json",
        ]
        with pytest.raises(InputError, match=r"--out a\.txt: no results are written as \.txt"):
            kind_of(Path("a.txt"))

    def test_rows(self) -> None:
        rows: list[dict[str, Any]] = [{"image": "a,b", "low": 1.5}, {"image": 'c"', "name": "d"}]
        found = list(csv.DictReader(csv_text(rows).splitlines()))
        assert found == [
            {"image": "a,b", "low": "1.5", "name": ""},
            {"image": 'c"', "low": "", "name": "d"},
        ]
        top = {"top": [{"class": 3, "name": "cat", "share": 0.5}, {"class": 1, "name": "dog", "share": 0.2}]}
        assert flat(top) == {"class": 3, "name": "cat", "share": 0.5}
        assert flat({"low": 1}) == {"low": 1}


class TestCommands:
    def test_simulate(
        self, clip: Path, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model, design = str(folders / "model"), str(folders / "w8a8")
        common = [
            "simulate",
            design,
            "--images",
            str(clip),
            "--resize",
            "crop",
            "--model",
            model,
            "--frames",
            "2",
        ]
        table, result = tmp_path / "out.csv", tmp_path / "out.json"
        assert main([*common, "--task", "all", "--save", str(tmp_path / "saved"), "--out", str(table)]) == 0
        text = capsys.readouterr().out
        assert f"{clip}[1]: depth: map 2x4, " in text and f"{clip}[0]: semseg: map 2x4: class " in text
        names = sorted(path.name for path in (tmp_path / "saved").iterdir())
        numbers = [f"000{number}.{task}.png" for number in range(2) for task in ("depth", "semseg")]
        assert names == sorted([*numbers, "depth.gif", "depth.mp4", "semseg.gif", "semseg.mp4"])
        with Video(tmp_path / "saved/depth.mp4") as film:
            assert film.fps == FPS
        assert main([*common, "--out", str(result), "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert json.loads(result.read_text()) == printed
        noted = tmp_path / "noted"
        quantised = edgemoe.load_design(design)
        spec = quantised.spec.model_copy(update={"notes": "some weights are random"})
        dataclasses.replace(quantised, spec=spec).save(noted)
        image = str(folders / "images/00.png")
        assert (
            main(["simulate", str(noted), "--image", image, "--out", str(tmp_path / "noted.json"), "--json"])
            == 0
        )
        assert json.loads((tmp_path / "noted.json").read_text())["warnings"] == ["some weights are random"]
        capsys.readouterr()
        rows = list(csv.DictReader(table.read_text().splitlines()))
        assert [(row["image"], row["task"]) for row in rows] == [
            (f"{clip}[{number}]", task) for task in ("semseg", "depth") for number in range(2)
        ]
        for row, output in zip(rows, printed["outputs"], strict=False):
            assert (row["image"], row["class"], row["name"], float(row["share"])) == (
                output["image"],
                str(output["top"][0]["class"]),
                output["top"][0]["name"],
                output["top"][0]["share"],
            )
        assert float(rows[2]["low"]) <= float(rows[2]["mean"]) <= float(rows[2]["high"])
        quantised = edgemoe.load_design(design)
        pixels = edgemoe.load_images(clip, quantised, resize="crop", frames=2)
        for task, found in (("semseg", rows[:2]), ("depth", rows[2:])):
            simulated = edgemoe.simulate(quantised, pixels, task).integers
            assert [row["tokens_sha256"] for row in found] == [tokens_sha256(each) for each in simulated]

    def test_wrong_kinds_before_any_work(
        self, folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        image = str(folders / "images" / "00.png")
        for command in (["simulate", str(folders / "none")], ["run", str(folders / "none"), "--emulate"]):
            assert main([*command, "--image", image, "--out", str(tmp_path / "a.txt")]) == 2
            assert "no results are written as .txt" in capsys.readouterr().err
        trace = [
            "simulate",
            str(folders / "w8a8"),
            "--image",
            image,
            "--trace",
            "--out",
            str(tmp_path / "a.csv"),
        ]
        assert main(trace) == 2
        assert "a trace is arrays" in capsys.readouterr().err
        assert main(["run", str(folders / "none")]) == 2
        assert "neither --image nor --camera" in capsys.readouterr().err

    @pytest.mark.compile
    def test_run(
        self, clip: Path, built: Build, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table, result = tmp_path / "a.csv", tmp_path / "a.json"
        common = [
            "run",
            str(built.folder),
            "--images",
            str(clip),
            "--frames",
            "2",
            "--task",
            "all",
            "--emulate",
        ]
        assert main([*common, "--save", str(tmp_path / "saved"), "--out", str(table)]) == 0
        names = {path.name for path in (tmp_path / "saved").iterdir()}
        assert len(names) == 8 and {"depth.gif", "depth.mp4", "semseg.gif", "semseg.mp4"} < names
        assert main([*common, "--out", str(result)]) == 0
        runs = json.loads(result.read_text())["runs"]
        rows = list(csv.DictReader(table.read_text().splitlines()))
        pixels = edgemoe.load_images(clip, built.design, resize="own", frames=2)
        for task in built.design.spec.tasks:
            simulated = edgemoe.simulate(built.design, pixels, task).integers
            found = [row for row in rows if row["task"] == task]
            assert [row["image"] for row in found] == [f"{clip}[0]", f"{clip}[1]"]
            assert [row["tokens_sha256"] for row in found] == [tokens_sha256(each) for each in simulated]
        assert [run["tokens_sha256"] for run in runs] == [row["tokens_sha256"] for row in rows]
        capsys.readouterr()

    @pytest.mark.compile
    def test_the_command_of_boards(
        self, clip: Path, built: Build, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        common = [str(built.host), "--image", str(clip), "--frames", "2", "--emulate", str(library)]
        assert host_main([*common, "--out", str(tmp_path / "a.csv")]) == 0
        printed = capsys.readouterr().out.splitlines()
        rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
        assert len(printed) == len(rows) == 2
        for line, row in zip(printed, rows, strict=True):
            assert line.startswith(f"{row['image']}: semseg: map 2x4: {row['name']} (")
            assert line.endswith(f"tokens {row['tokens_sha256'][:16]}")
        assert host_main([*common, "--out", str(tmp_path / "a.json"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "a.json").read_text())
        assert host_main([*common, "--out", str(tmp_path / "a.txt")]) == 2
        assert host_main([str(built.host), "--emulate", str(library)]) == 2
        assert host_main([*common, "--camera", "-1"]) == 2
        assert "--camera -1, expected 0" in capsys.readouterr().err


def test_suffixes_are_no_pictures() -> None:
    assert not SUFFIXES & video.SUFFIXES
