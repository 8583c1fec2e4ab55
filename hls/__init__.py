"""Templates of the accelerator: HLS C++ under `src/` and `tb/`, tool scripts under `scripts/`;
under `kernels/` top functions for single engines.

For a Design of the arithmetic `iccad23`, a file in `iccad23/` replaces the one of that name in `src/`.
"""

from __future__ import annotations

from pathlib import Path

TEMPLATES = Path(__file__).parent
"""Folder of the Jinja templates."""
