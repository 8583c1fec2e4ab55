"""Configurations made to crash, to hang or to fill a terminal; files that are no files: one bounded message each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

import edgemoe
from boards import BoardError, load_board
from codegen.build import Build
from common.errors import EdgeMoeError, InputError
from common.pictures import load_picture
from common.printable import MOST, one_line, printable, shown
from common.toml import read_toml
from edgemoe import tables
from edgemoe.cli import main
from edgemoe.console import Console
from frontend.decoder import read_decoders
from frontend.importing import import_model
from frontend.zoo import find_spec
from host.hwh import read_hwh
from host.manifest import Manifest
from pysim.model import Model

HANGS = 60
"""Seconds after which a test is taken to hang: a file takes a second at most."""

ESCAPE = "\x1b[2J\x1b]0;owned\x07"

Reader = Callable[[Path], object]


@pytest.fixture(autouse=True)
def guarded() -> Iterator[None]:
    def stop(_signal: int, _frame: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(HANGS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def refusal(reader: Reader, path: Path) -> str:
    with pytest.raises((InputError, BoardError)) as caught:
        reader(path)
    message = str(caught.value)
    assert message.startswith(str(path)), message
    assert len(message) <= MOST + 100
    assert not controls(message)
    return message


def controls(text: str) -> list[str]:
    """Characters that a terminal might obey."""
    return [each for each in text if unicodedata.category(each).startswith("C") and each != "\n"]


# --- TOML and JSON ------------------------------------------------------------------------------------------

TOML: dict[str, tuple[Reader, str]] = {
    "model": (lambda path: find_spec(str(path)), "model.toml"),
    "model folder": (lambda path: edgemoe.load_model(path.parent), "model.toml"),
    "design": (lambda path: edgemoe.load_design(path.parent), "design.toml"),
    "build": (lambda path: Build.load(path.parent), "build.toml"),
    "board": (lambda path: load_board(str(path)), "board.toml"),
}


def import_hugging_face(path: Path) -> object:
    # A folder of ours is refused before its other files are read.
    (path.parent / "design.toml").unlink(missing_ok=True)
    return import_model(path.parent)


JSON: dict[str, tuple[Reader, str]] = {
    "manifest": (Manifest.load, "manifest.json"),
    "hugging face": (import_hugging_face, "config.json"),
}

HOSTILE_TOML = {
    "digits": b"dim = " + b"9" * 5000,
    "hexadecimal digits": b"dim = 0x" + b"f" * 5000,
    "deep arrays": b"dim = " + b"[" * 100_000,
    "deep tables": b"dim = " + b"{a=" * 100_000,
    "parts of a key": b"a" + b".a" * 400_000 + b" = 1",
    "parts of quoted keys": b'"a"' + b" . 'a'" * 100_000 + b" = 1",
    "parts of a heading": b"[" + b"a." * 100_000 + b"a]",
    "levels": b"["
    + b".".join([b"a"] * 15)
    + b"]\n"
    + (b".".join([b"b"] * 15) + b" = {") * 4
    + b"c = 1"
    + b"}" * 4,
    "long key": b"a" * 900_000 + b" = 1",
    "escapes": b'"\\u001b[2J\\u009b31m\\u202e\\n" = 1\ndim = "\\u001b[2J"',
    "100,000 keys": b"\n".join(b"k%d = 1" % number for number in range(90_000)),
    "too large": b"#" * (17 << 20),
    "NUL": b"\0",
    "not UTF-8": b"\xff\xfe",
}
HOSTILE_JSON = {
    "digits": b'{"version": ' + b"9" * 5000 + b"}",
    "many bits": b'{"version": ' + b"9" * 400 + b"}",
    "deep": b"[" * 100_000,
    "levels": b'{"a":' * 100 + b"1" + b"}" * 100,
    "long key": b'{"' + b"a" * 900_000 + b'": 1}',
    "100,000 keys": json.dumps({f"k{number}": 1 for number in range(60_000)}).encode(),
    "too large": b" " * (17 << 20),
    "no number": b'{"version": NaN}',
    "escapes": b'"\x1b[2J',
}


@pytest.fixture
def beside(folders: Path, built: Build, tmp_path: Path) -> Path:
    """All that stands beside a configuration, so that it is the configuration that is refused."""
    shutil.copytree(folders / "w8a8", tmp_path, dirs_exist_ok=True)
    shutil.copytree(built.folder / "design", tmp_path / "design")
    (tmp_path / "model.safetensors").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize("content", HOSTILE_TOML.values(), ids=HOSTILE_TOML)
@pytest.mark.parametrize("kind", TOML)
def test_toml(kind: str, content: bytes, beside: Path) -> None:
    reader, name = TOML[kind]
    (beside / name).write_bytes(content)
    refusal(reader, beside / name)


@pytest.mark.parametrize("content", HOSTILE_JSON.values(), ids=HOSTILE_JSON)
@pytest.mark.parametrize("kind", JSON)
def test_json(kind: str, content: bytes, beside: Path) -> None:
    reader, name = JSON[kind]
    (beside / name).write_bytes(content)
    refusal(reader, beside / name)


def test_unknown_keys_are_named_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "model.toml"
    path.write_text("\n".join(f"key{number} = 1" for number in range(40_000)))
    message = refusal(lambda path: find_spec(str(path)), path)
    assert "model: Field required" in message and "key8: " in message
    assert message.endswith("and 39,991 more") and len(message) < 1000


def test_large_files_are_not_read(beside: Path) -> None:
    for reader, name in (TOML | JSON).values():
        (beside / name).touch()
        os.truncate(beside / name, 1 << 40)
        assert "larger than" in refusal(reader, beside / name)
        (beside / name).unlink()


def test_ordinary_files_are_within_the_limits(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    sentences = "A sentence. " * 1000 + "1.2.3.4"
    path.write_text(f'a.b."c.d" = "{sentences}"\n[x.y]\nvalues = [{"0.5, " * 5000}]\nbig = {2**63 - 1}\n')
    data = read_toml(path)
    assert data["a"]["b"]["c.d"] == sentences and len(data["x"]["y"]["values"]) == 5000


# --- Files that are none ------------------------------------------------------------------------------------

READERS: dict[str, Reader] = {
    "model.toml": lambda path: find_spec(str(path)),
    "design.toml": lambda path: edgemoe.load_design(path.parent),
    "build.toml": lambda path: Build.load(path.parent),
    "board.toml": lambda path: load_board(str(path)),
    "manifest.json": Manifest.load,
    "edgemoe.hwh": lambda path: read_hwh(path, "edgemoe_top"),
    "weights.safetensors": lambda path: edgemoe.load_design(path.parent),
    "decoders.safetensors": lambda path: read_decoders(path.parent),
    "config.json": import_hugging_face,
    "image.png": lambda path: load_picture(path, (3, 8, 16)),
    "image.npy": lambda path: load_picture(path, (3, 8, 16)),
    "image.float32.bin": lambda path: load_picture(path, (3, 8, 16)),
    "net.onnx": import_model,
    "net.pth": import_model,
    "net.safetensors": import_model,
}


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        before = Path.cwd()
        os.chdir(path.parent)  # the name of a socket is short
        try:
            one.bind(path.name)
        finally:
            os.chdir(before)


KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a named pipe": (make_pipe, "it is a named pipe, expected a file"),
    "a device": (make_device, "it is a device, expected a file"),
    "a socket": (make_socket, "it is a socket, expected a file"),
    "a folder": (Path.mkdir, ""),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_opened(kind: str, name: str, beside: Path) -> None:
    path = beside / name
    if path.exists():
        path.unlink()
    make, message = KINDS[kind]
    make(path)
    assert message in refusal(READERS[name], path)


def test_weights_of_another_size_are_not_read(built: Build, tmp_path: Path) -> None:
    shutil.copytree(built.host, tmp_path / "host")
    weights = tmp_path / "host/weights.bin"
    os.truncate(weights, 1 << 40)
    manifest = Manifest.load(tmp_path / "host")
    assert "1099511627776 bytes, expected" in refusal(lambda path: manifest.read_weights(), weights)
    weights.unlink()
    os.mkfifo(weights)
    assert "named pipe" in refusal(lambda path: manifest.read_weights(), weights)


# --- The terminal -------------------------------------------------------------------------------------------


def test_printable() -> None:
    assert printable("a\nb\tc é ─ 漢") == "a\nb\tc é ─ 漢"
    assert printable("\x1b[2J\r\x9b\u202e\udcff\x7f") == r"\x1b[2J\r\x9b\u202e\udcff\x7f"
    assert printable("x" * 10, 4) == "xxxx... (6 more characters)"
    assert one_line("a\nb") == r"a\nb"


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, 16**5000, -(16**5000), [[[[[[1]]]]]] * 1000, {"a" * 1000: 1}, b"\0" * 1000, 1e300, ESCAPE],
    ids=lambda value: type(value).__name__,
)
def test_values_are_shown_shortened(value: object) -> None:
    assert len(shown(value)) < 400 and not controls(shown(value))


@pytest.mark.parametrize("error", [EdgeMoeError, BoardError])
def test_messages_are_bounded_and_obey_nobody(error: type[EdgeMoeError] | type[BoardError]) -> None:
    raised = error(f"{ESCAPE}{'x' * 10**6}", hint=ESCAPE)
    for text in (str(raised), raised.message, raised.hint):
        assert len(text) < MOST + 100 and not controls(text)


@pytest.fixture
def noted(folders: Path, tmp_path: Path) -> Path:
    """A Model and a Design whose notes are meant for the terminal."""
    for name in ("model", "w8a8"):
        shutil.copytree(folders / name, tmp_path / name)
    for file in (tmp_path / "model/model.toml", tmp_path / "w8a8/design.toml"):
        text = file.read_text()
        name = 'name = "micro"\n'
        assert text.count(name) == 1
        file.write_text(text.replace(name, f'{name}notes = "\\u001b[2J\\u009b{"x" * 10_000}"\n'))
    return tmp_path


def test_notes_do_not_reach_the_terminal_raw(
    noted: Path, folders: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = str(folders / "images")
    commands = [
        ("init", str(noted / "model/model.toml"), "-o", str(noted / "a")),
        ("quantize", str(noted / "model"), "-o", str(noted / "b"), "--images", images),
        ("simulate", str(noted / "w8a8"), "--image", images),
    ]
    for command in commands:
        capsys.readouterr()
        main(command)
        captured = capsys.readouterr()
        assert r"warning: \x1b[2J\x9bxxx" in captured.err
        assert not controls(captured.out + captured.err)
        assert "(6,00" in captured.err, "cut"


def test_names_in_files_do_not_reach_the_terminal_raw(
    folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folders / "model", tmp_path / "model")
    model = Model.load(folders / "model")
    (tmp_path / "model/weights.safetensors").write_bytes(save(model.weights | {ESCAPE: np.zeros(1)}))
    assert main(["export", str(tmp_path / "model"), "-o", str(tmp_path / "a.onnx")]) == 2
    err = capsys.readouterr().err
    assert "unexpected tensor" in err and not controls(err)


def test_names_in_tables_do_not_reach_the_terminal_raw(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(as_json=False)
    console.show(tables.table(f"T{ESCAPE}", ("name", "number"), [(f"a{ESCAPE}\nb", "1")]))
    console.note(ESCAPE)
    console.show(ESCAPE)
    captured = capsys.readouterr()
    assert r"a\x1b[2J\x1b]0;owned\x07\nb" in captured.out
    assert not controls(captured.out + captured.err)
