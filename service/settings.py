"""
The server's settings: one frozen value, read once from the environment.

Knows nothing of BentoML, variants or HTTP.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from models.errors import BadSetting

PREFIX = "KADOGO_"
ROOT = Path(__file__).resolve().parent.parent
ZOO = ROOT / "models" / "zoo"

# Names other parts of the project read: the server lets them pass.
ELSEWHERE = frozenset({"KADOGO_DATA", "KADOGO_TEST_DATA"})


def _kind(read: Callable[[str], Any], allowed: str, *, shown: bool = True) -> dict[str, Any]:
    """How a setting is read, how its values are described, and whether a bad one may be shown."""
    return {"read": read, "allowed": allowed, "shown": shown}


def _whole(least: int) -> dict[str, Any]:
    def read(text: str) -> int:
        value = int(text)
        if value < least:
            raise ValueError
        return value

    return _kind(read, f"a whole number, {least} or more")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 3600:
        raise ValueError
    return value


def _some_seconds(text: str) -> float:
    value = _seconds(text)
    if value < 0.1:
        raise ValueError
    return value


def _switch(text: str) -> bool:
    return {"on": True, "off": False}[text.lower()]


_ORIGIN = re.compile(r"https?://[^\s/?#@,*]+")


def _origins(text: str) -> tuple[str, ...]:
    """Origins as browsers send them, or * for every one."""
    origins = tuple(origin.strip() for origin in text.split(","))
    if origins != ("*",) and not all(map(_ORIGIN.fullmatch, origins)):
        raise ValueError
    return origins


def _folder(text: str) -> Path:
    """An existing folder; a relative one is meant from the project's root."""
    folder = ROOT / text
    if not folder.is_dir():
        raise ValueError
    return folder


def _kept(text: str) -> Path:
    """An existing folder that can be written."""
    folder = _folder(text)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError
    return folder


def _file(text: str) -> Path:
    """An existing file; a relative one is meant from the project's root."""
    file = ROOT / text
    if not file.is_file():
        raise ValueError
    return file


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def _collector(text: str) -> str:
    """Where OTLP is listened to over HTTP, without the path that it lays down."""
    if not _ORIGIN.fullmatch(text.rstrip("/")):
        raise ValueError
    return text.rstrip("/")


def _form(text: str) -> str:
    if text not in ("json", "text"):
        raise ValueError
    return text


def _provider(text: str) -> str:
    if not text.endswith("ExecutionProvider"):
        raise ValueError
    return text


def cores() -> int:
    """Cores this process may use: its affinity, and the container's quota where there is one."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(mine or 1, quota(Path("/sys/fs/cgroup"))))


def quota(cgroup: Path) -> int:
    """Cores a cgroup of version 2 or 1 grants, rounded up; plenty if unlimited."""
    plenty = 1 << 16
    try:
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota = (cgroup / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (cgroup / "cpu" / "cpu.cfs_period_us").read_text()
        return -(-int(quota) // int(period)) if int(quota) > 0 else plenty
    except (OSError, ValueError):
        return plenty


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    Every setting; the variable of `max_inputs` is KADOGO_MAX_INPUTS.

    catalog                     folder of variants
    routes                      file that says who answers by default
    state                       folder in which changes at run time are kept; None: gone with the
                                server
    workers                     server processes; one feeds many cores, a session frees the GIL
    threads                     model runs at a time in one process; 0: cores / workers
    provider                    onnxruntime's execution provider
    fast_path                   answer our routes before BentoML's own middleware
    max_inputs                  texts in one request
    max_text                    characters in one text
    max_body                    bytes of one request body
    deadline_ms                 longest a request may take
    body_s                      longest its body may take to come
    keys                        file of API keys; None: nobody is asked for one
    auth                        None: a server that others can reach needs keys; off: it does not
    cors_origins                whose pages may ask from a browser, beside the server's own
    queue_texts, queue_tokens   windows, and their tokens, that may wait for one variant
    batch_items, batch_tokens   windows, and tokens with padding, of one model run
    batch_padding               tokens of padding that each window which joins a run may bring
    drain_s                     seconds between "not ready" and closing the door at SIGTERM
    log                         how log lines look; None: words on a terminal, JSON elsewhere
    access_log                  a line for each request
    traces                      OpenTelemetry collector that is told of requests; None: nobody is
    traces_share                of how many, where their callers have not decided
    """

    catalog: Path = field(
        default=ZOO, metadata=_kind(_folder, "an existing folder, absolute or from the root")
    )
    routes: Path | None = field(
        default=None, metadata=_kind(_file, "an existing file, absolute or from the root")
    )
    state: Path | None = field(
        default=None, metadata=_kind(_kept, "an existing folder that can be written")
    )
    workers: int = field(default=1, metadata=_whole(1))
    threads: int = field(default=0, metadata=_whole(0))
    provider: str = field(
        default="CPUExecutionProvider",
        metadata=_kind(_provider, "an onnxruntime provider such as CPUExecutionProvider"),
    )
    fast_path: bool = field(default=True, metadata=_kind(_switch, "on or off"))
    max_inputs: int = field(default=64, metadata=_whole(1))
    max_text: int = field(default=100_000, metadata=_whole(1))
    max_body: int = field(default=8 << 20, metadata=_whole(1))
    deadline_ms: int = field(default=30_000, metadata=_whole(1))
    body_s: float = field(default=10.0, metadata=_kind(_some_seconds, "seconds, 0.1 to 3600"))
    keys: Path | None = field(
        default=None,
        # Somebody may have given the key itself.
        metadata=_kind(_file, "an existing file, absolute or from the root", shown=False),
    )
    auth: bool | None = field(default=None, metadata=_kind(_switch, "on or off"))
    cors_origins: tuple[str, ...] = field(
        default=(),
        metadata=_kind(_origins, "origins such as https://a.example,https://b.example, or *"),
    )
    queue_texts: int = field(default=2048, metadata=_whole(1))
    queue_tokens: int = field(default=262_144, metadata=_whole(1))
    batch_items: int = field(default=32, metadata=_whole(1))
    batch_tokens: int = field(default=256, metadata=_whole(1))
    batch_padding: int = field(default=8, metadata=_whole(0))
    drain_s: float = field(default=1.0, metadata=_kind(_seconds, "seconds, 0 to 3600"))
    log: str | None = field(default=None, metadata=_kind(_form, "json or text"))
    access_log: bool = field(default=False, metadata=_kind(_switch, "on or off"))
    traces: str | None = field(
        default=None,
        # Somebody may have put a password into it.
        metadata=_kind(_collector, "an address such as http://collector:4318", shown=False),
    )
    traces_share: float = field(default=1.0, metadata=_kind(_share, "a share, 0 to 1"))

    @property
    def runs(self) -> int:
        """Model runs at a time in one process."""
        return self.threads or max(1, cores() // self.workers)

    @property
    def crowded(self) -> str | None:
        """What is to be said of more model runs at a time than cores; None where there are not."""
        at_once, there = self.workers * self.runs, cores()
        if at_once <= there:
            return None
        return (
            f"{self.workers} workers x {self.runs} threads run {at_once} models at a time on "
            f"{there} cores, where they take turns: that is no faster"
        )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read every KADOGO_ variable; an unknown name or a bad value raises `BadSetting`."""
        known = {PREFIX + f.name.upper(): f for f in fields(cls)}
        given = {n: v for n, v in environ.items() if n.startswith(PREFIX) and n not in ELSEWHERE}
        for name in given.keys() - known.keys():
            raise BadSetting(_unknown(name, list(known)))
        return cls(
            **{
                known[name].name: _value(name, text, known[name].metadata)
                for name, text in given.items()
                if text
            }
        )


def _unknown(name: str, known: list[str]) -> str:
    own = [each.removeprefix(PREFIX) for each in known]  # what all share makes none alike
    close = difflib.get_close_matches(name.removeprefix(PREFIX), own, n=1)
    hint = f"did you mean {PREFIX}{close[0]}?" if close else f"known are {', '.join(known)}"
    return f"there is no setting {name}; {hint}"


def _value(name: str, text: str, kind: Mapping[str, Any]) -> Any:
    try:
        return kind["read"](text)
    except (ValueError, KeyError):
        given = f"{name}={text!r}" if kind["shown"] else name
        raise BadSetting(f"{given} will not do; give {kind['allowed']}") from None
