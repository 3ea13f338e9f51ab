"""Values of flags that make no sense are refused in a sentence that says what would."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import pytest

from loadtest.flags import above_0, address, count, from_0, told


@pytest.mark.parametrize(
    ("flag", "text", "value"),
    [(count, "1", 1), (above_0, "1e-3", 0.001), (from_0, "0", 0.0), (from_0, "2.5", 2.5)],
)
def test_what_makes_sense_is_read(flag: Callable[[str], float], text: str, value: float) -> None:
    assert flag(text) == value


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("http://127.0.0.1:3201/", "http://127.0.0.1:3201"),
        ("127.0.0.1:3201", "http://127.0.0.1:3201"),
        ("localhost", "http://localhost"),
        ("https://kadogo.example/behind/", "https://kadogo.example/behind"),
    ],
)
def test_an_address_may_end_in_a_slash_and_lack_its_scheme(text: str, host: str) -> None:
    assert address(text) == host


@pytest.mark.parametrize(
    ("flag", "texts", "sentence"),
    [
        (count, ["0", "-1", "1.5", "many", ""], "is not a whole number, 1 or more"),
        (above_0, ["0", "-1", "nan", "inf", "x"], "is not a number above 0"),
        (
            address,
            ["", "http://", "ftp://a", "http://a:b"],
            "is no server's address: http://HOST:3000 is one",
        ),
        (from_0, ["-0.1", "nan", "inf", "x"], "is not a number, 0 or more"),
    ],
)
def test_what_does_not_is_refused(
    flag: Callable[[str], float], texts: list[str], sentence: str
) -> None:
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError, match=f"^{text} {sentence}$"):
            flag(text)


def test_the_command_that_is_told_is_the_one_that_ran() -> None:
    asked = {"climb": 0.0, "seed": 0, "rate": 154.1234567, "open": 40.0, "p99_ms": None}
    rest = {"search": True, "promises": "", "again": False, "texts": "my texts-1.0", "run": told}
    assert told("compare", argparse.Namespace(**asked, **rest)) == (
        "python -m loadtest compare --climb 0 --seed 0 --rate 154.1234567 --open 40 --search "
        "--texts 'my texts-1.0'"
    )
