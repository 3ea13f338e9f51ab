"""The plan of a bulk run: every row in one part, every receipt counted, nothing twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.spec import Options, Task
from service.bulk.parts import (
    Ask,
    Done,
    Found,
    Kind,
    Plan,
    Refused,
    Source,
    differing,
    kind_of,
    parts,
    total,
)
from service.bulk.rows import Fault, checked, chunks, columns

ASK = Ask(
    task=Task.NER,
    variant="ner-int8",
    digest="1c6c",
    text="text",
    id=None,
    prefix="",
    options=Options(),
    kind=Kind.JSONL,
    max_text=10,
    part_rows=3,
)


def plan(*rows: int, part_rows: int = 3) -> Plan:
    sources = tuple(
        Source(found=Found(path=f"/in/{n}.parquet", name=f"{n}", size=1, stamp="1"), rows=each)
        for n, each in enumerate(rows)
    )
    asked = Ask(**{n: getattr(ASK, n) for n in Ask.__struct_fields__} | {"part_rows": part_rows})
    return Plan(ask=asked, kind=Kind.PARQUET, sources=sources, schema="")


def done(part: int, rows: int, **aside: int) -> Done:
    tagged = rows - sum(aside.values())
    return Done(part=part, rows=rows, tagged=tagged, aside=aside, began=0.0, ended=1.0)


@given(rows=st.lists(st.integers(0, 40), max_size=5), part_rows=st.integers(1, 12))
def test_every_row_is_in_exactly_one_part(rows: list[int], part_rows: int) -> None:
    cut = list(parts(plan(*rows, part_rows=part_rows)))
    assert [each.index for each in cut] == list(range(len(cut)))
    found = [(each.name, row) for each in cut for row in range(each.first, each.first + each.rows)]
    assert found == [(f"{n}", row) for n, count in enumerate(rows) for row in range(count)]


def test_counts_add_up_over_parts() -> None:
    came = total(plan(4, 1), [done(2, 1), done(0, 3, empty=1), done(1, 1, empty=1)])
    assert (came.rows, came.tagged, came.set_aside, came.aside) == (5, 3, 2, {"empty": 2})


@pytest.mark.parametrize(
    "receipts",
    [
        [done(0, 3)],
        [done(0, 3), done(1, 2)],
        [done(0, 3), done(1, 1), done(2, 1)],
    ],
    ids=["missing", "of other rows", "of no part"],
)
def test_receipts_that_do_not_add_up_are_refused(receipts: list[Done]) -> None:
    with pytest.raises(Refused):
        total(plan(4), receipts)


def test_what_was_asked_otherwise_is_named() -> None:
    asked = Ask(**{n: getattr(ASK, n) for n in Ask.__struct_fields__} | {"variant": "ner-tiny"})
    assert differing(ASK, asked) == 'variant was "ner-int8", now it is "ner-tiny"'
    assert differing(ASK, ASK) == "the inputs are not the same or have changed"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("s3://b/a.parquet", Kind.PARQUET),
        ("a.JSONL", Kind.JSONL),
        ("a.jsonl.zst", Kind.JSONL),
        ("a.b.txt.xz", Kind.TEXT),
        ("a.parquet.gz", None),
        ("a.csv", None),
        ("a", None),
    ],
)
def test_a_files_kind_is_told_by_its_name(path: str, kind: Kind | None) -> None:
    assert kind_of(path) is kind


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "the text is missing"),
        (7, "the text is not a string"),
        (" \n", "the text is empty"),
        ("Kano Kano Kano", "the text has more than 10 characters"),
        ("\ud83d", "the text has a lone surrogate"),
    ],
)
def test_a_text_is_taken_or_set_aside_as_the_service_would(value: object, reason: str) -> None:
    assert checked(value, 10) == Fault(reason)


def test_a_text_that_can_be_read_is_left_as_it_is() -> None:
    assert checked(" Kano\n", 10) == " Kano\n"


@given(texts=st.lists(st.text(max_size=9), max_size=20), most=st.integers(1, 6))
def test_chunks_are_bounded_and_lose_nothing(texts: list[str], most: int) -> None:
    found = list(chunks(texts, most=most, characters=12))
    assert [text for chunk in found for text in chunk] == texts
    assert all(len(c) <= most and (len(c) == 1 or sum(map(len, c)) <= 12) for c in found)


def test_an_answers_columns_may_have_a_prefix() -> None:
    assert columns(Task.NER, "k_") == ("k_entities", "k_tokens", "k_windows", "k_unknown")
