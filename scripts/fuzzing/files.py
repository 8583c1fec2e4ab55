"""Damaged and hostile files: each is read or refused, in bounded time and words, and leaves nothing half-written."""

from __future__ import annotations

import contextlib
import io
import os
import re
import resource
import shutil
import signal
import struct
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from hypothesis import given
from hypothesis import seed as seeded
from hypothesis import strategies as st
from PIL import Image

import boards
import edgemoe
from codegen.build import Build
from common.errors import EdgeMoeError
from damage import damaged
from edgemoe.cli import main
from host.hwh import read_hwh
from host.manifest import Manifest
from pysim.model import init_model
from scripts.fuzzing.examples import outcome_of, seed_of, settings_for
from scripts.fuzzing.outcome import Outcome

EXAMPLES: Final = 25
"""Files a case."""
LONGEST: Final = 120
"""Seconds that a command may take on the busiest computer; most take a fraction of one."""
LONGEST_MESSAGE: Final = 20_000
"""Characters that a command may print."""
MEMORY: Final = 4 << 30
"""Bytes that a command may ask for beyond what the process has."""

LITERALS: Final = (
    *(
        "",
        "-1",
        "0",
        "1",
        "2",
        "1024",
        "65536",
        "1048576",
        "4294967296",
        "18446744073709551616",
        "0x7fff",
        "1_000",
    ),
    *(
        "3.5",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "-0.0",
        "5e-324",
        "true",
        "false",
        "null",
        "1979-05-27",
        "12:00:00",
    ),
    *(
        '""',
        "''",
        "[]",
        "{}",
        "[[]]",
        "{a = 1}",
        '{"a": 1}',
        "[1, 2, 3, 4]",
        '["a", 1]',
        '"',
        "'",
        '"""',
        "]",
        "}",
        "=",
    ),
    *(
        '"../../etc/passwd"',
        '"/dev/zero"',
        '"/etc/passwd"',
        '"a/b"',
        '"NUL"',
        '"\\u0000"',
        '"\\ud800"',
        '"é😀"',
    ),
    *('"\\u001b[2J\\u0007\\u009b31m"', "'\x1b[31m'", '"%s{0}${x}"', '"<&>]]>"', "<!--", "&amp;", "]]>"),
    *("9" * 5000, "-" + "9" * 5000, "1e" + "9" * 5000, '"' + "x" * 200_000 + '"'),
    *("[" * 20_000 + "]" * 20_000, '{"a":' * 20_000 + "1" + "}" * 20_000, "[" + "1," * 100_000 + "1]"),
)
"""What stands in place of a value: TOML, JSON, XML, and none of them."""

VALUES: Final = {
    ".toml": re.compile(r"(?m)(?<== ).+$"),
    ".json": re.compile(r"(?<=: )[^,\n]+"),
    ".hwh": re.compile(r'(?<==")[^"\n]*(?=")'),
    ".safetensors": re.compile(r"(?<=[:\[,])[^:\[\]{},]+"),
}
"""Values of a text, by the end of its file's name; of safetensors, of the header."""

SPECIAL: Final = ("missing", "empty", "folder", "fifo", "endless", "dangling", "loop")


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        path: of the file, in a copy of `samples`.
        arguments: of the command that reads it; `{file}` is the file, `{out}` what the command writes.
        read: instead of a command: reads the file, which may raise an `EdgeMoeError`.
    """

    path: str
    arguments: tuple[str, ...] = ()
    read: Callable[[Path], Any] | None = None


def _host(path: Path) -> None:
    manifest = Manifest.load(path.parent)
    manifest.read_weights()
    manifest.read_heads()


def _hardware(path: Path) -> None:
    read_hwh(path, "edgemoe_top")


def _image(path: Path) -> None:
    edgemoe.load_images([path], edgemoe.load_design(path.parent / "design"), resize="crop")


_IMPORT = ("--heads", "2", "--image-size", "8x16", "--normalize", "none")
KINDS: Final = (
    Kind("model/model.toml", ("init", "{file}", "-o", "{out}")),
    Kind("model/model.toml", ("quantize", "model", "--images", "images", "-o", "{out}")),
    Kind("model/weights.safetensors", ("quantize", "model", "--images", "images", "-o", "{out}")),
    Kind("design/design.toml", ("estimate", "design")),
    Kind("design/design.toml", ("simulate", "design", "--image", "images", "--out", "{out}")),
    Kind("design/weights.safetensors", ("estimate", "design")),
    Kind("hardware.toml", ("estimate", "design", "--hardware", "{file}")),
    Kind("build/hardware.toml", read=lambda path: Build.load(path.parent)),
    Kind("board.toml", ("estimate", "design", "--board", "{file}")),
    Kind("build/build.toml", read=lambda path: Build.load(path.parent)),
    Kind("build/host/manifest.json", read=_host),
    Kind("build/host/emulated/edgemoe.hwh", read=_hardware),
    Kind("build/host/heads.npz", read=_host),
    Kind("build/host/weights.bin", read=_host),
    Kind("picture.png", read=_image),
    Kind("picture.jpg", read=_image),
    Kind("picture.tiff", read=_image),
    Kind("picture.webp", read=_image),
    Kind("graph.onnx", ("import", "{file}", "--normalize", "none", "-o", "{out}")),
    Kind("decoder.onnx", ("import", "{file}", "--normalize", "none", "-o", "{out}")),
    Kind("checkpoint.safetensors", ("import", "{file}", *_IMPORT, "-o", "{out}")),
)

_folders: list[tempfile.TemporaryDirectory[str]] = []


@cache
def samples() -> Path:
    """A whole file of every kind."""
    from safetensors.numpy import save

    from foreign import timm_state, with_head
    from frontend.onnx_export import export_model
    from onnx_vits import GraphVit

    _folders.append(tempfile.TemporaryDirectory(prefix="edgemoe-fuzz-"))
    folder = Path(_folders[-1].name)
    model = edgemoe.init_model("micro", seed=1)
    model.save(folder / "model")
    pixels = edgemoe.random_images(model, 2)
    design = edgemoe.quantize(model, pixels, "w16a16")
    design.save(folder / "design")
    build = edgemoe.generate(design, folder / "build", model=model)
    shutil.copy(build.folder / "hardware.toml", folder)
    shutil.rmtree(build.hls)
    shutil.rmtree(build.rtl)
    picture = Image.fromarray(pixels[0].transpose(1, 2, 0))
    (folder / "images").mkdir()
    picture.save(folder / "images/0.png")
    for end in ("png", "jpg", "tiff", "webp"):
        picture.save(folder / f"picture.{end}")
    shutil.copy(Path(boards.__file__).parent / "zcu102.toml", folder / "board.toml")
    plain = init_model(
        model.spec.model_copy(update={"moe": None, "depth": 2, "tasks": ["a"], "task_heads": {}}), seed=2
    )
    export_model(plain, folder / "graph.onnx")
    GraphVit("computed_mask", positions="cubic", decoder=True).save(folder / "decoder.onnx")
    state = {name: np.ascontiguousarray(tensor) for name, tensor in timm_state(with_head(plain, 5)).items()}
    (folder / "checkpoint.safetensors").write_bytes(save(state))
    return folder


# --- Damage -------------------------------------------------------------------------------------------------


def _spoil(data: st.DataObject, path: Path) -> None:
    """Damage a file; what is drawn is in the report of a failure."""
    ways = (
        ["bytes", "bytes", "special"]
        if path.suffix not in VALUES
        else ["value"] * 5 + ["lines", "bytes", "special"]
    )
    match data.draw(st.sampled_from(ways), "way"):
        case "bytes":
            seed = data.draw(st.integers(0, 1 << 32), "seed of the damage")
            path.write_bytes(damaged(path.read_bytes(), np.random.default_rng(seed)))
        case "special":
            _replace(path, data.draw(st.sampled_from(SPECIAL), "special file"))
        case "value":
            _write(path, _with_values(data, _read(path), VALUES[path.suffix]))
        case _:
            _write(path, _with_lines(data, _read(path)))


def _read(path: Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".safetensors":
        (size,) = struct.unpack_from("<Q", content)
        return content[8 : 8 + size].decode()
    return content.decode()


def _write(path: Path, text: str) -> None:
    content = text.encode(errors="surrogatepass")
    if path.suffix == ".safetensors":
        before = path.read_bytes()
        (size,) = struct.unpack_from("<Q", before)
        content = struct.pack("<Q", len(content)) + content + before[8 + size :]
    path.write_bytes(content)


def _with_values(data: st.DataObject, text: str, pattern: re.Pattern[str]) -> str:
    """Some values replaced."""
    for _ in range(data.draw(st.integers(1, 3), "values")):
        found = list(pattern.finditer(text))
        if not found:
            break
        place = found[data.draw(st.integers(0, len(found) - 1), "value number")]
        number = data.draw(st.integers(0, len(LITERALS)), "literal")
        literal = LITERALS[number] if number < len(LITERALS) else data.draw(st.text(), "text")
        text = text[: place.start()] + literal + text[place.end() :]
    return text


def _with_lines(data: st.DataObject, text: str) -> str:
    """Some lines removed, doubled, moved, or grown."""
    lines = text.splitlines(keepends=True)
    for _ in range(data.draw(st.integers(1, 3), "lines")):
        place = data.draw(st.integers(0, len(lines) - 1), "line")
        match data.draw(st.sampled_from(("remove", "double", "move", "keys", "key", "mark")), "what with it"):
            case "remove" if len(lines) > 1:
                del lines[place]
            case "double":
                lines.insert(place, lines[place])
            case "move":
                lines.append(lines.pop(place))
            case "keys":
                lines.insert(place, "".join(f'k{number} = "\\u001b[2J"\n' for number in range(20_000)))
            case "key":
                lines.insert(place, f'"{"k" * 100_000}" = 1\n')
            case _:
                lines.insert(place, "\ufeff\x00\r")
    return "".join(lines)


def _replace(path: Path, special: str) -> None:
    path.unlink()
    match special:
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "endless":
            path.symlink_to("/dev/zero")
        case "dangling":
            path.symlink_to("nowhere")
        case "loop":
            path.symlink_to(path.name)


# --- Reading ------------------------------------------------------------------------------------------------


class Endless(BaseException):
    """Not an `Exception`, which somebody might catch."""


@contextmanager
def bounded() -> Iterator[None]:
    """Lets nothing take for ever, or all memory."""

    def stop(_signal: int, _frame: Any) -> None:
        raise Endless(f"took more than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, stop)
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, hard))
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        yield
    except Endless as error:
        raise AssertionError(str(error)) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def command(arguments: Sequence[str], folder: Path, out: Path) -> str:
    """Run a command in a folder, and look at what it prints and leaves behind; returns what it printed if it failed."""
    before, printed = set(folder.iterdir()), io.StringIO()
    with (
        bounded(),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
    ):
        code = main(arguments)
    assert code in (0, 1, 2), f"exit code {code}"
    check_text(printed.getvalue())
    written = {out} if code == 0 and str(out) in arguments else set()
    left = {path.name for path in set(folder.iterdir()) ^ (before | written)}
    assert not left, f"exit code {code}, and left behind or not written: {left}"
    return printed.getvalue() if code else ""


def check_text(text: str) -> None:
    """What a user sees: short, and nothing that a terminal obeys."""
    assert len(text) <= LONGEST_MESSAGE, f"{len(text)} characters: {text[:200]!r} ..."
    assert "Traceback" not in text, text
    controls = {character for character in text if not character.isprintable()} - {"\n"}
    assert not controls, f"control characters {controls} in {text[:2000]!r}"


def read_one(kind: Kind, folder: Path) -> str:
    """Let the package read a file of `folder`; returns why it refused it, or "" where it read it."""
    file, out = folder / kind.path, folder / "out"
    if kind.read is None:
        return command([argument.format(file=file, out=out) for argument in kind.arguments], folder, out)
    try:
        with bounded():
            kind.read(file)
    except EdgeMoeError as error:
        check_text(f"{error.message}\n{error.hint}")
        return error.message
    return ""


def run(seed: int, number: int, *, shrink: bool = False, examples: int = EXAMPLES) -> Outcome:
    """Files of all kinds; the outcome is "right", unless it failed."""

    @seeded(seed_of("files", seed, number))
    @settings_for(examples, shrink=shrink)
    @given(st.data())
    def test(data: st.DataObject) -> None:
        kind = KINDS[data.draw(st.integers(0, len(KINDS) - 1), "kind")]
        with tempfile.TemporaryDirectory(prefix="edgemoe-fuzz-") as temporary:
            folder = Path(temporary) / "files"
            shutil.copytree(samples(), folder)
            _spoil(data, folder / kind.path)
            read_one(kind, folder)

    return outcome_of(test, examples)
