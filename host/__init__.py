"""The board side: weights and images into memory, the kernel's registers, results out of it.

Needs numpy, and PYNQ where there is a board; runs on Python 3.10. `Accelerator` is all that most users need:

    from host import Accelerator

    with Accelerator("edgemoe.bit") as accelerator:
        print(accelerator.run("photo.jpg", task="depth").map)
"""

from host.driver import Accelerator
from host.errors import AcceleratorError
from host.manifest import Manifest
from host.result import Result

__all__ = ["Accelerator", "AcceleratorError", "Manifest", "Result"]
