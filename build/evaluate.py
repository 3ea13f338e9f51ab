"""
How good variants are: scores with intervals and paired differences, written into their manifests.

Texts go through `models.pipeline` alone, as a caller's do, or through a running server. Knows
nothing of training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from tqdm import tqdm

from build import data, provenance, scoring
from build.data import Article, DataError, Sentence
from build.errors import BuildError
from build.golden import golden_texts
from build.publish import read, write
from build.scoring import METRICS, Counts, decided
from models import catalog
from models.catalog import MANIFEST
from models.spec import Answer, Evidence, Input, Interval, Scores, Task, Variant

# Texts in, their answers out: a pipeline's method, or a server's.
Ask = Callable[[Sequence[str]], Sequence[Answer]]
# Language -> texts with their gold labels; language -> what was answered.
Gold = Mapping[str, Sequence[Sentence | Article]]
Answers = Mapping[str, Sequence[Answer]]
# What was answered by a variant's digest and language: another variant of the same name is asked
# again, and the same weights in other languages too.
Said = dict[tuple[str, str], dict[Input, Sequence[Answer]]]

# Only words that were tagged one by one can be written in two ways, and sentences in a row; only
# articles have headlines.
WAYS = {
    Task.NER: (Input.RAW, Input.TOKENISED, Input.JOINED),
    Task.CLASSIFICATION: (Input.RAW, Input.HEADLINE),
}
# What every published variant is scored on.
PUBLISHED = (Input.RAW, Input.TOKENISED, Input.JOINED)
# Some 600 tokens: as long as a short article of news.
JOINED = 14
EPSILON = 1e-9


def evaluate(
    root: Path,
    names: Sequence[str],
    corpus: Path,
    *,
    split: str = "test",
    called: str = "test",
    inputs: Sequence[Input] = PUBLISHED,
    languages: Sequence[str] = (),
    said: Said | None = None,
) -> dict[str, Evidence]:
    """
    Score the named variants of a catalog and write what was found into their manifests.

    Each is compared with its parent on the same texts, written in the ways of `inputs`. They are of
    the languages it is for, or of `languages` where some are given. `called` is how the evidence
    names the split. `said` keeps answers from one call to the next, of the same corpus, split and
    inputs. Raises BuildError, DataError, BrokenVariant.
    """
    variants = [read(root, name) for name in names]
    for parent in sorted({v.parent for v in variants if v.parent} - {v.name for v in variants}):
        read(root, parent)  # missing is said before anything is scored
    said = {} if said is None else said
    commit = provenance.commit()  # before manifests are written, which are part of the tree

    def answers(name: str, asked: Sequence[str]) -> dict[Input, Answers]:
        variant = read(root, name)
        digest = variant.digest
        if new := [language for language in asked if (digest, language) not in said]:
            pipeline = catalog.open_variant(root / name)
            found = ask_all(variant, pipeline.answer, corpus, split, inputs, new)
            for language in new:
                said[digest, language] = {form: each[language] for form, each in found.items()}
        forms = said[digest, asked[0]]
        return {form: {each: said[digest, each][form] for each in asked} for form in forms}

    found = {}
    for variant in variants:
        before, source = variant.evidence, _data(variant, corpus)
        # Scores by seed lie beside this one: of other texts they cannot.
        is_same = before and (before.data, before.split) == (source, called)
        how = f"--split {split} --split-name '{called}'"
        evidence = Evidence(
            data=source,
            split=called,
            command=f"python -m build evaluate {variant.name} --data DIR {how}",
            commit=commit,
            date=provenance.today(),
            host=provenance.host(),
            parity=before.parity if before else None,
            speed=before.speed if before else None,
            seeds=before.seeds if before and is_same else {},
        )
        asked = languages or variant.languages
        mine = answers(variant.name, asked)
        base = answers(variant.parent, asked) if variant.parent else {}  # it may be for fewer
        wanted = gold(variant, corpus, split, inputs, languages)
        evidence = judged(evidence, variant, wanted, mine, base)
        write(root / variant.name, msgspec.structs.replace(variant, evidence=evidence))
        found[variant.name] = evidence
    return found


# --- texts and answers ------------------------------------------------------------------------


def gold(
    variant: Variant,
    corpus: Path,
    split: str,
    inputs: Sequence[Input] = PUBLISHED,
    languages: Sequence[str] = (),
) -> dict[Input, Gold]:
    """The split of each language, the variant's by default. Raises DataError, BuildError."""
    found: dict[Input, Gold] = {}
    for form in (each for each in inputs if each in WAYS[variant.task]):
        texts: dict[str, Sequence[Sentence | Article]] = {}
        for language in languages or variant.languages:
            if variant.task is Task.NER:
                tokenised = form is Input.TOKENISED
                sentences = data.sentences(corpus, language, split, raw=not tokenised)
                if form is Input.JOINED:
                    sentences = data.joined(sentences, JOINED)
                kinds = {span.label for sentence in sentences for span in sentence.spans}
                texts[language] = sentences
            else:
                alone = form is Input.HEADLINE
                articles = data.articles(corpus, language, split, headlines=alone)
                kinds = {article.label for article in articles}
                texts[language] = articles
            if not texts[language]:
                raise DataError(f"no {split} texts for {language} in {corpus}")
            _check_labels(variant, language, kinds)
        found[form] = texts
    return found


def ask_all(
    variant: Variant,
    ask: Ask,
    corpus: Path,
    split: str,
    inputs: Sequence[Input] = PUBLISHED,
    languages: Sequence[str] = (),
) -> dict[Input, Answers]:
    """What `ask` says to every text of the split."""
    found: dict[Input, Answers] = {}
    for form, texts in gold(variant, corpus, split, inputs, languages).items():
        bar = tqdm(texts.items(), desc=f"{variant.name} {form}", unit="language")
        found[form] = {language: ask([each.text for each in some]) for language, some in bar}
    return found


def _check_labels(variant: Variant, language: str, gold: set[str]) -> None:
    known = {label.partition("-")[2] or label for label in variant.labels}
    if strange := sorted(gold - known):
        raise BuildError(
            f"the {language} data has {', '.join(strange)}, which {variant.name} does not know: "
            f"its labels are {', '.join(variant.labels)}"
        )


# --- evidence ---------------------------------------------------------------------------------


def judged(
    evidence: Evidence,
    variant: Variant,
    gold: Mapping[Input, Gold],
    mine: Mapping[Input, Answers],
    base: Mapping[Input, Answers],
) -> Evidence:
    """The evidence with every score of these answers; `base` is the baseline's, if there is one."""
    names = METRICS[variant.task]
    right = _outcomes(variant, gold, mine)
    theirs = _outcomes(variant, gold, base)
    sure = {
        form: {lang: scoring.confidences(gold[form][lang], said) for lang, said in each.items()}
        for form, each in mine.items()
    }
    apart = {
        form: {lang: scoring.unlike(said, base[form][lang]) for lang, said in mine[form].items()}
        for form in base
    }
    return msgspec.structs.replace(
        evidence,
        quality={
            name: {form: scoring.scores(counts, metric) for form, counts in right.items()}
            for name, metric in names.items()
        },
        difference={
            name: {
                form: scoring.differences(right[form], counts, metric)
                for form, counts in theirs.items()
            }
            for name, metric in names.items()
        }
        if base
        else {},
        calibration={
            form: scoring.scores(each, scoring.calibration_error) for form, each in sure.items()
        },
        disagreement={
            form: scoring.scores(each, scoring.disagreement) for form, each in apart.items()
        },
    )


def _outcomes(
    variant: Variant, gold: Mapping[Input, Gold], answers: Mapping[Input, Answers]
) -> dict[Input, Counts]:
    """By language, what the task's metrics sum."""
    return {
        form: {
            language: scoring.outcomes(variant.task, texts, each[language], variant.labels)
            for language, texts in gold[form].items()
        }
        for form, each in answers.items()
    }


def _data(variant: Variant, corpus: Path) -> str:
    folder = "ner" if variant.task is Task.NER else "news"
    return f"{folder}/ in the layout of docs/data.md, {provenance.fingerprint(corpus, [folder])}"


def is_judged(root: Path, name: str, lineage: Sequence[str]) -> bool:
    """Whether the catalog has the very variant of this lineage, with its scores."""
    if not (root / name / MANIFEST).is_file():
        return False
    variant = read(root, name)
    same = variant.lineage == tuple(lineage)
    return same and variant.evidence is not None and bool(variant.evidence.quality)


def is_of(variant: Variant, corpus: Path) -> bool:
    """Whether its evidence was measured on these corpora."""
    return variant.evidence is not None and variant.evidence.data == _data(variant, corpus)


def agreement(root: Path, name: str, other: str) -> tuple[int, int]:
    """On how many of the project's texts two variants give the same spans, or the same label."""
    texts = [each.text for each in golden_texts(read(root, name))]
    one, two = (catalog.open_variant(root / each).answer(texts) for each in (name, other))
    same = sum(decided(a) == decided(b) for a, b in zip(one, two, strict=True))
    return same, len(texts)


# --- measured again ---------------------------------------------------------------------------


def check(variant: Variant, ask: Ask, corpus: Path, split: str) -> tuple[list[str], int]:
    """
    Score again and compare with the manifest: the figures outside their intervals, of how many.

    Writes nothing. Raises BuildError where the manifest has no scores.
    """
    evidence = variant.evidence
    if not evidence or not evidence.quality:
        raise BuildError(f"{variant.name} has no scores to compare with: evaluate it first")
    inputs = tuple(evidence.quality["f1"])
    languages = tuple(evidence.quality["f1"][inputs[0]].languages)
    answers = ask_all(variant, ask, corpus, split, inputs, languages)
    right = _outcomes(variant, gold(variant, corpus, split, inputs, languages), answers)
    outside, count = [], 0
    for name, metric in METRICS[variant.task].items():
        for form, counts in right.items():
            known = _figures(evidence.quality[name][form])
            for place, now in _figures(scoring.scores(counts, metric)).items():
                if (was := known.get(place)) is None:
                    continue
                count += 1
                # Of a single text the interval is a point, and its ends are sums in another order.
                if not was.low - EPSILON <= now.mean <= was.high + EPSILON:
                    outside.append(f"{name} ({form}) {place}: {now.mean:.3f}, was {_read_out(was)}")
    return outside, count


def _figures(scores: Scores) -> dict[str, Interval]:
    return {"macro": scores.macro, **scores.languages}


# --- read out ---------------------------------------------------------------------------------


def lines(evidence: Evidence) -> Iterator[str]:
    """What was found, a line a metric and input, e.g. "f1 (raw) 0.512 [0.498, 0.526]"."""
    for metric, found_forms in evidence.quality.items():
        for form, found in found_forms.items():
            line = f"{metric} ({form}) {_read_out(found.macro)}"
            if apart := evidence.difference.get(metric, {}).get(form):
                line += f", minus baseline {_read_out(apart.macro)}"
            worst = min(found.languages, key=lambda name: found.languages[name].mean)
            yield f"{line}; least {worst} {found.languages[worst].mean:.3f}"
    for form, error in evidence.calibration.items():
        yield f"calibration error ({form}) {_read_out(error.macro)}"
    for form, apart in evidence.disagreement.items():
        yield f"disagreement with the baseline ({form}) {_read_out(apart.macro)}"


def _read_out(interval: Interval) -> str:
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
