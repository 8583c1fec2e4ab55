"""The report: one page of HTML about a Design or a build, which needs nothing beside it."""

from codegen.report.facts import Built, Facts, Observation
from codegen.report.page import render_page

__all__ = ["Built", "Facts", "Observation", "render_page"]
