"""The fastest hardware that fits a board: exact search of the whole space of sizes, without a Design.

space.py    which sizes there are, many at once as arrays, and what a board has room for
times.py    cycles of many hardwares at once
costs.py    resources of many at once, with every kind of memory
base.py     what the searches have in common
search.py   accelerators of C++: branch and bound; the estimate has the last word on what it finds
accelerator.py  accelerators of RTL, whose time is that of the timeline
default.py  what a network gets where no hardware is asked for
check.py    whether a board has room for a hardware
advice.py   what limits the fastest, and what others give for less
"""

from codegen.fit.advice import Advice, advise
from codegen.fit.base import Fitted, Space
from codegen.fit.check import require_fit, settings
from codegen.fit.default import fit, fitted, space_of
from codegen.fit.search import Search
from codegen.fit.space import MARGINS, Limits, limits_of

__all__ = [
    "MARGINS",
    "Advice",
    "Fitted",
    "Limits",
    "Search",
    "Space",
    "advise",
    "fit",
    "fitted",
    "limits_of",
    "require_fit",
    "settings",
    "space_of",
]
