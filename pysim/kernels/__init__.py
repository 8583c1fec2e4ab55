"""The accelerator's engines, bit for bit, one module each.

Activations are int64 arrays whatever their hardware width: the width is a bound that each kernel enforces
when it produces a value, not a storage type.

Compiled code is cached on disk. numba checks only the file that a function stands in, not the functions it
calls in other files, so the cache lives in a folder named by a hash of all kernels: any change starts anew.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from numba import config

from pysim.cache import cache_folder, unwritable
from pysim.kernels.compiling import watch


def _cache_folder() -> Path:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return cache_folder(f"kernels-{digest[:16]}")


# A folder that the user named but that cannot be written would end in an error of numba's.
if not config.CACHE_DIR or unwritable(Path(config.CACHE_DIR)):
    config.CACHE_DIR = str(_cache_folder())
watch()
