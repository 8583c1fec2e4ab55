"""The fastest hardware that fits a board: exact search of the whole space of sizes, without a Design.

space.py    which sizes there are, many at once as arrays, and what a board has room for
times.py    cycles of many hardwares at once
costs.py    resources of many at once, with every kind of memory
search.py   branch and bound over them; the estimate has the last word on what it finds
default.py  what a network gets where no hardware is asked for
check.py    whether a board has room for a hardware
advice.py   what limits the fastest, and what others give for less
"""

from codegen.fit.advice import Advice, advise
from codegen.fit.check import require_fit, settings
from codegen.fit.default import fitted
from codegen.fit.search import Fitted, Search, fit
from codegen.fit.space import MARGINS, Limits, limits_of

__all__ = [
    "MARGINS",
    "Advice",
    "Fitted",
    "Limits",
    "Search",
    "advise",
    "fit",
    "fitted",
    "limits_of",
    "require_fit",
    "settings",
]
