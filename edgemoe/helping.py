"""Help of each command: its line in the list, examples, and the page that describes it."""

from __future__ import annotations

from typing import NamedTuple

import typer

FOLDER = "docs"
"""Folder of the documentation, in the source and in `make docs`."""


class Help(NamedTuple):
    """Help of a command, beside what its own docstring and options say.

    Attributes:
        line: in the list of commands, in at most `LONGEST` characters.
        page: page and heading that describe it, in `FOLDER`.
        examples: command lines without `edgemoe`; each is parsed by the tests.
    """

    line: str
    page: str
    examples: tuple[str, ...]


LONGEST = 66
"""Characters of a line in the list of commands, of a terminal with 80 columns."""

COMMANDS: dict[str, Help] = {
    "demo": Help(
        "Run the whole flow on the shipped network of handwritten digits.",
        "command-line.md#demo",
        ("demo -o demo",),
    ),
    "zoo": Help("List the shapes of networks that are known by name.", "command-line.md#zoo", ("zoo",)),
    "init": Help(
        "Make a Model with seeded random weights.",
        "command-line.md#init",
        ("init m3vit-tiny -o model", "init shape.toml -o model --class-names semseg=names.txt"),
    ),
    "import": Help(
        "Make a Model from a checkpoint or an ONNX file.",
        "models.md",
        (
            "import deit-tiny/ -o model",
            "import m3vit.pth -o model --heads 3 --top-k 2 --image-size 128x256",
        ),
    ),
    "export": Help(
        "Write the float network as an ONNX file.",
        "command-line.md#export",
        ("export model -o network.onnx",),
    ),
    "quantize": Help(
        "Quantise a Model to a Design, calibrated on images.",
        "command-line.md#quantize",
        ("quantize model -o design --images photos/ --precision w8a8",),
    ),
    "simulate": Help(
        "Run images through a Design, bit by bit, without hardware.",
        "command-line.md#simulate",
        (
            "simulate design --image photo.jpg --resize crop --model model",
            "simulate design --images clip.mp4 --reference model --save pictures",
        ),
    ),
    "evaluate": Help(
        "Measure a Design's accuracy on labelled images.",
        "evaluation.md",
        ("evaluate design --data photos/ --reference model",),
    ),
    "report": Help(
        "Write what is known of a Design or a build as one HTML page.",
        "command-line.md#report",
        ("report build -o report.html --images photos/ --model model",),
    ),
    "boards": Help("List the boards that are known by name.", "boards.md", ("boards",)),
    "fit": Help(
        "Find the fastest hardware that fits a board.",
        "command-line.md#fit",
        ("fit m3vit-tiny --board kv260 --precision w8a8 -o kv260.toml",),
    ),
    "estimate": Help(
        "Estimate cycles, traffic and resources on a board.",
        "estimate.md",
        ("estimate m3vit-tiny --board kv260 --precision w8a8",),
    ),
    "generate": Help(
        "Generate the hardware of a Design for a board.",
        "command-line.md#generate",
        ("generate design -o build --board kv260 --model model",),
    ),
    "compile": Help(
        "Make the program of a Design for an accelerator that is built.",
        "command-line.md#compile",
        ("compile design --for build -o program --model model",),
    ),
    "verify": Help(
        "Prove that a build returns the simulator's integers.",
        "command-line.md#verify",
        ("verify build --csim --host", "verify build --rtl --image photo.jpg"),
    ),
    "run": Help(
        "Run images on the accelerator, or on an emulated one.",
        "board.md",
        (
            "run build --image photo.jpg --task all --emulate",
            "run build --camera 0 --frames 50 --save pictures",
        ),
    ),
    "doctor": Help("List what is installed and what works with it.", "command-line.md#doctor", ("doctor",)),
}
"""Every command, in the order of the list."""


def explain(app: typer.Typer) -> None:
    """Give every command its help, and put them into order: last those without, which the tests name."""
    for command in app.registered_commands:
        found = COMMANDS.get(_name(command))
        if found is None:
            continue
        command.short_help = found.line
        # \b: the lines stay as they are.
        examples = "\n".join(f"  edgemoe {example}" for example in found.examples)
        title = "Examples:" if len(found.examples) > 1 else "Example:"
        command.epilog = f"\b\n{title}\n{examples}\n\nDocumentation: {FOLDER}/{found.page}"
    order = list(COMMANDS)
    app.registered_commands.sort(key=lambda command: (*order, _name(command)).index(_name(command)))


def _name(command: typer.models.CommandInfo) -> str:
    if command.name is not None:
        return command.name
    assert command.callback is not None
    return command.callback.__name__
