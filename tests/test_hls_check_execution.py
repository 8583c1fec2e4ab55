"""The check build on a small project of its own: each loop breaks one promise, or keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from codegen.hls_check import execution
from codegen.hls_check.execution import Execution, execute
from common.errors import InputError

pytestmark = pytest.mark.compile

TYPES = """
#ifndef TYPES_H
#define TYPES_H
#include "ap_int.h"
#ifdef EDGEMOE_CHECK
#include "checked_memory.h"
#endif
namespace edgemoe {
#ifndef EDGEMOE_CHECK
template <typename T, int SIZE, int... SIZES>
struct MemoryOf { typedef typename MemoryOf<T, SIZES...>::type type[SIZE]; };
template <typename T, int SIZE>
struct MemoryOf<T, SIZE> { typedef T type[SIZE]; };
template <typename T, int... SIZES>
using Memory = typename MemoryOf<T, SIZES...>::type;
#endif
constexpr int N = 12;
struct Pair { ap_int<5> a; ap_uint<70> b; };
typedef Memory<int, N> Line;
typedef Memory<int, 2, N> Banks;
int after_four(Line &a, int distance);
int never_again(Line &a);
void both_ways(Line &a, Line &b);
int flattened(Line &a);
int kept_apart(Line &a);
void drained(Line &a);
int banks(Banks &a, Line &b);
int leaks(int n);
int whole(int n);
int loud(int n, int index);
}
#endif
"""

PIPELINE = "#pragma HLS pipeline II = 1\n"

# `after_four` reads what was written `distance` iterations before; its pragma says 4.
ENGINE = f"""
#include "types.h"
namespace edgemoe {{
int after_four(Line &a, int distance) {{
  int sum = 0;
AFTER_FOUR:
  for (int i = 0; i < N; ++i) {{
{PIPELINE}#pragma HLS dependence variable = a inter RAW distance = 4 true
    a[i] = i;
    if (i >= distance) {{
      const int x = a[i - distance];
      sum += x;
    }}
  }}
  return sum;
}}

int never_again(Line &a) {{
  int sum = 0;
NEVER_AGAIN:
  for (int i = 0; i < N; ++i) {{
{PIPELINE}#pragma HLS dependence variable = a inter RAW false
    const int x = a[(i + N - 1) % N];
    sum = x;
    a[i] = i;
  }}
  return sum;
}}

void both_ways(Line &a, Line &b) {{
BOTH_WAYS:
  for (int i = 0; i < N - 2; ++i) {{
{PIPELINE}#pragma HLS dependence variable = a inter WAR false
#pragma HLS dependence variable = b inter WAW distance = 3 true
    const int x = a[i + 2];
    a[i] = x;
    b[i / 2] = x;
  }}
}}

// An element is met again in the next turn of the outer loop: 3 iterations later.
int flattened(Line &a) {{
  int sum = 0;
OUTER:
  for (int turn = 0; turn < 3; ++turn) {{
  INNER:
    for (int i = 0; i < 3; ++i) {{
{PIPELINE}#pragma HLS dependence variable = a inter RAW distance = 3 true
      const int x = a[i];
      a[i] = x + 1;
      sum += x;
    }}
  }}
  return sum;
}}

// The same, but the pipeline runs empty between the turns.
int kept_apart(Line &a) {{
  int sum = 0;
OUTER_APART:
  for (int turn = 0; turn < 3; ++turn) {{
  INNER_APART:
    for (int i = 0; i < 3; ++i) {{
{PIPELINE}#pragma HLS loop_flatten off
#pragma HLS dependence variable = a inter RAW false
      const int x = a[i];
      a[i] = x + 1;
      sum += x;
    }}
  }}
  return sum;
}}

void drained(Line &a) {{
FIRST_HALF:
  for (int i = 0; i < N; ++i) {{
{PIPELINE}#pragma HLS dependence variable = a inter RAW false
    a[i] = i;
  }}
SECOND_HALF:
  for (int i = 0; i < N; ++i) {{
{PIPELINE}#pragma HLS dependence variable = a inter RAW false
    const int x = a[N - 1 - i];
    if (x < 0) {{
      a[i] = 0;
    }}
  }}
}}

int banks(Banks &a, Line &b) {{
  Line local;
#pragma HLS bind_storage variable = local type = ram_s2p impl = lutram
  int plain[N] = {{}};
  int sum = 0;
TWO_BANKS:
  for (int i = 0; i + 2 < N; ++i) {{
{PIPELINE}    const int x = a[0][i];
    const int y = a[1][i];
    a[0][i + 1] = x + y;
    a[1][i + 1] = x - y;
    sum += x + y;
  }}
THREE_PORTS:
  for (int i = 0; i + 2 < N; ++i) {{
{PIPELINE}    const int x = b[i];
    const int y = b[i + 1];
    b[i + 2] = x + y;
    sum += x;
  }}
SLOWER:
  for (int i = 0; i + 2 < N; ++i) {{
#pragma HLS pipeline II = 2
    const int x = b[i];
    const int y = b[i + 1];
    b[i + 2] = x + y;
    sum += x;
  }}
TWO_WRITES:
  for (int i = 0; i + 1 < N; ++i) {{
{PIPELINE}    local[i] = i;
    local[i + 1] = i;
  }}
PLAIN:
  for (int i = 0; i < N; ++i) {{
{PIPELINE}#pragma HLS dependence variable = plain inter RAW false
    plain[i] = i;
  }}
  return sum + plain[0];
}}

int leaks(int n) {{
  Pair pair;
  if (n > 0) {{
    pair.a = 1;
  }}
  return pair.b == 0 ? 0 : int(pair.b.range(30, 0));
}}

int whole(int n) {{
  Pair pair;
  int values[2];
  pair.a = n;
  values[1] = pair.a;
  return values[1];
}}

// Only the first element is ever written: the others begin with random bits.
int loud(int n, int index) {{
  Memory<Pair, 4> memory;
  Pair pair;
  pair.a = n;
  pair.b = n;
  memory[0] = pair;
  const Pair found = memory[index];
  return found.a;
}}

}}  // namespace edgemoe
"""

# What each engine gives when it is right, next to what it gives here.
BENCH = """
#include <cstdio>
#include "types.h"
using namespace edgemoe;
static int failed = 0;
static void compare(const char *name, long long got, long long expected) {
  std::printf("engine %s: 1 values, %d mismatches\\n", name, got != expected);
  if (got != expected) std::printf("mismatch: %s: got %lld, expected %lld\\n", name, got, expected);
  failed += got != expected;
}
static Line a, b;
static Banks c;
static void clear() {
  for (int i = 0; i < N; ++i) { a[i] = 0; b[i] = 0; c[0][i] = 0; c[1][i] = 1; }
}
int main() {
@
  return failed != 0;
}
"""


def project(folder: Path, bench: str, engine: str = ENGINE) -> Path:
    for name in ("src", "tb/tb_data"):
        (folder / name).mkdir(parents=True)
    (folder / "src/types.h").write_text(TYPES)
    (folder / "src/engine.cpp").write_text(engine)
    (folder / "tb/testbench.cpp").write_text(BENCH.replace("@", bench))
    return folder


def line_of(text: str, start: str = "") -> int:
    """Line of a text in the engine, behind another one."""
    place = ENGINE.index(text, ENGINE.index(start))
    return ENGINE.count("\n", 0, place) + 1


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Execution:
    bench = """
  clear(); compare("after_four", after_four(a, 4), 28);
  clear(); compare("flattened", flattened(a), 9);
  clear(); compare("kept_apart", kept_apart(a), 9);
  clear(); drained(a); compare("drained", a[3], 3);
  clear(); compare("whole", whole(7), 7);
  clear(); compare("loud", loud(3, 0), 3);
"""
    return execute(project(tmp_path_factory.mktemp("kept"), bench))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Execution:
    bench = """
  clear(); compare("after_three", after_four(a, 3), 36);
  clear(); compare("never_again", never_again(a), 10);
  clear(); both_ways(a, b); compare("both_ways", b[0], 0);
  clear(); compare("banks", banks(c, b), 15);
  clear(); compare("leaks", leaks(0) == leaks(0), 1);
  clear(); compare("loud", loud(3, 2), 3);
  clear(); loud(3, 4);
"""
    return execute(project(tmp_path_factory.mktemp("broken"), bench))


def test_promises_that_are_kept_pass(kept: Execution) -> None:
    assert [result.failed for result in kept.results.values()] == [0, 0, 0]
    assert not kept.findings


def test_distances_are_measured(kept: Execution) -> None:
    seen = {about.text.line: (about.declared, about.least, about.runs) for about in kept.dependences}
    runs = len(execution.RUNS)
    assert seen[line_of("#pragma HLS dependence", "AFTER_FOUR:")] == (4, 4, runs)
    assert seen[line_of("#pragma HLS dependence", "INNER:")] == (3, 3, runs)
    assert seen[line_of("#pragma HLS dependence", "INNER_APART:")] == (None, None, 3 * runs)
    assert seen[line_of("#pragma HLS dependence", "SECOND_HALF:")] == (None, None, runs)
    # This loop never ran.
    about = next(
        x for x in kept.dependences if x.text.line == line_of("#pragma HLS dependence", "NEVER_AGAIN:")
    )
    assert (about.seen, about.runs) == (0, 0)
    assert "never entered" in str(about)


def rules_at(found: Execution, line: int) -> set[str]:
    return {
        finding.rule
        for finding in found.findings
        if finding.line == line and finding.file == "src/engine.cpp"
    }


@pytest.mark.parametrize(
    ("pragma", "loop", "distance"),
    [
        ("#pragma HLS dependence variable = a", "AFTER_FOUR:", "distance 3, declared is 4"),
        ("#pragma HLS dependence variable = a", "NEVER_AGAIN:", "distance 1, declared is none"),
        ("#pragma HLS dependence variable = a", "BOTH_WAYS:", "distance 2, declared is none"),
        ("#pragma HLS dependence variable = b", "BOTH_WAYS:", "distance 1, declared is 3"),
    ],
)
def test_smaller_distances_are_found(broken: Execution, pragma: str, loop: str, distance: str) -> None:
    line = line_of(pragma, loop)
    (finding,) = (finding for finding in broken.findings if finding.line == line)
    assert (finding.rule, finding.file) == ("dependence-distance", "src/engine.cpp")
    assert distance in finding.message


def test_banks_with_too_few_ports_are_found(broken: Execution) -> None:
    crowded = {f.line: f.message for f in broken.findings if f.rule == "bank-ports"}
    assert set(crowded) == {
        line_of("for (", f"{loop}:") for loop in ("TWO_BANKS", "THREE_PORTS", "TWO_WRITES")
    }


def test_banks_are_told_apart(tmp_path: Path) -> None:
    engine = ENGINE.replace(
        "Line local;", "Line local;\n#pragma HLS array_partition variable = a complete dim = 1"
    )
    engine = engine.replace("type = ram_s2p impl = lutram", "type = ram_t2p impl = bram")
    found = execute(
        project(tmp_path, '  clear(); compare("banks", banks(c, b), 15);', engine), ["first seed"]
    )
    loops = [finding.message.split(":")[0] for finding in found.findings if finding.rule == "bank-ports"]
    assert loops == ["THREE_PORTS"]


def test_arrays_that_nothing_watches_are_found(broken: Execution) -> None:
    assert rules_at(broken, line_of("#pragma HLS dependence", "PLAIN:")) == {"dependence-unproved"}


def test_late_writes_and_random_bits_change_what_depends_on_them(broken: Execution) -> None:
    right = {name: result.engines for name, result in broken.results.items()}
    assert right["first seed"]["after_three"][1] == 0
    assert right["delayed writes"]["after_three"][1] == 1
    assert right["delayed writes"]["never_again"][1] == 1
    assert all(engines["leaks"][1] == 1 for engines in right.values())
    assert any(engines["loud"][1] == 1 for engines in right.values())
    assert {f.message.split(":")[0] for f in broken.findings if f.rule == "changed-result"} == set(
        execution.RUNS
    )


def test_indices_out_of_bounds_are_found(broken: Execution) -> None:
    assert any(finding.rule == "index" for finding in broken.findings)


def test_reads_after_writes_without_a_pragma_are_told(broken: Execution) -> None:
    assert ("src/engine.cpp", "b", 1) in [
        (place.split(":")[0], name, least) for place, name, least in broken.undeclared
    ]


def test_folder_without_a_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a generated HLS project"):
        execute(tmp_path)


def test_code_that_does_not_compile_is_refused(tmp_path: Path) -> None:
    folder = project(tmp_path, "", ENGINE.replace("sum = x;", "sum = y;"))
    with pytest.raises(InputError, match=r"engine\.cpp:\d+: use of undeclared identifier 'y'"):
        execute(folder)
