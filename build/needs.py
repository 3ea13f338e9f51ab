"""
What recipes read of a folder of corpora, and whether it is there: said before any work.

Knows nothing of how a step is done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from build import data, stream
from build.data import Article, DataError, Sentence
from build.errors import BuildError
from build.steps import (
    Calibrate,
    CountEmbeddings,
    Distill,
    Finetune,
    Healing,
    Pretrain,
    QuantizeStatic,
    Step,
    TrainTokenizer,
    TrimVocabulary,
)
from models.spec import Task

DEV = (Calibrate, QuantizeStatic, TrimVocabulary)

Languages = tuple[str, ...]
# Of a folder of corpora the texts of each language.
Plain = Callable[[Path], Mapping[str, Iterable[str]]]


class Needs(NamedTuple):
    """
    What a recipe reads.

    trained  languages of the train split
    dev      of the dev split, for each step that looks at it
    scored   of the test split
    plain    how it reads plain text too, in each way it does
    """

    task: Task
    trained: Languages
    dev: tuple[Languages, ...]
    scored: Languages
    plain: tuple[Plain, ...]


class _Split(NamedTuple):
    """Of one language: how many texts it has, and which labels."""

    texts: int
    labels: frozenset[str]


def of(steps: Iterable[Step], scored: Languages = ()) -> Needs:
    """
    What the steps read, and scoring what they make in the languages `scored`; none: in its own.

    Raises BuildError where no step trains for a task.
    """
    task, trained, languages = None, Languages(), Languages()
    dev, plain = [], []
    for step in steps:
        plain += _plain(step, task)
        if isinstance(step, Finetune):
            task, trained, languages = step.task, step.languages, step.languages
        elif isinstance(step, TrimVocabulary) and step.languages:
            languages = tuple(each for each in languages if each in step.languages)
        # An encoder is not read dev texts: it is for no task yet.
        if isinstance(step, DEV) and task:
            dev.append(languages)
    if task is None:
        raise BuildError("no step trains for a task: a recipe has a Finetune")
    return Needs(task, trained, tuple(dev), scored or languages, tuple(plain))


def _plain(step: Step, task: Task | None) -> list[Plain]:
    """How the step reads plain text, where it does, of a network that is for this task or none."""
    match step:
        case TrainTokenizer() | TrimVocabulary():
            return [stream.sentences]
        case Distill() | Healing(transfer=int()) if task is Task.NER:
            return [data.plain_sentences]
        case CountEmbeddings() | Pretrain() | Distill() | Healing(transfer=int()):
            return [data.running_text]
    return []


def check(needs: Iterable[Needs], corpus: Path) -> None:
    """
    Read what training and scoring will read, before hours are spent.

    Raises DataError where a file is missing, wrong or empty, or a test split has labels that
    training never saw.
    """
    if not corpus.is_dir():
        raise DataError(f"there is no folder {corpus}; docs/data.md says what --data wants")
    needs = tuple(dict.fromkeys(needs))
    for read in dict.fromkeys(way for each in needs for way in each.plain):
        if not any(read(corpus).values()):
            raise DataError(f"no plain text of any language in {corpus / 'text'}")

    @cache
    def split(task: Task, language: str, name: str) -> _Split:
        return _read(corpus, task, language, name)

    for task, trained, dev, scored, _ in needs:
        taught = [split(task, language, "train") for language in trained]
        if not any(each.texts for each in taught):
            raise DataError(f"no training texts for {'+'.join(trained)} in {corpus}")
        for languages in dev:
            if not any(split(task, language, "dev").texts for language in languages):
                raise DataError(f"no dev texts for {'+'.join(languages)} in {corpus}")
        known = frozenset[str]().union(*(each.labels for each in taught))
        for language in scored:
            found = split(task, language, "test")
            if not found.texts:
                raise DataError(f"no test texts for {language} in {corpus}")
            if strange := sorted(found.labels - known):
                raise DataError(
                    f"the {language} test split has {', '.join(strange)}, which no training text "
                    f"has: {', '.join(sorted(known))}"
                )


def _read(corpus: Path, task: Task, language: str, name: str) -> _Split:
    texts: Sequence[Sentence | Article]
    if task is Task.NER:
        texts = data.sentences(corpus, language, name, raw=True)
    else:
        texts = data.articles(corpus, language, name)
    return _Split(len(texts), frozenset(label for each in texts for label in _labels(each)))


def _labels(text: Sentence | Article) -> list[str]:
    if isinstance(text, Sentence):
        return [span.label for span in text.spans]
    return [text.label]
