"""Laws of promises: a file that is wrong is told where, a broken promise by how much."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from loadtest.promises import BadPromises, Measured, Promises, broken, kept, parse, read, unjudged

EXAMPLE = Path(__file__).resolve().parent.parent / "loadtest/promises.toml"

TEXT = """
[defaults]
p99_ms = 100
max_failures = 0.0

[variants.ner-tiny]
p99_ms = 50          # in place of the default
min_rate = 500
min_f1 = 0.6
"""


def measured(variant: str = "ner-tiny", **changes: float | None) -> Measured:
    good = {"p99_ms": 40.0, "rate": 600.0, "failures": 0.0, "f1": 0.66}
    return Measured(variant=variant, **{**good, **changes})  # type: ignore[arg-type]


def test_a_variant_has_its_own_promises_and_else_the_defaults() -> None:
    promises = parse(TEXT, variants=["ner-tiny", "ner-base"])
    assert str(promises.of("ner-tiny")) == (
        "p99 at most 50 ms, at least 500 answers/s, at most 0.00% failures, F1 at least 0.6"
    )
    assert str(promises.of("ner-base")) == "p99 at most 100 ms, at most 0.00% failures"
    assert str(Promises().of("any")) == "at most 1.00% failures"
    assert str(parse("").of("any")) == "at most 1.00% failures"


def test_what_is_kept_breaks_nothing() -> None:
    promises = parse(TEXT)
    assert broken(promises, [measured(), measured("ner-base", p99_ms=90.0)]) == []
    assert kept(promises, ["ner-base", "ner-int8"]) == [
        "by each, p99 at most 100 ms, at most 0.00% failures"
    ]
    assert len(kept(promises, ["ner-base", "ner-tiny"])) == 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"p99_ms": 62.5}, "the p99 is 62.5 ms, 12.5 ms more than the 50 ms promised"),
        ({"p99_ms": math.inf}, "the p99 is endless"),
        ({"p99_ms": math.nan}, "the p99 is endless"),
        ({"rate": 480.5}, "480.5 answers/s at its peak are 19.5 fewer than the 500 promised"),
        ({"failures": 0.02}, "2.00% of the arrivals failed, 2.00 points more than the 0.00%"),
        ({"f1": 0.59}, "its F1 of 0.5900 is 0.0100 below the 0.6 promised"),
        ({"f1": None}, "nobody knows its F1, and 0.6 is promised"),
    ],
)
def test_a_broken_promise_says_by_how_much(change: dict[str, float | None], told: str) -> None:
    [said] = broken(parse(TEXT), [measured(**change)])
    assert said.variant == "ner-tiny" and told in said.why


def test_a_rate_that_the_load_could_not_reach_is_neither_kept_nor_broken() -> None:
    limited = measured(rate=480.5, least=True)
    assert broken(parse(TEXT), [limited]) == []
    [said] = unjudged(parse(TEXT), [limited, measured("ner-base", rate=1.0, least=True)])
    assert said.variant == "ner-tiny" and "at least 480.5 answers/s" in said.why
    assert "whether it keeps the 500 promised is not known" in said.why
    assert unjudged(parse(TEXT), [measured(least=True), measured(rate=480.5)]) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[defaults]\np95_ms = 3", "line 2: defaults.p95_ms is not known: there are p99_ms"),
        ("\n[variants.a]\np99_ms = '9'", "line 3: variants.a.p99_ms is '9': it is milliseconds"),
        ("[variants.a]\nmin_rate = true", "line 2: variants.a.min_rate is True"),
        ("[variants.a]\nmax_failures = 2", "line 2: variants.a.max_failures is 2: it is a share"),
        ("[variants.a]\nmin_rate = nan", "line 2: variants.a.min_rate is nan"),
        ('[variants."a b"]\nmin_f1 = -1', "line 2: variants.a b.min_f1 is -1"),
        ("variants.a.min_f1 = 7", "line 1: variants.a.min_f1 is 7"),
        ("[default]\np99_ms = 3", "line 1: default is not known: there are [defaults] and"),
        ("variants = 3", "line 1: variants is no table"),
        ("variants.a = 3", "line 1: variants.a is no table"),
        ("\n\n[variants.b]\np99_ms = 3", "line 3: variants.b does not run: a do"),
        ("[defaults\n", "is not TOML"),
    ],
)
def test_a_file_that_is_wrong_is_told_where(text: str, told: str) -> None:
    with pytest.raises(BadPromises) as error:
        parse(text, "mine.toml", variants=["a", "a b"] if "a b" in text else ["a"])
    assert str(error.value).startswith("mine.toml") and told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadPromises, match=r"none\.toml cannot be read"):
        read(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(BadPromises, match="cannot be read"):
        read(tmp_path / "latin.toml")


def test_the_example_is_right() -> None:
    assert read(EXAMPLE, ["any"]).of("any").p99_ms == 250
    more = re.sub(r"^#(?! )", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    promises = parse(more, variants=["ner-base", "ner-int8", "ner-distilled-int8"])
    assert promises.of("ner-int8").min_f1 == 0.72 and promises.of("ner-base").min_f1 is None
