"""The Makefile: what it leaves behind, says and passes on."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from service.settings import ROOT

# As Debian's Python without python3-venv: makes the folder, then finds no pip to put into it.
NO_PIP = """#!/bin/sh
[ "$1" = -m ] || exit 0
mkdir -p "$3/bin" && touch "$3/bin/python"
exit 1
"""

VARIABLES = ("HOST", "PORT", "DATA", "ARGS", "PYTHON", "TORCH_INDEX")


def make(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As typed into a shell: `make test`, which may run this, hands its own variables on."""
    handed_on = (*VARIABLES, "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES")
    own = {name: value for name, value in os.environ.items() if name not in handed_on}
    return subprocess.run(
        ["make", *words], cwd=root, env=own, capture_output=True, text=True, check=False
    )


def test_an_environment_that_could_not_be_made_is_not_taken_for_one(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "serve.txt").touch()
    python = tmp_path / "python"
    python.write_text(NO_PIP)
    python.chmod(0o755)
    done = make(tmp_path, "serve", f"PYTHON={python}")
    assert done.returncode != 0
    assert not (tmp_path / ".venv").exists()


def made(root: Path) -> None:
    """A copy of the Makefile whose environment is up to date: this Python and nothing else."""
    shutil.copy(ROOT / "Makefile", root)
    (root / "requirements").mkdir()
    for name in ("serve", "build"):
        (root / "requirements" / f"{name}.txt").touch()
    (root / ".venv" / "bin").mkdir(parents=True)
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    for name in ("serve", "build"):
        (root / ".venv" / f".{name}").touch()


def test_a_port_in_use_is_one_line_with_another(tmp_path: Path) -> None:
    made(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = make(tmp_path, "serve", f"PORT={port}")
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.startswith(f"port {port} is in use: make serve PORT={port + 1}\nmake: ")


@pytest.mark.parametrize("port", ["99999", "65536", "0", "-1", "http", ""])
def test_what_is_no_port_is_one_line(tmp_path: Path, port: str) -> None:
    made(tmp_path)
    done = make(tmp_path, "serve", f"PORT={port}")
    assert done.returncode != 0 and done.stdout == ""
    assert done.stderr.startswith(f"PORT={port} is no port: give one of 1 to 65535, as make serve ")
    assert done.stderr.count("\n") == 2  # with make's own


@pytest.mark.parametrize(
    ("args", "passed_on"),
    [
        ("ner-int8", "ner-int8 --data data"),
        ("--list", "--list --data data"),
        ("evaluate ner-int8", "evaluate ner-int8 --data data"),
        ("measure ner-int8", "measure ner-int8"),
        ("import FOLDER --task ner", "import FOLDER --task ner"),
    ],
)
def test_only_commands_that_read_corpora_are_given_them(
    tmp_path: Path, args: str, passed_on: str
) -> None:
    made(tmp_path)
    done = make(tmp_path, "--dry-run", "build", f"ARGS={args}")
    assert done.stdout.strip() == f".venv/bin/python -m build {passed_on}"


def test_help_names_every_variable() -> None:
    told = make(ROOT, "help").stdout
    assert all(name in told for name in VARIABLES)
