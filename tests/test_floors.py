"""The architecture as tests: who may import whom, and that torch stays out of serving."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

MAY_IMPORT = {
    "models": {"models"},
    "service": {"service", "models"},
    "build": {"build", "models", "loadtest"},
    "loadtest": {"loadtest"},
}
HEAVY = {
    "torch",
    "transformers",
    "onnx",
    "onnxscript",
    "openvino",
    "bitsandbytes",
    "ray",
    "pyarrow",
    "locust",
}


def imports(file: Path) -> Iterator[str]:
    """Top-level names of every module a file imports, wherever the import stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_folder_imports_only_its_own_floor_and_below(folder: str) -> None:
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        ours = set(imports(file)) & MAY_IMPORT.keys()
        assert ours <= MAY_IMPORT[folder], f"{file.relative_to(ROOT)} imports {ours}"


def test_only_the_benchmarks_of_build_start_and_load_servers() -> None:
    files = [file for file in (ROOT / "build").rglob("*.py") if "loadtest" in imports(file)]
    assert {file.parent for file in files} == {ROOT / "build" / "bench"}


def test_torch_is_imported_in_one_file_outside_build_and_in_the_server_of_a_peer() -> None:
    found = {
        str(file.relative_to(ROOT))
        for folder in ("models", "service", "loadtest")
        for file in (ROOT / folder).rglob("*.py")
        if set(imports(file)) & {"torch", "transformers"}
    }
    assert found == {"models/runtime_torch.py", "loadtest/peers/fastapi/server.py"}


@pytest.mark.parametrize(
    ("library", "name"),
    [
        ("onnxruntime", "models/runtime_onnx.py"),
        ("openvino", "models/runtime_openvino.py"),
        ("ray", "service/bulk/run.py"),
        ("pyarrow", "service/bulk/formats.py"),
    ],
)
def test_a_library_is_imported_in_one_file_of_models_and_service(library: str, name: str) -> None:
    found = {
        str(file.relative_to(ROOT))
        for folder in ("models", "service")
        for file in (ROOT / folder).rglob("*.py")
        if library in set(imports(file))
    }
    assert found == {name}


@pytest.mark.parametrize(
    "module",
    [
        "service.app",
        "service.bulk.__main__",
        "models.catalog",
        "models.runtime_onnx",
        "build.recipes",
        "build.run",
    ],
)
def test_heavy_libraries_stay_out(module: str) -> None:
    probe = f"import sys, {module}; print(sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_build_is_ours() -> None:
    # PyPA's `build` shares the name; a regular package of ours must win from the root.
    assert Path(importlib.import_module("build").__file__ or "").parent == ROOT / "build"


def test_git_does_not_ignore_our_build_folder() -> None:
    bare = {"build", "build/", "/build", "/build/"}
    assert not bare & set((ROOT / ".gitignore").read_text().splitlines())


def test_the_serving_requirements_hold_no_torch() -> None:
    pinned = (ROOT / "requirements/serve.txt").read_text().splitlines()
    names = {line.split("==")[0].strip() for line in pinned if "==" in line}
    assert "bentoml" in names
    assert not names & HEAVY
