"""Routes read from TOML: what cannot be meant is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.catalog import manifests
from models.spec import Task
from service.routes import BadRoutes, Known, Ladder, Route, Routes, check, read
from tests.tiny import write_variant

ROUTE = """
[[route]]
name = "one"
task = "ner"
"""


@pytest.fixture
def known(tmp_path: Path) -> Known:
    write_variant(tmp_path, "ner-base", Task.NER)
    write_variant(tmp_path, "ner-tiny", Task.NER)
    write_variant(tmp_path, "news-tiny", Task.CLASSIFICATION)
    (tmp_path / "spoilt").mkdir()
    return Known(variants=manifests(tmp_path), keys=["desk"])


def test_an_empty_file_has_no_routes() -> None:
    assert read("") == read("# nothing yet") == Routes()


def test_a_route_is_read_as_it_is_written(known: Known) -> None:
    text = f"""{ROUTE}when = {{ "X-Desk" = "sports" }}
split = {{ ner-base = 3, ner-tiny = 1 }}

[ladder]
down_s = 1.5
"""
    routes = read(text)
    assert routes.route == (
        Route(
            name="one",
            task=Task.NER,
            when={"X-Desk": "sports"},
            split={"ner-base": 3, "ner-tiny": 1},
        ),
    )
    assert routes.ladder == Ladder(down_s=1.5)
    check(routes, text, known)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("route = = 1", "the routes are not TOML: Invalid value (at line 1, column 9)"),
        (ROUTE, "line 2: route one: give one of variant, policy and split; it has none"),
        (
            ROUTE + 'variant = "ner-tiny"\npolicy = {}',
            "line 2: route one: give one of variant, policy and split; it has variant and policy",
        ),
        (ROUTE + "split = { ner-tiny = 1 }", "line 2: route one: a split is between two"),
        (ROUTE + "split = { ner-tiny = 0, ner-base = 1 }", "line 5: split[...]: Expected `float`"),
        (ROUTE + 'variant = "a"\nsticky = "X"', "line 2: route one: sticky is of a split"),
        (
            ROUTE + 'variant = "a"\nshadow = { variant = "a" }',
            "line 2: route one: a shadow of itself always agrees",
        ),
        (
            ROUTE + 'split = { a = 1, b = 1 }\ncanary = { variant = "c", max_disagreement = 1 }',
            "line 2: route one: a canary is one of the two variants of a split",
        ),
        (
            ROUTE + 'variant = "a"\ncanary = { variant = "a", max_disagreement = 0.1 }',
            "line 2: route one: a canary is one of the two variants of a split",
        ),
        (
            ROUTE + 'split = { a = 1, b = 1 }\ncanary = { variant = "a", max_disagreement = 0 }',
            "line 6: canary.max_disagreement: Expected `float` > 0.0",
        ),
        (
            ROUTE + 'variant = "a"\nwhen = { "X-Desk" = "sports", key = "desk" }',
            "line 6: route one: when holds headers, and key is a field of the route: "
            "write key = ... on a line of its own; a header that is called so is written Key",
        ),
        (
            ROUTE + '[route.policy]\n[route.when]\nvariant = "a"',
            "line 7: route one: when holds headers, and variant is a field of the route",
        ),
        (ROUTE + "wieght = 3", "line 5: Object contains unknown field `wieght`"),
        (ROUTE + "policy = { prefer = 'good' }", "line 5: policy.prefer: Invalid enum value"),
        (
            ROUTE + "policy = { language = 'HA' }",
            "line 5: policy.language: a language is its ISO 639 code, such as hau or ha, in lower",
        ),
        (
            ROUTE.replace('"one"', '"The desk"'),
            "line 3: name: a name is 1 to 64 of a-z 0-9 . _ -, the first a letter or a digit",
        ),
        ("\n\n[[route]]\nname = 'x'\n", "line 3: Object missing required field `task`"),
        ("[ladder]\nup_s = 2", "line 1: ladder: up_s 2 must be below down_s 0.5"),
        ("\n[lader]\nup_s = 2", "line 2: Object contains unknown field `lader`"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text: str, wrong: str) -> None:
    with pytest.raises(BadRoutes) as error:
        read(text)
    assert str(error.value).startswith(wrong)


def test_a_header_may_be_called_as_a_field_is() -> None:
    (route,) = read(ROUTE + 'variant = "a"\nwhen = { Key = "desk" }').route
    assert route.when == {"Key": "desk"} and route.key is None


def test_a_route_that_is_never_reached_is_refused() -> None:
    wide = ROUTE + 'variant = "ner-tiny"\n'
    narrow = wide.replace('"one"', '"two"') + 'when = { "X-Desk" = "sports" }\n'
    with pytest.raises(BadRoutes) as error:
        read(wide + narrow)
    assert str(error.value) == (
        "line 7: route two: it is never reached: one, before it, matches all that it would"
    )
    assert len(read(narrow + wide).route) == 2
    other = narrow.replace("sports", "news").replace('"two"', '"three"')
    assert len(read(narrow + other + wide).route) == 3
    cased = narrow.replace("X-Desk", "x-desk").replace('"two"', '"three"')
    with pytest.raises(BadRoutes, match="never reached: two"):
        read(narrow + cased)
    topics = wide.replace('"ner"', '"classification"').replace('"one"', '"topics"')
    assert len(read(wide + topics).route) == 2


def test_two_routes_of_one_name_are_refused() -> None:
    narrow = ROUTE + 'variant = "ner-tiny"\nkey = "a"\n'
    with pytest.raises(BadRoutes, match="there is another route of that name"):
        read(narrow + ROUTE + 'variant = "ner-tiny"\n')


@pytest.mark.parametrize(
    ("rest", "wrong"),
    [
        ('variant = "ner-big"', "there is no variant ner-big; of ner there are ner-base, ner-tiny"),
        ("split = { ner-base = 1, news-tiny = 1 }", "news-tiny serves classification, not ner"),
        ('policy = {}\nshadow = { variant = "x" }', "there is no variant x"),
        ('policy = { language = "qqq" }', "no variant of ner is for qqq; known are hau"),
        (
            'variant = "ner-tiny"\n# key = "a"\nkey = "ghost"',
            "there is no key ghost; known are desk",
        ),
    ],
)
def test_what_is_not_there_is_refused_with_its_line(rest: str, wrong: str, known: Known) -> None:
    text = ROUTE + rest
    line = len(text.splitlines())
    with pytest.raises(BadRoutes, match=f"^line {line}: route one: {wrong}"):
        check(read(text), text, known)


def test_a_key_is_refused_where_none_is_asked_for(known: Known) -> None:
    text = ROUTE + 'variant = "ner-tiny"\nkey = "desk"'
    check(read(text), text, known)
    with pytest.raises(BadRoutes, match="there is no key desk; this server asks for none"):
        check(read(text), text, Known(variants=known.variants, keys=()))


def test_a_variant_whose_manifest_cannot_be_read_may_be_named(known: Known) -> None:
    text = ROUTE + "split = { ner-tiny = 1, spoilt = 1 }"
    check(read(text), text, known)
