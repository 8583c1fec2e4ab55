"""Accuracy of Designs on labelled images: every form of data, workers that die, and runs that go on."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import edgemoe
from common.errors import InputError
from edgemoe import evaluation
from edgemoe.chunks import HERE, Places, Store, run_chunks
from edgemoe.cli import main
from edgemoe.evaluation import Evaluation, Job
from edgemoe.labelled import labelled
from edgemoe.runs import run_task
from pysim import reference
from pysim.design import Design
from pysim.model import Model
from pysim.reference import apply_head
from pysim.spec import HeadSpec

Pixels = NDArray[np.uint8]
Labels = NDArray[Any]


@pytest.fixture(scope="module")
def networks(micro: Model, designs: dict[str, Design]) -> tuple[Design, Model]:
    return designs["w8a8"], micro


@pytest.fixture(scope="module")
def classes(micro: Model) -> Labels:
    """Classes (12, 2, 4) of patches."""
    return np.random.default_rng(8).integers(0, 7, (12, 2, 4))


def evaluate(
    networks: tuple[Design, Model], images: Pixels, labels: Labels, places: Places = HERE, **others: Any
) -> Evaluation:
    design, model = networks
    data = labelled({"images": images, "labels": labels}, model.spec, "semseg")
    job = Job(design, model, "semseg", None, True)
    return evaluation.evaluate(job, data, places, chunk=2, **others)


# --- Figures ------------------------------------------------------------------------------------------------


def test_figures_are_those_of_the_outputs(
    networks: tuple[Design, Model], images: Pixels, classes: Labels
) -> None:
    design, model = networks
    seen: list[tuple[int, int]] = []
    found = evaluate(networks, images, classes, progress=lambda *done: seen.append(done))
    assert seen == [(done, 12) for done in range(0, 13, 2)]
    assert found.images == 12 and [score.metric.name for score in found.scores] == ["pixel_accuracy", "miou"]
    tokens = {
        "integer": edgemoe.simulate(design, images, "semseg").tokens,
        "float": reference.run(model, images, 0).tokens,
    }
    for network, own in tokens.items():
        outputs = apply_head(model, "semseg", own)
        assert outputs is not None
        right = outputs.argmax(-1) == classes.reshape(12, 8)
        assert found["pixel_accuracy"].figures[network].value == pytest.approx(100 * right.mean())
    difference = found["pixel_accuracy"].difference
    assert difference is not None
    figures = found["pixel_accuracy"].figures
    assert difference.value == pytest.approx(figures["integer"].value - figures["float"].value)


def test_facade(networks: tuple[Design, Model], images: Pixels) -> None:
    design, model = networks
    depth = np.random.default_rng(9).normal(size=(12, 8)).astype(np.float32)
    data: dict[str, NDArray[Any]] = {"images": images, "depth": depth}
    found = edgemoe.evaluate(design, model, data, "depth", float_too=False)
    assert [score.metric.name for score in found.scores] == ["rmse"]
    outputs = apply_head(model, "depth", edgemoe.simulate(design, images, "depth").tokens)
    assert outputs is not None
    expected = np.sqrt(np.square(outputs[..., 0] - depth).mean())
    assert found["rmse"].figures["integer"].value == pytest.approx(expected)
    assert "float" not in found["rmse"].figures and found["rmse"].difference is None
    with pytest.raises(InputError, match="no images"):
        edgemoe.evaluate(design, model, {"images": images[:0], "labels": depth[:0]}, "depth")
    with pytest.raises(InputError, match="no head"):
        bare = model.spec.model_copy(update={"task_heads": {"depth": HeadSpec(kind="none")}})
        weights = {name: tensor for name, tensor in model.weights.items() if not name.startswith("heads.")}
        edgemoe.evaluate(design, Model(bare, weights), data, "depth")


# --- Data ---------------------------------------------------------------------------------------------------


def save_pictures(folder: Path, pictures: Pixels | Labels, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, picture in zip(names, pictures, strict=True):
        Image.fromarray(picture).save(folder / f"{name}.png")


def test_masks_beside_images(micro: Model, images: Pixels, classes: Labels, tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(12)]
    save_pictures(tmp_path / "images", images.transpose(0, 2, 3, 1), names)
    save_pictures(tmp_path / "labels", classes.astype(np.uint8), names)
    data = labelled(tmp_path, micro.spec, "semseg")
    np.testing.assert_array_equal(data.images(slice(3, 6)), images[3:6])
    np.testing.assert_array_equal(data.labels(slice(3, 6)), classes[3:6])
    # A folder of the task's own comes first, and .npy holds real values; both kinds change what the data set is.
    (tmp_path / "depth").mkdir()
    for name in names:
        np.save(tmp_path / "depth" / f"{name}.npy", np.full((2, 4), float(name)))
    own = labelled(tmp_path, micro.spec, "depth")
    assert own.labels(slice(0, 12))[:, 0, 0].tolist() == list(range(12)) and own.identity != data.identity
    palette = Image.fromarray(classes[0].astype(np.uint8), mode="P")
    palette.putpalette(list(range(256)) * 3)
    palette.save(tmp_path / "labels" / "00.png")
    np.testing.assert_array_equal(labelled(tmp_path, micro.spec, "semseg").labels(slice(0, 1))[0], classes[0])
    (tmp_path / "labels" / "05.png").unlink()
    with pytest.raises(InputError, match=r"no label for 05\.png"):
        labelled(tmp_path, micro.spec, "semseg")
    Image.fromarray(images[0].transpose(1, 2, 0)).save(tmp_path / "labels" / "05.png")
    with pytest.raises(InputError, match=r"05\.png: a RGB picture"):
        labelled(tmp_path, micro.spec, "semseg").labels(slice(5, 6))
    np.save(tmp_path / "labels" / "05.npy", np.zeros((3, 3)))
    (tmp_path / "labels" / "05.png").unlink()
    with pytest.raises(InputError, match=r"05\.npy: float64 of shape \(3, 3\), but 04\.png is int64"):
        labelled(tmp_path, micro.spec, "semseg").labels(slice(4, 6))


def test_folders_of_classes(micro: Model, images: Pixels, tmp_path: Path) -> None:
    for number, image in enumerate(images):
        save_pictures(tmp_path / "named" / "abc"[number % 3], image.transpose(1, 2, 0)[None], [str(number)])
        save_pictures(tmp_path / "numbered" / str(8 + number % 3), image.transpose(1, 2, 0)[None], ["x"])
    data = labelled(tmp_path / "named", micro.spec, "semseg")
    assert data.count == 12 and data.classes == ("a", "b", "c")
    assert data.labels(slice(None)).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    # Numbered folders are what they say, though 10 comes before 8 in order of their names.
    numbered = labelled(tmp_path / "numbered", micro.spec, "semseg")
    assert sorted(numbered.labels(slice(None)).tolist()) == [8, 9, 10]
    assert numbered.classes == ("10", "8", "9")
    large = np.random.default_rng(1).integers(0, 256, (1, 40, 50, 3), dtype=np.uint8)
    save_pictures(tmp_path / "large" / "a", large, ["0"])
    with pytest.raises(InputError, match="expected"):
        labelled(tmp_path / "large", micro.spec, "semseg").images(slice(1))
    fitted = {
        way: labelled(tmp_path / "large", micro.spec, "semseg", resize=way)
        for way in ("own", "crop", "stretch")
    }
    pixels = {way: data.images(slice(1)) for way, data in fitted.items()}
    np.testing.assert_array_equal(pixels["own"], pixels[micro.spec.fit().method])
    assert (pixels["crop"] != pixels["stretch"]).any()
    assert fitted["crop"].identity != fitted["stretch"].identity
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no folders in it"):
        labelled(tmp_path / "empty", micro.spec, "semseg")
    (tmp_path / "empty" / "a").mkdir()
    with pytest.raises(InputError, match="no image in its folders"):
        labelled(tmp_path / "empty", micro.spec, "semseg")


def test_files_that_hold_no_data(micro: Model, images: Pixels, tmp_path: Path) -> None:
    def saved(**arrays: Any) -> Path:
        np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    labels = np.zeros((12, 2, 4), np.uint8)
    np.testing.assert_array_equal(
        labelled(saved(images=images, semseg=labels), micro.spec, "semseg").labels(slice(1)), labels[:1]
    )
    for arrays, message in (
        ({"images": images}, "arrays images, expected"),
        ({"images": images[:3], "labels": labels}, "one for each of 3 images"),
        ({"images": images[:, :2], "labels": labels}, r"uint8 of shape \(images, 3, 8, 16\)"),
        ({"images": images.astype(float), "labels": labels}, "float64 of shape"),
    ):
        with pytest.raises(InputError, match=message):
            labelled(saved(**arrays), micro.spec, "semseg")
    (tmp_path / "data.npz").write_bytes(b"PK\3\4 nothing")
    with pytest.raises(InputError, match=r"not a readable \.npz"):
        labelled(tmp_path / "data.npz", micro.spec, "semseg")
    with pytest.raises(InputError, match="no such data set"):
        labelled(tmp_path / "nowhere", micro.spec, "semseg")


# --- Interruptions ------------------------------------------------------------------------------------------


def interrupt_after(images: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        if done == images:
            raise KeyboardInterrupt

    return progress


def test_an_interrupted_run_goes_on(
    networks: tuple[Design, Model],
    images: Pixels,
    classes: Labels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = Places(resume=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        evaluate(networks, images, classes, places, progress=interrupt_after(6))
    kept = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert kept == ["chunk-000000.npz", "chunk-000001.npz", "chunk-000002.npz", "run.json"]
    # What cannot be read is done again.
    damaged = tmp_path / "run" / "chunk-000001.npz"
    damaged.write_bytes(damaged.read_bytes()[:100])
    simulated = []
    monkeypatch.setattr(
        evaluation,
        "simulate",
        lambda design, pixels, task: (
            simulated.append(len(pixels)) or edgemoe.simulate(design, pixels, task)  # type: ignore[func-returns-value]
        ),
    )
    found = evaluate(networks, images, classes, places)
    assert sum(simulated) == 8
    assert found.as_json() == evaluate(networks, images, classes).as_json()
    simulated.clear()
    assert evaluate(networks, images, classes, places).as_json() == found.as_json() and not simulated


def test_a_folder_of_other_work_is_refused(
    networks: tuple[Design, Model], images: Pixels, classes: Labels, tmp_path: Path
) -> None:
    places = Places(resume=tmp_path / "run")
    evaluate(networks, images[:2], classes[:2], places)
    with pytest.raises(InputError, match="made for another run: data differ"):
        evaluate(networks, images[:2], 6 - classes[:2], places)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(InputError, match="not a folder of an interrupted run"):
        Store(tmp_path / "other", {})
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_places_that_contradict_themselves() -> None:
    with pytest.raises(InputError, match="workers and a scheduler"):
        Places(2, "tcp://here:1")
    with pytest.raises(InputError, match="workers = -1"):
        Places(-1)


# --- Workers ------------------------------------------------------------------------------------------------


def kill_after(images: int, victims: Callable[[], list[int]]) -> Callable[[int, int], None]:
    killed: list[int] = []

    def progress(done: int, total: int) -> None:
        if done >= images and not killed:
            killed.append(victims()[0])
            os.kill(killed[0], signal.SIGKILL)

    return progress


def children() -> list[int]:
    return [process.pid for process in multiprocessing.active_children() if process.pid is not None]


@pytest.mark.slow
def test_a_worker_process_that_dies_loses_nothing(
    networks: tuple[Design, Model],
    images: Pixels,
    classes: Labels,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    places = Places(workers=2, resume=tmp_path / "run")
    with caplog.at_level(logging.WARNING, "edgemoe"):
        found = evaluate(networks, images, classes, places, progress=kill_after(4, children))
    assert "a worker process died" in caplog.text
    assert found.as_json() == evaluate(networks, images, classes).as_json()
    assert not children(), "no process is left behind"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_worker_of_a_cluster_that_dies_loses_nothing(
    networks: tuple[Design, Model], images: Pixels, classes: Labels
) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", scheduler_port=0) as cluster:
        places = Places(scheduler=cluster.scheduler_address)

        def workers() -> list[int]:
            return [nanny.pid for nanny in cluster.workers.values()]

        before = workers()
        found = evaluate(networks, images, classes, places, progress=kill_after(4, workers))
        assert found.as_json() == evaluate(networks, images, classes).as_json()
        design, model = networks
        run = run_task(design, images, "depth", model=model, places=places)
        assert run.tokens_sha256 == run_task(design, images, "depth").tokens_sha256
        assert workers()[0] != before[0], "one was killed, and another took its place"


@pytest.mark.filterwarnings("ignore")
def test_no_scheduler_answers(
    networks: tuple[Design, Model], images: Pixels, classes: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgemoe.chunks.SHORT_ADDRESS_SECONDS", 1)
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        evaluate(networks, images, classes, Places(scheduler="tcp://127.0.0.1:9"))


def die(_shared: None, _chunk: int) -> dict[str, Labels]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.slow
def test_workers_that_always_die_end_the_run() -> None:
    with pytest.raises(InputError, match="3 times without finishing a chunk"):
        run_chunks(die, None, [lambda: 1], Places(workers=1), {})


# --- The commands -------------------------------------------------------------------------------------------


def command(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == code
    result = json.loads(capsys.readouterr().out)
    assert isinstance(result, dict)
    return result


def test_evaluate_command(
    networks: tuple[Design, Model],
    folders: Path,
    images: Pixels,
    classes: Labels,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    depth = np.random.default_rng(9).normal(size=(12, 2, 4))
    np.savez(tmp_path / "data.npz", images=images, semseg=classes, depth=depth)
    arguments: tuple[object, ...] = (
        "evaluate",
        folders / "w8a8",
        "--data",
        tmp_path / "data.npz",
        "--task",
        "all",
    )
    arguments += ("--reference", folders / "model", "--resume", tmp_path / "run")
    found = command(capsys, *arguments)
    assert found["images"] == 12 and found["precision"] == "w8a8"
    semseg, depths = found["tasks"]
    assert semseg["task"] == "semseg" and depths["task"] == "depth"
    expected = evaluate(networks, images, classes)
    for name in ("float", "integer"):
        figure = expected["miou"].figures[name]
        assert semseg["metrics"]["miou"][name] == pytest.approx(vars(figure))
    assert set(depths["metrics"]["rmse"]) == {"float", "integer", "difference", "interval"}
    assert (tmp_path / "run" / "depth" / "run.json").is_file()
    assert main([*map(str, arguments)]) == 0
    shown = capsys.readouterr().out
    assert "mIoU %" in shown and f"{expected['miou'].figures['integer'].value:.2f} [" in shown


def test_simulate_in_chunks_is_simulate(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgemoe.runs.CHUNK_TOKENS", 5 * 9)
    arguments: tuple[object, ...] = (
        "simulate",
        folders / "w8a8",
        "--image",
        folders / "images",
        "--task",
        "depth",
    )
    arguments += ("--reference", folders / "model")
    whole = command(capsys, *arguments, "--out", tmp_path / "whole.npz")
    parts = command(capsys, *arguments, "--out", tmp_path / "parts.npz", "--resume", tmp_path / "run")
    again = command(capsys, *arguments, "--resume", tmp_path / "run")
    assert len(list((tmp_path / "run" / "depth").glob("chunk-*.npz"))) == 3
    with np.load(tmp_path / "whole.npz") as one, np.load(tmp_path / "parts.npz") as other:
        assert set(one.files) == set(other.files)
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], strict=True)
    for result in (parts, again):
        for key in ("tokens_sha256", "routing", "routing_agreement", "images", "stages"):
            assert result[key] == whole[key], key
        for key in ("sqnr_db", "sqnr_db_same_routing", "max_error", "mean_error"):
            assert result[key] == pytest.approx(whole[key]), key
    refused = command(capsys, *arguments, "--trace", "--resume", tmp_path / "run", code=2)
    assert "--trace" in refused["error"]
