"""Which variant answers: by name, or the task's default."""

from __future__ import annotations

import pytest

from models.errors import Quarantined, UnknownVariant
from models.spec import File, Licence, Runtime, Task, Variant, Windows
from service.route import choose, default


def variant(name: str, task: Task = Task.NER, size: int = 100) -> Variant:
    return Variant(
        name=name,
        task=task,
        runtime=Runtime.ONNX,
        labels=("O",),
        languages=("hau",),
        windows=Windows(tokens=16, overlap=0),
        lineage=(),
        description="",
        licence=Licence(name="Apache-2.0", sources=()),
        files={"model.onnx": File(sha256="0" * 64, bytes=size)},
        weights={},
        parameters=1,
        sparsity=0.0,
        golden=(),
    )


def catalog(*variants: Variant) -> dict[str, Variant]:
    return {each.name: each for each in variants}


SERVING = catalog(
    variant("ner-base", size=900), variant("ner-int8"), variant("news-int8", Task.CLASSIFICATION)
)


def test_the_default_is_the_int8_variant_even_where_another_is_smaller() -> None:
    chosen = default([variant("ner-tiny", size=1), variant("ner-int8", size=9)], Task.NER)
    assert chosen is not None and chosen.name == "ner-int8"


def test_of_several_int8_variants_the_shortest_name_is_the_default() -> None:
    chosen = default([variant("ner-distil-int8", size=1), variant("ner-int8")], Task.NER)
    assert chosen is not None and chosen.name == "ner-int8"


def test_without_an_int8_variant_the_smallest_is_the_default() -> None:
    chosen = default([variant("ner-base", size=900), variant("ner-tiny", size=1)], Task.NER)
    assert chosen is not None and chosen.name == "ner-tiny"


def test_a_task_nobody_serves_has_no_default() -> None:
    assert default([variant("ner-base")], Task.CLASSIFICATION) is None


def test_a_variant_is_chosen_by_name() -> None:
    assert choose(SERVING, {}, Task.NER, "ner-base").name == "ner-base"


def test_no_name_means_the_default_of_the_task() -> None:
    assert choose(SERVING, {}, Task.CLASSIFICATION, None).name == "news-int8"


def test_an_unknown_name_is_answered_with_the_known_ones_of_that_task() -> None:
    with pytest.raises(UnknownVariant) as error:
        choose(SERVING, {}, Task.NER, "ner-large")
    assert str(error.value) == "there is no variant ner-large; known are ner-base, ner-int8"


def test_a_variant_of_the_other_task_is_told_from_an_unknown_one() -> None:
    with pytest.raises(UnknownVariant) as error:
        choose(SERVING, {}, Task.CLASSIFICATION, "ner-int8")
    assert str(error.value) == "ner-int8 serves ner, not classification; known are news-int8"


@pytest.mark.parametrize("text", ["Sani ya je Kano", "Sani", "sani\n", "", "sani" * 20])
def test_a_text_in_the_place_of_a_name_is_not_repeated(text: str) -> None:
    with pytest.raises(UnknownVariant) as error:
        choose(SERVING, {}, Task.NER, text)
    assert str(error.value) == "there is no variant of that name; known are ner-base, ner-int8"


def test_a_quarantined_variant_says_why() -> None:
    with pytest.raises(Quarantined, match="ner-old is quarantined: bytes differ"):
        choose(SERVING, {"ner-old": "bytes differ"}, Task.NER, "ner-old")


def test_a_quarantined_default_leaves_the_task_to_the_others() -> None:
    serving = catalog(variant("ner-base"))
    assert choose(serving, {"ner-int8": "bytes differ"}, Task.NER, None).name == "ner-base"


def test_a_task_with_nothing_left_names_the_quarantined() -> None:
    with pytest.raises(Quarantined, match="ner-int8"):
        choose({}, {"ner-int8": "bytes differ"}, Task.NER, None)


def test_an_empty_catalog_serves_no_task() -> None:
    with pytest.raises(UnknownVariant, match="no variant in the catalog serves ner"):
        choose({}, {}, Task.NER, None)
