"""A thousand damaged checkpoints and ONNX files: each is read or refused; nothing crashes, hangs or is unpickled."""

from __future__ import annotations

import io
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.numpy import save as save_safetensors

from common.errors import EdgeMoeError
from damage import damaged, rewired, tampered
from foreign import as_torch, m3vit_state, timm_state, with_head
from frontend.importing import import_model
from frontend.onnx_export import export_model
from frontend.options import Options
from frontend.pixels import NONE
from onnx_vits import GraphVit
from pysim.model import Model

MakeModel = Callable[..., Model]

M3VIT = Options(heads=2, top_k=2, image_size=(8, 16), normalization=NONE)
PLAIN = Options(heads=2, image_size=(8, 16), normalization=NONE)
GRAPH = Options(normalization=NONE)

LONGEST = 10.0
"""Seconds that one file may take; most take milliseconds."""

unpickled: list[str] = []
watching = False


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if watching and event in ("pickle.find_class", "os.system", "subprocess.Popen"):
        unpickled.append(f"{event} {arguments}")


sys.addaudithook(watch)


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    """Lets no file take for ever, and nothing be unpickled."""

    def stop(_signal: int, _frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    unpickled.clear()
    yield
    signal.signal(signal.SIGALRM, before)
    assert unpickled == []


def survives(path: Path, content: bytes, options: Options) -> str:
    """Import a file; returns what it was refused for, or "" where it was read."""
    global watching
    path.write_bytes(content)
    signal.setitimer(signal.ITIMER_REAL, 2 * LONGEST)
    start, watching = time.perf_counter(), True
    try:
        import_model(path, options)
        return ""
    except EdgeMoeError as error:
        assert error.exit_code == 2
        return error.message
    finally:
        watching = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert time.perf_counter() - start < LONGEST, path


def zipped(state: dict[str, Any], rng: np.random.Generator, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    wrapper: Any = as_torch(state)
    match rng.integers(4):
        case 0:
            wrapper = {"model": {"state_dict": wrapper}, "epoch": 3}
        case 1:
            wrapper = {"state_dict": wrapper, "args": [1, None, "text"]}
        case 2:
            wrapper = {"other": 3, 4: 5} | wrapper
        case _:
            pass
    torch.save(wrapper, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def states(micro_with: MakeModel) -> list[tuple[dict[str, Any], Options]]:
    conditioned = micro_with(moe={"shared_gate": True, "gate_bias": True}, depth=2, task_heads={})
    plain = with_head(micro_with(moe=None, tasks=["classify"], depth=2), 5)
    return [(m3vit_state(conditioned), M3VIT), (timm_state(plain), PLAIN)]


def check(outcomes: list[str]) -> None:
    """Most files are refused, with different reasons, and some are read."""
    refused = [outcome for outcome in outcomes if outcome]
    assert 0.3 * len(outcomes) < len(refused) < len(outcomes)
    assert len(set(refused)) > 10


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_damaged_pytorch_files(
    states: list[tuple[dict[str, Any], Options]], tmp_path: Path, legacy: bool
) -> None:
    rng, outcomes = np.random.default_rng(1 + legacy), []
    for number in range(150):
        state, options = states[number % 2]
        content = damaged(zipped(state, rng, legacy=legacy), rng)
        outcomes.append(survives(tmp_path / f"{number}.pth", content, options))
    check(outcomes)


def test_tampered_pytorch_files(states: list[tuple[dict[str, Any], Options]], tmp_path: Path) -> None:
    rng, outcomes = np.random.default_rng(3), []
    for number in range(150):
        state, options = states[number % 2]
        content = zipped(tampered(state, rng), rng)
        outcomes.append(survives(tmp_path / f"{number}.pth", content, options))
    check(outcomes)


def test_pickles_that_ask_for_objects(states: list[tuple[dict[str, Any], Options]], tmp_path: Path) -> None:
    """Opcodes that call something, in place of the pickle of a checkpoint."""
    state, options = states[1]
    whole, rng = zipped(state, np.random.default_rng(0)), np.random.default_rng(4)
    programs = [
        f"c{module}\n{name}\n(S'{argument}'\ntR.".encode()
        for module, name, argument in (
            ("os", "system", "true"),
            ("posix", "system", "true"),
            ("builtins", "eval", "1"),
            ("builtins", "exec", "1"),
            ("subprocess", "Popen", "true"),
            ("pathlib", "Path", "x"),
            ("torch", "load", "x"),
            ("numpy", "fromfile", "x"),
            ("torch._utils", "_rebuild_tensor_v2", "x"),
            ("collections", "OrderedDict", "x"),
        )
    ]
    for number in range(50):
        target = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(target, "w") as written:
            for name in source.namelist():
                content = source.read(name)
                if name.endswith("data.pkl"):
                    program = programs[number % len(programs)]
                    content = b"\x80\x02" + (program if number < 10 else damaged(program + content[2:], rng))
                written.writestr(name, content)
        assert survives(tmp_path / f"{number}.pth", target.getvalue(), options)


def test_damaged_safetensors(states: list[tuple[dict[str, Any], Options]], tmp_path: Path) -> None:
    rng, outcomes = np.random.default_rng(5), []
    for number in range(250):
        state, options = states[number % 2]
        if number % 5:
            content = damaged(
                save_safetensors({key: np.ascontiguousarray(t) for key, t in state.items()}), rng
            )
        else:
            content = save_safetensors(
                {key: np.ascontiguousarray(t) for key, t in tampered(state, rng).items()}
            )
        outcomes.append(survives(tmp_path / f"{number}.safetensors", content, options))
    check(outcomes)


def our_graph(micro_with: MakeModel, folder: Path) -> onnx.ModelProto:
    export_model(micro_with(depth=2), folder / "whole.onnx")
    return onnx.load(folder / "whole.onnx")


def foreign_graph(_micro_with: MakeModel, _folder: Path) -> onnx.ModelProto:
    """With a decoder, and with positions and a mask that the graph computes."""
    return GraphVit("computed_mask", positions="cubic", patches="linear", decoder=True).proto()


@pytest.mark.slow
@pytest.mark.parametrize(("make", "count"), [(our_graph, 150), (foreign_graph, 100)])
def test_damaged_onnx(micro_with: MakeModel, tmp_path: Path, make: Any, count: int) -> None:
    proto = make(micro_with, tmp_path)
    content, rng, outcomes = proto.SerializeToString(), np.random.default_rng(6), []
    for number in range(count):
        mutant = damaged(content, rng) if number % 3 == 0 else rewired(proto, rng).SerializeToString()
        outcomes.append(survives(tmp_path / f"{number}.onnx", mutant, GRAPH))
    check(outcomes)
