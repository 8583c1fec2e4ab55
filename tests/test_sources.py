"""Sources of the hardware: what needs no Jinja is a real file, formatted, and reaches a build as it is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from jinja2 import UndefinedError

import hls
from boards import VIVADO_TEMPLATES, load_board
from codegen import hls4ml_layers
from codegen.architecture import Architecture
from codegen.render import STYLE, render
from codegen.rtl.hls_kernels import write_hls_kernels
from codegen.rtl.project import write_rtl
from codegen.sources import Sources
from conftest import NARROW
from frontend.zoo import find_spec
from pysim.network import Network
from pysim.precision import PRESETS

ROOT = Path(__file__).parents[1]
LANGUAGES = (".h", ".cpp", ".sv", ".v")
FOLDERS = (hls.TEMPLATES, VIVADO_TEMPLATES, Path(hls4ml_layers.__file__).parent)
FILES = [path for folder in FOLDERS for path in sorted(folder.rglob("*"))]
REAL = [path for path in FILES if path.suffix in LANGUAGES]
TEMPLATES = [path for path in FILES if path.suffix == ".j2"]


def uses_jinja(path: Path) -> bool:
    """SystemVerilog is full of double braces: names stand in `${ ... }` there."""
    name = r"\$\{" if "rtl" in path.relative_to(ROOT).parts or path.name == "blackbox.v.j2" else r"\{\{"
    return re.search(name + r"|\{%|\{#", path.read_text()) is not None


def test_only_what_needs_jinja_is_a_template() -> None:
    assert REAL and TEMPLATES
    assert not [path for path in REAL if uses_jinja(path)]
    assert not [path for path in TEMPLATES if not uses_jinja(path)]


def test_real_cpp_is_formatted_as_generated_cpp_is() -> None:
    keys = re.findall(r"\w+: \w+", STYLE)
    assert (ROOT / ".clang-format").read_text().splitlines() == keys
    tool = Path(sys.executable).parent / "clang-format"
    files = [str(path) for path in REAL if path.suffix in (".h", ".cpp") and "sim" not in path.parts]
    done = subprocess.run(
        [tool, "--dry-run", "--Werror", f"--style={STYLE}", *files], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("preset", PRESETS)
def test_builds_hold_real_files_as_they_are(preset: str, tmp_path: Path) -> None:
    """Those of the preset's arithmetic, where it has its own."""
    architecture = Architecture(Network(find_spec("micro"), PRESETS[preset]), NARROW)
    render(architecture, tmp_path, load_board("zcu111"))
    write_hls_kernels(architecture, tmp_path, load_board("zcu111"))
    write_rtl(architecture, tmp_path / "rtl")
    own = hls.TEMPLATES / architecture.arithmetic
    found = {}
    for path in REAL:
        place = path.relative_to(hls.TEMPLATES) if path.is_relative_to(hls.TEMPLATES) else None
        if place is None or place.parts[0] == "sim":
            continue
        if place.parts[0] == "rtl":
            target = tmp_path / "rtl" / f"edgemoe_{path.name}"
        elif path.parent == own:
            target = tmp_path / "src" / path.name
        elif (own / path.name).is_file() or (own / f"{path.name}.j2").is_file():
            continue
        else:
            target = tmp_path / place
        if target.is_file():
            assert target.read_bytes() == path.read_bytes(), place
            found[target.relative_to(tmp_path)] = path
    expected = {"src/types.h", "src/layernorm.cpp", "src/arithmetic.h", "src/units.h"}
    if preset != "iccad23":
        expected |= {"kernels/streams.h", "rtl/edgemoe_dot.sv", "rtl/edgemoe_register_slice.sv"}
    assert expected <= {path.as_posix() for path in found}
    assert ("iccad23" in found[Path("src/arithmetic.h")].parts) == (preset == "iccad23")


def test_the_first_folder_that_has_a_file_provides_it(tmp_path: Path) -> None:
    for folder, name, text in (
        ("a", "both.h.j2", "first {{ name }}"),
        ("b", "both.h", "second"),
        ("b", "real.h", "{{ name }}\n"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(text)
    sources = Sources(tmp_path / "a", tmp_path / "b")
    assert sources.text("both.h", {"name": "it"}) == "first it"
    assert sources.text("real.h", {}) == "{{ name }}\n"
    with pytest.raises(UndefinedError):
        sources.text("both.h", {})
