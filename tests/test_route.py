"""Which variant answers: by name, by a policy, or the task's default."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest, NotReady, Quarantined, UnknownVariant
from models.spec import Evidence, File, Licence, Runtime, Task, Variant, Windows
from service.generation import Verdict
from service.policy import Decision, Estimate, Policy, Prefer, Rejected
from service.route import Asked, Table, drawn, kin
from service.routes import read
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
    asked = Asked(task=task, variant=wanted, policy=policy)
    return Table(serving, quarantined).choose(asked, at_once, lambda: 0.0)


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
    assert choose(SERVING, {}, Task.NER, None, Policy(min_f1=0)).name == "ner-tiny"


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


# --- routes ----------------------------------------------------------------------------------

ROUTES = """
[[route]]
name = "desk"
task = "ner"
when = { "X-Desk" = "sports" }
variant = "ner-base"

[[route]]
name = "audit"
task = "ner"
key = "auditor"
policy = { prefer = "best", min_f1 = 0.75 }

[[route]]
name = "trial"
task = "ner"
split = { ner-int8 = 90, ner-tiny = 10 }
sticky = "X-Client"
shadow = { variant = "ner-base", share = 0.25 }
"""


def routed(
    routes: str = ROUTES,
    serving: dict[str, Variant] = SERVING,
    *,
    key: str | None = None,
    number: str = "",
    chance: float = 0.9,
    **headers: str,
) -> Decision:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    asked = Asked(task=Task.NER, key=key, number=number, header=named.get)
    return Table(serving, {}, read(routes)).choose(asked, at_once, lambda: chance)


def test_the_first_route_that_matches_decides() -> None:
    assert routed(x_desk="sports", key="auditor").variant.name == "ner-base"
    audit = routed(x_desk="news", key="auditor")
    assert audit.reason == "route audit: the only one that satisfies min_f1 0.75"
    assert routed(number="1").reason == "route trial: by chance"


def test_a_name_or_a_policy_in_the_request_goes_before_every_route() -> None:
    table = Table(SERVING, {}, read(ROUTES))
    sports = {"x-desk": "sports"}.get
    named = Asked(task=Task.NER, variant="ner-tiny", header=sports)
    assert table.choose(named, at_once, lambda: 0.0).reason == "named"
    free = Asked(task=Task.NER, policy=Policy(min_f1=0), header=sports)
    assert table.choose(free, at_once, lambda: 0.0).variant.name == "ner-tiny"


def test_a_task_without_routes_has_its_default() -> None:
    asked = Asked(task=Task.CLASSIFICATION)
    decision = Table(SERVING, {}, read(ROUTES)).choose(asked, at_once, lambda: 0.0)
    assert decision.variant.name == "news-int8" and decision.reason.startswith("default: ")


def test_a_caller_of_a_split_keeps_his_variant_and_the_shares_are_kept() -> None:
    got = [routed(x_client=f"client {n}").variant.name for n in range(2000)]
    assert got == [routed(x_client=f"client {n}", number="7").variant.name for n in range(2000)]
    assert 140 < got.count("ner-tiny") < 260
    by_key = routed(key="one", number="1"), routed(key="one", number="2")
    assert by_key[0].variant == by_key[1].variant and by_key[0].reason == "route trial: by its key"


def test_when_weights_move_only_as_many_callers_move_as_must() -> None:
    before, after = {"a": 90.0, "b": 10.0}, {"a": 70.0, "b": 30.0}
    keys = [str(n) for n in range(3000)]
    moves = {(drawn("r", before, key), drawn("r", after, key)) for key in keys}
    assert ("b", "a") not in moves
    moved = sum(drawn("r", before, key) != drawn("r", after, key) for key in keys)
    assert 0.15 < moved / len(keys) < 0.25


@given(st.dictionaries(st.text(max_size=3), st.floats(0.01, 1e6), min_size=1), st.text(max_size=9))
def test_what_is_drawn_is_one_of_them_whatever_their_order(
    weights: dict[str, float], key: str
) -> None:
    name = drawn("salt", weights, key)
    assert name in weights
    assert drawn("salt", dict(reversed(weights.items())), key) == name


def test_a_choice_of_a_split_is_made_again_where_its_header_is_sent_back() -> None:
    first = routed(number="1")
    assert first.again == f"trial={first.variant.name}"
    for number in range(50):
        again = routed(number=str(number), x_route=first.again)
        assert (again.variant, again.reason) == (first.variant, "route trial: as before")
    for stale in ("trial=ner-gone", "other=ner-tiny", "nonsense", ""):
        assert routed(number="1", x_route=stale).variant == first.variant


def test_a_split_goes_on_among_those_that_serve_and_else_the_default_answers() -> None:
    left = {name: each for name, each in SERVING.items() if name != "ner-int8"}
    assert {routed(serving=left, x_client=str(n)).variant.name for n in range(50)} == {"ner-tiny"}
    base = catalog(variant("ner-base"))
    assert routed(serving=base).reason.startswith("route trial: out of service; default: ")
    nobody = ROUTES.replace("0.75", "0.99")
    audit = routed(nobody, key="auditor")
    assert audit.reason.startswith("route audit: nothing satisfies it; default: ")


def test_a_shadow_reads_its_share_and_never_itself() -> None:
    assert routed(chance=0.2).shadow == SERVING["ner-base"]
    assert routed(chance=0.25).shadow is None
    itself = ROUTES.replace('variant = "ner-base", share', 'variant = "ner-tiny", share')
    for number in range(100):
        decision = routed(itself, chance=0.0, x_client=str(number))
        assert decision.shadow != decision.variant
    gone = {name: each for name, each in SERVING.items() if name != "ner-base"}
    assert routed(serving=gone, chance=0.0).shadow is None


CANARY = """
[[route]]
name = "trial"
task = "ner"
split = { ner-int8 = 50, ner-tiny = 50 }
canary = { variant = "ner-tiny", max_disagreement = 0.1, share = 0.5 }
"""


def tried(verdicts: dict[str, Verdict], number: int = 0, chance: float = 0.0) -> Decision:
    table = Table(SERVING, {}, read(CANARY), verdicts=verdicts)
    return table.choose(Asked(task=Task.NER, number=str(number)), at_once, lambda: chance)


def test_a_canary_is_compared_with_the_incumbent_and_not_the_other_way() -> None:
    decisions = [tried({}, number) for number in range(50)]
    assert {(d.variant.name, d.shadow and d.shadow.name, d.trial) for d in decisions} == {
        ("ner-tiny", "ner-int8", "trial"),
        ("ner-int8", None, None),
    }
    assert all(tried({}, number, 0.5).shadow is None for number in range(50))


@pytest.mark.parametrize(("promoted", "name"), [(True, "ner-tiny"), (False, "ner-int8")])
def test_after_its_verdict_one_of_them_answers_everybody(promoted: bool, name: str) -> None:
    verdict = Verdict(variant="ner-tiny", promoted=promoted, why="it is clear")
    decisions = [tried({"trial": verdict}, number) for number in range(50)]
    assert {(d.variant.name, d.reason, d.shadow, d.trial) for d in decisions} == {
        (name, "route trial; it is clear", None, None)
    }


def test_a_language_that_no_variant_is_for_is_refused_and_those_there_are_named() -> None:
    with pytest.raises(InvalidRequest, match=r"no variant of ner is for .*; known are hau, yor"):
        choose(SERVING, {}, Task.NER, None, Policy(language="zul"))


def test_where_all_are_unloaded_that_is_said_and_not_that_there_are_none() -> None:
    table = Table({}, {}, unloaded=("ner-int8", "ner-base"))
    with pytest.raises(NotReady, match="unloaded are ner-base, ner-int8"):
        table.choose(Asked(task=Task.NER), at_once, lambda: 0.0)
