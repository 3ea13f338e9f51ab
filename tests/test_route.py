"""Which variant answers: by name, by a policy, or the task's default."""

from __future__ import annotations

import pytest

from models.errors import Quarantined, UnknownVariant
from models.spec import Evidence, File, Licence, Runtime, Task, Variant, Windows
from service.policy import Decision, Estimate, Policy, Prefer, Rejected
from service.route import Table, kin
from tests.tiny import judged


def variant(
    name: str,
    task: Task = Task.NER,
    size: int = 100,
    *,
    labels: tuple[str, ...] = ("O",),
    parent: str | None = None,
    evidence: Evidence | None = None,
) -> Variant:
    return Variant(
        name=name,
        task=task,
        runtime=Runtime.ONNX,
        labels=labels,
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
        parent=parent,
        evidence=evidence,
    )


def catalog(*variants: Variant) -> dict[str, Variant]:
    return {each.name: each for each in variants}


SERVING = catalog(
    variant("ner-base", size=900),
    variant("ner-int8", size=300, parent="ner-base", evidence=judged(0.8)),
    variant("ner-tiny", size=100, parent="ner-base", evidence=judged(0.7, -0.1)),
    variant("news-int8", Task.CLASSIFICATION),
)


def at_once(_: Variant) -> Estimate:
    return Estimate(0.0, 0.001, 0.001)


def choose(
    serving: dict[str, Variant],
    quarantined: dict[str, str],
    task: Task,
    wanted: str | None,
    policy: Policy | None = None,
) -> Variant:
    return decided(serving, quarantined, task, wanted, policy).variant


def decided(
    serving: dict[str, Variant],
    quarantined: dict[str, str],
    task: Task,
    wanted: str | None,
    policy: Policy | None = None,
) -> Decision:
    return Table(serving, quarantined).choose(task, wanted, policy, at_once)


def test_the_default_is_the_smallest_whose_drop_is_surely_small() -> None:
    decision = decided(SERVING, {}, Task.NER, None)
    assert decision.variant.name == "ner-int8"
    assert decision.reason == "default: smallest of 2 that satisfy max_f1_drop 0.01"


def test_without_evidence_the_baseline_answers_and_says_why() -> None:
    tiny = variant("ner-tiny", size=1, parent="ner-base")
    decision = decided(catalog(variant("ner-base"), tiny), {}, Task.NER, None)
    assert decision.variant.name == "ner-base"
    [rejected] = decision.rejected
    assert rejected.variant == "ner-tiny" and rejected.reason.startswith("no evidence")


def test_where_nothing_satisfies_the_default_the_largest_answers() -> None:
    bad = {"parent": "ner-base", "evidence": judged(0.5, -0.3)}
    serving = catalog(variant("ner-a", size=1, **bad), variant("ner-b", size=9, **bad))
    decision = decided(serving, {}, Task.NER, None)
    assert decision.variant.name == "ner-b"
    assert decision.reason.startswith("default: nothing satisfies it, so the largest answers: F1")
    assert [type(each) for each in decision.rejected] == [Rejected]


def test_a_task_nobody_serves_has_no_default() -> None:
    assert Table(catalog(variant("ner-base")), {}).default(Task.CLASSIFICATION) is None


def test_a_policy_is_asked_where_one_is_given() -> None:
    for prefer in Prefer:  # every one of them is predicted to take the same
        assert choose(SERVING, {}, Task.NER, None, Policy(prefer=prefer, min_f1=0.75)).name == (
            "ner-int8"
        )
    assert choose(SERVING, {}, Task.NER, None, Policy()).name == "ner-tiny"


def test_a_policy_of_a_task_nobody_serves_is_no_unsatisfied_one() -> None:
    with pytest.raises(UnknownVariant):
        choose(catalog(variant("ner-base")), {}, Task.CLASSIFICATION, None, Policy())


def test_who_answers_with_other_labels_stands_for_nobody() -> None:
    mood = {"labels": ("good", "bad"), "task": Task.CLASSIFICATION}
    topics = [variant(name, Task.CLASSIFICATION, labels=("a", "b")) for name in ("x", "y")]
    serving = catalog(*topics, variant("mood", size=1, **mood))
    assert [each.name for each in kin(serving.values(), Task.CLASSIFICATION)] == ["x", "y"]
    assert choose(serving, {}, Task.CLASSIFICATION, None).name == "x"
    assert choose(serving, {}, Task.CLASSIFICATION, "mood").name == "mood"
    assert kin([], Task.NER) == ()


def test_a_variant_is_chosen_by_name() -> None:
    assert choose(SERVING, {}, Task.NER, "ner-base").name == "ner-base"


def test_no_name_means_the_default_of_the_task() -> None:
    assert choose(SERVING, {}, Task.CLASSIFICATION, None).name == "news-int8"


def test_an_unknown_name_is_answered_with_the_known_ones_of_that_task() -> None:
    with pytest.raises(UnknownVariant) as error:
        choose(SERVING, {}, Task.NER, "ner-large")
    assert (
        str(error.value) == "there is no variant ner-large; known are ner-base, ner-int8, ner-tiny"
    )


def test_a_variant_of_the_other_task_is_told_from_an_unknown_one() -> None:
    with pytest.raises(UnknownVariant) as error:
        choose(SERVING, {}, Task.CLASSIFICATION, "ner-int8")
    assert str(error.value) == "ner-int8 serves ner, not classification; known are news-int8"


@pytest.mark.parametrize("text", ["Sani ya je Kano", "Sani", "sani\n", "", "sani" * 20])
def test_a_text_in_the_place_of_a_name_is_not_repeated(text: str) -> None:
    with pytest.raises(UnknownVariant) as error:
        choose(SERVING, {}, Task.NER, text)
    assert (
        str(error.value)
        == "there is no variant of that name; known are ner-base, ner-int8, ner-tiny"
    )


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
