"""Routes read from TOML: what cannot be meant is refused with its line."""

from __future__ import annotations

import pytest

from models.spec import Task
from service.routes import BadRoutes, Ladder, Route, Routes, check, read

ROUTE = """
[[route]]
name = "one"
task = "ner"
"""
KNOWN = {"ner-base": Task.NER, "ner-tiny": Task.NER, "news-tiny": Task.CLASSIFICATION}


def test_an_empty_file_has_no_routes() -> None:
    assert read("") == read("# nothing yet") == Routes()


def test_a_route_is_read_as_it_is_written() -> None:
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
    check(routes, text, KNOWN)


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
        (ROUTE + "split = { ner-tiny = 0, ner-base = 1 }", "line 2: split[...]: Expected `float`"),
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
            "line 2: canary.max_disagreement: Expected `float` > 0.0",
        ),
        (ROUTE + "wieght = 3", "line 2: Object contains unknown field `wieght`"),
        (ROUTE + "policy = { prefer = 'good' }", "line 2: policy.prefer: Invalid enum value"),
        ("\n\n[[route]]\nname = 'x'\n", "line 3: Object missing required field `task`"),
        ("[ladder]\nup_s = 2", "ladder: up_s 2 must be below down_s 0.5"),
        ("[lader]\nup_s = 2", "Object contains unknown field `lader`"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(text: str, wrong: str) -> None:
    with pytest.raises(BadRoutes) as error:
        read(text)
    assert str(error.value).startswith(wrong)


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
    ],
)
def test_a_variant_that_is_not_there_is_refused_with_its_line(rest: str, wrong: str) -> None:
    text = ROUTE + rest
    with pytest.raises(BadRoutes, match=f"^line 2: route one: {wrong}"):
        check(read(text), text, KNOWN)
