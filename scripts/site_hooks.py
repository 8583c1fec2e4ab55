"""What `mkdocs.yml` adds to MkDocs: pages from notebooks, formulas as MathML, links to the reports that were built."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from latex2mathml.converter import convert
from mkdocs.structure.files import File, InclusionLevel
from nbconvert import MarkdownExporter

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([\[(])(.*?)\\[\])]</\1>', re.DOTALL)
"""A formula as `pymdownx.arithmatex` leaves it: `\\(within a line\\)` or `\\[on its own\\]`."""
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
    name = Path(notebook.src_uri).stem
    assert notebook.abs_src_path is not None, "a file of docs/"
    text, resources = MarkdownExporter().from_filename(notebook.abs_src_path)  # type: ignore[no-untyped-call]
    title, _, body = text.strip().partition("\n")
    text = f"{title}\n\n[Download this page as a notebook]({name}.ipynb)\n{body}\n"
    folder = str(Path(notebook.src_uri).parent)
    pictures = {}
    for output, content in resources["outputs"].items():
        pictures[f"{folder}/{name}-{output}"] = content
        text = text.replace(f"({output})", f"({name}-{output})")
    made = [File.generated(config, f"{folder}/{name}.md", content=text)]
    return made + [File.generated(config, uri, content=content) for uri, content in pictures.items()]


def built_reports(config: MkDocsConfig) -> list[Path]:
    """Reports that `scripts/build_reports.py` has left."""
    return list((Path(config.docs_dir).parent / "build" / REPORTS).glob("*.html"))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to a notebook lead to its page, and name the reports."""
    markdown = re.sub(r"\]\((tutorials/[\w-]+)\.ipynb", r"](\1.md", markdown)
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
