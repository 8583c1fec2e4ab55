"""Rules of the HLS checks on snippets: what each finds, and that it lets the way out of it pass.

All snippets are read as one, each in a namespace and a file of its own, because reading is what takes time.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest

from codegen.hls_check import Finding
from codegen.hls_check.checks import check_project, check_sources
from codegen.hls_check.pragma_text import find_pragmas
from common.errors import InputError

HEADER = """
#include "ap_int.h"
#include "hls_burst_maxi.h"
#include "hls_stream.h"
typedef long long wide_t;
struct Pair { ap_int<8> a; ap_int<8> b; };
struct Lanes { ap_int<8> lane[4]; };
constexpr int N = 16;
constexpr int LANES = 4;
"""

# Name: C++, and the rules that find something in it.
SNIPPETS: dict[str, tuple[str, set[str]]] = {}


def snippet(name: str, code: str, *rules: str) -> None:
    SNIPPETS[name] = (code, set(rules))


def body(code: str, parameters: str = "int x") -> str:
    return f"void f({parameters}) {{\n#pragma HLS inline off\n{code}\n}}"


def loop(code: str, pragmas: str = "#pragma HLS pipeline II = 1", bound: str = "N") -> str:
    return f"LOOP:\n  for (int i = 0; i < {bound}; ++i) {{\n{pragmas}\n{code}\n  }}"


# Pragmas against the table, as C++, and at their places.
snippet("unknown pragma", body("#pragma HLS pipelines II = 1"), "pragma-table")
snippet("unknown clause", body(loop("", "#pragma HLS pipeline interval = 1")), "pragma-table")
snippet(
    "unknown word",
    body("int a[N];\n#pragma HLS array_partition variable = a circular factor = 2"),
    "pragma-table",
)
snippet(
    "storage that does not exist",
    body("int a[N];\n#pragma HLS bind_storage variable = a type = ram_t2p impl = lutram"),
    "pragma-table",
)
snippet(
    "factor is missing", body("int a[N];\n#pragma HLS array_partition variable = a cyclic"), "pragma-table"
)
snippet(
    "both spellings", body("int a[N];\n#pragma HLS ARRAY_PARTITION variable=a type=cyclic factor=4 dim=1")
)
snippet(
    "continued line", body("int a[N];\n#pragma HLS array_partition variable = a \\\n  block factor = N / 4")
)
snippet(
    "member of an array",
    "struct Word { int gamma[4]; };\n"
    + body("Word norm[N];\n#pragma HLS array_partition variable = norm.gamma complete dim = 2"),
    "pragma-expression",
    "struct-array",
)
snippet(
    "member of a struct",
    "struct Norm { int gamma[N][4]; };\n"
    + body("Norm norm;\n#pragma HLS array_partition variable = norm.gamma complete dim = 2"),
)
snippet("undeclared", body("#pragma HLS array_partition variable = missing complete"), "pragma-expression")
snippet(
    "not constant",
    body("int a[N];\n#pragma HLS array_partition variable = a cyclic factor = x"),
    "pragma-expression",
)
snippet("interval of zero", body(loop("", "#pragma HLS pipeline II = N - 16")), "pragma-value")
snippet(
    "no such dimension",
    body("int a[N];\n#pragma HLS array_partition variable = a complete dim = 2"),
    "pragma-dimension",
)
snippet("no array", body("int a = 0;\n#pragma HLS array_partition variable = a complete"), "pragma-array")
snippet(
    "aggregate of numbers", body("ap_int<8> a[N];\n#pragma HLS aggregate variable = a"), "pragma-aggregate"
)
snippet("aggregate of structs", body("Pair a[N];\n#pragma HLS aggregate variable = a"))
snippet("pragma outside", "#pragma HLS inline\nint value();", "pragma-place")
snippet("left out", "#ifdef NEVER\nvoid f() {\n#pragma HLS inline\n}\n#endif", "pragma-place")
snippet("unroll without loop", body("#pragma HLS unroll"), "pragma-place")
snippet("unroll of what varies", body(loop("", "#pragma HLS unroll", "x")), "unroll-bounds", "loop-bounds")
snippet(
    "two intervals",
    body(loop("", "#pragma HLS pipeline II = 1\n#pragma HLS pipeline II = 2")),
    "pragma-twice",
)
snippet(
    "trip count of do",
    body("int n = 0;\nL: do {\n#pragma HLS loop_tripcount max = 4\n++n; } while (n < x);"),
    "tripcount",
    "loop-bounds",
)
snippet(
    "allocation of a stranger",
    "void g() {}\n" + body("#pragma HLS allocation function instances = g limit = 1"),
    "pragma-allocation",
)
snippet(
    "allocation of a callee",
    "void g() {}\n" + body("#pragma HLS allocation function instances = g limit = 1\n g(); g();"),
)
snippet(
    "operation of nothing",
    body("int a = x + 1;\n#pragma HLS bind_op variable = a op = mul impl = dsp"),
    "pragma-operation",
)
BOUND = "ap_int<16> a = x;\n#pragma HLS bind_op variable = a op = mul impl = dsp\n"
snippet("operation on what is assigned elsewhere", body(BOUND + "ap_int<40> b = a * 3;"), "pragma-operation")
snippet(
    "operation that is only compared",
    body(BOUND + "ap_int<16> b = 3;\nbool equal = a == b * b;"),
    "pragma-operation",
)
snippet("operation assigned later", body(BOUND + "ap_int<16> b = 3;\na = b * b;"))
snippet("operation and assignment in one", body(BOUND + "a *= 3;"))
snippet("operation", body("int a = x * 3;\n#pragma HLS bind_op variable = a op = mul impl = dsp latency = 2"))

# Dependences.
DEPENDENCE = "int a[N];\n" + loop(
    "a[i] = x;", "#pragma HLS pipeline II = 1\n#pragma HLS dependence variable = a @"
)
snippet("dependence false", body(DEPENDENCE.replace("@", "inter false")), "pragma-table")
snippet("dependence intra", body(DEPENDENCE.replace("@", "intra RAW false")), "pragma-table")
snippet("dependence true without distance", body(DEPENDENCE.replace("@", "inter RAW true")), "pragma-table")
snippet("dependence of a direction", body(DEPENDENCE.replace("@", "inter RAW false")))
snippet("dependence with distance", body(DEPENDENCE.replace("@", "inter RAW distance = N / 2 - 1 true")))
snippet(
    "dependence of an unused array",
    body("int b[N];\n" + DEPENDENCE.replace("@", "inter RAW false").replace("a[i] = x", "b[i] = x")),
    "dependence-loop",
)
snippet(
    "dependence without pipeline",
    body("int a[N];\n" + loop("a[i] = x;", "#pragma HLS dependence variable = a inter RAW false")),
    "dependence-loop",
)
SMALL = "int a[N][2];\n#pragma HLS array_partition variable = a complete dim = 1\n@\n" + loop(
    "a[i][x] = x;",
    "#pragma HLS pipeline II = 1\n#pragma HLS dependence variable = a inter RAW distance = 4 true",
)
snippet("dependence of registers", body(SMALL.replace("@", "")), "dependence-registers")
snippet(
    "dependence of a small memory",
    body(SMALL.replace("@", "#pragma HLS bind_storage variable = a type = ram_s2p impl = lutram")),
)

# Interfaces of tops.
PORTS = "const int *in, int *out, int n, volatile int *clock"
INTERFACE = """#pragma HLS interface mode = m_axi port = in offset = slave bundle = gmem0 depth = 4
#pragma HLS interface mode = m_axi port = out offset = slave bundle = gmem1 depth = 4
#pragma HLS interface mode = s_axilite port = in bundle = control
#pragma HLS interface mode = s_axilite port = out bundle = control
#pragma HLS interface mode = s_axilite port = n bundle = control
#pragma HLS interface mode = ap_none port = clock depth = 2
#pragma HLS interface mode = s_axilite port = return bundle = control
out[0] = in[0] + n + *clock;"""


def top(old: str = "", new: str = "") -> str:
    assert old in INTERFACE
    return f"void f({PORTS}) {{\n{INTERFACE.replace(old, new)}\n}}"


snippet("interface", top())
snippet("interface without depth", top("gmem0 depth = 4", "gmem0"), "interface-memory")
snippet("interface of a shared bundle", top("gmem1", "gmem0"), "interface-bundle")
REPORT = "#pragma HLS interface mode = m_axi port = report offset = slave bundle = gmem1 depth = "
SHARED = INTERFACE.replace(
    "out[0] =",
    f"{REPORT}4\n#pragma HLS interface mode = s_axilite port = report bundle = control\nreport[0] =",
)
snippet("interface of a report", f"void f({PORTS}, int *report) {{\n{SHARED}\n}}")
snippet(
    "interface of a report of another depth",
    f"void f({PORTS}, int *report) {{\n{SHARED.replace(f'{REPORT}4', f'{REPORT}8')}\n}}",
    "interface-bundle",
)
snippet(
    "interface of two register files",
    top("port = n bundle = control", "port = n bundle = other"),
    "interface-bundle",
)
snippet("interface of a volatile port", top("clock depth = 2", "clock"), "interface-depth")
snippet("interface of a stranger", top("port = n", "port = m"), "interface-port", "pragma-expression")
snippet(
    "interface without a port",
    top("#pragma HLS interface mode = ap_none port = clock depth = 2", ""),
    "interface-port",
)
snippet("interface with an unknown clause", top("depth = 2", "size = 2"), "pragma-table", "interface-depth")
snippet(
    "interface without an address",
    top("#pragma HLS interface mode = s_axilite port = in bundle = control", ""),
    "interface-port",
)

# The subset of C++.
snippet(
    "recursion",
    "int f(int x);\nint g(int x) { return f(x - 1); }\nint f(int x) { return x < 1 ? 0 : g(x); }",
    "recursion",
)
snippet("recursion of the compiler", "constexpr int bits(int x) { return x < 2 ? 1 : 1 + bits(x / 2); }")
snippet("dynamic memory", body("int *a = new int[4];\ndelete[] a;"), "dynamic-memory", "selected-memory")
snippet(
    "allocated memory",
    "#include <cstdlib>\n" + body("std::free(std::malloc(x));"),
    "dynamic-memory",
    "standard-library",
)
snippet("size that varies", body("int a[x];\na[0] = 0;"), "dynamic-memory")
snippet("virtual", "struct S { virtual int f() { return 1; } };", "virtual")
snippet("pure virtual", "struct S { virtual int f() = 0; };", "virtual")
snippet("call through a pointer", "int f(int (*g)(int)) { return g(3); }", "virtual")
snippet("exception", body("if (x > 3) throw 1;"), "exceptions")
snippet("caught exception", body("try { x = 1; } catch (int) { x = 2; }"), "exceptions")
snippet("containers", "#include <vector>\n" + body("std::vector<int> a(3);"), "standard-library")
snippet(
    "containers of the simulation", "#include <vector>\n#ifndef __SYNTHESIS__\nstd::vector<int> a;\n#endif"
)
snippet("goto", body("AGAIN:\n  ++x;\n  if (x < 3) goto AGAIN;"), "goto")
snippet(
    "label missing",
    body("for (int i = 0; i < N; ++i) {\n#pragma HLS pipeline II = 1\n  x += i;\n}"),
    "loop-label",
)
snippet("label not needed", body("for (int i = 0; i < N; ++i) {\n#pragma HLS unroll\n  x += i;\n}"))
snippet("label twice", body(loop("x += i;")) + "\nvoid g(int x) {\n" + loop("x -= i;") + "\n}", "loop-label")
snippet("bounds that vary", body(loop("x += i;", bound="x")), "loop-bounds")
snippet(
    "bounds with trip count",
    body(loop("x += i;", "#pragma HLS loop_tripcount max = 4\n#pragma HLS pipeline II = 1", "x")),
)
snippet(
    "inner bounds that vary",
    body(loop("for (int k = 0; k < x; ++k) x += k;")),
    "loop-in-pipeline",
    "loop-label",
)
snippet(
    "inner bounds that vary in a callee",
    "static int g(int n) {\n  int s = 0;\nINNER:\n  for (int k = 0; k < n; ++k) {\n"
    "#pragma HLS loop_tripcount max = 4\n    s += k;\n  }\n  return s;\n}\n" + body(loop("x += g(x);")),
    "loop-in-pipeline",
)
snippet(
    "bounds of an unrolled nest",
    body(
        loop(
            "for (int k = 0; k < N; k += 4) {\n#pragma HLS unroll\n"
            "for (int m = k; m < k + 4 && m < 15; ++m) {\n#pragma HLS unroll\nx += m;\n}\n}",
            "#pragma HLS unroll",
        )
    ),
)

# Memories that are chosen.
CALLEE = "void g(int *a, int n) {\n#pragma HLS inline off\na[0] = n;\n}\n"
snippet(
    "selected pointer", body("static int a[N], b[N];\nint *c = x > 0 ? a : b;\nc[0] = 1;"), "selected-memory"
)
snippet(
    "selected halves",
    CALLEE + body("static int a[N], b[N];\nif (x > 0) { g(a, 1); } else { g(b, 1); }"),
    "selected-memory",
)
snippet("halves in a row", CALLEE + body("static int a[N], b[N];\ng(a, 1);\ng(b, x);"))
snippet("chosen row", CALLEE + body("static int a[4][N];\ng(a[x], 1);"), "selected-memory")
snippet("fixed row", CALLEE + body("static int a[4][N];\ng(a[2], 1);"))

# Arithmetic.
snippet("divider", body("x = 100 / x;"), "divider")
snippet("divider of numbers", "ap_int<20> f(ap_int<20> a, ap_int<9> b) { return a / b; }", "divider")
snippet("remainder in a pipeline", body(loop("x += i % 3;")), "divider")
snippet("remainder outside", body("x = x % 3;"))
snippet("remainder by a power of two", body(loop("x += i % (N / 2);")))
snippet(
    "remainder of what is unrolled",
    body(loop("for (int k = 0; k < 6; ++k) {\n#pragma HLS unroll\n  x += k % 3 * 0 + k / 3;\n}")),
    "accumulator-chain",
)
snippet("wide product", "wide_t f(wide_t a, ap_uint<18> b) { return a * wide_t(b); }", "wide-product")
snippet(
    "wide square of a sum",
    "wide_t f(int a, int b) { const wide_t s = wide_t(a) + b; return s * s; }",
    "wide-product",
)
snippet(
    "narrow product", "wide_t f(ap_int<48> a, ap_uint<18> b) { const wide_t s = a; return s * wide_t(b); }"
)
snippet("narrowed product", "wide_t f(wide_t a, ap_uint<18> b) { return wide_t(ap_int<36>(a)) * wide_t(b); }")
snippet("shift written as product", "wide_t f(wide_t a) { return a * 1024; }")
snippet("address that wraps", "int f(const int *p, ap_uint<32> i) { return p[i + 1]; }", "port-address")
snippet("unsigned address", "int f(const int *p, unsigned i) { return p[i]; }", "port-address")
snippet(
    "address",
    "int f(const int *p, int first) {\nint s = 0;\n" + loop("s += p[first + i];") + "\nreturn s;\n}",
)

# Recurrences.
DOT = "for (int l = 0; l < LANES; ++l) {\n#pragma HLS unroll\n  sum += x.lane[l] * y.lane[l];\n}\n"
HEAD = "ap_int<32> f(const Lanes &x, const Lanes &y) {\nap_int<32> sum = 0;\n"
snippet("chain from before", HEAD + loop(DOT) + "return sum;\n}", "accumulator-chain")
snippet(
    "chain in a callee",
    "static ap_int<32> add(ap_int<32> before, bool first, const Lanes &x, const Lanes &y) {\n#pragma HLS inline\n"
    f"ap_int<32> sum = first ? ap_int<32>(0) : before;\n{DOT}return sum;\n}}\n"
    "ap_int<32> f(const Lanes &x, const Lanes &y) {\nap_int<32> all = 0;\n"
    + loop("all = add(all, i == 0, x, y);")
    + "return all;\n}",
    "accumulator-chain",
)
LANE_SUM = (
    "static ap_int<@> dot(const Lanes &x, const Lanes &y) {\n#pragma HLS inline\n  ap_int<@> sum = 0;\n"
    + DOT
    + "  return sum;\n}\n"
)
ADDED = (
    "ap_int<32> f(const Lanes &x, const Lanes &y) {\nap_int<32> all = 0;\n"
    + loop("all = all + dot(x, y);")
    + "return all;\n}"
)
snippet("lanes first", LANE_SUM.replace("@", "18") + ADDED)
snippet("lanes as wide as the sum", LANE_SUM.replace("@", "32") + ADDED, "accumulator-width")
WITHIN = (
    "static ap_int<32> add(ap_int<32> before, bool first, const Lanes &x, const Lanes &y) {\n#pragma HLS inline\n"
    f"ap_int<32> sum = 0;\n{DOT}@return (first ? ap_int<32>(0) : before) + lanes;\n}}\n"
    "ap_int<32> f(const Lanes &x, const Lanes &y) {\nap_int<32> all = 0;\n"
    + loop("all = add(all, i == 0, x, y);")
    + "return all;\n}"
)
snippet("lanes within, narrowed", WITHIN.replace("@", "const ap_int<18> lanes = sum;\n"))
snippet("lanes within", WITHIN.replace("@", "").replace("+ lanes", "+ sum"), "accumulator-width")
snippet(
    "lanes without balancing",
    WITHIN.replace("@", "")
    .replace("+ lanes", "+ sum")
    .replace("HLS inline", "HLS inline\n#pragma HLS expression_balance off"),
)
snippet(
    "sums in a row",
    "ap_int<32> f(int x) {\nap_int<32> all = 0;\n" + loop("all += x;\nall += i;") + "return all;\n}",
    "accumulator-chain",
)

# Arrays of structs with arrays.
snippet("struct with an array", body("static Lanes a[N];\na[x].lane[0] = 1;"), "struct-array")
snippet(
    "aggregated struct", body("static Lanes a[N];\n#pragma HLS aggregate variable = a\na[x].lane[0] = 1;")
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Finding]]:
    """Findings by snippet."""
    folder = tmp_path_factory.mktemp("snippets")
    (folder / "common.h").write_text(HEADER)
    files = []
    for number, (name, (code, _)) in enumerate(SNIPPETS.items()):
        includes = [line for line in code.splitlines() if line.startswith("#include")]
        rest = "\n".join(line for line in code.splitlines() if line not in includes)
        path = folder / f"{name.replace(' ', '_')}.cpp"
        path.write_text("\n".join(includes) + f"\nnamespace snippet_{number} {{\n{rest}\n}}\n")
        files.append(path)
    by_file = defaultdict(list)
    for finding in check_sources(files, [], [folder]):
        by_file[Path(finding.file).stem.replace("_", " ")].append(finding)
    return by_file


@pytest.mark.compile
@pytest.mark.parametrize("name", SNIPPETS)
def test_rules_find_what_is_wrong_and_nothing_else(name: str, found: dict[str, list[Finding]]) -> None:
    findings = found.get(name, [])
    assert {finding.rule for finding in findings} == SNIPPETS[name][1], "\n".join(map(str, findings))


@pytest.mark.compile
def test_findings_name_the_line(found: dict[str, list[Finding]]) -> None:
    (finding,) = found["undeclared"]
    code = SNIPPETS["undeclared"][0].splitlines()
    # Behind an empty line and the namespace's.
    assert code[finding.line - 3] == "#pragma HLS array_partition variable = missing complete"
    assert "missing" in finding.message


def test_pragmas_are_taken_apart() -> None:
    text = (
        "int before;\n  #pragma HLS dependence variable = a.b inter RAW distance = (N - 1) * M + 1 true // why\n"
        "#pragma HLS interface m_axi port=w bundle=g \\\n   depth = 2 * 3 offset=slave\n"
    )
    first, second = find_pragmas(text, "x.cpp")
    assert (first.name, first.line, first.problems) == ("dependence", 2, ())
    assert dict(first.clauses) == {
        "variable": "a.b",
        "type": "inter",
        "direction": "raw",
        "distance": "(N - 1) * M + 1",
        "dependent": "true",
    }
    assert dict(second.clauses) == {
        "mode": "m_axi",
        "port": "w",
        "bundle": "g",
        "depth": "2 * 3",
        "offset": "slave",
    }
    assert text[first.start : first.end].startswith("#pragma") and text[second.end :] == "\n"


def test_folder_without_a_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a generated HLS project"):
        check_project(tmp_path)
