"""FPGA boards: what each one offers a design, in one TOML file a board, every value with its source.

`load_board("zcu102")` gives a shipped board, `load_board("mine.toml")` a user's own one.
"""

from pathlib import Path

from boards.board import Board, BoardError, board_names, load_board, markdown_table, software_table
from boards.family import FAMILIES, Family, FamilyName

VIVADO_TEMPLATES = Path(__file__).parent / "vivado"
"""Block designs, one script for each family of processing systems, and the description of the emulated board."""

__all__ = [
    "FAMILIES",
    "VIVADO_TEMPLATES",
    "Board",
    "BoardError",
    "Family",
    "FamilyName",
    "board_names",
    "load_board",
    "markdown_table",
    "software_table",
]
