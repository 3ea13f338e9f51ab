"""Laws of the report: which variant for which limit, and pages that need nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.bootstrap import Difference, Interval
from loadtest.compare import Climb
from loadtest.complaint import Complaint
from loadtest.figures import encoded
from loadtest.findings import Findings, Row, Search, unproved
from loadtest.findings import Server as Seen
from loadtest.report import book, page
from loadtest.report.numbers import number
from loadtest.report.plots import (
    BOTTOM,
    HEIGHT,
    TOP,
    climbs,
    least,
    pareto,
    percentiles,
    rates,
)
from loadtest.report.svg import Scale
from loadtest.report.tables import Cell, Table, cost, plain, tables
from loadtest.report.verdict import gathered, noise_told, verdict
from loadtest.validity import Generator
from loadtest.watch import Followed, Moment, Quality
from tests.queues import Queues

PRICE = 0.04


NEVER = Interval(math.inf, 0, math.inf)


def sure(value: float, by: float = 0.02) -> Interval:
    return Interval(value, value * (1 - by), value * (1 + by))


def between(one: float, other: float) -> Interval:
    times = one / other
    return sure(times) if 0 < times < math.inf else Interval(times, 0, math.inf)


def row(name: str, rate: float, p99_s: float, f1: float | None, drop: float = 0.0) -> Row:
    return Row(
        variant=name,
        rate=sure(rate),
        least=False,
        percentiles={"p50": sure(p99_s / 4), "p90": sure(p99_s / 2), "p99": sure(p99_s)},
        p999_s=p99_s * 2,
        goodput=50.0,
        answers=2000,
        failed=0.0,
        failures={},
        peak_failed=0.0,
        peak_failures={},
        load=Generator(
            seconds=40, sent=2796, dropped=4, late_p99_s=0.0012, p99_s=p99_s, cores=0.25
        ),
        server=Seen(
            cpu_s=sure(1 / rate), memory=700 * 2**20, queue_s=0.002, batch=1.5, padding=0.1
        ),
        histogram=encoded([p99_s * i / 100 for i in range(1, 101)]),
        bytes=int(1e9 / rate),
        quality=None if f1 is None else Quality(f1, f1 - 0.01, f1 + 0.01, drop),
        rounds={"rate": [rate, rate * 1.01], "p99": [p99_s, p99_s * 1.1]},
    )


ROWS = (
    row("base", 100, 0.12, 0.736, 0.0),
    row("int8", 210, 0.04, 0.735, 0.002),
    row("small<x>", 500, 0.01, 0.729, 0.013),
    row("tiny", 900, 0.005, 0.665, 0.08),
)


def found(*rows: Row, noise: float = 1.04, **changes: object) -> Findings:
    """Differences as the rows' figures have them, all within 2 %."""

    def of(row: Row, name: str) -> float:
        known = {"rate": row.rate, "cpu": row.server.cpu_s or sure(1.0), **row.percentiles}
        return known[name].mean

    names = ("rate", "p50", "p90", "p99", "cpu")
    told = Findings(
        task="ner",
        rate=70.0,
        seconds=40.0,
        limit_s=None,
        rows=rows,
        noise=dict.fromkeys(names, noise),
        differences={
            (a.variant, b.variant, name): Difference(between(of(a, name), of(b, name)), noise)
            for a in rows
            for b in rows
            if a is not b
            for name in names
        },
        kept=("by each, at most 1.00% failures",),
    )
    return replace(told, **changes)  # type: ignore[arg-type]


# --- the verdict -----------------------------------------------------------------------------


def test_the_fastest_is_deployed_for_each_limit_on_quality() -> None:
    said = verdict(found(*ROWS))
    assert said.headline == (
        "Deploy `int8` where F1 may be 0.005 below the baseline's, `small<x>` where 0.02, `tiny` "
        "where 0.1. Each is the fastest that keeps its limit."
    )
    assert said.reasons[0].startswith(
        "`int8`: F1 0.735, 210 answers/s at its peak, 2.10 times that"
    )
    assert "clear" in said.undecided[-1] and said.proved


def test_a_limit_on_the_p99_leaves_out_who_does_not_keep_it() -> None:
    said = verdict(found(*ROWS, limit_s=0.02))
    assert said.headline.startswith("Deploy `small<x>` where F1 may be 0.02 below")
    assert "and surely answers with a p99 within 20.0 ms." in said.headline
    assert "`int8` is out: its p99 is 40.0 ms at 70.0 requests/s." in said.reasons
    none = verdict(found(*ROWS, limit_s=0.001))
    assert none.headline.startswith("Deploy none of them") and not none.picks


def test_a_p99_that_is_not_surely_within_the_limit_is_told_so() -> None:
    p99 = Interval(0.095, 0.030, 0.900)
    wide = replace(ROWS[3], percentiles={**ROWS[3].percentiles, "p99": p99})
    several = verdict(found(ROWS[1], wide, limit_s=0.1))
    assert several.headline.endswith("answers with a p99 within 100 ms, `tiny` not surely.")
    assert "surely answers" not in several.headline
    assert [pick.sure for pick in several.picks] == [True, False]
    assert several.reasons[1].endswith(
        "p99 95.0 ms [30.0, 900] at 70.0 requests/s, not surely within 100 ms."
    )
    alone = verdict(found(replace(wide, quality=None), limit_s=0.1))
    assert alone.headline == (
        "Deploy `tiny`: the fastest with a p99 within 100 ms, not surely; of quality nothing is "
        "known."
    )
    # Of few requests none is sure, however narrow the interval.
    few = [replace(each, load=replace(each.load, sent=298, dropped=0)) for each in ROWS[1:]]
    assert verdict(found(few[0], limit_s=0.1)).headline.endswith("within 100 ms, not surely.")
    assert verdict(found(*few, limit_s=0.1)).headline.endswith("100 ms, none of them surely.")
    assert "surely" not in verdict(found(wide)).headline


def test_of_those_that_cannot_be_told_apart_the_cheaper_then_the_better_is_deployed() -> None:
    near = row("near", 502, 0.01, 0.731, 0.012)
    assert verdict(found(ROWS[0], ROWS[2], near)).picks[-1].row is near
    dear = replace(near, server=replace(near.server, cpu_s=sure(0.004)))
    assert verdict(found(ROWS[0], ROWS[2], dear)).picks[-1].row is ROWS[2]
    said = verdict(found(ROWS[0], ROWS[2], near)).undecided
    assert "Undecidable in peak rate: `small<x>` and `near`." in said
    alike = [row(name, 100, 0.01, 0.7) for name in "abc"]
    assert "Undecidable in peak rate: all pairs." in verdict(found(*alike)).undecided


def test_two_that_filled_the_generator_cannot_be_told_apart() -> None:
    full = [replace(each, least=True) for each in ROWS[2:]]
    told = found(ROWS[0], *full)
    assert verdict(told).picks[-1].row.variant == "tiny"  # cheaper, though no faster that we know
    assert "at least 900 answers/s" in " ".join(verdict(told).reasons)


def test_without_quality_the_fastest_is_deployed_and_that_is_said() -> None:
    unknown = [replace(each, quality=None) for each in ROWS]
    said = verdict(found(*unknown))
    assert said.headline == "Deploy `tiny`: the fastest; of quality nothing is known."


def test_who_fails_is_not_deployed() -> None:
    failing = replace(ROWS[3], failed=0.2)
    said = verdict(found(*ROWS[:3], failing))
    assert all(pick.row is not failing for pick in said.picks)
    assert "`tiny` is out: 20.0% of its requests failed at 70.0/s." in said.reasons


def test_who_fails_has_no_p99_to_be_undecided_about() -> None:
    failing = replace(ROWS[3], failed=0.2, percentiles={**ROWS[3].percentiles, "p99": NEVER})
    told = found(*ROWS[:3], failing)
    said = " ".join(verdict(told).undecided)
    assert "No p99 of `tiny`: more than 1 % of the requests failed." in said
    assert "Undecidable" not in said
    [times] = [each for each in tables(told, PRICE) if each.name == "Times base"]
    assert times.rows[2][4] == Cell("failed")


def test_a_load_that_was_in_the_way_is_said_first() -> None:
    said = verdict(found(*ROWS, spoilt=(Complaint("tiny", "requests went out late"),)))
    assert said.headline.startswith("Nothing is proved") and not said.proved
    assert not said.picks and not any(each.startswith("`") for each in said.reasons)


LATE = (
    "requests went out late: the p99 of lateness is {} ms, above {} ms (use more callers, a "
    "quieter machine or a lower rate)"
)


def test_what_is_said_of_many_is_said_once_with_who_they_are() -> None:
    late = {"base": LATE.format(22.5, 19.1), "int8": LATE.format(24.3, 11.7)}
    searches = {name: Search(rate=9.0, invalid=[why]) for name, why in late.items()}
    told = found(
        *ROWS,
        limit_s=0.02,
        spoilt=tuple(Complaint(name, why) for name, why in late.items()),
        doubts=tuple(unproved(searches)),
        searches=searches,
    )
    said = verdict(told)
    [spoilt], [doubt] = said.spoilt, said.doubts
    assert spoilt == f"`base`, `int8`: {LATE.format('22.5 to 24.3', '11.7 to 19.1')}"
    assert doubt == (
        "`base`, `int8`: its largest rate is not known: requests went out late: the p99 of "
        "lateness is 22.5 to 24.3 ms, above 11.7 to 19.1 ms"
    )
    # On figures that are not the server's nobody is out.
    assert not any("is out" in each for each in said.reasons)
    assert page.html([told], {}, PRICE).count("a quieter machine") == 1


def test_what_is_held_against_a_variant_is_gathered_by_variant_and_its_names_are_code() -> None:
    asked = "somebody else asked ner-int8 {} texts meanwhile (closed:16)"
    held = [Complaint("a", asked.format(n)) for n in (34, 4, 25)]
    other = Complaint("b", asked.format(9))
    fourth = Complaint("a", "somebody else asked ner-int4 5 texts meanwhile (closed:16)")
    assert gathered([*held, other, fourth], together=False) == [
        f"`a`: {asked.format('4 to 34')}, 3 times",
        f"`b`: {asked.format(9)}",
        f"`a`: {fourth.why}",
    ]
    assert gathered(["2 rounds are few"]) == ["2 rounds are few"]
    failed = [Complaint("a", "3% failed, HTTP 503"), Complaint("b", "2% failed, HTTP 503")]
    assert gathered(failed) == ["`a`, `b`: 2 to 3% failed, HTTP 503"]
    statuses = [failed[0], Complaint("b", "2% failed, HTTP 429")]
    assert gathered(statuses) == ["`a`: 3% failed, HTTP 503", "`b`: 2% failed, HTTP 429"]
    text = page.html([found(*ROWS, mismatches=(other,))], {}, PRICE)
    assert "<li><code>b</code>: somebody else" in text


def test_nothing_is_kept_where_nothing_is_proved() -> None:
    assert "Kept: by each" in page.html([found(*ROWS)], {}, PRICE)
    for why in ("spoilt", "unjudged"):
        told = found(*ROWS, **{why: (Complaint("tiny", "nothing is known"),)})
        assert "Kept:" not in page.html([told], {}, PRICE)
        assert "tiny: nothing is known" in book.terminal([told], PRICE)


def test_a_promise_that_nobody_could_judge_leaves_the_verdict_as_it_is() -> None:
    told = found(*ROWS, unjudged=(Complaint("tiny", "whether it does is not known"),))
    assert replace(verdict(told), unjudged=()) == verdict(found(*ROWS))
    assert "Not proved" in page.html([told], {}, PRICE) and told.void and not told.complaints


@pytest.mark.parametrize("kind", ["broken", "mismatches"])
def test_who_broke_a_promise_or_swapped_answers_is_not_deployed(kind: str) -> None:
    def told(rows: Sequence[Row], *said: tuple[str, str]) -> Findings:
        complaints = tuple(Complaint(*each) for each in said)
        return replace(found(*rows), **{kind: complaints})  # type: ignore[arg-type]

    said = verdict(told(ROWS, ("tiny", "a"), ("tiny", "b"), ("tinyish", "c")))
    assert "tiny" not in said.headline and "tiny" not in [p.row.variant for p in said.picks]
    assert "`tiny` is out: a, and 1 more." in said.reasons
    alone = told(ROWS[:1], ("base", "call 3 was answered as call 2 is alone"))
    assert verdict(alone).headline == "Deploy none of them: each is out."
    assert book.book([alone], {}, PRICE)["tasks"][0]["deploy"] == []


def test_a_difference_that_is_not_told_is_given_with_its_numbers() -> None:
    near = row("near", 102, 0.11, 0.736, 0.001)
    pair = found(ROWS[0], near)
    held = replace(pair, differences={
        key: Difference(Interval(1.03, 1.02, 1.04), 1.06) for key in pair.differences
    })  # fmt: skip
    [said, *_] = verdict(pair).reasons
    assert "1.02 times that of `base` (1.00 to 1.04), which is not told: the interval holds" in said
    assert (
        "1.03 times that of `base` (1.02 to 1.04), which is not told: the difference is smaller "
        "than this machine's noise, ±6 %;" in verdict(held).reasons[0]
    )


@pytest.mark.parametrize(
    ("noise", "told"),
    [
        (1 + 1e-12, "below 0.1 %"),
        (1.04, "±4 %"),
        (1.0949, "±9.5 %"),
        (1.6, "× 1.6 either way"),  # 0.65 times as much is no more than that, 0.6 is
        (470.0, "× 470 either way"),
        (1e200, "× 1,000 or more either way"),
        (math.inf, "unknown"),
    ],
)
def test_noise_that_is_much_is_told_as_a_factor(noise: float, told: str) -> None:
    assert noise_told(noise) == told


def test_one_variant_alone_has_its_figures_and_the_noise() -> None:
    said = verdict(found(ROWS[0]))
    assert said.headline.startswith("Deploy `base`") and "Noise" in said.undecided[0]
    assert "<svg" in page.html([found(ROWS[0])], {}, PRICE)


# --- tables and pictures ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "told"),
    [(1234.5, "1,234"), (0.012345, "0.0123"), (9.999, "10.0"), (math.inf, "never"), (0, "0"),
     (math.nan, "-"), (99.95, "100")],
)  # fmt: skip
def test_figures_have_three_digits_that_count(value: float, told: str) -> None:
    assert number(value) == told


def test_cost_is_cpu_seconds_times_a_price() -> None:
    assert cost(ROWS[0], 0.36) == sure(1.0)
    assert cost(replace(ROWS[0], server=Seen()), 0.36) is None


def test_columns_are_aligned() -> None:
    table = Table(
        "t", ("variant", "p99 ms"), ((Cell("a"), Cell("1", "[0, 2]")), (Cell("bc"), Cell("10")))
    )
    assert plain(table) == "variant    p99 ms\na        1 [0, 2]\nbc             10"


def test_how_the_load_did_stands_in_every_report() -> None:
    told = found(*ROWS)
    assert "| base | 70.0 | 69.9 | 4 | 1.20 | 0.250 |" in book.markdown([told], {}, PRICE)
    assert "The load itself" in book.terminal([told], PRICE)
    assert "<td>69.9</td><td>4</td><td>1.20</td>" in page.html([told], {}, PRICE)


def test_what_a_search_found_stands_in_the_verdict_and_in_every_report() -> None:
    lagged = Search(rate=80.0, invalid=["requests went out late"])
    searches = {
        "base": Search(rate=50.0), "int8": Search(rate=180.0, bounded=False),
        "small<x>": Search(rate=None), "tiny": lagged,
    }  # fmt: skip
    told = found(*ROWS, limit_s=0.1, searches=searches)
    said = (
        "Largest rate, requests/s, with a p99 within 100 ms: `base` 50.0, `int8` ≥ 180, "
        "`small<x>` none, `tiny` not known."
    )
    assert said in verdict(told).reasons and said in book.markdown([told], {}, PRICE)
    assert said.replace("`", "") in book.terminal([told], PRICE)
    column = [row[2].text for row in tables(told, PRICE)[0].rows]
    assert column == ["50.0", "≥ 180", "none", "not known"]
    assert "largest rate, /s" in page.html([told], {}, PRICE)


def test_memory_is_told_of_the_server_and_of_no_variant() -> None:
    rows = [replace(each, server=replace(each.server, memory=n * 2**20)) for n, each in
            enumerate(ROWS, 700)]  # fmt: skip
    [seen] = [each for each in tables(found(*rows), PRICE) if each.name == "What the server saw"]
    assert not any("memory" in name for name in seen.head)
    assert seen.note.endswith("with all the variants it holds, took 703 MiB of memory at most.")


def test_pictures_keep_a_width_at_which_they_can_be_read() -> None:
    text = page.html([FULL], {}, PRICE)
    assert text.count("<svg") == text.count('<div class="wide"><svg') > 5
    for wide in ("svg{display:block;width:100%;height:auto;min-width:29rem}", "min-width:20rem"):
        assert wide in text


def test_what_was_not_measured_has_no_column() -> None:
    bare = [replace(each, server=Seen(), quality=None, bytes=None) for each in ROWS]
    told = tables(found(*bare), PRICE)
    assert [table.name for table in told] == ["Rate and latency", "Times base", "The load itself"]
    assert "energy" not in page.html([found(*ROWS)], {}, PRICE).lower()
    warm = [replace(each, server=replace(each.server, energy_j=0.5)) for each in ROWS]
    assert "joules an answer" in page.html([found(*warm)], {}, PRICE)


def test_the_pareto_front_are_those_whom_nobody_beats() -> None:
    worse = row("worse", 400, 0.01, 0.700, 0.04)
    assert [each.variant for each in pareto([*ROWS, worse])] == [each.variant for each in ROWS]


@given(st.floats(1e-3, 1e6), st.floats(1.5, 1e4))
def test_ticks_of_a_scale_of_factors_lie_within_it_and_are_few(low: float, times: float) -> None:
    ticks = Scale(low, low * times, 0, 1, log=True).ticks(6)
    assert len(ticks) <= 8 and all(low * 0.999 <= each <= low * times * 1.001 for each in ticks)


@pytest.mark.parametrize("limit_s", [1e-4, 0.05, 30.0])
def test_a_limit_stands_within_the_picture_wherever_it_is(limit_s: float) -> None:
    plot = percentiles(found(*ROWS, limit_s=limit_s))
    assert plot
    [y] = re.findall(r'class="line limit" d="M[\d.]+ ([\d.]+)L', plot.svg)
    assert TOP + 1 < float(y) < HEIGHT - BOTTOM - 1


# --- pages -----------------------------------------------------------------------------------


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def climbing(names: Mapping[str, float]) -> dict[str, Climb]:
    engine = Queues({name: 1 / rate for name, rate in names.items()})
    moments = tuple(Moment(at / 4, at, 1.0 + at, 0.1) for at in range(1, 16))
    return {
        name: Climb(
            run=engine(name, f"ramp:{rate / 5}-{rate * 1.2}", 4.0, 1),
            peak=rate,
            server=Followed(moments=moments),
        )
        for name, rate in names.items()
    }


FULL = found(
    *ROWS,
    limit_s=0.1,
    broken=(Complaint("tiny", "its F1 of 0.6650 is 0.0350 below the 0.7 promised"),),
    mismatches=tuple(Complaint("base", f"<mismatch> {'x' * i}") for i in range(20)),
    doubts=(Complaint("tiny", "it may do more"),),
    climbs=climbing({"base": 100.0, "tiny": 900.0}),
    searches={"base": Search(rate=50.0, steps=[(50.0, 0.05, True), (90.0, math.inf, False)])},
)


SILENT = replace(
    ROWS[0],
    failed=1.0,
    answers=0,
    p999_s=math.inf,
    percentiles=dict.fromkeys(("p50", "p90", "p99"), NEVER),
    histogram=encoded([]),
    rounds={"rate": [0.0], "p99": [math.inf]},
)


FEW = [
    replace(each, quality=Quality(each.quality.mean, math.nan, math.nan, None, n=3))
    for each in ROWS
    if each.quality
]


def test_a_climb_of_less_than_a_stretch_is_drawn() -> None:
    [climb] = climbing({"base": 100.0}).values()
    first = tuple(each for each in climb.run.requests if each.due_s < 0.2)
    short = replace(climb, run=replace(climb.run, seconds=0.2, requests=first))
    [plot] = climbs(found(ROWS[0], climbs={"base": short}))
    assert plot.svg.startswith("<svg")


def test_refusals_above_the_peak_do_not_make_a_climb_look_quick() -> None:
    [climb] = climbing({"base": 100.0}).values()
    refused = tuple(
        replace(each, status=429, error="HTTP 429", done_s=each.due_s + 0.001)
        if each.due_s > 3
        else each
        for each in climb.run.requests
    )
    for run in (
        replace(climb.run, requests=refused),
        replace(climb.run, requests=[r for r in refused if not r.error], dropped=50),
    ):
        [plot] = climbs(found(ROWS[0], climbs={"base": replace(climb, run=run)}))
        p99, top = _line(plot.svg, "c0"), 46.0
        assert p99[-1] == top and min(p99[:5]) > top + 5
        assert ">never<" in plot.svg
    [whole] = climbs(found(ROWS[0], climbs={"base": climb}))
    assert ">never<" not in whole.svg


def _line(svg: str, css: str) -> list[float]:
    """Heights of the first line in this style."""
    [path, *_] = re.findall(rf'class="line {css}" d="([^"]*)"', svg)
    return [float(y) for y in re.findall(r"[ML][\d.]+ ([\d.]+)", path)]


def test_the_p99_by_rate_is_drawn_of_the_climb_where_nothing_was_searched() -> None:
    told = found(*ROWS, climbs=climbing({"base": 100.0, "tiny": 900.0}))
    plot = rates(told)
    assert plot and "climbs" in plot.note and "search" not in plot.note
    assert plot.svg.count("<circle") == 0 and {"base", "tiny"} <= set(_texts(plot.svg))
    # From a fifth of its peak to above it, and slower the more there are.
    heights = _line(plot.svg, "thin c0")
    assert len(heights) >= 4 and heights[-1] < heights[0]
    assert "Rate against p99" in page.html([told], {}, PRICE)
    assert rates(found(*ROWS)) is None


def test_what_a_search_tried_are_circles_and_their_line_is_no_zigzag() -> None:
    steps = [(50.0, 0.3, False), (50.0, 0.05, True), (80.0, 0.2, False), (60.0, math.inf, False)]
    both = {"base": Search(rate=50.0, steps=steps)}
    told = found(*ROWS, limit_s=0.1, climbs=climbing({"base": 100.0, "tiny": 900.0}), searches=both)
    plot = rates(told)
    assert plot and "search" in plot.note and "climbs" in plot.note
    assert plot.svg.count('class="point c0') == 4 and plot.svg.count('class="point c0 open"') == 3
    heights = _line(plot.svg, "thin c0")
    assert len(heights) == 3 and heights == sorted(heights, reverse=True)


@given(st.lists(st.tuples(st.integers(1, 9), st.floats(1, 100) | st.just(math.inf))))
def test_the_least_p99_at_a_rate_or_above_only_grows(points: list[tuple[float, float]]) -> None:
    line = least(points)
    assert [rate for rate, _ in line] == sorted({rate for rate, _ in points})
    assert [ms for _, ms in line] == sorted(ms for _, ms in line)
    assert all(ms in {at for rate, at in points if rate >= of} for of, ms in line)


def test_names_of_lines_leave_them_the_width_of_the_picture() -> None:
    long = [replace(each, variant=f"a-variant-of-a-long-name-{i}") for i, each in enumerate(ROWS)]
    plot = percentiles(found(*long))
    assert plot
    xs = [float(x) for x in re.findall(r"[ML]([\d.]+) ", plot.svg)]
    assert max(xs) > 0.95 * 520
    boxes = [float(y) for y in re.findall(r'<text x="24.0" y="([\d.]+)"', plot.svg)]
    assert len(boxes) == len(set(boxes)) >= 2  # in rows, none upon another


def _texts(svg: str) -> list[str]:
    return re.findall(r">([^<>]+)</text>", svg)


def test_an_f1_without_an_interval_has_none_anywhere() -> None:
    told = found(*FEW, labelled=True)
    [table] = [each for each in tables(told, PRICE) if each.name == "Quality and cost"]
    assert table.head[1:4] == ("F1", "F1 below, at most", "texts")
    assert table.rows[0][1:4] == (Cell("0.736"), Cell("-"), Cell("3"))
    [task] = json.loads(book.to_json(book.book([told], {}, PRICE)))["tasks"]
    assert task["variants"][0]["f1"] == {
        "mean": 0.736, "low": None, "high": None, "drop": None, "n": 3
    }  # fmt: skip
    assert task["deploy"] == [] and "Nobody can say" in task["verdict"]


@pytest.mark.parametrize("told", [FULL, found(*ROWS), found(SILENT), found(*FEW, labelled=True)])
def test_the_page_is_whole_and_needs_nothing_else(told: Findings) -> None:
    text = page.html([told, replace(told, task="classification")], {"host": "<here>"}, PRICE)
    tags = _Tags()
    tags.feed(text)
    assert tags.open == []
    assert not {"script", "link", "img", "iframe"} & set(tags.seen)
    assert not [name for name, _ in tags.attributes if name in {"src", "href", "style"}]
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert not re.search(r"url\(|@import|nan|inf[^o]", text.partition("</style>")[2])
    assert "<here>" not in text and "small<x>" not in text and "<mismatch>" not in text
    assert "prefers-color-scheme:dark" in text and "Entities" in text and "Topics" in text


def test_the_pages_own_policy_allows_its_style_and_nothing_more() -> None:
    text = page.html([FULL], {}, PRICE)
    [style] = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in text


def test_the_verdict_comes_first_on_every_report() -> None:
    headline = verdict(FULL).headline
    written = book.markdown([FULL], {"rounds": 8}, PRICE)
    assert written.splitlines()[2] == f"**{headline}**"
    assert "and 15 more, in the JSON" in written and "| base | 100 [98.0, 102] |" in written
    told = book.terminal([FULL, replace(FULL, task="classification")], PRICE)
    assert told.splitlines()[0] == headline.replace("`", "")
    assert told.rindex(headline.replace("`", "")) < told.index("Rate and latency")
    assert "Not kept: tiny: its F1 of 0.6650" in told and "To be doubted: tiny" in told
    assert text_of(page.html([FULL], {}, PRICE)).index(headline[:6]) < 400


def text_of(html: str) -> str:
    return re.sub(r"<[^>]*>", "", html.partition("<body>")[2])


def test_the_json_holds_all_of_it_and_no_number_that_is_none() -> None:
    written = json.loads(book.to_json(book.book([FULL], {"rounds": 8}, PRICE)))
    [task] = written["tasks"]
    assert task["verdict"] == verdict(FULL).headline and len(task["mismatches"]) == 20
    assert task["deploy"][0] == {"variant": "int8", "f1_drop": 0.005, "p99_surely": True}
    assert task["variants"][0]["latency_s"]["p99"] == {
        "mean": 0.12, "low": pytest.approx(0.1176), "high": pytest.approx(0.1224)
    }  # fmt: skip
    assert task["searches"]["base"][1] == {"rate": 90.0, "p99_s": "infinite", "kept": False}
    assert task["variants"][0]["load"] == {
        "offered": 70.0, "sent": 69.9, "dropped": 4, "late_p99_s": 0.0012, "cores": 0.25
    }  # fmt: skip
    assert task["rates_within_limit"] == {"base": {"rate": 50.0, "or_more": False, "invalid": []}}
    assert len(task["differences"]) == 4 * 3 * 5
    assert task["variants"][0]["histogram_us"].startswith("HIST")


def test_in_the_json_what_is_infinite_is_not_what_nobody_knows() -> None:
    one_round = replace(ROWS[1], rate=Interval(210, 0, math.inf))
    told = found(SILENT, one_round, noise=math.inf)
    [task] = json.loads(book.to_json(book.book([told], {}, PRICE)))["tasks"]
    silent, once = task["variants"]
    assert silent["latency_s"]["p99"] == {"mean": "infinite", "low": None, "high": None}
    assert silent["rounds"]["p99"] == ["infinite"] and silent["server"]["energy_j"] is None
    assert once["rate"] == {"mean": 210, "low": None, "high": None}
    assert set(task["noise"].values()) == {None} == {each["noise"] for each in task["differences"]}
