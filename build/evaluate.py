"""
How good and how fast variants are: scores with intervals, paired differences, speed, memory.

Texts go through `models.pipeline` alone, as a caller's do. Knows nothing of training.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from build import data, provenance
from build.data import Article, Sentence
from build.errors import BuildError
from build.figures import interleave, ratios
from build.publish import golden_texts, write
from models import catalog
from models.batches import cut
from models.encode import Window
from models.pipeline import Pipeline
from models.runtime import SessionOptions
from models.spec import (
    Answer,
    ClassificationAnswer,
    Evidence,
    Input,
    Interval,
    NerAnswer,
    Scores,
    Speed,
    Task,
    Variant,
)

RESAMPLES = 1_000
SEED = 1

Floats = NDArray[np.float64]
# Sums of counts, (resamples, columns) -> the metric of each resample, (resamples,).
Metric = Callable[[Floats], Floats]
# Language -> counts of each text, (texts, columns).
Counts = Mapping[str, Floats]


# --- metrics ----------------------------------------------------------------------------------


def entity_f1(sums: Floats) -> Floats:
    """Micro F1 of columns (right, found, gold), as seqeval counts: span and label are exact."""
    right, found, gold = sums.T
    return _quotient(2 * right, found + gold)


def accuracy(sums: Floats) -> Floats:
    """The share of right texts; columns are (right, found, gold) of each label in turn."""
    return _quotient(sums[:, 0::3].sum(axis=1), sums[:, 2::3].sum(axis=1))


def macro_f1(sums: Floats) -> Floats:
    """The mean F1 of the labels found or gold, as scikit-learn means it; columns as above."""
    right, found, gold = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    present = (found + gold) > 0
    return _quotient(_quotient(2 * right, found + gold).sum(axis=1), present.sum(axis=1))


METRICS: dict[Task, dict[str, Metric]] = {
    Task.NER: {"f1": entity_f1},
    Task.CLASSIFICATION: {"f1": macro_f1, "accuracy": accuracy},
}


def _quotient(over: Floats, under: Floats) -> Floats:
    return np.divide(over, under, out=np.zeros_like(over, dtype=np.float64), where=under > 0)


# --- counts -----------------------------------------------------------------------------------


def entity_counts(sentences: Sequence[Sentence], answers: Sequence[NerAnswer]) -> Floats:
    """(sentences, 3): entities right, found, gold."""
    rows = []
    for sentence, answer in zip(sentences, answers, strict=True):
        found = {(entity.label, entity.start, entity.end) for entity in answer.entities}
        gold = {(span.label, span.start, span.end) for span in sentence.spans}
        rows.append((len(found & gold), len(found), len(gold)))
    return np.array(rows, np.float64).reshape(-1, 3)


def topic_counts(
    articles: Sequence[Article], answers: Sequence[ClassificationAnswer], labels: Sequence[str]
) -> Floats:
    """(articles, 3 x labels): for each label in turn whether it was right, found, gold."""
    counts = np.zeros((len(articles), len(labels), 3))
    for row, article, answer in zip(counts, articles, answers, strict=True):
        found, gold = labels.index(answer.labels[0].label), labels.index(article.label)
        row[found, 0] = found == gold
        row[found, 1] = row[gold, 2] = 1
    return counts.reshape(len(articles), -1)


def counted(pipeline: Pipeline, corpus: Path, split: str, form: Input) -> dict[str, Floats]:
    """Answer the split of each of the variant's languages. Raises DataError, BuildError."""
    variant = pipeline.variant
    found = {}
    for language in tqdm(variant.languages, desc=f"{variant.name} {form}", unit="language"):
        if variant.task is Task.NER:
            gold = data.sentences(corpus, language, split, raw=form is Input.RAW)
            kinds = {span.label for sentence in gold for span in sentence.spans}
            _check_labels(variant, language, kinds)
            said: Any = pipeline.answer([sentence.text for sentence in gold])
            found[language] = entity_counts(gold, said)
        else:
            articles = data.articles(corpus, language, split)
            _check_labels(variant, language, {article.label for article in articles})
            said = pipeline.answer([article.text for article in articles])
            found[language] = topic_counts(articles, said, variant.labels)
    return found


def _check_labels(variant: Variant, language: str, gold: set[str]) -> None:
    known = {label.partition("-")[2] or label for label in variant.labels}
    if strange := sorted(gold - known):
        raise BuildError(
            f"the {language} data has {', '.join(strange)}, which {variant.name} does not know: "
            f"its labels are {', '.join(variant.labels)}"
        )


# --- intervals --------------------------------------------------------------------------------


def scores(counts: Counts, metric: Metric) -> Scores:
    """Each language and their mean, with 95 % intervals over resampled texts (Efron 1979)."""
    return _scores(resampled(counts, metric), counts)


def differences(counts: Counts, baseline: Counts, metric: Metric) -> Scores:
    """This minus baseline on the same texts, resampled together."""
    one, other = resampled(counts, metric), resampled(baseline, metric)
    return _scores({language: one[language] - other[language] for language in one}, counts)


def resampled(counts: Counts, metric: Metric) -> dict[str, Floats]:
    """
    Language -> (1 + RESAMPLES,) values of the metric: all texts once, then drawn with replacement.

    The draws hang on nothing but the number of texts and the language's place, so two variants
    scored on the same texts are resampled alike.
    """
    found = {}
    for place, language in enumerate(sorted(counts)):
        rows = counts[language]
        chance = np.random.default_rng((SEED, place))
        drawn = chance.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), RESAMPLES)
        found[language] = metric(np.vstack([np.ones(len(rows)), drawn]) @ rows)
    return found


def _scores(values: Mapping[str, Floats], counts: Counts) -> Scores:
    sizes = {language: len(rows) for language, rows in counts.items()}
    mean = np.mean(list(values.values()), axis=0)
    return Scores(
        macro=_interval(mean, sum(sizes.values())),
        languages={language: _interval(each, sizes[language]) for language, each in values.items()},
    )


def _interval(values: Floats, n: int) -> Interval:
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Interval(n=n, mean=float(values[0]), low=float(low), high=float(high))


# --- quality ----------------------------------------------------------------------------------


def evaluate(
    root: Path, names: Sequence[str], corpus: Path, *, split: str = "test", called: str = "test"
) -> dict[str, Evidence]:
    """
    Score the named variants of a catalog and write what was found into their manifests.

    Each is compared with its parent on the same texts. `called` is how the evidence names the
    split. Raises BuildError, DataError, BrokenVariant.
    """
    variants = [_read(root, name) for name in names]
    for parent in sorted({v.parent for v in variants if v.parent} - {v.name for v in variants}):
        _read(root, parent)  # missing is said before anything is scored
    counts: dict[str, dict[Input, Counts]] = {}

    def count(name: str) -> dict[Input, Counts]:
        if name not in counts:
            pipeline = catalog.open_variant(root / name)
            forms = tuple(Input) if pipeline.variant.task is Task.NER else (Input.RAW,)
            counts[name] = {form: counted(pipeline, corpus, split, form) for form in forms}
        return counts[name]

    found = {}
    for variant in variants:
        mine = count(variant.name)
        base = count(variant.parent) if variant.parent else {}
        evidence = Evidence(
            data=_data(variant, corpus),
            split=called,
            command=f"python -m build evaluate {variant.name} --data DIR",
            commit=provenance.commit(),
            date=provenance.today(),
            host=provenance.host(),
            quality=_quality(variant.task, mine),
            difference=_difference(variant.task, mine, base),
            parity=variant.evidence.parity if variant.evidence else None,
            speed=variant.evidence.speed if variant.evidence else None,
        )
        write(root / variant.name, msgspec.structs.replace(variant, evidence=evidence))
        found[variant.name] = evidence
    return found


def lines(evidence: Evidence) -> Iterator[str]:
    """What was found, a line a metric and input, e.g. "f1 (raw) 0.512 [0.498, 0.526]"."""
    for metric, forms in evidence.quality.items():
        for form, found in forms.items():
            line = f"{metric} ({form}) {_read_out(found.macro)}"
            if apart := evidence.difference.get(metric, {}).get(form):
                line += f", minus baseline {_read_out(apart.macro)}"
            worst = min(found.languages, key=lambda name: found.languages[name].mean)
            yield f"{line}; least {worst} {found.languages[worst].mean:.3f}"


def _read_out(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def agreement(root: Path, name: str, other: str) -> tuple[int, int]:
    """On how many of the project's texts two variants give the same spans, or the same label."""
    texts = [each.text for each in golden_texts(_read(root, name))]
    one, two = (catalog.open_variant(root / each).answer(texts) for each in (name, other))
    same = sum(_decided(a) == _decided(b) for a, b in zip(one, two, strict=True))
    return same, len(texts)


def _decided(answer: Answer) -> object:
    if isinstance(answer, NerAnswer):
        return [(entity.label, entity.start, entity.end) for entity in answer.entities]
    return answer.labels[0].label


Table = dict[str, dict[Input, Scores]]


def _quality(task: Task, counts: Mapping[Input, Counts]) -> Table:
    return {
        name: {form: scores(each, metric) for form, each in counts.items()}
        for name, metric in METRICS[task].items()
    }


def _difference(
    task: Task, counts: Mapping[Input, Counts], baseline: Mapping[Input, Counts]
) -> Table:
    if not baseline:
        return {}
    return {
        name: {form: differences(each, baseline[form], metric) for form, each in counts.items()}
        for name, metric in METRICS[task].items()
    }


def _data(variant: Variant, corpus: Path) -> str:
    folder = "ner" if variant.task is Task.NER else "news"
    return f"{folder}/ in the layout of docs/data.md, {provenance.fingerprint(corpus, [folder])}"


def _read(root: Path, name: str) -> Variant:
    if not (root / name / catalog.MANIFEST).is_file():
        known = ", ".join(sorted(f.parent.name for f in root.glob(f"*/{catalog.MANIFEST}")))
        raise BuildError(f"{root} holds no variant {name}; it holds {known or 'none'}")
    return catalog.read(root / name)


# --- speed ------------------------------------------------------------------------------------

ROUNDS = 20
LOADS = 3
BATCH = 8


def measure(root: Path, names: Sequence[str], *, rounds: int = ROUNDS) -> dict[str, Speed]:
    """
    Measure the named variants and write it into their manifests; wants a machine at rest.

    Variants of one baseline take turns with it on one core, batch by batch of 8 windows of like
    length made of the project's own texts; encoding and decoding are not counted.
    """
    variants = [_read(root, name) for name in names]
    found: dict[str, Speed] = {}
    for base in dict.fromkeys(variant.parent or variant.name for variant in variants):
        group = [v.name for v in variants if base in (v.name, v.parent)]
        found |= _group(root, base, group, rounds)
    for variant in variants:
        before = variant.evidence or _bare_evidence(variant)
        evidence = msgspec.structs.replace(before, speed=found[variant.name])
        write(root / variant.name, msgspec.structs.replace(variant, evidence=evidence))
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
    loads = {name: [_load_alone(root / name) for _ in range(LOADS)] for name in names}
    with _one_core():
        options = SessionOptions(threads=1)
        opened = {
            name: Pipeline.open(_read(root, name), root / name, options)
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
    """The mean of the rounds; its interval over resampled rounds."""
    rounds = np.array(values)
    chance = np.random.default_rng(SEED)
    means = chance.choice(rounds, (RESAMPLES, len(rounds))).mean(axis=1)
    return _interval(np.concatenate([[rounds.mean()], means]), len(rounds))


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


def _load_alone(folder: Path) -> tuple[float, int]:
    """Seconds and bytes of loading a variant and answering once, in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "build.evaluate", str(folder.resolve())],
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
    """As `_load_alone`, in this process."""
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
