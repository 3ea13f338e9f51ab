"""
Which variant satisfies a policy, and why the others do not: pure functions over evidence.

Bounds of intervals are compared, never their means. Knows nothing of lanes, routes or HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf
from typing import Annotated, NamedTuple

from msgspec import Meta

from models.errors import RequestError
from models.spec import LANGUAGE, Input, Interval, Scores, Value, Variant

# Classification is judged by F1 too, so that one number is compared everywhere.
METRIC = "f1"
# What a mean over languages may hide: no language's point drop reaches this, or the drop that was
# allowed where that is more. Half test splits are too small for a bound on every language.
WORST_DROP = 0.03
# What who gives no floor of quality gets.
MAX_F1_DROP = 0.01

_ISO_639_1 = {
    "af": "afr", "ak": "aka", "am": "amh", "ar": "ara", "bm": "bam", "ee": "ewe", "en": "eng",
    "ff": "ful", "fr": "fra", "ha": "hau", "ig": "ibo", "kg": "kon", "ki": "kik", "lg": "lug",
    "ln": "lin", "lu": "lub", "mg": "mlg", "nd": "nde", "nr": "nbl", "ny": "nya", "om": "orm",
    "pt": "por", "rn": "run", "rw": "kin", "sg": "sag", "sn": "sna", "so": "som", "ss": "ssw",
    "st": "sot", "sw": "swa", "ti": "tir", "tn": "tsn", "ts": "tso", "tw": "twi", "ve": "ven",
    "wo": "wol", "xh": "xho", "yo": "yor", "zu": "zul",
}  # fmt: skip

F1 = Annotated[float, Meta(ge=0, le=1)]


class Prefer(StrEnum):
    """
    Of the variants that satisfy a policy: the fewest bytes; the least predicted time for this
    text, here and now; the highest low bound of F1; the least CPU time for this text.
    """

    SMALLEST = "smallest"
    FASTEST = "fastest"
    BEST = "best"
    CHEAPEST = "cheapest"


class Degrade(StrEnum):
    """Whether a smaller variant that satisfies the policy too may answer under pressure."""

    ALLOWED = "allowed"
    NEVER = "never"


class Policy(Value, frozen=True, kw_only=True):
    """
    What a caller wants of the variant that answers.

    min_f1          F1 surely at least this
    max_f1_drop     F1 surely less than this below the baseline's, and in no language clearly more;
                    0.01 where no floor is given at all, so that nobody gets a poor variant unasked
    max_latency_ms  predicted for these texts, waiting included
    language        ISO 639-3, or 639-1: its own evidence decides, instead of the mean of all
    """

    prefer: Prefer = Prefer.SMALLEST
    min_f1: F1 | None = None
    max_f1_drop: Annotated[float, Meta(gt=0, le=1)] | None = None
    max_latency_ms: Annotated[float, Meta(gt=0)] | None = None
    language: Annotated[str, Meta(pattern=LANGUAGE)] | None = None
    degrade: Degrade = Degrade.ALLOWED

    def __post_init__(self) -> None:
        if self.language is not None and len(self.language) == 2 and not self.code:
            raise ValueError("language is an ISO 639-3 code such as hau, or a known 639-1 one")

    @property
    def code(self) -> str | None:
        """The language in ISO 639-3."""
        if self.language is None or len(self.language) == 3:
            return self.language
        return _ISO_639_1.get(self.language)

    @property
    def drop(self) -> float | None:
        """The largest drop of F1 that is allowed; None: a floor of F1 decides alone."""
        if self.max_f1_drop is None and self.min_f1 is None:
            return MAX_F1_DROP
        return self.max_f1_drop

    @property
    def is_timed(self) -> bool:
        """Whether it needs predictions, which differ from text to text."""
        return self.max_latency_ms is not None or self.prefer in (Prefer.FASTEST, Prefer.CHEAPEST)


# Without a policy: who does not say otherwise is served small, at no cost that could be measured.
DEFAULT = Policy()


class Estimate(NamedTuple):
    """
    Of some texts on a variant, in seconds: until they begin, from then to the answer, and of one
    core.
    """

    wait_s: float
    run_s: float
    core_s: float

    @property
    def total_s(self) -> float:
        return self.wait_s + self.run_s


Predict = Callable[[Variant], Estimate]


class Rejected(Value, frozen=True, kw_only=True):
    """A variant that does not answer, and why."""

    variant: str
    reason: str


class Near(Rejected, frozen=True, kw_only=True):
    """
    A variant that fails a policy, with its numbers; None where there is no evidence.

    f1          low bound
    f1_drop     high bound
    latency_ms  predicted for these texts, where the policy asked
    """

    f1: float | None
    f1_drop: float | None
    latency_ms: float | None
    bytes: int


class Unsatisfied(RequestError):
    """No variant satisfies the policy; `nearest` come first those that miss by least."""

    status = 409
    title = "Policy unsatisfied"

    def __init__(self, message: str, nearest: Sequence[Near]) -> None:
        super().__init__(message)
        self.nearest = list(nearest)


@dataclass(frozen=True, slots=True)
class Decision:
    """
    The variant that answers, why, and why the others do not.

    smaller  that satisfy the policy too, the next smaller one first: the ladder's rungs
    again    what asks for the same choice again, where it was not only the request's: X-Route
    shadow   that answers too, for nobody
    trial    the route whose canary answers and is compared with the shadow
    """

    variant: Variant
    reason: str
    rejected: tuple[Rejected, ...] = ()
    smaller: tuple[Variant, ...] = ()
    again: str | None = None
    shadow: Variant | None = None
    trial: str | None = None


def degraded(decision: Decision, rungs: int, why: str) -> Decision:
    """
    The decision so many rungs down the ladder, or as many as there are.

    Who is passed over is rejected for `why`.
    """
    rungs = min(rungs, len(decision.smaller))
    if not rungs:
        return decision
    above, chosen = (decision.variant, *decision.smaller[: rungs - 1]), decision.smaller[rungs - 1]
    others = [each for each in decision.rejected if each.variant != chosen.name]
    passed = {each.name for each in above}
    return replace(
        decision,
        variant=chosen,
        reason=f"{decision.reason}; a smaller one, for {why}",
        rejected=(
            *(Rejected(variant=each.name, reason=f"larger, and {why}") for each in above),
            *(each for each in others if each.variant not in passed),
        ),
        smaller=decision.smaller[rungs:],
    )


class _Miss(NamedTuple):
    """What of a policy is not met; `by` how much of what was asked, inf without evidence."""

    reason: str
    by: float


class Judged(NamedTuple):
    """
    Variants that do the same, as evidence judges them under a policy: alike for every text.

    able      those that satisfy it, the smallest first
    unable    those that do not, and what each misses; `rejected`: the same, told
    floors    "max_f1_drop 0.01 for hau": there is one always
    """

    able: tuple[Variant, ...]
    unable: tuple[tuple[Variant, tuple[_Miss, ...]], ...]
    rejected: tuple[Rejected, ...]
    floors: str


def judge(policy: Policy, variants: Iterable[Variant]) -> Judged:
    """Most of the work of a decision."""
    ordered = sorted(variants, key=_by_size)
    missed = [(each, (*_too_low(policy, each), *_drops(policy, each))) for each in ordered]
    unable = tuple(each for each in missed if each[1])
    return Judged(
        able=tuple(each for each, misses in missed if not misses),
        unable=unable,
        rejected=tuple(_rejected(each, misses) for each, misses in unable),
        floors=_floors(policy),
    )


def decide(policy: Policy, judged: Judged, predict: Predict) -> Decision:
    """
    The variant that satisfies the policy and is preferred.

    predict  asked where the policy is timed, and only of those whose evidence satisfies it, unless
             no variant does: then each is told with its numbers

    Raises `Unsatisfied`.
    """
    estimates = {each.name: predict(each) for each in judged.able} if policy.is_timed else {}
    missed = [(each, _too_slow(policy, estimates, each)) for each in judged.able]
    passing = [each for each, misses in missed if not misses]
    if not passing:
        raise _unsatisfied(policy, judged, predict)
    order = _ORDERS[policy.prefer]
    weights = [order.weigh(policy, each, estimates) for each in passing]
    least = min(weights)
    chosen = passing[weights.index(least)]  # of equals the smallest: it stands first
    others = [pair for pair in zip(passing, weights, strict=True) if pair[0] is not chosen]
    rejected = (
        *judged.rejected,
        *(_rejected(each, misses) for each, misses in missed if misses),
        *(Rejected(variant=e.name, reason=order.told(weight, least)) for e, weight in others),
    )
    smaller: tuple[Variant, ...] = ()
    if policy.degrade is Degrade.ALLOWED:
        smaller = tuple(each for each, _ in reversed(others) if each.bytes < chosen.bytes)
    return Decision(chosen, _reason(policy, judged.floors, len(passing)), rejected, smaller)


def _rejected(variant: Variant, misses: Iterable[_Miss]) -> Rejected:
    return Rejected(variant=variant.name, reason=_told(misses))


def _told(misses: Iterable[_Miss]) -> str:
    return "; ".join(miss.reason for miss in misses)


def _too_low(policy: Policy, variant: Variant) -> Iterable[_Miss]:
    if policy.min_f1 is None:
        return
    measured = f1(variant, policy.code)
    if measured is None:
        yield _Miss(f"no evidence of F1{_for(policy)}", inf)
    elif measured.low < policy.min_f1:
        yield _Miss(
            f"F1{_for(policy)} may be {measured.low:.3f}, below {policy.min_f1:g}",
            _beyond(policy.min_f1 - measured.low, policy.min_f1),
        )


def _drops(policy: Policy, variant: Variant) -> Iterable[_Miss]:
    most = policy.drop
    if most is None or variant.parent is None:  # a baseline is nothing below itself
        return
    drop = f1_drop(variant, policy.code)
    if drop is None:
        yield _Miss(f"no evidence of a difference to the baseline{_for(policy)}", inf)
        return
    if drop >= most:
        yield _Miss(
            f"F1{_for(policy)} may be {drop:.3f} below the baseline, not under {most:g}",
            _beyond(drop - most, most),
        )
    worst = _worst(variant) if policy.code is None else None
    limit = max(WORST_DROP, most)
    if worst and worst[1] >= limit:
        language, fall = worst
        yield _Miss(
            f"{language} is {fall:.3f} below the baseline, not under {limit:g}",
            _beyond(fall - limit, limit),
        )


def _too_slow(
    policy: Policy, estimates: Mapping[str, Estimate], variant: Variant
) -> tuple[_Miss, ...]:
    most = policy.max_latency_ms
    if most is None:
        return ()
    predicted = 1000 * estimates[variant.name].total_s
    if predicted <= most:
        return ()
    told = f"{predicted:.2f} ms predicted, above {most:g}"
    return (_Miss(told, _beyond(predicted - most, most)),)


def f1(variant: Variant, language: str | None) -> Interval | None:
    """Measured on raw text, as callers send it; None where it was not."""
    return _of(variant.evidence.quality if variant.evidence else None, language)


def f1_drop(variant: Variant, language: str | None) -> float | None:
    """How far F1 may be below the baseline's: the high bound; 0 of a baseline itself."""
    if variant.parent is None:
        return 0.0
    difference = _of(variant.evidence.difference if variant.evidence else None, language)
    return None if difference is None else -difference.low


def languages(variants: Iterable[Variant]) -> frozenset[str]:
    """That some of them are for, or were measured in."""
    found: set[str] = set()
    for variant in variants:
        found.update(variant.languages)
        if variant.evidence and (scores := variant.evidence.quality.get(METRIC, {}).get(Input.RAW)):
            found.update(scores.languages)
    return frozenset(found)


def _of(measured: Mapping[str, Mapping[Input, Scores]] | None, code: str | None) -> Interval | None:
    scores = (measured or {}).get(METRIC, {}).get(Input.RAW)
    if scores is None:
        return None
    return scores.macro if code is None else scores.languages.get(code)


def _worst(variant: Variant) -> tuple[str, float] | None:
    """The language that lost most, and its point drop."""
    difference = variant.evidence.difference if variant.evidence else {}
    scores = difference.get(METRIC, {}).get(Input.RAW)
    if scores is None or not scores.languages:
        return None
    language, interval = min(scores.languages.items(), key=lambda each: each[1].mean)
    return language, -interval.mean


class _Order(NamedTuple):
    """A preference: what weighs least is preferred; `heavier` tells of two weights, in `unit`s."""

    weigh: Callable[[Policy, Variant, Mapping[str, Estimate]], float]
    heavier: str
    unit: float

    def told(self, weight: float, least: float) -> str:
        if weight == inf:
            return "no evidence"
        if weight == least:
            return "no better, and larger"
        mine, best = weight / self.unit, least / self.unit
        told = self.heavier.format(mine, best)
        # Two numbers that look alike explain nothing.
        return told if told != self.heavier.format(best, best) else f"hardly {told}"


def _surely(policy: Policy, variant: Variant) -> float:
    """Minus the low bound of F1, so that the best weighs least."""
    measured = f1(variant, policy.code)
    return -measured.low if measured else inf


_ORDERS = {
    Prefer.SMALLEST: _Order(
        lambda policy, each, by: each.bytes, "larger: {:.1f} MB against {:.1f}", 1e6
    ),
    Prefer.FASTEST: _Order(
        lambda policy, each, by: by[each.name].total_s,
        "slower: {:.2f} ms predicted against {:.2f}",
        1e-3,
    ),
    Prefer.CHEAPEST: _Order(
        lambda policy, each, by: by[each.name].core_s,
        "dearer: {:.2f} ms of a core predicted against {:.2f}",
        1e-3,
    ),
    Prefer.BEST: _Order(
        lambda policy, each, by: _surely(policy, each), "lower: F1 surely {:.4f} against {:.4f}", -1
    ),
}


def _by_size(variant: Variant) -> tuple[int, str]:
    return variant.bytes, variant.name


def _floors(policy: Policy) -> str:
    floors = {
        "min_f1": policy.min_f1,
        "max_f1_drop": policy.drop,
        "max_latency_ms": policy.max_latency_ms,
    }
    said = ", ".join(f"{name} {value:g}" for name, value in floors.items() if value is not None)
    return f"{said}{_for(policy)}"


def _reason(policy: Policy, floors: str, passing: int) -> str:
    """ "smallest of 2 that satisfy max_f1_drop 0.01"; in ASCII: it goes into a header."""
    if passing == 1:
        return f"the only one that satisfies {floors}"
    return f"{policy.prefer} of {passing} that satisfy {floors}"


def _unsatisfied(policy: Policy, judged: Judged, predict: Predict) -> Unsatisfied:
    every = [*((each, ()) for each in judged.able), *judged.unable]
    estimates = {each.name: predict(each) for each, _ in every} if policy.is_timed else {}
    missed = [(each, (*misses, *_too_slow(policy, estimates, each))) for each, misses in every]
    missed.sort(key=lambda pair: (sum(miss.by for miss in pair[1]), pair[0].bytes))
    nearest = [_near(policy, each, misses, estimates.get(each.name)) for each, misses in missed]
    first = f"; nearest is {nearest[0].variant}: {nearest[0].reason}" if nearest else ""
    return Unsatisfied(f"no variant satisfies the policy{first}", nearest)


def _near(
    policy: Policy, variant: Variant, misses: Iterable[_Miss], estimate: Estimate | None
) -> Near:
    measured = f1(variant, policy.code)
    return Near(
        variant=variant.name,
        reason=_told(misses),
        f1=None if measured is None else round(measured.low, 4),
        f1_drop=_rounded(f1_drop(variant, policy.code)),
        latency_ms=None if estimate is None else round(1000 * estimate.total_s, 1),
        bytes=variant.bytes,
    )


def _beyond(excess: float, asked: float) -> float:
    return excess / asked if asked else inf


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _for(policy: Policy) -> str:
    return f" for {policy.code}" if policy.code else ""
