"""Keys: made once, kept as hashes, read with the line that is wrong, found by their token."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.errors import BadSetting
from service import keys
from service.keys import KeyChanges, Scope
from service.rate import Rate
from service.settings import ROOT

GOOD = """\
# who asks
[[key]]
name = "newsroom"
sha256 = "{}"
scopes = ["infer"]
rate = {{requests = 600, seconds = 60, burst = 100}}

[[key]]
name = "operator"
sha256 = "{}"
scopes = ["admin"]
""".format(hashlib.sha256(b"one").hexdigest(), hashlib.sha256(b"two").hexdigest())


def read(folder: Path, text: str) -> keys.Keys:
    file = folder / "keys.toml"
    file.write_text(text)
    return keys.read(file, keys.text_of(file))


def test_a_key_is_found_by_its_token_alone(tmp_path: Path) -> None:
    known = read(tmp_path, GOOD)
    newsroom, operator = known.every
    assert known.find(b"one") is newsroom
    assert known.find(b"two") is operator
    hashes = [key.sha256.encode() for key in known.every]
    for wrong in (b"", b"three", b"one ", b"newsroom", b"\xff", *hashes):
        assert known.find(wrong) is None


def test_a_key_says_what_it_may_and_how_much(tmp_path: Path) -> None:
    newsroom, operator = read(tmp_path, GOOD).every
    assert newsroom.rate == Rate(requests=600, seconds=60, burst=100)
    assert operator.rate is None
    assert [newsroom.may(scope) for scope in (Scope.INFER, Scope.ADMIN)] == [True, False]
    assert [operator.may(scope) for scope in (Scope.INFER, Scope.ADMIN)] == [True, True]


def test_a_key_is_revoked_by_its_hash_and_limited_by_its_name(tmp_path: Path) -> None:
    known = read(tmp_path, GOOD)
    newsroom, operator = known.every
    rate = Rate(requests=5)
    limited = known.changed(KeyChanges(rates={"newsroom": None, "operator": rate, "other": rate}))
    assert [(key.name, key.rate) for key in limited.every] == [
        ("newsroom", None),
        ("operator", rate),
    ]
    left = known.changed(KeyChanges(revoked={newsroom.sha256: "newsroom", "0" * 64: "operator"}))
    assert left.every == (operator,)
    assert left.find(b"one") is None and left.find(b"two") is operator
    assert left.named("operator") is operator and left.named("newsroom") is None


def test_what_the_workers_share_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text(GOOD)
    assert keys.text_of(file) == GOOD
    file.write_text(GOOD + "[[key")  # half edited: it may be mended yet
    with pytest.raises(BadSetting, match="is not TOML"):
        keys.text_of(file)


@pytest.mark.parametrize(
    ("wrong", "right", "line", "told"),
    [
        ('name = "SECRET key"', 'name = "newsroom"', 3, "name must be 1 to 64 of a-z 0-9"),
        ('name = "newsroom"', 'name = "operator"', 9, "another key has the same name"),
        ('sha256 = "SECRET"', r'sha256 = "\w+"', 4, "sha256 must be 64 hexadecimal digits"),
        (
            'scopes = ["SECRET"]',
            r'scopes = \["infer"\]',
            5,
            "scopes must be a list of infer, admin",
        ),
        ("scopes = []", r'scopes = \["admin"\]', 11, "scopes must be a list of infer, admin"),
        ("", r'scopes = \["admin"\]', 8, "this key has no scopes"),
        ("requests = 0", "requests = 600", 6, "rate must be as {requests = 600,"),
        ("SECRET = 1", "seconds = 60", 6, "rate must be as {requests = 600,"),
        ('rate = "SECRET"', r"rate = .*", 6, "rate must be as {requests = 600,"),
        ('token = "SECRET"', r"rate = .*", 6, "a key has name, sha256, scopes, rate and no other"),
        ("SECRET SECRET", r"rate = .*", 6, "is not TOML"),
        ('"SECRET', r'"newsroom"', 3, "is not TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_not_repeated(
    tmp_path: Path, wrong: str, right: str, line: int, told: str
) -> None:
    with pytest.raises(BadSetting) as error:
        read(tmp_path, re.sub(right, lambda _: wrong, GOOD, count=1))
    assert f"line {line}" in str(error.value)
    assert told in str(error.value)
    assert str(error.value).startswith("KADOGO_KEYS: ")
    assert "SECRET" not in str(error.value)


def test_a_rate_in_a_table_of_its_own_is_found_too(tmp_path: Path) -> None:
    wrong = GOOD + "[key.rate]\nrequests = -1\n"
    with pytest.raises(BadSetting, match="line 12: rate must be"):
        read(tmp_path, wrong)


@pytest.mark.parametrize("text", ["", "key = 1", "[key]\nname = 'a'\n", "SECRET = 1", "key = []"])
def test_a_file_without_keys_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadSetting, match=r"must hold \[\[key\]\] tables") as error:
        read(tmp_path, text)
    assert "SECRET" not in str(error.value)


def test_two_keys_with_one_token_are_refused(tmp_path: Path) -> None:
    same = GOOD.replace(hashlib.sha256(b"two").hexdigest(), hashlib.sha256(b"one").hexdigest())
    with pytest.raises(BadSetting, match="line 10: another key has the same sha256"):
        read(tmp_path, same)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadSetting, match="cannot be read"):
        keys.text_of(tmp_path / "keys.toml")
    with pytest.raises(BadSetting, match="cannot be read"):
        keys.text_of(tmp_path)


def test_made_keys_are_read_back(tmp_path: Path) -> None:
    limits = (None, Rate(requests=5, seconds=1), Rate(requests=600, seconds=60, burst=7))
    made = [keys.new(f"key-{n}", [*Scope][n % 2 :], r) for n, r in enumerate(limits)]
    known = read(tmp_path, "\n".join(lines for _, lines in made))
    for (token, lines), rate in zip(made, limits, strict=True):
        found = known.find(token.encode())
        assert found is not None and found.rate == rate
        assert token not in lines
        assert re.fullmatch(r"kadogo_[A-Za-z0-9_-]{43}", token)
    assert len({token for token, _ in made}) == len(made)


def new(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "service.keys", "new", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_command_prints_the_lines_and_shows_the_token_aside(tmp_path: Path) -> None:
    done = new("newsroom", "--scope", "infer", "--rate", "600/60", "--burst", "100")
    assert done.returncode == 0
    [key] = read(tmp_path, done.stdout).every
    assert key.name == "newsroom" and key.rate == Rate(requests=600, seconds=60, burst=100)
    token = done.stderr.split()[-1]
    assert read(tmp_path, done.stdout).find(token.encode()) == key
    assert token not in done.stdout


def test_without_a_scope_a_key_may_only_infer(tmp_path: Path) -> None:
    [key] = read(tmp_path, new("newsroom").stdout).every
    assert key.scopes == (Scope.INFER,) and key.rate is None


RATE = "--rate is as 600/60, --burst a whole number with it, all of them of 1 to a billion\n"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("News room",), "NAME is 1 to 64 of a-z 0-9 . _ -, the first a letter or a digit\n"),
        (("a", "--rate", "6"), RATE),
        (("a", "--burst", "6"), RATE),
        (("a", "--rate", "0/60"), RATE),
        (("a", "--scope", "root"), "invalid choice: 'root' (choose from 'infer', 'admin')\n"),
        ((), "the following arguments are required: name\n"),
    ],
)
def test_the_command_says_what_it_wants(words: tuple[str, ...], wanted: str) -> None:
    done = new(*words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.endswith(wanted)
    assert "python -m service.keys" in done.stderr and "Traceback" not in done.stderr


def test_the_command_needs_nothing_but_the_standard_library_and_msgspec() -> None:
    """So that a key can be made where the server is not installed whole, and at once."""
    probe = (
        "import sys, service.keys; print({'bentoml', 'onnxruntime', 'numpy'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", probe]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
