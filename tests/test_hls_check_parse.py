"""libclang behind the checks: what it has precompiled goes out of date."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from codegen.csim import header_folder
from codegen.hls_check import parse
from common.errors import InputError

pytestmark = pytest.mark.compile


@pytest.fixture
def headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Headers of ap_int of this test's own, and an empty cache."""
    copied = tmp_path / "headers"
    shutil.copytree(header_folder(), copied)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(parse, "header_folder", lambda: copied)
    forget()
    yield copied
    forget()


def forget() -> None:
    parse._prefix.cache_clear()
    parse._system_arguments.cache_clear()


@pytest.mark.parametrize("new_process", [False, True])
def test_installing_the_headers_again_makes_what_is_precompiled_anew(
    headers: Path, new_process: bool
) -> None:
    assert not parse.parse("ap_int<5> number;", {}, []).errors
    os.utime(headers / "ap_int.h", (0, 0))
    if new_process:
        forget()
    assert not parse.parse("ap_int<5> number;", {}, []).errors
    assert parse.parse("ap_what<5> number;", {}, []).errors


def test_precompiled_file_that_was_cut_is_made_anew(headers: Path) -> None:
    parse.parse("int number;", {}, [])
    precompiled = parse._prefix()
    precompiled.write_bytes(precompiled.read_bytes()[:5000])
    assert not parse.parse("ap_int<5> number;", {}, []).errors


def test_headers_that_cannot_be_read_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    @cache
    def empty() -> Path:
        target = tmp_path / "empty.pch"
        target.touch()
        return target

    monkeypatch.setattr(parse, "_prefix", empty)
    with pytest.raises(InputError, match="cannot read the ap_int headers"):
        parse.parse("int number;", {}, [])
