"""Boards: the shipped files are complete and plausible; every mistake in a file is reported by its field."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import boards
from boards import Board, BoardError, board_names, load_board, markdown_table, software_table

ROOT = Path(__file__).resolve().parent.parent
SHIPPED = Path(boards.__file__).parent
NAMES = (
    "kr260",
    "kv260",
    "pynq-z2",
    "pynq-zu",
    "rfsoc2x2",
    "u280",
    "ultra96v2",
    "zcu102",
    "zcu104",
    "zcu111",
)

WriteBoard = Callable[..., str]


@pytest.fixture
def write_board(tmp_path: Path) -> WriteBoard:
    """Write a copy of zcu102 with some fields changed (None: left out) and return its path."""

    def write(**changes: Any) -> str:
        data = tomllib.loads((SHIPPED / "zcu102.toml").read_text()) | changes
        path = tmp_path / "mine.toml"
        path.write_bytes(tomli_w.dumps({k: v for k, v in data.items() if v is not None}).encode())
        return str(path)

    return write


def error_of(name_or_path: str) -> BoardError:
    with pytest.raises(BoardError) as caught:
        load_board(name_or_path)
    assert str(caught.value) == caught.value.message
    assert caught.value.message.isprintable()
    return caught.value


class TestShipped:
    def test_names(self) -> None:
        assert board_names() == NAMES

    @pytest.mark.parametrize("name", NAMES)
    def test_every_value_has_a_source(self, name: str) -> None:
        board = load_board(name)
        given = {field for field in Board.model_fields if getattr(board, field) is not None}
        assert set(board.sources) == given - {"name", "title", "family", "sources"}
        for field, text in board.sources.items():
            if text.startswith("as "):
                reference = text.removeprefix("as ").split(",")[0]
                assert reference.split()[0] in set(board.sources) | {"ZCU102"}, field

    @pytest.mark.parametrize("name", NAMES)
    def test_plausible(self, name: str) -> None:
        board = load_board(name)
        assert board.name == name
        # Two flip-flops a lookup table, in 7 series and UltraScale+ alike.
        assert board.ff == 2 * board.lut
        assert board.lut % 8 == 0
        assert board.lutram_luts is not None and board.lut / 4 < board.lutram_luts < board.lut * 2 / 3
        assert 0 < board.bram36 < board.dsp
        # Only 7 series and the EG devices up to ZU3 and from ZU6 to ZU15 are without UltraRAM.
        assert (board.uram == 0) == bool(re.match(r"xc7z|xczu(1|2|3|6|9|15)eg", board.part))
        assert board.port_width == {"zynq-ultrascale+": 128, "zynq-7000": 64, "alveo": 256}[board.family]
        # All ports at the highest clock can use up the DRAM, or nearly so.
        assert board.ports * board.port_width / 8 * board.clock_mhz_max / 1000 > 0.8 * board.dram_gb_s
        assert 100 <= board.clock_mhz_default <= board.clock_mhz_max <= 450

    @pytest.mark.parametrize("name", NAMES)
    def test_bandwidth_is_rate_times_width(self, name: str) -> None:
        board = load_board(name)
        products = re.findall(r"(\d+) x (\d+(?:\.\d+)?) (?:bytes|GB/s)", board.sources["dram_gb_s"])
        ((count, unit),) = products
        scale = 1 if board.family == "alveo" else 1000
        assert board.dram_gb_s == pytest.approx(int(count) * float(unit) / scale, rel=1e-9)

    def test_boards_of_the_same_device_agree(self) -> None:
        fields = ("dsp", "bram36", "uram", "lut", "ff", "lutram_luts")
        for pair in (("kv260", "kr260"), ("kv260", "pynq-zu"), ("zcu111", "rfsoc2x2")):
            first, second = map(load_board, pair)
            assert [getattr(first, f) for f in fields] == [getattr(second, f) for f in fields], pair

    def test_reference_board(self) -> None:
        board = load_board("zcu102")
        assert (board.dsp, board.bram36, board.uram, board.lut, board.ff) == (2520, 912, 0, 274080, 548160)
        assert board.part == "xczu9eg-ffvb1156-2-e"

    def test_names_in_upper_case(self) -> None:
        assert load_board("ZCU102") == load_board("zcu102")

    def test_frozen(self) -> None:
        board = load_board("zcu102")
        with pytest.raises(ValidationError):
            board.dsp = 1  # type: ignore[misc]

    def test_packaged(self) -> None:
        patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
        assert "*.toml" in patterns["boards"]

    def test_documented(self) -> None:
        text = (ROOT / "docs" / "boards.md").read_text()
        assert markdown_table() in text
        assert software_table() in text
        for field in Board.model_fields:
            assert f"`{field}`" in text or f"`[{field}]`" in text, field


class TestBandwidth:
    def test_the_ports_limit_at_a_low_clock(self) -> None:
        assert load_board("zcu102").read_gb_s(100.0) == pytest.approx(6.4)

    def test_the_dram_limits_at_the_default_clock(self) -> None:
        board = load_board("zcu102")
        assert board.read_gb_s() == board.dram_gb_s

    def test_default_clock(self) -> None:
        board = load_board("kv260")
        assert board.read_gb_s() == board.read_gb_s(board.clock_mhz_default) == pytest.approx(12.8)


class TestUnknownNames:
    def test_lists_the_boards_and_suggests(self) -> None:
        error = error_of("zcu120")
        assert all(name in error.message for name in NAMES)
        assert "did you mean zcu1" in error.hint and "zcu102" in error.hint

    @pytest.mark.parametrize(("given", "meant"), [("ultra96-v2", "ultra96v2"), ("PYNQ_Z2", "pynq-z2")])
    def test_other_spellings(self, given: str, meant: str) -> None:
        assert f"did you mean {meant}" in error_of(given).hint

    @pytest.mark.parametrize("given", ["", "?", "boards/zcu102", "../zcu102", "zcu102\n", "board", "\0"])
    def test_nothing_like_it(self, given: str) -> None:
        assert ".toml" in error_of(given).hint

    def test_a_file_without_the_suffix_is_not_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "zcu102").write_text("nonsense")
        monkeypatch.chdir(tmp_path)
        assert load_board("zcu102").dsp == 2520


class TestOwnFiles:
    def test_a_copy_loads(self, write_board: WriteBoard) -> None:
        assert load_board(write_board(name="mine")).name == "mine"

    def test_a_path_wins_over_a_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = (SHIPPED / "zcu102.toml").read_text().replace("dsp = 2520", "dsp = 7")
        (tmp_path / "zcu102.toml").write_text(text)
        monkeypatch.chdir(tmp_path)
        assert load_board("zcu102.toml").dsp == 7
        assert load_board("zcu102").dsp == 2520

    def test_optional_fields(self, write_board: WriteBoard) -> None:
        board = load_board(write_board(pynq_name=None, lutram_luts=None, coherent_ports=None, sources=None))
        assert (board.pynq_name, board.lutram_luts, board.coherent_ports, board.sources) == (
            None,
            None,
            0,
            {},
        )

    def test_whole_numbers_where_fractions_may_be(self, write_board: WriteBoard) -> None:
        assert load_board(write_board(clock_mhz_default=250, dram_gb_s=17)).clock_mhz_default == 250.0

    @pytest.mark.parametrize(
        ("field", "value", "reason"),
        [
            ("name", "My Board", "must be spelled like"),
            ("name", "a/../b", "must be spelled like"),
            ("name", "board\n", "must be spelled like"),
            ("title", "", "must not be empty"),
            ("title", "two\nlines", "one line"),
            ("family", "versal", "zynq-ultrascale+"),
            ("part", "xc7z020clg400-1", "no part of family zynq-ultrascale+"),
            ("part", "xczu9eg [exec rm]", "must be spelled like"),
            ("board_part", "zcu102", "must be spelled like xilinx.com:zcu102:part0:3.4"),
            ("board_part", "xilinx.com:zcu102:part0:[exec]", "must be spelled like"),
            ("pynq_name", "a b", "must be spelled like"),
            ("dsp", 0, "greater than or equal to 1"),
            ("dsp", "2520", "valid integer"),
            ("dsp", 2520.0, "valid integer"),
            ("dsp", True, "valid integer"),
            ("bram36", -1, "greater than or equal to 1"),
            ("uram", -1, "greater than or equal to 0"),
            ("lut", 10**9, "less than or equal to"),
            ("ff", [1], "valid integer"),
            ("ff", 10**400, ""),
            ("lutram_luts", 274081, "at most lut = 274080"),
            ("dram_gb_s", 0, "greater than or equal to 0.001"),
            ("dram_gb_s", 5e-324, "greater than or equal to 0.001"),
            ("dram_gb_s", float("nan"), "finite"),
            ("dram_gb_s", float("inf"), "finite"),
            ("dram_gb_s", 10**400, ""),
            ("dram_gb_s", "17 GB/s", "valid number"),
            ("ports", 0, "greater than or equal to 1"),
            ("coherent_ports", -1, "greater than or equal to 0"),
            ("port_width", 100, "32, 64, 128"),
            ("clock_mhz_default", 0.3, "greater than or equal to 1"),
            ("clock_mhz_max", 100, "at least clock_mhz_default = 300"),
            ("sources", "a book", "dictionary"),
            ("sources", {"dps": "a book"}, "no such field: dps"),
            ("sources", {"dsp": ""}, "must not be empty"),
        ],
    )
    def test_one_wrong_field(self, write_board: WriteBoard, field: str, value: Any, reason: str) -> None:
        path = write_board(**{field: value})
        error = error_of(path)
        assert error.message.startswith(f"{path}: {field}")
        assert reason in error.message
        assert error.message.count("; ") == 0, "one mistake, one complaint"

    def test_every_wrong_field_in_one_message(self, write_board: WriteBoard) -> None:
        error = error_of(
            write_board(family="zynq-7000", dps=1, dsp=None, lut="many", port_width=7, clock_mhz_max=1)
        )
        for complaint in (
            "part: is no part of family zynq-7000, which are like xc7z020clg400-1 (got 'xczu9eg-",
            "dps: no such field, did you mean dsp?",
            "dsp: is missing",
            "lut: should be a valid integer (got 'many')",
            "port_width: should be 32, 64, 128, 256, 512 or 1024 (got 7)",
            "clock_mhz_max: must be at least clock_mhz_default = 300 (got 1",
        ):
            assert complaint in error.message
        assert error.message.count("; ") == 5
        assert error.hint

    def test_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.touch()
        required = [name for name, field in Board.model_fields.items() if field.is_required()]
        assert error_of(str(path)).message == f"{path}: " + "; ".join(f"{r}: is missing" for r in required)

    @pytest.mark.parametrize(
        "content",
        [
            b"dsp = 1\ndsp = 2\n",
            b"dsp = \n",
            b"[sources]\n[sources]\n",
            b"\xff\xfe",
            b"\x00",
            b"dsp = " + b"9" * 5000,
            b"dsp = " + b"[" * 100_000,
        ],
        ids=["duplicate", "no value", "duplicate table", "not UTF-8", "NUL", "long number", "nested"],
    )
    def test_malformed(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "mine.toml"
        path.write_bytes(content)
        assert error_of(str(path)).message.startswith(f"{path}: not valid TOML")

    def test_a_number_too_long_to_print(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text((SHIPPED / "zcu102.toml").read_text().replace("2520", "0x" + "f" * 5000))
        assert "dsp: " in error_of(str(path)).message

    def test_a_key_that_is_no_word(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.toml"
        path.write_text(
            '"\\n\\u001b[31m" = 1\n"' + "x" * 500 + '" = 1\n' + (SHIPPED / "zcu102.toml").read_text()
        )
        error = error_of(str(path))
        assert error.message.count("no such field") == 2
        assert len(error.message) < 400 + len(str(path))

    def test_missing(self, tmp_path: Path) -> None:
        error = error_of(str(tmp_path / "mine.toml"))
        assert "no such file" in error.message
        assert "zcu102" in error.hint

    def test_folder(self, tmp_path: Path) -> None:
        (tmp_path / "mine.toml").mkdir()
        assert "cannot be read" in error_of(str(tmp_path / "mine.toml")).message

    @pytest.mark.parametrize("name", ["a\0b.toml", "a\nb.toml", "x" * 5000 + ".toml"])
    def test_impossible_paths(self, name: str) -> None:
        error_of(name)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=10),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
    st.dates(),
)


class TestMutated:
    """Whatever a file holds, it loads or raises `BoardError`."""

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        changes=st.dictionaries(
            st.sampled_from([*Board.model_fields, "dps"]) | st.text(max_size=5),
            VALUES,
            min_size=1,
            max_size=4,
        )
    )
    def test_fields(self, write_board: WriteBoard, changes: dict[str, Any]) -> None:
        self.load_or_refuse(write_board(**changes))

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(data=st.data())
    def test_bytes(self, tmp_path: Path, data: st.DataObject) -> None:
        content = bytearray((SHIPPED / "pynq-z2.toml").read_bytes())
        start = data.draw(st.integers(0, len(content)))
        content[start : start + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=4))
        path = tmp_path / "mine.toml"
        path.write_bytes(content)
        self.load_or_refuse(str(path))

    @settings(max_examples=60, deadline=None)
    @given(name=st.text(max_size=20))
    def test_names(self, name: str) -> None:
        self.load_or_refuse(name)

    @staticmethod
    def load_or_refuse(name_or_path: str) -> None:
        try:
            assert isinstance(load_board(name_or_path), Board)
        except BoardError as error:
            assert error.message
            assert error.message.isprintable()
