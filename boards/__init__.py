"""FPGA boards: what each one offers a design, in one TOML file a board, every value with its source.

`load_board("zcu102")` gives a shipped board, `load_board("mine.toml")` a user's own one.
"""

from boards.board import Board, BoardError, board_names, load_board, markdown_table

__all__ = ["Board", "BoardError", "board_names", "load_board", "markdown_table"]
