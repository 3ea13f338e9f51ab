"""
Parts done by a pool of workers on Ray Data, here or on a cluster. The only file that imports ray.

A node that dies takes no part with it: what it was at is done again by another.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
import ray
import ray.data
from ray.util.annotations import RayDeprecationWarning

from models.errors import KadogoError
from service.bulk.parts import Done, Failed, Part, Refused
from service.bulk.work import Job, Worker
from service.settings import ROOT

# Nothing but parts and receipts goes through it: it need not grow with the corpus.
OBJECT_STORE = 128 << 20
# Parts of one dataset: Ray keeps something of each.
WAVE = 4096
# How often in a row Ray may fail before a part is done, until it is given up.
PATIENCE = 3
REACHED_S = 10.0
# Of a variant that is sent to the nodes of a cluster: its folder below their working folder.
SENT = "variant"


def done(
    job: Job, todo: Sequence[Part], *, workers: int | None, address: str | None
) -> Iterator[Done | Failed]:
    """
    What came of each part, as they end; on so many workers, on a cluster as many as it has cores.

    Raises `Refused` where Ray cannot be reached, or fails again and again.
    """
    waiting = {part.index: part for part in todo}
    fruitless = 0
    with _joined(job, workers, address) as there:
        while waiting:
            before, reason = len(waiting), "nothing came back"
            try:
                for came in _wave(there, list(waiting.values())[:WAVE], workers, address):
                    waiting.pop(came.part, None)
                    yield came
            except ray.exceptions.RayError as error:  # a worker died, perhaps with its node
                reason = _last_line(error)
            fruitless = 0 if len(waiting) < before else fruitless + 1
            if fruitless == PATIENCE:
                raise Refused(f"Ray: {reason}: the same command goes on from here")


class Tagger:
    """A worker as Ray Data wants it: a batch in, a batch out."""

    def __init__(self, job: bytes) -> None:
        self._worker: Worker | None = None
        self._reason = ""
        try:
            self._worker = Worker(msgspec.json.decode(job, type=Job))
        except KadogoError as error:  # raised, Ray would start it again and again
            self._reason = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        return {"came": [msgspec.json.encode(self._do(each)) for each in batch["part"]]}

    def _do(self, encoded: bytes) -> dict[str, Done | Failed]:
        part = msgspec.json.decode(encoded, type=Part)
        if self._worker is None:
            return {"failed": Failed(part=part.index, reason=self._reason)}
        came = self._worker.do(part)
        return {"done" if isinstance(came, Done) else "failed": came}


class _Came(msgspec.Struct):
    done: Done | None = None
    failed: Failed | None = None


def _wave(
    job: Job, todo: Sequence[Part], workers: int | None, address: str | None
) -> Iterator[Done | Failed]:
    cores = int(ray.cluster_resources().get("CPU", 1))
    first = max(1, min(workers or cores, len(todo)))
    # A pool that may shrink: one that may not keeps the cores that workers of a dead node wait for.
    pool = ray.data.ActorPoolStrategy(
        min_size=1,
        initial_size=first,
        max_size=first if workers or address is None else None,
    )
    items = [{"part": msgspec.json.encode(part)} for part in todo]
    with warnings.catch_warnings():
        # Ray has no other word yet for the last two. What it starts again it starts without end,
        # a part that kills its worker too; `done` counts.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        dataset = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            Tagger,
            batch_size=1,
            compute=pool,
            num_cpus=1,
            fn_constructor_args=(msgspec.json.encode(job),),
            max_restarts=0,
            max_task_retries=0,
        )
    for row in dataset.iter_rows():
        came = msgspec.json.decode(row["came"], type=_Came)
        if one := came.done or came.failed:
            yield one


@contextlib.contextmanager
def _joined(job: Job, workers: int | None, address: str | None) -> Iterator[Job]:
    """Ray of our own or a cluster's, and the job as its workers see it."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    with contextlib.ExitStack() as ends:
        if address is None:
            ray.init(
                address="local",
                num_cpus=workers,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE,
                **quiet,
            )
        else:
            _check_reached(address)
            home = Path(ends.enter_context(tempfile.TemporaryDirectory()))
            _packed(home, Path(job.variant))
            try:
                ray.init(address=address, runtime_env={"working_dir": str(home)}, **quiet)
            except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
                raise Refused(f"--address {address}: {_last_line(error)}") from error
            job = msgspec.structs.replace(job, variant=f"{SENT}/{job.plan.ask.variant}")
        ends.callback(ray.shutdown)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        yield job


def _last_line(error: BaseException) -> str:
    """The one of Ray's many that says what happened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _check_reached(address: str) -> None:
    """Ray itself waits minutes for a cluster that is not there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=REACHED_S).close()
    except (OSError, ValueError) as error:
        raise Refused(
            f"--address {address}: nothing answers there: give HOST:PORT of the cluster's head, "
            "as `ray start --head` tells it"
        ) from error


def _packed(home: Path, variant: Path) -> None:
    """What a cluster's nodes need of ours: the code that tags, and the variant."""
    unwanted = shutil.ignore_patterns("__pycache__", "zoo", "store")
    for name in ("models", "service"):
        shutil.copytree(ROOT / name, home / name, ignore=unwanted)
    shutil.copytree(variant, home / SENT / variant.name)
