"""
Where a measurement comes from: the commit, the day, the host, the data. Knows no models.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
# What decides how int8 products are made, and whether two hosts can be compared at all.
ISA = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")
CORPORA = ("ner", "news", "text")


def commit() -> str:
    """The short hash of the checked-out commit, `-dirty` where files differ; or unknown."""
    try:
        return _git("rev-parse", "--short=12", "HEAD") + (
            "-dirty" if _git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def host() -> str:
    """Processor, cores and the instructions that matter here, e.g. "AMD EPYC, 2 cores, avx2"."""
    facts = _processor()
    flags = set(" ".join(facts.get(key, "") for key in ("flags", "Features")).split())
    name = facts.get("model name", platform.processor() or platform.machine())
    known = " ".join(flag for flag in ISA if flag in flags)
    return ", ".join(part for part in (name, f"{os.cpu_count()} cores", known) if part)


def fingerprint(corpus: Path, folders: Iterable[str] = CORPORA) -> str:
    """Twelve hex digits over the names and sizes of the corpora's files."""
    files = _files(corpus, folders)
    lines = [f"{file.relative_to(corpus).as_posix()} {file.stat().st_size}" for file in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def contents(corpus: Path) -> str:
    """Twelve hex digits over what stands in them: a tag that was mended is often as long."""
    digest = hashlib.sha256()
    for file in _files(corpus, CORPORA):
        with file.open("rb") as opened:
            inside = hashlib.file_digest(opened, "sha256").hexdigest()
        digest.update(f"{file.relative_to(corpus).as_posix()} {inside}\n".encode())
    return digest.hexdigest()[:12]


def _files(corpus: Path, folders: Iterable[str]) -> list[Path]:
    """In their order; languages may be links to folders elsewhere."""
    walks = (walk for name in folders for walk in os.walk(corpus / name, followlinks=True))
    files = (Path(folder, name) for folder, _, names in walks for name in names)
    return sorted(file for file in files if file.is_file())


def _git(*words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def _processor() -> dict[str, str]:
    """The first processor's lines in /proc/cpuinfo; empty where there is no such file."""
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
