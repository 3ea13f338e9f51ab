"""
How fast and how large variants are in memory, beside their baseline. Knows no gold labels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np

from build import provenance
from build.errors import BuildError
from build.figures import interleave, ratios
from build.golden import golden_texts
from build.publish import read, write
from build.scoring import SEED, interval
from models import catalog
from models.batches import cut
from models.encode import Window
from models.pipeline import Pipeline
from models.session import SessionOptions
from models.spec import Evidence, Interval, Speed, Variant

ROUNDS = 20
LOADS = 3
BATCH = 8
# Of Student's t, for its percentiles to within a hundredth.
DRAWS = 200_000


def measure(root: Path, names: Sequence[str], *, rounds: int = ROUNDS) -> dict[str, Speed]:
    """
    Measure the named variants and write it into their manifests; wants a machine at rest.

    Variants of one baseline take turns with it on one core, batch by batch of 8 windows of like
    length made of the project's own texts; encoding and decoding are not counted.
    """
    variants = [read(root, name) for name in names]
    found: dict[str, Speed] = {}
    for base in dict.fromkeys(variant.parent or variant.name for variant in variants):
        group = {v.name: v for v in variants if (v.parent or v.name) == base}
        speeds = _group(root, base, [*group], rounds)
        for name, variant in group.items():
            before = variant.evidence or _bare_evidence(variant)
            evidence = msgspec.structs.replace(before, speed=speeds[name])
            write(root / name, msgspec.structs.replace(variant, evidence=evidence))
        found |= speeds
    return found


def _bare_evidence(variant: Variant) -> Evidence:
    return Evidence(
        data="none",
        split="none",
        command=f"python -m build measure {variant.name}",
        commit=provenance.commit(),
        date=provenance.today(),
        host=provenance.host(),
    )


def _group(root: Path, base: str, names: Sequence[str], rounds: int) -> dict[str, Speed]:
    loads = {name: [load_alone(root / name) for _ in range(LOADS)] for name in names}
    with _one_core():
        options = SessionOptions(threads=1)
        opened = {
            name: Pipeline.open(read(root, name), root / name, options)
            for name in dict.fromkeys([base, *names])
        }
        turns = {name: partial(_pass, pipe, _batches(pipe)) for name, pipe in opened.items()}
        for turn in turns.values():
            turn()
        rates = interleave(turns, rounds)
    return {
        name: Speed(
            tokens_per_second=_spread(rates[name]),
            ratio_to_baseline=_spread(ratios(rates[name], rates[base])),
            load_seconds=_spread([seconds for seconds, _ in loads[name]]),
            resident_bytes=int(np.median([size for _, size in loads[name]])),
            host=provenance.host(),
        )
        for name in names
    }


def _batches(pipeline: Pipeline) -> list[list[Window]]:
    texts = [each.text for each in golden_texts(pipeline.variant)]
    windows = [window for text in texts for window in pipeline.encode(text).windows]
    lengths = [len(window.ids) for window in windows]
    groups = cut(lengths, max_items=BATCH, max_padded_tokens=sum(lengths) * len(lengths))
    return [[windows[index] for index in group] for group in groups]


def _pass(pipeline: Pipeline, batches: Sequence[Sequence[Window]]) -> float:
    """Tokens a second over all batches once; padding is not counted."""
    started = perf_counter()
    for batch in batches:
        pipeline.run(batch)
    elapsed = perf_counter() - started
    return sum(len(window.ids) for batch in batches for window in batch) / elapsed


def _spread(values: Sequence[float]) -> Interval:
    """
    The mean of two rounds or more, and its interval by Student's t.

    Rounds are few: resampled, three of them would hold what is right three times in four only.
    """
    rounds = np.array(values)
    error = rounds.std(ddof=1) / np.sqrt(len(rounds))
    chance = np.random.default_rng(SEED).standard_t(len(rounds) - 1, DRAWS)
    means = np.concatenate([[0], error * chance]) + rounds.mean()
    return interval(means, len(rounds), least=0)


@contextmanager
def _one_core() -> Iterator[None]:
    """Hold this process on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def load_alone(folder: Path) -> tuple[float, int]:
    """Seconds and bytes of loading a variant and answering once, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "build.measure", str(folder.resolve())],
        cwd=provenance.ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:]
        raise BuildError(f"{folder.name} does not load alone: {' '.join(last)}")
    seconds, size = json.loads(done.stdout)
    return seconds, size


def load_here(folder: Path) -> tuple[float, int]:
    """As `load_alone`, in this process."""
    variant = catalog.read(folder)
    text = golden_texts(variant)[0].text
    import_module(f"models.runtime_{variant.runtime}")  # libraries are not the variant's
    before, started = _resident(), perf_counter()
    Pipeline.open(variant, folder, SessionOptions()).answer([text])
    return perf_counter() - started, _resident() - before


def _resident() -> int:
    """Bytes of this process in memory; where there is no /proc, the most there ever were."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024


if __name__ == "__main__":
    print(json.dumps(load_here(Path(sys.argv[1]))))
