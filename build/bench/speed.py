"""
Tokens a second of the models alone, on one core, in batches of 8 of like length.

Variants of one task are compared with the one they came from, and with torch, by the time the same
texts took: their tokenizers may differ. Knows nothing of servers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from build.bench.plan import Plan
from build.bench.traffic import texts_of
from build.figures import Figure, interleave, ratios
from models import catalog
from models.batches import cut
from models.pipeline import BATCH_TOKENS, Pipeline
from models.runtime import open_session
from models.session import SessionOptions
from models.spec import Runtime, Task, Variant

TEXTS = {Task.NER: 32, Task.CLASSIFICATION: 4}
BATCH = 8
EAGER = ", torch eager"


def measure(plan: Plan) -> list[Figure]:
    return [
        figure
        for task, variants in by_task(plan.variants).items()
        for figure in _compare(task, _open(variants, plan), plan)
    ]


def by_task(variants: Sequence[Variant]) -> dict[Task, list[Variant]]:
    """Of each task there is, its variants: one compressed from no other of them comes first."""
    names = {variant.name for variant in variants}
    grouped: dict[Task, list[Variant]] = {}
    for variant in sorted(variants, key=lambda each: each.parent in names):
        grouped.setdefault(variant.task, []).append(variant)
    return grouped


def _open(variants: Iterable[Variant], plan: Plan) -> dict[str, Pipeline]:
    opened = {each.name: catalog.open_variant(plan.catalog / each.name) for each in variants}
    eager = {
        name + EAGER: _in_torch(opened[name], folder)
        for name, folder in plan.checkpoints.items()
        if name in opened
    }
    return opened | eager


def _in_torch(pipeline: Pipeline, folder: Path) -> Pipeline:
    """The same variant run by torch from the checkpoint it was exported from."""
    variant = msgspec.structs.replace(pipeline.variant, runtime=Runtime.TORCH)
    return Pipeline(variant, pipeline.encoder, open_session(variant, folder, SessionOptions()))


def _compare(task: Task, pipelines: Mapping[str, Pipeline], plan: Plan) -> list[Figure]:
    """Each against the first, and against those of torch."""
    texts = texts_of(task, plan.seed)[: TEXTS[task]]
    tokens = {
        name: sum(len(w.ids) for text in texts for w in pipeline.encode(text).windows)
        for name, pipeline in pipelines.items()
    }
    modes = {name: _passes(pipeline, texts, plan) for name, pipeline in pipelines.items()}
    found = interleave(modes, plan.rounds)

    def figure(name: str, what: str, unit: str, rounds: Iterable[float]) -> Figure:
        return Figure("speed", name, what, unit, tuple(rounds))

    first, *others = pipelines
    eager = [name for name in others if name.endswith(EAGER)]
    pairs = [
        (name, other)
        for other in (first, *eager)
        for name in pipelines
        if name != other and name not in eager
    ]
    return [
        *(figure(n, "one core", "tokens/s", (v * tokens[n] for v in found[n])) for n in found),
        *(
            figure(name, f"the same texts / {other}", "ratio", ratios(found[name], found[other]))
            for name, other in pairs
        ),
    ]


def _passes(pipeline: Pipeline, texts: Sequence[str], plan: Plan) -> Callable[[], float]:
    """Passes over the texts a second, whole ones; the model only."""
    windows = [window for text in texts for window in pipeline.encode(text).windows]
    lengths = [len(window.ids) for window in windows]
    groups = cut(lengths, max_items=BATCH, max_padded_tokens=BATCH_TOKENS)

    def rate() -> float:
        began, passes = time.perf_counter(), 0
        while not passes or time.perf_counter() - began < plan.seconds:
            for group in groups:
                pipeline.run([windows[i] for i in group])
            passes += 1
        return passes / (time.perf_counter() - began)

    return rate
