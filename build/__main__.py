"""
`python -m build`: cook recipes, import checkpoints, judge variants. One clear line when it fails.

Torch, transformers and onnx are imported by the command that needs them.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence

from build.commands import adopt, judge, write
from build.commands.recipe import recipe
from build.commands.seeds import seeds
from build.data import DataError
from build.errors import BuildError
from models.errors import KadogoError

STOPPED = 130
FAILED = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0, or 2 after one line on stderr."""
    words = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    command = COMMANDS.get(words[0]) if words else None
    try:
        return command(words[1:]) if command else recipe(words, COMMANDS)
    except KeyboardInterrupt:
        again = ": the same command continues where it was"
        print(f"\nstopped{'' if command and words[0] not in RESUMED else again}", file=sys.stderr)
        return STOPPED
    except Exception as error:
        line = _foreseen(error)
        if line is None:
            raise
        print(f"build: {line}", file=sys.stderr)
        return FAILED


def _foreseen(error: Exception) -> str | None:
    """One line for the person who asked, or None where the fault is ours."""
    match error:
        case _ if _is_full_disk(error):
            return "the disk is full: make room and run the same command again"
        case BuildError() | DataError() | KadogoError():
            return str(error)
        case ModuleNotFoundError(name=str(name)) if not _is_ours(name):
            return f"{name} is missing: pip install -r requirements/build.txt"
        case OSError():
            return f"{error.strerror or error}: {error.filename or 'a file'}"
    return None


def _is_full_disk(error: BaseException | None) -> bool:
    """The libraries in Rust and C++ say it in words, or behind an error of their own."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    if f"os error {errno.ENOSPC}" in str(error):
        return True
    return _is_full_disk(error.__cause__ or error.__context__)


def _is_ours(module: str) -> bool:
    top = module.partition(".")[0]
    return top in {"build", "models"} or top in sys.stdlib_module_names


def _bench(words: Sequence[str]) -> int:
    from build.bench.cli import main as bench

    return bench(words)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "import": adopt.import_,
    "shape": adopt.shape,
    "files": adopt.files,
    "evaluate": judge.evaluate,
    "labelled": judge.labelled,
    "seeds": seeds,
    "measure": judge.measure,
    "report": write.report,
    "frontier": write.frontier,
    "study": write.study,
    "bench": _bench,
}
# As recipes do, these find what is done already.
RESUMED = ("import", "shape", "seeds", "study")


if __name__ == "__main__":
    sys.exit(main())
