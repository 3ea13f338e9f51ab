"""
wrk, which saturates a server and takes next to nothing of its cores.

Knows nothing of what the answers say but for a mark.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from loadtest.record import Unusable

SCRIPT = Path(__file__).with_name("wrk.lua")
LONGEST_ANSWER_S = 60
TOLD = "\nfailed "  # its last line, if the script came to its end


class Answered(NamedTuple):
    """
    What came back.

    ended_s  when each right answer came, seconds since the load began, ascending
    failed   other answers and broken connections
    """

    ended_s: tuple[float, ...]
    failed: int


def installed() -> bool:
    return shutil.which("wrk") is not None


def saturate(
    url: str, bodies: Sequence[bytes], mark: str, *, connections: int, seconds: float
) -> Answered:
    """
    POST the bodies in turn, over and over, for at least `seconds`; each connection asks again as
    soon as it is answered.

    mark  is in every right answer

    Raises Unusable.
    """
    if not installed():
        raise Unusable("wrk is not installed: apt-get install wrk, or what your system has for it")
    with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
        file.write(b"\n".join(bodies))
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s"]
        command += ["--timeout", f"{LONGEST_ANSWER_S}s", "-s", str(SCRIPT), url, "--"]
        done = subprocess.run([*command, file.name, mark], capture_output=True, text=True)
    if done.returncode or TOLD not in done.stdout:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unusable(f"wrk failed: {said[-1] if said else f'it ended with {done.returncode}'}")
    return read(done.stdout)


def read(output: str) -> Answered:
    """From what wrk.lua prints."""
    ended, failed = [], 0
    for line in output.splitlines():
        match line.split():
            case ["answered", moment]:
                ended.append(float(moment))
            case ["failed", number]:
                failed += int(number)
    return Answered(tuple(ended), failed)
