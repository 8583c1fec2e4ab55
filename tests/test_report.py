"""The report: what it says of a Design and of a build, and how it looks in a browser."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

import edgemoe
from codegen import original
from codegen.build import Build
from codegen.csim import CsimResult
from codegen.report.drawing import columns
from codegen.report.facts import timeline
from codegen.report.losses import BINS
from codegen.report.page import NO_IMAGES
from codegen.report.results import results
from codegen.verification import record
from common.decoded import described
from common.painting import map_panel
from edgemoe.cli import main
from edgemoe.heads import decoded
from edgemoe.report_contents import collect, read_source, write
from pysim.model import Model
from pysim.sensitivity import Loss, losses_json, read_sensitivity

Pixels = NDArray[np.uint8]

MOST_BYTES = 6_000_000
RNG = np.random.default_rng(4)

VOID = {"br", "circle", "col", "hr", "img", "input", "line", "link", "meta", "path", "rect"}


class Page(HTMLParser):
    """A page taken apart: every element closed, its text, its tables, and what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.ids: list[str] = []
        self.rows: list[list[str]] = []
        self.raw: dict[str, str] = {}
        self._id = ""
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._id = given.get("id") or ""
        self.ids += [self._id] if self._id else []
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] == ["script"]:
            self.raw[self._id] = data
        if self.open[-1:] in (["td"], ["th"]):
            self.rows[-1][-1] += data

    @property
    def payload(self) -> dict[str, Any]:
        found = json.loads(self.raw["facts"])
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def few(images: Pixels) -> Pixels:
    return images[:2]


@pytest.fixture(scope="module")
def verified(built: Build, micro: Model, few: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build with a check on record, and what each tensor costs alone."""
    folder = tmp_path_factory.mktemp("report") / "build"
    shutil.copytree(built.folder, folder)
    losses = edgemoe.sensitivity(micro, built.design, few)
    (folder / "design/sensitivity.json").write_text(losses_json(losses, built.design.spec.tasks[0]))
    record(Build.load(folder), "csim", CsimResult({"linear_heads": (12_345, 6)}), "1.0")
    return folder


@pytest.fixture(scope="module")
def page_file(verified: Path, few: Pixels, micro: Model) -> Path:
    """The page of a build with everything on it."""
    path = verified.parent / "report.html"
    edgemoe.report(verified, path, few, model=micro)
    return path


def test_the_page_needs_nothing_beside_it(page_file: Path) -> None:
    text = page_file.read_text()
    page = Page(text)
    assert len(text.encode()) < MOST_BYTES
    assert all(each.startswith(("#", "data:image/png;base64,")) for each in page.loaded), page.loaded
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r'byId\("([\w-]+)"\)', page.raw[""])) <= {*page.ids}
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None and "url(" not in style[1] and "@import" not in style[1]


def test_the_figures_are_those_of_the_build(page_file: Path, built: Build) -> None:
    page = Page(page_file.read_text())
    performance = edgemoe.estimate(built.design, "zcu111", hardware=built.architecture.hardware)
    rows = {row[0]: row[1:] for row in page.rows if row}
    assert rows["DSP slices"][:2] == [f"{performance.resources['dsp'][0]:,g}", "4,272"]
    check = next(row for row in page.rows if row[:1] == ["csim"])
    assert (check[1], check[3:]) == ("linear_heads", ["12,345", "6"])
    assert f"{performance.cycles:,} cycles" in page_file.read_text()
    stages = page.payload["timeline"]
    assert stages == timeline(performance.stages)
    assert stages[-1]["start"] + stages[-1]["cycles"] == performance.cycles
    assert all(a["start"] + a["cycles"] == b["start"] for a, b in pairwise(stages))


def test_the_figures_are_those_of_the_runs(page_file: Path, built: Build, few: Pixels, micro: Model) -> None:
    payload = Page(page_file.read_text()).payload
    design = built.design
    task = design.spec.tasks[1]
    run = edgemoe.simulate(design, few, task, trace=True)
    errors = {stage.name: stage for stage in edgemoe.compare(micro, design, few, task, simulation=run).stages}
    stages = {stage["name"]: stage for stage in payload["stages"] if stage["task"] == task}
    assert list(stages) == list(run.real)
    for name, stage in stages.items():
        assert (stage["low"], stage["high"]) == (run.real[name].min(), run.real[name].max())
        assert sum(stage["histogram"]) == run.real[name].size and len(stage["histogram"]) == BINS
        assert stage["sqnr_db"] == errors[name].sqnr_db
    layers = {entry["layer"]: entry for entry in payload["routing"] if entry["task"] == task}
    assert list(layers) == list(run.routing)
    for layer, routing in run.routing.items():
        assert_array_equal(layers[layer]["tokens"], routing.lengths)
        chosen = routing.experts.reshape(len(few), design.spec.tokens, -1)
        assert_array_equal(layers[layer]["patches"], chosen[:, design.spec.prefix_tokens :])


def test_attention_is_that_of_the_class_token(built: Build, few: Pixels) -> None:
    design = built.design
    facts = collect(Path(), design, None, few, None, None)
    entry = next(
        each for each in facts.attention if each["task"] == design.spec.tasks[0] and each["layer"] == 2
    )
    scores = edgemoe.simulate(design, few, 0, trace=True).real["blocks.2.scores"]
    for image in range(len(few)):
        for head in range(design.spec.heads):
            powers = np.exp(scores[image, head, 0])[1:]
            assert_array_equal(entry["heads"][image][head], np.rint(255 * powers / powers.max()))


def test_results_of_the_task_heads(verified: Path, few: Pixels, micro: Model, tmp_path: Path) -> None:
    """Those of a build come from its host folder, those of a Design from the Model; maps are painted."""
    design = Build.load(verified).design
    built = collect(verified, *read_source(verified), few, None, None).results
    plain = collect(verified / "design", design, None, few, micro, None)
    assert built == plain.results
    assert collect(verified / "design", design, None, few, None, None).results == []
    assert [(each.task, each.picture) for each in built] == [
        (task, picture) for task in design.spec.tasks for picture in range(len(few))
    ]
    output = decoded(micro, "semseg", edgemoe.simulate(design, few, "semseg").tokens)
    assert output is not None
    assert built[1].words == described("semseg", output[1])
    header, data = built[1].painted.split(",")
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        painted = np.asarray(picture.convert("RGB"))
    assert header == "data:image/png;base64"
    assert_array_equal(painted, map_panel("", "semseg", output[1], few[1]).colours)
    assert [name for name, _ in built[1].legend] == [
        f"class {number}" for number in np.unique(output[1].argmax(-1))
    ]
    large = RNG.integers(0, 256, (1, 3, 480, 640), np.uint8)
    (small,) = results("semseg", np.zeros((1, 30, 40, 5)), large, ())
    with Image.open(io.BytesIO(base64.b64decode(small.painted.split(",")[1]))) as picture:
        assert picture.size == (320, 240)
    write(plain, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert f"<strong>semseg</strong>: {built[1].words}</figcaption>" in page


def test_names_of_classes(micro: Model, few: Pixels) -> None:
    scores = np.array([[0.0, 3.0, 1.0]])
    (result,) = results("digit", scores, few[:1], ["a", "<b>", "c"])
    assert (result.painted, result.legend) == ("", ())
    assert result.words.startswith("<b> (")


def test_a_design_without_images(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.html"
    assert main(["report", str(folders / "w16a16"), "-o", str(target), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    text = target.read_text()
    assert (result["report"], result["bytes"], result["images"]) == (str(target), len(text.encode()), 0)
    page = Page(text)
    assert NO_IMAGES in text and "Verified" not in text
    design = edgemoe.load_design(folders / "w16a16")
    named = {row[0] for row in page.rows if row}
    assert {report.name for report in design.reports} <= named


def test_sensitivity_of_a_design(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    loss: dict[str, Any] = {"kind": "weight", "sqnr_db": 41.25, "noise": 7.5e-5, "equal_choices": 0.995}
    tensors: list[dict[str, Any]] = [
        loss | {"name": "blocks.1.fc1.weight"},
        loss | {"name": "patch.weight", "equal_choices": None},
        loss | {"name": "blocks.0.norm1", "kind": "activation"},
        loss | {"name": "embed", "kind": "activation"},
    ]
    layers = [loss | {"name": "blocks.1", "kind": "layer"}]
    content = {"task": "depth", "layers": layers, "tensors": tensors}
    design, target = tmp_path / "design", tmp_path / "report.html"
    shutil.copytree(folders / "w8a8", design)
    (design / "sensitivity.json").write_text(json.dumps(content))
    edgemoe.report(design, target)
    page = Page(target.read_text())
    found = edgemoe.load_design(design)
    reports = {report.name: report for report in found.reports}
    experts = [reports[f"blocks.1.fc1.{expert}"] for expert in range(5)]
    low, high = min(each.low for each in experts), max(each.high for each in experts)
    rows = {row[0]: row for row in page.rows if row and row[-1:] != ["SQNR, dB"]}
    clipped = f"{100 * max(each.clipped for each in experts):.3g}"
    assert rows["blocks.1.fc1.weight"] == [
        "blocks.1.fc1.weight", "weight", "41.2", "7.50e-05", "99.50", "8", f"{low:.4g}", f"{high:.4g}", clipped,
    ]  # fmt: skip
    assert rows["patch.weight"][4] == "" and rows["embed"][5:] == [""] * 4
    assert rows["blocks.1"] == ["blocks.1", "layer", "41.2", "7.50e-05", "99.50"]
    losses = {each["name"]: each for each in page.payload["losses"]}
    assert list(losses) == [each["name"] for each in tensors]
    for name in ("blocks.1.fc1.weight", "patch.weight"):
        histogram, integers = losses[name]["histogram"], found.tensors[name]
        assert sum(histogram["counts"]) == integers.size and len(histogram["counts"]) <= 64
        assert histogram["low"] <= integers.min() and histogram["high"] >= integers.max()
    assert losses["blocks.0.norm1"]["histogram"] is None
    (design / "sensitivity.json").write_text(json.dumps(content | {"layers": 3}))
    assert main(["report", str(design), "-o", str(tmp_path / "other.html")]) == 2
    assert "sensitivity.json: layers" in capsys.readouterr().err


def test_a_build_keeps_the_sensitivity_of_its_design(
    folders: Path, few: Pixels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    losses = [Loss("blocks.0", "layer", 40.0, 1e-4), Loss("blocks.0.norm1", "activation", 41.0, 8e-5, 0.5)]
    design, build = tmp_path / "design", tmp_path / "build"
    shutil.copytree(folders / "w8a8", design)
    (design / "sensitivity.json").write_text(losses_json(losses, "depth"))
    assert main(["generate", str(design), "-o", str(build), "--board", "zcu111"]) == 0
    assert read_sensitivity(build / "design") == read_sensitivity(design)
    edgemoe.report(build, tmp_path / "report.html", few)
    (entry,) = Page((tmp_path / "report.html").read_text()).payload["losses"]
    real = edgemoe.simulate(Build.load(build).design, few, "depth", trace=True).real["blocks.0.norm1"]
    histogram = entry["histogram"]
    assert sum(histogram["counts"]) == real.size
    assert (histogram["low"], histogram["high"]) == (real.min(), real.max())


def test_sensitivity_of_a_network_without_experts(tmp_path: Path) -> None:
    losses = [Loss("blocks.0", "layer", 40.0, 1e-4, None), Loss("patch", "weight", 41.0, 8e-5, None)]
    (tmp_path / "sensitivity.json").write_text(losses_json(losses, "classify"))
    found = read_sensitivity(tmp_path)
    assert found is not None and [*found.layers, *found.tensors] == losses
    assert read_sensitivity(tmp_path / "none") is None


def test_published_accelerators_stand_beside_their_own_network_only(
    page_file: Path, verified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "UbiMoE" not in page_file.read_text()
    monkeypatch.setattr(original, "describes", lambda spec: True)
    edgemoe.report(verified, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text())
    published = {row[0]: row[-1] for row in page.rows if row[0] in ("Edge-MoE", "UbiMoE", "CoQMoE")}
    assert published["Edge-MoE"] == f"{original.PUBLISHED_MS:.2f}" and published["CoQMoE"] == "6.47"
    assert page.payload["rivals"][0]["label"] == "edgemoe, ZCU111"


def test_refusals_leave_nothing(folders: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "report.html"
    design = str(folders / "w8a8")
    for arguments, said in (
        ([design, "--model", str(folders / "model")], "--model without --images"),
        ([design, "--images", str(folders / "images"), "--task", "paint"], "task 'paint' is unknown"),
        ([str(tmp_path)], "design.toml"),
        ([str(tmp_path / "none")], "no such folder"),
    ):
        assert main(["report", *arguments, "-o", str(target)]) == 2
        assert said in capsys.readouterr().err
    assert not target.exists()
    target.write_text("mine")
    assert main(["report", design, "-o", str(target)]) == 2
    assert target.read_text() == "mine"


def test_names_are_no_markup(built: Build, few: Pixels, tmp_path: Path) -> None:
    facts = replace(collect(Path(), built.design, None, few, None, None), title="<b onload=x>&</script>")
    write(facts, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "<b onload" not in text and "&lt;b onload=x&gt;&amp;&lt;/script&gt;" in text


def test_columns_show_every_operation(built: Build) -> None:
    program = built.design.network.program
    drawn = columns(program)
    assert [column.title for column in drawn] == ["Embedding", "Blocks 0, 2", "Blocks 1, 3"]
    assert sum(len(column.boxes) * (1 if i == 0 else 2) for i, column in enumerate(drawn)) == len(program)
    for column in drawn[1:]:
        assert len(column.skips) == 2
        assert all(a.y < b.y for a, b in pairwise(column.boxes))


# --- In a browser -------------------------------------------------------------------------------------------

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None and not os.environ.get("CI"):
        pytest.skip("no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "scheme"), [(1600, "light"), (1600, "dark"), (400, "light"), (400, "dark")]
)
def test_the_page_in_a_browser(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for name in ("timeline", "shares", "stages", "histogram", "usage", "losses", "loss-histogram"):
        assert page.locator(f"#{name} .main-svg").first.is_visible()
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") is (scheme == "light")
    picture = page.screenshot(full_page=True)
    assert len(picture) > 50_000
    assert said == []
    assert [url for url in requested if not url.startswith(("file:", "data:", "blob:"))] == []
    page.close()


@pytest.mark.browser
def test_tables_are_sorted_and_copied_by_keyboard(browser: Any, page_file: Path) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    table = page.locator("table", has=page.locator("caption", has_text="Cycles by part"))
    button = table.locator("th button", has_text="cycles")
    column = (
        "[...document.querySelectorAll('#time table')[0].tBodies[0].rows]"
        ".map(row => Number(row.cells[2].textContent.replaceAll(',', '')))"
    )
    button.focus()
    page.keyboard.press("Enter")
    rising = page.evaluate(column)
    assert rising == sorted(rising) and len(set(rising)) > 1
    page.keyboard.press("Enter")
    assert page.evaluate(column) == rising[::-1]
    assert button.locator("xpath=..").get_attribute("aria-sort") == "descending"
    table.get_by_role("button", name="copy the table").press("Enter")
    assert page.locator("#status").text_content() in (
        "table copied",
        "the browser does not let this page copy",
    )
    page.close()


@pytest.mark.browser
def test_choices_change_what_is_drawn(browser: Any, page_file: Path, built: Build) -> None:
    page = browser.new_page()
    page.goto(page_file.as_uri())
    page.wait_for_selector("html[data-ready=yes]")
    shown = "[...document.querySelectorAll('#results img')].every(e => e.complete && e.naturalWidth)"
    assert page.evaluate(shown)
    assert page.locator("#results figure").count() == 2 * len(built.design.spec.tasks)
    legend = page.locator("#routing-legend")
    before = legend.text_content()
    page.locator("#routing-layer").select_option("3")
    assert legend.text_content() != before
    row = page.locator("#stage-table tbody tr", has_text="blocks.1.logits")
    row.press("Enter")
    assert "blocks.1.logits" in page.locator("#histogram .gtitle").text_content()
    worst = page.locator("#loss-table tbody tr").first
    named = worst.locator("td").first.text_content()
    assert named in page.locator("#loss-histogram .gtitle").text_content()
    page.locator("#loss-table tbody tr", has_text="blocks.1.qkv.weight").press("Enter")
    assert "blocks.1.qkv.weight, weight" in page.locator("#loss-histogram .gtitle").text_content()
    page.locator("#accuracy-task").select_option(built.design.spec.tasks[1])
    assert page.locator("#stage-table tbody tr").count() > 20
    # Everything that is drawn has a name for those who do not see it.
    nameless = page.locator("[role=img]:not([aria-label])").count()
    unlabelled = page.evaluate(
        "[...document.querySelectorAll('select')].filter(e => !e.labels.length).length"
    )
    assert (nameless, unlabelled) == (0, 0)
    page.close()
