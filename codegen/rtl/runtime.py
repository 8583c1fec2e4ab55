"""A compiler for Verilator's makefiles that compiles the simulator's runtime once, and not for every kernel again.

The runtime (`verilated*.cpp`) takes 12 of the 14 seconds of a small kernel's build and is the same for all. The
makefiles start each compiler through a program that `OBJCACHE` names: this file, which imports nothing of the package
so that it starts at once.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def object_cache(cache: Path, runtime: Path) -> str:
    """The value of `OBJCACHE`.

    Args:
        cache: folder of compiled objects; made when the first one is kept.
        runtime: folder of the runtime's sources and headers.
    """
    words = shlex.join([sys.executable, "-I", "-S", __file__, str(cache), str(runtime)])
    return words.replace("$", "$$")


def compile_once(cache: Path, runtime: Path, command: Sequence[str]) -> int:
    """Run a compiler, or copy what it made before of a file of the runtime; its exit code.

    Args:
        cache: folder of compiled objects.
        runtime: folder of sources that include nothing but headers beside them and of the system.
        command: of the compiler, whose last word is the source.
    """
    if Path(command[-1]).parent != runtime or "-o" not in command:
        return subprocess.call(command)
    output = Path(command[command.index("-o") + 1])
    kept = cache / f"{_digest(runtime, command)}.o"
    if kept.is_file():
        shutil.copyfile(kept, output)
        return 0
    if code := subprocess.call(command):
        return code
    cache.mkdir(parents=True, exist_ok=True)
    # Another build may read the folder meanwhile, and write the same.
    partial = kept.with_suffix(f".{os.getpid()}")
    shutil.copyfile(output, partial)
    partial.replace(kept)
    return 0


def _digest(runtime: Path, command: Sequence[str]) -> str:
    """Everything that goes into an object."""
    version = subprocess.run([command[0], "--version"], capture_output=True, check=False).stdout
    digest = hashlib.sha256(version + os.fsencode("\n".join(command)))
    for file in sorted([*runtime.rglob("*.h"), *runtime.glob("*.cpp")]):
        digest.update(os.fsencode(file.name) + file.read_bytes())
    return digest.hexdigest()[:32]


if __name__ == "__main__":
    sys.exit(compile_once(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
