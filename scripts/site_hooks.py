"""What `mkdocs.yml` adds to MkDocs: pages from notebooks, formulas as MathML, links to the reports that were built."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from latex2mathml.converter import convert
from mkdocs.structure.files import File, InclusionLevel

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', re.DOTALL)
"""A formula as `pymdownx.arithmatex` leaves it: `\\(within a line\\)` or `\\[on its own\\]`."""
SHELL = "%%bash\n"
"""What a cell of commands begins with."""
REPORTS = "reports"
"""Folder of the site, and of `build/`, that holds them."""
REPORTS_MARK = "<!-- reports -->"
NO_REPORTS = "This copy of the site was built without the reports; `make docs` builds both."
TITLES = {
    "digits": "Digits: the trained network that edgemoe ships",
    "m3vit-tiny": "M3ViT-tiny: random weights in the published shape",
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each notebook, which stays beside it to be downloaded, and the reports that there are."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        for file in notebook_page(notebook, config):
            files.append(file)
    for path in sorted(built_reports(config)):
        files.append(
            File.generated(
                config,
                f"{REPORTS}/{path.name}",
                abs_src_path=str(path),
                inclusion=InclusionLevel.NOT_IN_NAV,
            )
        )
    return files


def notebook_page(notebook: File, config: MkDocsConfig) -> list[File]:
    """The page of a notebook, and its pictures."""
    assert notebook.abs_src_path is not None, "a file of docs/"
    folder, name = Path(notebook.src_uri).parent, Path(notebook.src_uri).stem
    pictures: dict[str, bytes] = {}
    parts: list[str] = []
    for cell in json.loads(Path(notebook.abs_src_path).read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        shell = source.startswith(SHELL)
        parts.append(fenced(source.removeprefix(SHELL), "sh" if shell else "python"))
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures)}.png"
                pictures[picture] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Output of the code above]({picture})")
            else:
                parts.append(fenced("".join(output.get("text", data.get("text/plain", ""))), "text"))
    title, *rest = parts
    heading, _, text = title.partition("\n")
    page = "\n\n".join([heading, f"[Download this page as a notebook]({name}.ipynb)", text, *rest]) + "\n"
    made = [File.generated(config, f"{folder}/{name}.md", content=page)]
    return made + [File.generated(config, f"{folder}/{each}", content=png) for each, png in pictures.items()]


def fenced(text: str, language: str) -> str:
    """A block of code."""
    return f"~~~{language}\n{text.strip()}\n~~~"


def built_reports(config: MkDocsConfig) -> list[Path]:
    """Reports that `scripts/build_reports.py` has left."""
    return list((Path(config.docs_dir).parent / "build" / REPORTS).glob("*.html"))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to a notebook lead to its page, and name the reports."""
    markdown = re.sub(r"(?<!as a notebook)\]\(((?:\.\./)?(?:tutorials/)?[\w-]+)\.ipynb", r"](\1.md", markdown)
    links = [
        f"- [{TITLES.get(path.stem, path.stem)}]({REPORTS}/{path.name})"
        for path in sorted(built_reports(config))
    ]
    return markdown.replace(REPORTS_MARK, "\n".join(links) or NO_REPORTS)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn formulas into MathML, which browsers draw without a script."""

    def drawn(found: re.Match[str]) -> str:
        latex = found[3].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
        return convert(latex, display="block" if found[2] == "[" else "inline")

    return FORMULA.sub(drawn, html)
