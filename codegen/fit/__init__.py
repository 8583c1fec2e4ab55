"""The fastest hardware that fits a board: exact search of the whole space of sizes, without a Design.

fit(network, board)
space.py   which sizes there are, many at once as arrays
times.py   cycles of many at once
costs.py   resources of many at once, with every kind of memory
search.py  branch and bound over them; the estimate has the last word on what it finds
"""

from codegen.fit.search import Fitted, fit
from codegen.fit.space import MARGINS, Limits, limits_of

__all__ = ["MARGINS", "Fitted", "Limits", "fit", "limits_of"]
