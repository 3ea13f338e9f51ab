"""
Which variant to deploy for which limit, in a sentence, and what nobody can tell.

Variant names stand between backticks. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.bootstrap import Difference, Interval
from loadtest.complaint import Complaint
from loadtest.findings import BELIEVED_FAILURES, COST, RATE, Findings, Row, Search
from loadtest.report.numbers import number

# Of F1, below the baseline's at most: what people allow.
DROPS = (0.005, 0.01, 0.02, 0.05, 0.1)

# Of fewer, all within a limit, the p99 may lie above it: 0.99 ** 299 is 5 %.
LEAST_SURE = 299

WORDS = {RATE: "peak rate", "p50": "p50", "p90": "p90", "p99": "p99", COST: "CPU an answer"}
MOST = 6
TOLD = (RATE, "p99", COST)
# None of a name, and no status: two of them have no range.
FIGURE = re.compile(r"(?<![\w.-])(?<!HTTP )\d+(?:\.\d+)?(?![\w.])")
ADVICE = re.compile(r" \([^()]*\)$")
LEAST_NOISE, SMALL_NOISE, MOST_NOISE = 1.001, 1.1, 1000


@dataclass(frozen=True, slots=True)
class Pick:
    """
    What to deploy.

    drop  of F1 that it surely keeps; None: of quality nothing is known
    sure  whether its p99 is surely within the limit; None: there is no limit
    """

    row: Row
    drop: float | None
    sure: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """
    headline   which to deploy
    wrong      promises that were broken, answers that nobody should give
    spoilt     how the load was in the way
    unjudged   promises of which nothing was proved
    reasons    a sentence a variant that was picked, then what else decides
    undecided  what cannot be told apart, and the noise
    doubts     why figures may not be believed
    proved     False: none of them may
    """

    headline: str
    wrong: tuple[str, ...]
    spoilt: tuple[str, ...]
    unjudged: tuple[str, ...]
    reasons: tuple[str, ...]
    undecided: tuple[str, ...]
    doubts: tuple[str, ...]
    proved: bool
    picks: tuple[Pick, ...]


def verdict(found: Findings) -> Verdict:
    fit = [row for row in found.rows if not _unfit(found, row)]
    chosen = _picks(found, fit) if found.proves else []
    outs = found.rows if found.proves else []  # on figures that are not the server's nobody is
    unfit = [f"{_code(row)} is out: {why}." for row in outs if (why := _unfit(found, row))]
    spoilt, doubts = _advised_once(gathered(found.spoilt), gathered(found.doubts))
    return Verdict(
        headline=_headline(found, fit, chosen),
        wrong=tuple(gathered(found.complaints, together=False)),
        spoilt=spoilt,
        unjudged=tuple(gathered(found.unjudged, together=False)),
        reasons=(*(_reason(found, pick) for pick in chosen), *_rates(found), *unfit),
        undecided=tuple(_undecided(found)),
        doubts=doubts,
        proved=found.proves,
        picks=tuple(chosen),
    )


def _headline(found: Findings, fit: Sequence[Row], chosen: Sequence[Pick]) -> str:
    if found.ended:
        return f"Nothing is proved: {found.ended}."
    if found.spoilt:
        return (
            "Nothing is proved: the load itself was in the way. Figures below are not the server's."
        )
    if found.blind:
        return "Nothing is proved: of a variant no swapped answer could have been seen."
    limit = f" with a p99 within {_ms(found.limit_s)}" if found.limit_s else ""
    surely, unsure = _surely(chosen)
    at = f" at {number(found.rate)} requests/s"
    if not fit:
        broke = any(found.against(row.variant) for row in found.rows)
        why = "each is out" if broke else f"no variant answers{limit or ' nearly all'}{at}"
        return f"Deploy none of them: {why}."
    if not chosen and not any(_drop(row) is not None for row in found.rows):
        return "Nobody can say which keeps a limit on F1: too few texts are labelled."
    if not chosen:
        return (
            "No quality limit that people set is kept: compare more variants, or take the baseline."
        )
    if chosen[0].drop is None:
        within = f"{surely}{limit}{unsure}" if limit else ""
        return f"Deploy {_code(chosen[0].row)}: the fastest{within}; of quality nothing is known."
    than = "the best one's" if found.labelled else "the baseline's"
    first, *others = [(_code(pick.row), f"{pick.drop:g}") for pick in chosen]
    listed = f"{first[0]} where F1 may be {first[1]} below {than}"
    listed += "".join(f", {name} where {drop}" for name, drop in others)
    which = "Each is" if others else "It is"
    answers = f" and{surely} answers{limit}{unsure}" if limit else ""
    return f"Deploy {listed}. {which} the fastest that keeps its limit{answers}."


def _surely(chosen: Sequence[Pick]) -> tuple[str, str]:
    """What stands before a limit on the p99, and after: the limit is on an interval's end."""
    unsure = [_code(pick.row) for pick in chosen if not pick.sure]
    if not unsure:
        return " surely", ""
    if len(unsure) < len(chosen):
        return "", f", {', '.join(unsure)} not surely"
    return "", ", not surely" if len(chosen) == 1 else ", none of them surely"


def _picks(found: Findings, fit: Sequence[Row]) -> list[Pick]:
    """For each limit on quality the fastest; the tightest limit of those that agree."""
    if not any(_drop(row) is not None for row in found.rows):
        # Labelled texts that are too few to judge by are no licence to ignore quality.
        return [_pick(found, _fastest(found, fit), None)] if fit and not found.labelled else []
    chosen: list[Pick] = []
    for drop in DROPS:
        pool = [row for row in fit if (own := _drop(row)) is not None and own <= drop]
        if pool and (best := _fastest(found, pool)) not in [pick.row for pick in chosen]:
            chosen.append(_pick(found, best, drop))
    return chosen


def _drop(row: Row) -> float | None:
    return row.quality.drop if row.quality else None


def _pick(found: Findings, row: Row, drop: float | None) -> Pick:
    enough = row.requests >= LEAST_SURE
    kept = found.limit_s is not None and row.p99.high <= found.limit_s and enough
    return Pick(row, drop, kept if found.limit_s else None)


def _fastest(found: Findings, pool: Sequence[Row]) -> Row:
    """Of those that cannot be told from the fastest the cheaper, then the better, then smaller."""
    best = max(pool, key=lambda row: row.rate.mean)
    alike = [row for row in pool if row is best or _alike(found, best, row)]
    cheap = [row for row in alike if not any(_dearer(found, row, other) for other in alike)]
    return max(cheap, key=lambda r: (r.quality.mean if r.quality else 0.0, -(r.bytes or 0)))


def _alike(found: Findings, one: Row, other: Row) -> bool:
    if one.least and other.least:
        return True
    return bool(found.differences[one.variant, other.variant, RATE].undecided)


def _dearer(found: Findings, one: Row, other: Row) -> bool:
    known = found.differences.get((one.variant, other.variant, COST))
    return bool(known and not known.undecided and known.ratio.mean > 1)


def _unfit(found: Findings, row: Row) -> str:
    if row.failed > BELIEVED_FAILURES:
        return f"{row.failed:.1%} of its requests failed at {number(found.rate)}/s"
    if found.limit_s and row.p99.mean > found.limit_s:
        return f"its p99 is {_ms(row.p99.mean)} at {number(found.rate)} requests/s"
    first, *more = found.against(row.variant) or [""]
    return f"{first}, and {len(more)} more" if more else first


def _reason(found: Findings, pick: Pick) -> str:
    row, first = pick.row, found.rows[0]
    times = ""
    if row is not first:
        difference = found.differences[row.variant, first.variant, RATE]
        times = (
            f", {number(difference.ratio.mean)} times that of {_code(first)}"
            if not difference.undecided
            else f", {_untold(difference, first)}"
        )
    texts = f" of {row.quality.n:,} texts" if row.quality and row.quality.n else ""
    quality = f"F1 {row.quality.mean:.3f}{texts}, " if row.quality else ""
    least = "at least " if row.least else ""
    unsure = f", not surely within {_ms(found.limit_s)}" if pick.sure is False else ""
    return (
        f"{_code(row)}: {quality}{least}{number(row.rate.mean)} answers/s at its peak{times}; p99 "
        f"{_ms(row.p99.mean)}{_ends(row.p99)} at {number(found.rate)} requests/s{unsure}."
    )


def _ends(value: Interval) -> str:
    """Of a latency, in milliseconds: [30.0, 900]"""
    if not math.isfinite(value.high):
        return ""
    return f" [{number(value.low * 1000)}, {number(value.high * 1000)}]"


def _rates(found: Findings) -> list[str]:
    """What the search found, where there was one."""
    if not found.searches:
        return []
    told = ", ".join(f"`{name}` {searched(each)}" for name, each in found.searches.items())
    return [f"Largest rate, requests/s, with a p99 within {_ms(found.limit_s)}: {told}."]


def searched(found: Search | None) -> str:
    """276   ≥ 276   none   not known"""
    if found is None or found.invalid:
        return "not known"
    if found.rate is None:
        return "none"
    return ("" if found.bounded else "≥ ") + number(found.rate)


def _untold(difference: Difference, first: Row) -> str:
    """1.02 times that of `base` (1.01 to 1.03), which is smaller than the machine's noise, ±4 %"""
    ratio = difference.ratio
    ends = f" ({number(ratio.low)} to {number(ratio.high)})" if math.isfinite(ratio.high) else ""
    noise = f", {noise_told(difference.noise)}" if "noise" in difference.undecided else ""
    return (
        f"{number(ratio.mean)} times that of {_code(first)}{ends}, which is not told: "
        f"{difference.undecided}{noise}"
    )


def _undecided(found: Findings) -> list[str]:
    said = []
    noise = ", ".join(
        f"{WORDS[name]} {noise_told(found.noise.get(name))}" for name in TOLD if name in found.noise
    )
    said.append(f"Noise, how far what ran twice is from itself here: {noise}.")
    names = [row.variant for row in found.rows]
    for name in TOLD:
        pairs = [
            f"`{one}` and `{other}`"
            for i, one in enumerate(names)
            for other in names[i + 1 :]
            if (pair := found.differences.get((one, other, name)))
            and pair.exists
            and pair.undecided
        ]
        all_of_them = len(pairs) == len(names) * (len(names) - 1) // 2 > 1
        if pairs:
            told = "all pairs" if all_of_them else ", ".join(pairs)
            said.append(f"Undecidable in {WORDS[name]}: {told}.")
    if endless := [_code(row) for row in found.rows if not math.isfinite(row.p99.mean)]:
        said.append(f"No p99 of {', '.join(endless)}: more than 1 % of the requests failed.")
    if len(said) == 1 and len(names) > 1:
        said.append(
            "Every other difference in these is larger than that, and its interval is clear."
        )
    return said


def gathered(said: Sequence[Complaint | str], *, together: bool = True) -> list[str]:
    """
    Those that differ in their figures alone as one, with the range of each; `together`: of all
    variants, else of each its own.

    a: 12.5 ms late, b: 30.1 ms late   -> `a`, `b`: 12.5 to 30.1 ms late
    """
    groups: dict[tuple[str, str], list[Complaint]] = {}
    for each in said:
        one = each if isinstance(each, Complaint) else Complaint("", each)
        kind = FIGURE.sub("", one.why)
        groups.setdefault((kind, "" if together else one.variant), []).append(one)
    return [_as_one(each) for each in groups.values()]


def _as_one(said: Sequence[Complaint]) -> str:
    names = list(dict.fromkeys(each.variant for each in said))
    ranges = zip(*(FIGURE.findall(each.why) for each in said), strict=True)
    told = (_range(each) for each in ranges)
    why = FIGURE.sub(lambda _: next(told), said[0].why)
    times = f", {len(said)} times" if len(said) > len(names) else ""
    return f"{', '.join(f'`{name}`' for name in names)}: {why}{times}" if names[0] else why


def _range(figures: Sequence[str]) -> str:
    low, high = min(figures, key=float), max(figures, key=float)
    return low if low == high else f"{low} to {high}"


def _advised_once(*lists: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Without advice, which stands in brackets at the end, that was given above."""
    given: set[str] = set()

    def told(line: str) -> str:
        found = ADVICE.search(line)
        if found and found[0] in given:
            return line.removesuffix(found[0])
        given.update([found[0]] if found else [])
        return line

    return tuple(tuple(told(line) for line in each) for each in lists)


def shortened(said: Sequence[str]) -> list[str]:
    """The first of many; the JSON has them all."""
    more = len(said) - MOST
    return [*said[:MOST], f"and {more} more, in the JSON"] if more > 1 else list(said)


def noise_told(noise: float | None) -> str:
    """
    How far a figure may be from itself. Where that is much, so many times as little is as likely
    as so many times as much, which "±60 %" would not say.

    1.0001 -> below 0.1 %   1.04 -> ±4 %   1.6 -> × 1.6 either way
    """
    if noise is None or noise == float("inf"):
        return "unknown"
    if noise < LEAST_NOISE:
        return "below 0.1 %"
    if noise < SMALL_NOISE:
        return f"±{(noise - 1) * 100:.2g} %"
    return f"× {number(min(noise, MOST_NOISE), 2)} {'or more ' * (noise > MOST_NOISE)}either way"


def _code(row: Row) -> str:
    return f"`{row.variant}`"


def _ms(seconds: float | None) -> str:
    if seconds is None or seconds == float("inf"):
        return "without end"
    return f"{number(seconds * 1000)} ms"
