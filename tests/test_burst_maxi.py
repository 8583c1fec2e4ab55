"""The stand-in for `hls::burst_maxi` with g++: requests belong to the port; unasked for, a read stops the program."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from codegen.csim import SIMULATION_HEADERS, find_compiler

pytestmark = pytest.mark.compile

PROGRAM = """
#include "hls_burst_maxi.h"

typedef hls::burst_maxi<long> Port;

static long sum(Port port, int beats) {
  long total = 0;
  for (int i = 0; i < beats; ++i) total += port.read();
  return total;
}

int main() {
  long first[] = {1, 20, 300, 4000};
  long second[] = {5, 6};
  Port port(first);
  Port other(second);
  BODY
}
"""


def run(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    source, program = folder / "ports.cpp", folder / "ports"
    source.write_text(PROGRAM.replace("BODY", body))
    command = [
        find_compiler(),
        "-std=c++14",
        "-O0",
        f"-I{SIMULATION_HEADERS}",
        str(source),
        "-o",
        str(program),
    ]
    subprocess.run(command, check=True)
    return subprocess.run([program], capture_output=True, text=True, check=False)


def test_copies_of_a_port_share_its_requests(tmp_path: Path) -> None:
    body = """port.read_request(1, 2); port.read_request(0, 1); other.read_request(0, 2);
    const long got = sum(port, 3) * 100 + sum(other, 1);
    return got == 32105 && Port::unread() == 1 ? 0 : 1;"""
    assert run(tmp_path, body).returncode == 0


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return int(port.read());", "a read that no request covers"),
        ("port.read_request(0, 1); return int(sum(port, 2));", "a read that no request covers"),
        ("port.read_request(0, 1); return int(other.read());", "a read that no request covers"),
        ("port.read_request(0, 0); return 0;", "a request of no elements"),
    ],
)
def test_misuse_stops_the_program(tmp_path: Path, body: str, message: str) -> None:
    done = run(tmp_path, body)
    assert done.returncode < 0
    assert message in done.stderr
