"""Templates of the accelerator: HLS C++ under `src/` and `tb/`, tool scripts under `scripts/`."""

from __future__ import annotations

from pathlib import Path

TEMPLATES = Path(__file__).parent
"""Folder of the Jinja templates."""
