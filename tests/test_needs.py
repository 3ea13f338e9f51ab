"""What recipes read of corpora, and what is said where it is not there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from build import needs
from build.data import DataError
from build.errors import BuildError
from build.recipes import RECIPES
from build.steps import (
    Calibrate,
    Distill,
    Export,
    Finetune,
    PruneStructure,
    Quantize,
    QuantizeStatic,
    Step,
    TrainTokenizer,
    TrimVocabulary,
)
from models.spec import Task
from tests.tiny_corpus import write_corpus

BOTH = ("hau", "swa")
TAGGING = Finetune(task=Task.NER, languages=BOTH, epochs=1)
TOPICS = Finetune(task=Task.CLASSIFICATION, languages=BOTH, epochs=1)
HEALED = PruneStructure(heads=0.5, epochs=1, transfer=20)
# Those that read plain text, and those that look at the dev split.
READING = (TrainTokenizer(), Distill(layers=(0,), epochs=1), HEALED)
LOOKING = (Calibrate(), QuantizeStatic(), TrimVocabulary())


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", sentences=4)


def empty(corpus: Path, split: str, *languages: str) -> None:
    for kind, ending in (("ner", "txt"), ("news", "jsonl")):
        for language in languages:
            (corpus / kind / language / f"{split}.{ending}").write_text("")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_reads_what_it_was_trained_in(name: str) -> None:
    found = needs.of(RECIPES[name])
    tuned = next(step for step in RECIPES[name] if isinstance(step, Finetune))
    assert (found.task, found.trained, found.scored) == (tuned.task, tuned.languages, found.trained)
    assert found.plain and set(found.dev) == {found.trained}


def test_a_trimmed_vocabulary_is_tuned_and_scored_in_what_is_left() -> None:
    steps = (TAGGING, Calibrate(), TrimVocabulary(languages=("swa",)), QuantizeStatic())
    assert needs.of(steps).dev == (BOTH, ("swa",), ("swa",))
    assert needs.of(steps).scored == ("swa",) and needs.of(steps, BOTH).scored == BOTH
    # Of an encoder, which is for no task yet, no dev text is read.
    assert needs.of((TrimVocabulary(languages=("swa",)), TAGGING)).dev == ()


def test_steps_that_train_for_no_task_are_no_recipe() -> None:
    with pytest.raises(BuildError, match="a recipe has a Finetune"):
        needs.of((Export(), Quantize()))


@pytest.mark.parametrize("tuned", [TAGGING, TOPICS], ids=str)
@pytest.mark.parametrize("step", LOOKING, ids=str)
def test_a_dev_split_without_texts_is_refused(tuned: Finetune, step: Step, corpus: Path) -> None:
    wanted = needs.of((tuned, step))
    needs.check([wanted], corpus)
    empty(corpus, "dev", "hau")
    needs.check([wanted], corpus)  # the other language has some
    empty(corpus, "dev", "swa")
    with pytest.raises(DataError, match=r"no dev texts for hau\+swa in"):
        needs.check([wanted], corpus)
    needs.check([needs.of((tuned,))], corpus)


@pytest.mark.parametrize("tuned", [TAGGING, TOPICS], ids=str)
def test_every_language_that_is_scored_has_texts(tuned: Finetune, corpus: Path) -> None:
    empty(corpus, "test", "swa")
    with pytest.raises(DataError, match="no test texts for swa in"):
        needs.check([needs.of((tuned,))], corpus)
    needs.check([needs.of((tuned,), ("hau",))], corpus)


def test_training_texts_may_be_of_one_language(corpus: Path) -> None:
    empty(corpus, "train", "swa")
    needs.check([needs.of((TAGGING,))], corpus)
    empty(corpus, "train", "hau")
    with pytest.raises(DataError, match=r"no training texts for hau\+swa in"):
        needs.check([needs.of((TAGGING,))], corpus)


@pytest.mark.parametrize("tuned", [TAGGING, TOPICS], ids=str)
@pytest.mark.parametrize("step", READING, ids=str)
def test_plain_text_is_read_where_a_step_will(step: Step, tuned: Finetune, corpus: Path) -> None:
    (corpus / "text" / "hau.txt").write_bytes(b"Kano\n\xff\n")
    steps = (tuned, step) if step is HEALED else (step, tuned)
    with pytest.raises(DataError, match=r"hau\.txt, line 2: wants UTF-8"):
        needs.check([needs.of(steps)], corpus)
    needs.check([needs.of((tuned, msgspec.structs.replace(HEALED, transfer=None)))], corpus)


def test_what_is_read_beside_the_recipes_languages_is_named(corpus: Path) -> None:
    """Running text and tokenizers are of all languages there are."""
    (corpus / "news" / "xho").mkdir()
    for step, tuned in ((TrainTokenizer(), TAGGING), (Distill(layers=(0,), epochs=1), TOPICS)):
        steps = (step, tuned) if tuned is TAGGING else (tuned, step)
        with pytest.raises(DataError, match=r"no train\.jsonl .* in .*xho"):
            needs.check([needs.of(steps)], corpus)
    needs.check([needs.of((TAGGING, Distill(layers=(0,), epochs=1)))], corpus)  # reads no news


def test_plain_text_may_be_empty_in_some_languages_not_in_all(corpus: Path) -> None:
    wanted = needs.of((TAGGING, Distill(layers=(0,), epochs=1)))
    (corpus / "text" / "hau.txt").write_text("")
    needs.check([wanted], corpus)
    (corpus / "text" / "swa.txt").write_text("")
    with pytest.raises(DataError, match="no plain text of any language in"):
        needs.check([wanted], corpus)


def test_all_recipes_are_looked_at(corpus: Path) -> None:
    empty(corpus, "dev", *BOTH)
    with pytest.raises(DataError, match="no dev texts"):
        needs.check([needs.of((TAGGING,)), needs.of((TAGGING, Calibrate()))], corpus)
