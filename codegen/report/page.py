"""The page of a report, rendered from its facts: text, tables and drawings here, charts by the program in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from codegen import original
from codegen.estimate import part_totals
from codegen.report.drawing import BOX_HEIGHT, BOX_WIDTH, MARGIN
from codegen.report.facts import PICTURES, Built, Facts
from codegen.report.losses import HEADS, loss_row
from pysim.extras import require
from pysim.program import macs

_TEMPLATES = files(__package__) / "templates"

Rows = list[tuple[Any, ...]]

NO_IMAGES = (
    "No images were given: with --images, and with --model for the float network, this page shows errors of every "
    "tensor, routing and attention."
)


@dataclass(frozen=True)
class Card:
    """A figure at the top of the page.

    Attributes:
        label: what it is.
        value: the figure.
        note: what it is to be read with.
        state: `good` or `bad`, where it is one of the two.
    """

    label: str
    value: str
    note: str = ""
    state: str = ""


def render_page(facts: Facts) -> str:
    """The page, with everything that it needs: it opens without a network.

    Raises:
        MissingPackageError: no plotly, whose program draws the charts.
    """
    require("a report", "plotly")
    from plotly.offline import get_plotlyjs

    def source(name: str) -> str:
        return (_TEMPLATES / name).read_text(encoding="utf-8")

    environment = Environment(
        undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source("report.html.j2")).render(
        facts=facts,
        css=Markup(source("report.css")),
        js=Markup(source("report.js")),
        plotly=Markup(get_plotlyjs()),
        box_width=BOX_WIDTH,
        box_height=BOX_HEIGHT,
        margin=MARGIN,
        no_images=NO_IMAGES,
        **_network(facts),
        **_build(facts),
        **_runs(facts),
    )


def _network(facts: Facts) -> dict[str, Any]:
    """Parts of the page that every Design has."""
    design, spec = facts.design, facts.design.spec
    height, width = spec.image_size
    experts = (
        f", {spec.moe.experts} experts in {len(spec.moe_layers)} of them" if spec.moe is not None else ""
    )
    return {
        "summary": f"{spec.name}, precision {design.precision.name}, tasks {', '.join(spec.tasks)}",
        "network": (
            f"{height} x {width} pixels, {spec.tokens} tokens of {spec.dim} channels, {spec.depth} blocks{experts}; "
            f"{macs(design.network.program) / 1e6:,.1f} million multiplications an image. Each box names the integers "
            "that it takes and gives."
        ),
        "tensors": [
            (
                report.name,
                report.kind,
                report.width,
                f"{report.low:.4g}",
                f"{report.high:.4g}",
                f"{100 * report.clipped:.3g}",
                f"{report.sqnr_db:.1f}",
            )
            for report in design.reports
        ],
        "footer": f"edgemoe {facts.version}, design {design.design_id}, weights {design.weights_sha256[:16]}",
    }


def _build(facts: Facts) -> dict[str, Any]:
    """Parts about the hardware; empty where there is none."""
    built = facts.built
    if built is None:
        nothing: list[Any] = []
        names = ("cards", "parts", "compared", "resources", "memories", "image", "checks")
        empty: dict[str, Any] = dict.fromkeys(names, nothing)
        return empty | {
            "time": "",
            "sections": _sections(facts),
            "payload": facts.payload | {"rivals": []},
        }
    performance = built.performance
    compared = _compared(facts, built)
    return {
        "cards": _cards(built),
        "sections": _sections(facts),
        "time": (
            f"{performance.cycles:,} cycles for {performance.batch} image(s), {performance.ms:.3f} ms an image at "
            f"{built.architecture.hardware.clock_mhz:g} MHz: an estimate before synthesis. Each bar is a stage, "
            "one after the other; weights load beside it."
        ),
        "parts": [
            (
                total.part,
                total.stages,
                f"{total.cycles:,}",
                f"{100 * total.cycles / performance.cycles:.1f} %",
                total.bound_by,
            )
            for total in part_totals(performance.stages)
        ],
        "compared": [(*texts, clock, f"{ms:.2f}") for *texts, clock, ms in compared],
        "payload": facts.payload
        | {
            "rivals": [{"label": f"{name}, {board}", "ms": ms} for name, board, *_, ms in compared],
        },
        "resources": [
            (
                each["name"],
                f"{each['used']:,g}",
                f"{each['available']:,}",
                f"{each['share']:.1f}",
                f"{each['margin']:g}",
            )
            for each in facts.resources
        ],
        "memories": [
            (
                engine,
                memory.name,
                memory.built_as,
                f"{memory.copies:,}",
                f"{memory.depth:,}",
                f"{memory.width:,}",
            )
            for engine, held in performance.memories.items()
            for memory in held
        ],
        "image": [(name, f"{first:,}", f"{size:,}") for name, first, size in facts.sections],
        "checks": [
            (name, engine, check.date, f"{compared.values:,}", f"{compared.mismatches:,}")
            for name, check in built.verification.checks.items()
            for engine, compared in check.engines.items()
        ],
    }


def _cards(built: Built) -> list[Card]:
    performance, checks = built.performance, built.verification.checks.values()
    values, mismatches = (sum(getattr(check, name) for check in checks) for name in ("values", "mismatches"))
    return [
        Card("Board", built.board.title, built.board.part),
        Card("One image", f"{performance.ms:.3g} ms", "estimate before synthesis"),
        Card(
            "Fits the board",
            "yes" if performance.fits else "no",
            performance.short or "by the estimate",
            "good" if performance.fits else "bad",
        ),
        Card(
            "Verified",
            f"{values:,} values" if values else "not yet",
            f"{mismatches:,} mismatches" if values else "edgemoe verify",
            ("bad" if mismatches else "good") if values else "",
        ),
    ]


def _compared(facts: Facts, built: Built) -> Rows:
    """Our figure and the published ones; nothing for another network than theirs."""
    if not original.describes(facts.design.spec):
        return []
    ours = (
        "edgemoe",
        built.board.name.upper(),
        facts.design.precision.name,
        "this build, estimate",
        f"{built.architecture.hardware.clock_mhz:g}",
        built.performance.ms,
    )
    theirs = [
        (each.name, each.board, each.precision, each.source, f"{each.clock_mhz:g}", each.ms)
        for each in facts.rivals
    ]
    return [ours, *theirs]


def _runs(facts: Facts) -> dict[str, Any]:
    """Parts about the images; empty where there were none."""
    agreement = [
        (
            each.task,
            each.simulation.integers.shape[0],
            f"{each.comparison.sqnr_db:.1f}",
            f"{each.comparison.sqnr_db_same_routing:.1f}",
            f"{each.comparison.max_error:.3g}",
            f"{each.comparison.equal_choices:,} of {each.comparison.choices:,}"
            if each.comparison.choices
            else "",
        )
        for each in facts.observations
        if each.comparison is not None
    ]
    most = max((entry["experts"] for entry in facts.routing), default=0)
    return {
        "agreement": agreement,
        "usage_heads": ("task", "layer", *(f"expert {expert}" for expert in range(most))),
        "usage": [(entry["task"], entry["layer"], *entry["tokens"]) for entry in facts.routing],
        "attention": (
            (
                "What the first token looks at"
                if facts.design.spec.prefix_tokens
                else "What all tokens look at on average"
            )
            + f", head by head, in the first {PICTURES} pictures at most; the patch of strongest colour has the "
            "largest share of its head."
        ),
        "loss_heads": HEADS,
        "losses": (
            [loss_row(*each) for each in zip(facts.sensitivity.tensors, facts.losses, strict=True)]
            if facts.sensitivity
            else []
        ),
        "layer_losses": [loss_row(loss) for loss in facts.sensitivity.layers] if facts.sensitivity else [],
    }


def _sections(facts: Facts) -> Sequence[tuple[str, str]]:
    """Headings that the page has."""
    found = [("network", "Network")]
    if facts.built is not None:
        found += [("time", "Time"), ("resources", "Resources")]
    found.append(("accuracy", "Accuracy"))
    if facts.results:
        found.insert(1, ("results", "Results"))
    if facts.routing:
        found.append(("routing", "Routing"))
    if facts.attention:
        found.append(("attention", "Attention"))
    if facts.sensitivity:
        found.append(("sensitivity", "Sensitivity"))
    if facts.built is not None:
        found.append(("verified", "Verified"))
    return found
