"""Policies: who satisfies one is decided on bounds of evidence, and every decision is explained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import (
    Evidence,
    File,
    Input,
    Interval,
    Licence,
    Runtime,
    Scores,
    Task,
    Variant,
    Windows,
)
from service.policy import (
    DEFAULT,
    Decision,
    Degrade,
    Estimate,
    Policy,
    Predict,
    Prefer,
    Unsatisfied,
    decide,
    judge,
)

LANGUAGES = ("hau", "yor")


def around(mean: float, width: float) -> Interval:
    return Interval(n=100, mean=mean, low=mean - width, high=mean + width)


def scores(mean: float, width: float, **languages: float) -> dict[str, dict[Input, Scores]]:
    each = {code: around(languages.get(code, mean), 4 * width) for code in LANGUAGES}
    return {"f1": {Input.RAW: Scores(macro=around(mean, width), languages=each)}}


def variant(
    name: str,
    size: int,
    f1: float | None = None,
    difference: float | None = None,
    *,
    width: float = 0.004,
    **languages: float,
) -> Variant:
    """`difference` to the baseline, which is who has none; `languages`: theirs."""
    evidence = Evidence(
        data="",
        split="test",
        command="",
        commit="",
        date="",
        host="",
        quality={} if f1 is None else scores(f1, width),
        difference={} if difference is None else scores(difference, width, **languages),
    )
    return Variant(
        name=name,
        task=Task.NER,
        runtime=Runtime.ONNX,
        labels=("O",),
        languages=LANGUAGES,
        windows=Windows(tokens=16, overlap=0),
        parent=None if name == "base" else "base",
        lineage=(),
        description="",
        licence=Licence(name="Apache-2.0", sources=()),
        files={"model.onnx": File(sha256="0" * 64, bytes=size)},
        weights={},
        parameters=1,
        sparsity=0.0,
        golden=(),
        evidence=evidence,
    )


BASE = variant("base", 30_000_000, 0.730)
INT8 = variant("int8", 16_000_000, 0.731, 0.001)
SMALL = variant("small", 5_000_000, 0.722, -0.008)  # surely no better than 0.012 below
TINY = variant("tiny", 1_000_000, 0.65, -0.08)
ALL = (BASE, INT8, SMALL, TINY)
SPEED = {
    "base": Estimate(0.0, 0.020, 0.020),
    "int8": Estimate(0.1, 0.009, 0.009),  # many wait for it
    "small": Estimate(0.0, 0.004, 0.004),
    "tiny": Estimate(0.0, 0.001, 0.001),
}


def predicted(each: Variant) -> Estimate:
    return SPEED[each.name]


def never(each: Variant) -> NoReturn:
    pytest.fail(f"{each.name} is predicted for nothing")


def decided(policy: Policy, variants: Iterable[Variant], predict: Predict) -> Decision:
    return decide(policy, judge(policy, variants), predict)


def chosen(policy: Policy, *variants: Variant) -> str:
    return decided(policy, variants or ALL, predicted).variant.name


def test_the_default_is_the_smallest_that_is_surely_less_than_a_point_below() -> None:
    assert chosen(DEFAULT) == "int8"


def test_the_bound_decides_and_not_the_mean() -> None:
    sure = variant("sure", 4_000_000, 0.722, -0.008, width=0.001)
    assert chosen(DEFAULT, *ALL, sure) == "sure"


def test_no_language_may_fall_where_the_mean_holds() -> None:
    uneven = variant("uneven", 4_000_000, 0.73, 0.0, hau=-0.031)
    decision = decided(DEFAULT, (*ALL, uneven), never)
    assert decision.variant.name == "int8"
    [why] = [each.reason for each in decision.rejected if each.variant == "uneven"]
    assert why == "hau is 0.031 below the baseline, not under 0.03"


@pytest.mark.parametrize("language", ["hau\n", "Hau", "ha u", "", "haus"])
def test_a_language_is_a_code_and_nothing_else(language: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="language"):
        msgspec.convert({"language": language}, Policy)


def test_a_language_is_decided_on_its_own_evidence() -> None:
    good = variant("good", 4_000_000, 0.70, -0.03, hau=0.02)
    assert chosen(Policy(max_f1_drop=0.01, language="hau"), *ALL, good) == "good"
    assert chosen(Policy(max_f1_drop=0.01, language="ha"), *ALL, good) == "good"
    assert chosen(Policy(max_f1_drop=0.02), *ALL, good) == "small"


def test_missing_evidence_never_passes() -> None:
    unknown = variant("unknown", 1)
    assert chosen(Policy(max_f1_drop=0.99), *ALL, unknown) == "tiny"
    assert chosen(Policy(min_f1=0.0), *ALL, unknown) == "tiny"
    with pytest.raises(Unsatisfied, match="no evidence of F1 for zul"):
        decided(Policy(min_f1=0.1, language="zul"), ALL, never)


@pytest.mark.parametrize(
    ("prefer", "name"),
    [
        (Prefer.SMALLEST, "tiny"),
        (Prefer.FASTEST, "tiny"),
        (Prefer.CHEAPEST, "tiny"),
        (Prefer.BEST, "int8"),
    ],
)
def test_with_the_lowest_floor_a_policy_is_only_a_preference(prefer: Prefer, name: str) -> None:
    assert chosen(Policy(prefer=prefer, min_f1=0)) == name


def test_who_gives_no_floor_gets_the_defaults() -> None:
    assert chosen(Policy()) == "int8" and chosen(Policy(language="hau")) == "base"
    decision = decided(Policy(prefer=Prefer.CHEAPEST), ALL, predicted)
    assert decision.reason == "cheapest of 2 that satisfy max_f1_drop 0.01"
    assert [each.variant for each in decision.rejected] == ["tiny", "small", "base"]
    assert chosen(Policy(min_f1=0.5)) == "tiny"


def test_two_numbers_that_look_alike_are_said_to_be_close() -> None:
    by = {"int8": Estimate(0.0, 0.00061, 0.1), "base": Estimate(0.0, 0.000612, 0.1)}
    decision = decided(Policy(prefer=Prefer.FASTEST), (BASE, INT8), lambda each: by[each.name])
    [other] = decision.rejected
    assert other.reason == "hardly slower: 0.61 ms predicted against 0.61"


def test_the_fastest_counts_waiting_and_the_cheapest_does_not() -> None:
    assert chosen(Policy(prefer=Prefer.FASTEST, max_f1_drop=0.01)) == "base"
    assert chosen(Policy(prefer=Prefer.CHEAPEST, max_f1_drop=0.01)) == "int8"


def test_a_ceiling_on_latency_is_on_what_is_predicted_with_waiting() -> None:
    assert chosen(Policy(prefer=Prefer.BEST, max_latency_ms=50)) == "base"
    assert chosen(Policy(prefer=Prefer.BEST, max_latency_ms=5, min_f1=0.5)) == "small"


def test_only_those_whose_evidence_satisfies_the_policy_are_predicted() -> None:
    asked: list[str] = []

    def asking(each: Variant) -> Estimate:
        asked.append(each.name)
        return SPEED[each.name]

    decided(Policy(max_f1_drop=0.01, max_latency_ms=50), ALL, asking)
    assert asked == ["int8", "base"]


def test_the_reason_says_what_was_asked_and_by_how_many_it_is_satisfied() -> None:
    decision = decided(Policy(max_f1_drop=0.02, min_f1=0.5), ALL, never)
    assert decision.reason == "smallest of 3 that satisfy min_f1 0.5, max_f1_drop 0.02"
    only = decided(Policy(max_f1_drop=0.001, language="hau"), ALL, never)
    assert only.reason == "the only one that satisfies max_f1_drop 0.001 for hau"


def test_an_unsatisfied_policy_names_the_nearest_first_with_their_numbers() -> None:
    with pytest.raises(Unsatisfied) as error:
        decided(Policy(min_f1=0.9, max_latency_ms=0.5), ALL, predicted)
    assert [near.variant for near in error.value.nearest] == ["tiny", "small", "base", "int8"]
    tiny = error.value.nearest[0]
    assert (tiny.f1, tiny.f1_drop, tiny.latency_ms, tiny.bytes) == (0.646, 0.084, 1.0, 1_000_000)
    assert tiny.reason == "F1 may be 0.646, below 0.9; 1.00 ms predicted, above 0.5"


def test_the_rungs_under_a_decision_satisfy_it_too_and_get_smaller() -> None:
    decision = decided(Policy(prefer=Prefer.BEST, max_f1_drop=0.02), ALL, never)
    assert [each.name for each in (decision.variant, *decision.smaller)] == ["int8", "small"]


policies = st.builds(
    Policy,
    prefer=st.sampled_from(Prefer),
    min_f1=st.none() | st.floats(0, 1),
    max_f1_drop=st.none() | st.floats(0.0001, 1),
    max_latency_ms=st.none() | st.floats(0.01, 1000),
    language=st.none() | st.sampled_from(["hau", "yo", "zul"]),
    degrade=st.sampled_from(Degrade),
)
catalogs = st.lists(
    st.builds(
        variant,
        st.sampled_from(["a", "b", "base", "c", "d"]),
        st.integers(1, 10**8),
        st.none() | st.floats(0, 1),
        st.none() | st.floats(-1, 1),
    ),
    min_size=1,
    unique_by=lambda each: each.name,
)
times = st.floats(0, 2)


@given(policies, catalogs, st.data())
def test_every_variant_is_chosen_rejected_for_a_reason_or_near(
    policy: Policy, variants: list[Variant], data: st.DataObject
) -> None:
    estimates = {
        each.name: Estimate(*data.draw(st.tuples(times, times, times))) for each in variants
    }
    names = {each.name for each in variants}

    def told(each: Variant) -> Estimate:
        return estimates[each.name]

    try:
        decision = decided(policy, variants, told)
    except Unsatisfied as error:
        assert {near.variant for near in error.nearest} == names
        assert all(near.reason for near in error.nearest)
        return
    assert {decision.variant.name, *(each.variant for each in decision.rejected)} == names
    assert len(decision.rejected) == len(names) - 1
    assert all(each.reason.isascii() and each.reason for each in decision.rejected)
    assert decision.reason.isascii() and "\n" not in decision.reason
    # What was decided is decided again by whoever has the same numbers, in whatever order.
    again = decided(policy, list(reversed(variants)), told)
    assert (again.variant, again.smaller) == (decision.variant, decision.smaller)
    # Without the others it is still satisfied, and the rungs are too.
    for each in (decision.variant, *decision.smaller):
        assert decided(policy, [each], told).variant == each


def test_a_policy_that_reads_no_prediction_says_so() -> None:
    assert not DEFAULT.is_timed and not Policy(prefer=Prefer.BEST).is_timed
    assert Policy(max_latency_ms=1).is_timed and Policy(prefer=Prefer.CHEAPEST).is_timed


@pytest.mark.parametrize(
    "body",
    [
        {"prefer": "cheap"},
        {"min_f1": 1.1},
        {"max_f1_drop": 0},
        {"max_latency_ms": -1},
        {"language": "Hausa"},
        {"language": "qq"},
        {"f1": 1},
    ],
)
def test_what_is_no_policy_is_refused(body: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(body, Policy)
