"""The Makefile: what it leaves behind when a step of the set-up fails."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from service.settings import ROOT

# As Debian's Python without python3-venv: makes the folder, then finds no pip to put into it.
NO_PIP = """#!/bin/sh
[ "$1" = -m ] || exit 0
mkdir -p "$3/bin" && touch "$3/bin/python"
exit 1
"""


def test_an_environment_that_could_not_be_made_is_not_taken_for_one(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "serve.txt").touch()
    python = tmp_path / "python"
    python.write_text(NO_PIP)
    python.chmod(0o755)
    command = ["make", "serve", f"PYTHON={python}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode != 0
    assert not (tmp_path / ".venv").exists()
