"""The Python of README.md runs, on a smaller network, and prints what its comments say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.compile
def test_python_of_the_readme(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code.count('"m3vit-tiny"') == 2, "the model, and a comment"
    script = tmp_path / "readme.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + code.replace("m3vit-tiny", "micro")
    )
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    shape, _, verified, *_, emulated = done.stdout.splitlines()
    assert shape.startswith("(8, ") and verified.endswith(" 0")
    assert emulated.split() == ["True", "None"]
