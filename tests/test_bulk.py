"""A corpus in, the service's answers out: formats, limits, going on, a node that dies midway."""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import lzma
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from models import catalog, stored
from models.spec import Task, Windows
from service.settings import ROOT
from tests.test_serve import serving
from tests.tiny import NER_WORDS, write_variant

pa = pytest.importorskip("pyarrow", reason="needs requirements/bulk.txt")
pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("ray", reason="needs requirements/bulk.txt")

from service.bulk import files  # noqa: E402
from service.bulk.__main__ import _Progress as Progress  # noqa: E402
from service.bulk.__main__ import main  # noqa: E402
from service.bulk.parts import Ask, Done, Failed, Kind, Plan, Refused, Total, parts  # noqa: E402
from service.bulk.work import Job, Place, Worker, begun, ended, left  # noqa: E402

WINDOWS = Windows(tokens=16, overlap=4)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    write_variant(folder, "ner-int8", Task.NER, windows=WINDOWS)
    write_variant(folder, "ner-other", Task.NER, words={"Kano": "B-ORG"})
    write_variant(folder, "news-int8", Task.CLASSIFICATION, windows=WINDOWS)
    return folder


def texts_of_all_kinds(count: int) -> list[str]:
    """Short ones, articles of many windows, emoji, Ethiopic, marks, and nothing at all."""
    chance = random.Random(7)
    words = [*NER_WORDS, "kwallo", "banki", "😀", "👩🏽‍🌾", "አዲስ", "ọ́", "<pad>", "\u200b"]
    lengths = [0, 1, 5, 5, 12, 12, 30, 120]
    return [" ".join(chance.choices(words, k=chance.choice(lengths))) for _ in range(count)]


def asked(zoo: Path, variant: str = "ner-int8", **otherwise: Any) -> Ask:
    manifest = catalog.read(zoo / variant)
    fields: dict[str, Any] = {
        "task": manifest.task,
        "variant": variant,
        "digest": manifest.digest,
        "text": "text",
        "id": None,
        "prefix": "",
        "options": {},
        "kind": Kind.JSONL,
        "max_text": 5000,
        "part_rows": 16,
    }
    return msgspec.convert(fields | otherwise, Ask)


def tagged(
    zoo: Path, out: Path, *inputs: Path | str, single: bool = True, **otherwise: Any
) -> Total:
    """A whole run by one worker in this process."""
    ask, place = asked(zoo, **otherwise), Place(out=str(out), single=single)
    plan = begun(place, ask, [str(each) for each in inputs])
    if isinstance(plan, Total):
        return plan
    worker = worker_of(zoo, place, plan)
    for part in left(place, plan):
        came = worker.do(part)
        assert not isinstance(came, Failed), came
    return ended(place, plan)


def worker_of(zoo: Path, place: Place, plan: Plan) -> Worker:
    folder = str(zoo / plan.ask.variant)
    provider = "CPUExecutionProvider"
    return Worker(Job(place=place, plan=plan, variant=folder, provider=provider, batch_tokens=256))


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().split("\n") if line]


def write_lines(file: Path, rows: list[Any]) -> Path:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return file


# --- the service's answers ---------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["ner-int8", "news-int8"])
def test_answers_are_those_of_a_live_server(zoo: Path, tmp_path: Path, variant: str) -> None:
    texts = texts_of_all_kinds(300)
    corpus = write_lines(tmp_path / "in.jsonl", [{"n": n, "text": t} for n, t in enumerate(texts)])
    came = tagged(zoo, tmp_path / "out.jsonl", corpus, variant=variant, id="n")
    found = {row["n"]: row for row in lines(tmp_path / "out.jsonl")}
    aside = {row["id"]: row["reason"] for row in lines(tmp_path / "out.rejected.jsonl")}
    assert found.keys() | aside.keys() == set(range(len(texts))) and not found.keys() & aside.keys()
    assert (came.tagged, came.set_aside) == (len(found), len(aside))
    assert max(row["windows"] for row in found.values()) > 5
    home = tmp_path / "server"
    home.mkdir()
    route = "ner" if variant == "ner-int8" else "classify"
    with serving(zoo, home) as server, httpx.Client(base_url=server.url) as client:
        for number, text in enumerate(texts):
            reply = client.post(f"/v1/{route}", json={"inputs": text, "variant": variant})
            if number in aside:
                assert reply.status_code == 422
                assert reply.json()["errors"] == [{"pointer": "/inputs", "detail": aside[number]}]
                continue
            (result,) = reply.json()["results"]
            assert {name: found[number][name] for name in result} == result
            assert found[number]["text"] == text


def test_a_text_the_model_fails_on_is_set_aside_alone(zoo: Path, tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "in.jsonl", [{"text": t} for t in ("Kano", "bad", "Abuja")])
    place = Place(out=str(tmp_path / "out.jsonl"), single=True)
    plan = begun(place, asked(zoo), [str(corpus)])
    assert isinstance(plan, Plan)
    worker = worker_of(zoo, place, plan)

    class Failing:
        multiple = 1

        def __init__(self, session: Any, bad: list[int]) -> None:
            self._session, self._bad = session, bad

        def run(self, ids: Any, mask: Any, halt: Any = None) -> Any:
            if any(row[: len(self._bad)].tolist() == self._bad for row in ids):
                raise RuntimeError("bad")
            return self._session.run(ids, mask)

    good = worker._pipeline
    bad = good.encode("bad").windows[0].ids.tolist()
    worker._pipeline = type(good)(good.variant, good.encoder, Failing(good.session, bad))
    (part,) = left(place, plan)
    came = worker.do(part)
    assert not isinstance(came, Failed)
    assert (came.tagged, came.aside) == (2, {"the model failed on it": 1})


# --- formats -----------------------------------------------------------------------------------


def test_columns_of_parquet_are_carried_over_unchanged(zoo: Path, tmp_path: Path) -> None:
    texts = ["Sani Bello ya je Kano.", None, "", "ya je", "Abuja"] * 20
    table = pa.table(
        {
            "when": pa.array(range(100), pa.timestamp("ns", tz="Africa/Lagos")),
            "text": pa.array(texts, pa.large_string()),
            "tags": pa.array([["a", None], []] * 50),
            "kind": pa.array(["a", None] * 50, pa.dictionary(pa.int32(), pa.string())),
            "raw": pa.array([bytes([n]) for n in range(100)]),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=37)
    came = tagged(zoo, tmp_path / "out.parquet", tmp_path / "in.parquet", kind=Kind.PARQUET)
    assert came.aside == {"the text is empty": 20, "the text is missing": 20}
    written = pq.read_table(tmp_path / "out.parquet")
    kept = table.filter(pa.array([bool(text) for text in texts]))
    assert written.select(table.column_names).replace_schema_metadata(None) == kept
    assert written.column("entities")[0].as_py() == [
        {"label": "PER", "start": 0, "end": 10, "text": "Sani Bello",
         "score": pytest.approx(0.98, abs=0.02)},
        {"label": "LOC", "start": 17, "end": 21, "text": "Kano",
         "score": pytest.approx(0.98, abs=0.02)},
    ]  # fmt: skip
    manifest = catalog.read(zoo / "ner-int8")
    said = written.schema.metadata
    assert said[b"kadogo.variant"] == b"ner-int8"
    assert said[b"kadogo.digest"].decode() == manifest.digest


def test_fields_of_lines_are_carried_over_as_they_are_written(zoo: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(
        '{"big": 123456789012345678901234567890, "f": 1.10, "text": "Kano", "o": {"a": [1, "x"]}}\n'
        '{"text": "Abuja", "big": "not a number"}'
    )
    tagged(zoo, tmp_path / "out.jsonl", tmp_path / "in.jsonl")
    first, second = (tmp_path / "out.jsonl").read_text().splitlines()
    assert '"big":123456789012345678901234567890' in first and '"f":1.10' in first
    assert json.loads(second)["big"] == "not a number"


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("last", ["", "\n"])
def test_lines_are_read_however_they_are_packed(
    zoo: Path, tmp_path: Path, suffix: str, last: str
) -> None:
    packed: dict[str, Callable[[bytes], bytes]] = {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": partial(stored.pack, level=3),
    }
    texts = [f"Kano {number} \u2028 x" for number in range(100)]
    content = "\n".join(texts).encode() + last.encode()
    (tmp_path / f"in.txt{suffix}").write_bytes(packed[suffix](content))
    came = tagged(zoo, tmp_path / "out.jsonl", tmp_path / f"in.txt{suffix}")
    assert came.rows == came.tagged == 100
    found = lines(tmp_path / "out.jsonl")
    assert [(row["row"], row["text"]) for row in found] == list(enumerate(texts, 1))


def test_a_line_that_cannot_be_read_is_set_aside_and_not_repeated(
    zoo: Path, tmp_path: Path
) -> None:
    good = b'{"id": 1, "text": "Kano"}\n'
    bad = {
        b'{"id": 2, "text": "secret"': "the line is not JSON",
        b'["secret"]': "the line is not a JSON object",
        b'{"text": "\xff secret"}': "the line is not UTF-8",
        b"": "the line is not JSON",
        b'{"id": 6}': "the text is missing",
        b'{"id": 7, "text": 7}': "the text is not a string",
        b'{"text": "secret"}': "the id is missing",
        b'{"id": 10, "text": "' + b"secret" * 1000 + b'"}':
            "the text has more than 5000 characters",
        b'{"id": 11, "text": "\\ud83d secret"}':
            "half of a surrogate pair is missing in the line",
        b'{"id": 12, "text": "' + b"a" * (9 << 20) + b'"}': "the line is too long",
        b'{"id": 13, "text": "Kano", "by": "\\udc00"}':
            "half of a surrogate pair is missing in the line",
        b'{"id": "\\ud83d", "text": "Kano"}': "half of a surrogate pair is missing in the line",
        b'{"id": 15, "text": NaN}': "the line is not JSON",
    }  # fmt: skip
    corpus = tmp_path / "in.jsonl"
    corpus.write_bytes(b"\xef\xbb\xbf" + good + b"\n".join(bad) + b"\n" + good)
    came = tagged(zoo, tmp_path / "out.jsonl", corpus, id="id")
    assert (came.rows, came.tagged) == (15, 2)
    rejected = lines(tmp_path / "out.rejected.jsonl")
    assert [(row["row"], row["reason"]) for row in rejected] == list(enumerate(bad.values(), 2))
    ids = [None, None, None, None, 6, 7, None, 10, 11, None, 13, None, None]
    assert [row["id"] for row in rejected] == ids
    assert "secret" not in (tmp_path / "out.rejected.jsonl").read_text()


def test_half_of_a_pair_is_told_with_its_rows_id_in_parquet_too(zoo: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "in.jsonl"
    corpus.write_text('{"id": 1, "text": "Kano"}\n{"id": 2, "text": "\\ud83d"}\n')
    came = tagged(zoo, tmp_path / "out.parquet", corpus, id="id", kind=Kind.PARQUET)
    assert (came.rows, came.tagged) == (2, 1)
    [row] = lines(tmp_path / "out.rejected.jsonl")
    assert (row["id"], row["reason"]) == (2, "half of a surrogate pair is missing in the line")


def test_lines_become_columns_and_what_fits_none_is_set_aside(zoo: Path, tmp_path: Path) -> None:
    rows = [{"text": "Kano", "n": n, "o": {"a": 1}} for n in range(10_000)]
    rows += [
        {"text": "Kano", "n": "x"},
        {"text": "Kano", "n": 1, "new": 1},
        {"text": "Kano", "tokens": 1},
        {"text": "Kano", "o": {"a": 1, "b": 2}},
        {"text": "Abuja"},
    ]
    corpus = write_lines(tmp_path / "in.jsonl", rows)
    out = tmp_path / "out.parquet"
    came = tagged(zoo, out, corpus, kind=Kind.PARQUET, part_rows=4000)
    assert came.aside == {
        "a field does not fit its column": 2,
        "a field has the name of one of the answer's": 1,
        "a field is not among the output's columns": 1,
    }
    written = pq.read_table(out)
    assert written.num_rows == 10_001
    assert written.column("n").to_pylist() == [*range(10_000), None]


def test_topics_have_their_best_by_itself_and_names_may_have_a_prefix(
    zoo: Path, tmp_path: Path
) -> None:
    corpus = write_lines(tmp_path / "in.jsonl", [{"text": "kwallo kwallo", "label": "mine"}])
    out = tmp_path / "out.parquet"
    ask = {"variant": "news-int8", "kind": Kind.PARQUET}
    with pytest.raises(Refused, match="there is a column label already"):
        tagged(zoo, out, corpus, **ask)
    tagged(zoo, out, corpus, prefix="kadogo_", options={"top_k": 1}, **ask)
    (row,) = pq.read_table(out).to_pylist()
    assert (row["label"], row["kadogo_label"]) == ("mine", "sports")
    assert [each["label"] for each in row["kadogo_labels"]] == ["sports"]


def test_a_folder_is_read_whole_and_parts_lie_in_a_folder(zoo: Path, tmp_path: Path) -> None:
    for name, count in (("a/1.jsonl", 20), ("b/c/2.jsonl.gz", 5), ("_no/3.jsonl", 9), ("x.csv", 1)):
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        content = "".join(f'{{"text": "Kano", "at": "{name}"}}\n' for _ in range(count)).encode()
        file.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    out = tmp_path / "in" / "out"
    ask = {"kind": Kind.PARQUET, "single": False}
    came = tagged(zoo, out, tmp_path / "in", **ask)
    assert came.rows == 25
    assert sorted(each.name for each in out.iterdir()) == [
        "_bulk", "part-000000.parquet", "part-000001.parquet", "part-000002.parquet",
    ]  # fmt: skip
    assert (
        pq.read_table(out).column("at").to_pylist() == ["a/1.jsonl"] * 20 + ["b/c/2.jsonl.gz"] * 5
    )
    # What it wrote into the folder of its inputs is none of them.
    assert tagged(zoo, out, tmp_path / "in", **ask) == came


@pytest.mark.parametrize("out", ["out.jsonl", "out.parquet"])
@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.parquet"])
def test_an_empty_corpus_is_an_empty_file(zoo: Path, tmp_path: Path, name: str, out: str) -> None:
    if name == "in.parquet":
        pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / name)
    else:
        (tmp_path / name).touch()
    kind = Kind(out.removeprefix("out."))
    for _ in range(2):  # and so it is done
        came = tagged(zoo, tmp_path / out, tmp_path / name, kind=kind)
        assert (came.rows, came.tagged, came.set_aside) == (0, 0, 0)
    if kind is Kind.JSONL:
        assert (tmp_path / out).read_bytes() == b""
    else:
        written = pq.read_table(tmp_path / out)
        assert written.num_rows == 0
        assert {"entities", "tokens", "windows", "unknown"} <= set(written.column_names)
        assert ("text" in written.column_names) is (name != "in.jsonl")  # which has no columns yet


def test_an_object_store_takes_files_whole_or_not(zoo: Path) -> None:
    files.write("memory://bulk/in.jsonl", b'{"text": "Kano"}\n' * 40)
    out = Place(out="memory://bulk/out.jsonl", single=True)
    plan = begun(out, asked(zoo), ["memory://bulk/*.jsonl"])
    assert isinstance(plan, Plan)
    worker = worker_of(zoo, out, plan)
    for part in left(out, plan):
        worker.do(part)
    assert ended(out, plan).tagged == 40
    assert (files.read("memory://bulk/out.jsonl") or b"").count(b"\n") == 40
    with pytest.raises(ValueError), files.replacing("memory://bulk/half") as file:
        file.write(b"half")
        raise ValueError
    assert not files.exists("memory://bulk/half")


# --- going on ----------------------------------------------------------------------------------


def test_a_run_goes_on_where_it_was_stopped(zoo: Path, tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "in.jsonl", [{"text": f"Kano {n}"} for n in range(100)])
    place = Place(out=str(tmp_path / "out.jsonl"), single=True)
    ask = asked(zoo)
    plan = begun(place, ask, [str(corpus)])
    assert isinstance(plan, Plan)
    cut = list(parts(plan))
    worker = worker_of(zoo, place, plan)
    for part in cut[1::2]:
        worker.do(part)
    # Killed between a part and its receipt, which comes last.
    Path(place.receipt(cut[3].index)).unlink()
    assert begun(place, ask, [str(corpus)]) == plan
    assert [part.index for part in left(place, plan)] == [0, 2, 3, 4, 6]
    with pytest.raises(Refused, match="5 parts are not to be seen"):
        ended(place, plan)
    assert tagged(zoo, tmp_path / "out.jsonl", corpus).tagged == 100
    assert [row["text"] for row in lines(tmp_path / "out.jsonl")] == [
        f"Kano {n}" for n in range(100)
    ]
    assert not Path(place.folder).exists()


def test_another_run_in_the_same_place_is_refused(zoo: Path, tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "in.jsonl", [{"text": "Kano"}])
    out = tmp_path / "out.jsonl"
    place = Place(out=str(out), single=True)
    begun(place, asked(zoo), [str(corpus)])
    for _ in range(2):  # on its way, and done
        with pytest.raises(Refused, match='variant was "ner-int8", now it is "ner-other"'):
            tagged(zoo, out, corpus, variant="ner-other")
        tagged(zoo, out, corpus)
    write_lines(corpus, [{"text": "Kano"}, {"text": "Abuja"}])
    with pytest.raises(Refused, match="the inputs are not the same or have changed"):
        tagged(zoo, out, corpus)


def test_what_is_no_runs_is_not_written_over(zoo: Path, tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "in.jsonl", [{"text": "Kano"}])
    out = tmp_path / "out.jsonl"
    out.write_text("mine")
    with pytest.raises(Refused, match="is there already and no run's"):
        tagged(zoo, out, corpus)
    assert out.read_text() == "mine"


# --- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["none.jsonl"], "none.jsonl: there is no such file"),
        (["in.csv"], "in.csv: CSV is not read; make it JSON lines (.jsonl) or Parquet"),
        (["in.docx"], "in.docx: its name ends in none that is read: .parquet .pq"),
        (["s3://bucket/in.jsonl"], "s3fs"),
        (["nonsense://in.jsonl"], "Protocol not known: nonsense"),
        (["in.jsonl", "--variant", "ner-large"], "there is no variant ner-large"),
        (["in.jsonl", "--out", "out.csv"], "give a name in .parquet or .jsonl"),
        (["in.jsonl", "--text-column", "body"], "there is no column body: there are text"),
        (
            ["in.jsonl", "--parameters", '{"minscore": 1}'],
            "--parameters: unknown field; did you mean min_score? "
            "known are min_score, aggregation, offset_unit\n",
        ),
        (["mixed.jsonl", "--out", "out.parquet"], "the field n holds values of several kinds"),
        (["in.jsonl", "--address", "127.0.0.1:1"], "--address 127.0.0.1:1: nothing answers there"),
        (["in.jsonl", "--address", "auto"], "give HOST:PORT of the cluster's head"),
        (["in.jsonl", "in.parquet"], "the inputs are of several kinds"),
        (["number.parquet", "--text-column", "n"], "column n is int64, not text"),
        (["broken.parquet"], "an input cannot be read"),
        (["broken.jsonl.gz"], "an input cannot be read"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    zoo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    line: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KADOGO_CATALOG", str(zoo))
    write_lines(tmp_path / "in.jsonl", [{"text": "Kano"}])
    write_lines(tmp_path / "mixed.jsonl", [{"text": "Kano", "n": n} for n in (1, "x")])
    (tmp_path / "in.csv").touch()
    (tmp_path / "in.docx").touch()
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "broken.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:-20])
    pq.write_table(pa.table({"text": ["Kano"]}), tmp_path / "in.parquet")
    pq.write_table(pa.table({"n": [1]}), tmp_path / "number.parquet")
    assert main(["tag", "--variant", "ner-int8", "--out", "out.jsonl", *words]) == 2
    told = capsys.readouterr().err
    assert line in told and told.count("\n") == 1


@pytest.mark.parametrize("out", ["/dev/null/out.jsonl", "/dev/null/out", "/proc/out.jsonl"])
def test_a_place_that_cannot_be_written_is_told_in_one_line(
    zoo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    out: str,
) -> None:
    monkeypatch.setenv("KADOGO_CATALOG", str(zoo))
    corpus = write_lines(tmp_path / "in.jsonl", [{"text": "Kano"}])
    assert main(["tag", str(corpus), "--variant", "ner-int8", "--out", out]) == 2
    told = capsys.readouterr().err
    assert told.startswith(out.removesuffix(".jsonl")) and told.count("\n") == 1


def test_a_full_disk_is_told_in_one_line(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("KADOGO_CATALOG", str(zoo))
    monkeypatch.setattr(os, "fsync", full)
    corpus = write_lines(tmp_path / "in.jsonl", [{"text": "Kano"}])
    out = tmp_path / "out.jsonl"
    assert main(["tag", str(corpus), "--variant", "ner-int8", "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert told == f"{out}: No space left on device\n"


@pytest.mark.parametrize("live", [True, False])
def test_progress_is_a_bar_where_somebody_looks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], live: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: live)
    monkeypatch.setattr("service.bulk.__main__.EVERY", 0.0)
    progress = Progress(rows=300, todo=200)
    for part in range(2):
        progress.add(Done(part=part, rows=100, tagged=100, aside={}, began=0.0, ended=1.0))
    told = capsys.readouterr().err
    assert ("[#############-------]  66 % 200 of 300 rows" in told) is live
    assert ("[####################] 100 % 300 of 300 rows" in told) is live
    assert "200 of 300 rows, " in told and told.count("\n") == (1 if live else 3)


# Ray's workers give way to everything else on the machine, other tests too.
EAGER = {"RAY_worker_niceness": "0"}


@contextlib.contextmanager
def running(zoo: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The command as people type it, stopped at the end."""
    ours = {name: v for name, v in os.environ.items() if not name.startswith(("KADOGO", "RAY_"))}
    run = subprocess.Popen(
        [sys.executable, "-m", "service.bulk", "tag", *words],
        cwd=ROOT,
        env=ours | EAGER | {"KADOGO_CATALOG": str(zoo)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield run
    finally:
        run.terminate()
        try:
            run.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            run.kill()
            raise


def long_corpus(file: Path, rows: int) -> Path:
    """Long enough that something can happen meanwhile."""
    texts = [f"Sani Bello ya je Kano {n} " + "ya je " * 60 for n in range(rows)]
    pq.write_table(pa.table({"id": range(rows), "text": texts}), file)
    return file


def receipts(folder: Path) -> int:
    return len(list((folder / "_bulk").glob("*.done.json")))


def listening(pid: int) -> Iterator[Any]:
    """The open ports of a process and of all that it started."""
    run = psutil.Process(pid)
    for each in (run, *run.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            yield from (c for c in each.net_connections("tcp") if c.status == psutil.CONN_LISTEN)


def until_begun(folder: Path, run: subprocess.Popen[str], some: int) -> None:
    for _ in range(1200):
        if receipts(folder) >= some:
            return
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    raise AssertionError("nothing was done in two minutes")


def test_a_killed_run_goes_on_and_its_status_says_what_came(zoo: Path, tmp_path: Path) -> None:
    corpus = long_corpus(tmp_path / "in.parquet", 2000)
    out = tmp_path / "out.parquet"
    folder = tmp_path / "out.parquet.parts"
    words = [str(corpus), "--variant", "ner-int8", "--out", str(out), "--part-rows", "20"]
    with running(zoo, *words) as first:
        until_begun(folder, first, 2)
        heard = [each.laddr.ip for each in listening(first.pid)]
        first.terminate()
        first.communicate(timeout=60)
    assert first.returncode != 0 and not out.exists()
    assert 2 <= receipts(folder) < 100
    # Whoever reaches Ray may run what he likes.
    assert heard and {each.removeprefix("::ffff:") for each in heard} == {"127.0.0.1"}
    with running(zoo, *words) as again:
        told, log = again.communicate(timeout=300)
    assert again.returncode == 0, log
    assert "2000 rows: 2000 tagged, 0 set aside" in told and "going on: " in log
    assert pq.read_table(out).column("id").to_pylist() == list(range(2000))
    assert not folder.exists()


def test_rows_set_aside_show_in_the_status(zoo: Path, tmp_path: Path) -> None:
    corpus = write_lines(tmp_path / "in.jsonl", [{"text": "Kano"}, {"text": " "}])
    words = [str(corpus), "--variant", "ner-int8", "--out", str(tmp_path / "out")]
    for log in ("which they are, and why", "done before"):
        with running(zoo, *words) as run:
            told, errors = run.communicate(timeout=300)
        assert run.returncode == 1, errors
        assert "2 rows: 1 tagged, 1 set aside" in told and "1 set aside: the text is empty" in told
        assert log in errors


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    for name, value in EAGER.items():
        monkeypatch.setenv(name, value)
    size = {"num_cpus": 1, "object_store_memory": 100 << 20, "node_ip_address": "127.0.0.1"}
    two = Cluster(initialize_head=True, head_node_args={"include_dashboard": False, **size})
    try:
        two.add_node(**size)
        yield two
    finally:
        two.shutdown()


def test_a_node_that_dies_midway_loses_nothing_and_doubles_nothing(
    zoo: Path, tmp_path: Path, cluster: Any
) -> None:
    corpus = long_corpus(tmp_path / "in.parquet", 3000)
    out = tmp_path / "out"
    words = [str(corpus), "--variant", "ner-int8", "--id-column", "id", "--part-rows", "10"]
    with running(zoo, *words, "--out", str(out), "--address", cluster.address) as run:
        until_begun(out, run, 20)
        (worker,) = cluster.worker_nodes
        cluster.remove_node(worker, allow_graceful=False)
        assert receipts(out) < 300
        told, log = run.communicate(timeout=300)
    assert run.returncode == 0, log
    assert "3000 rows: 3000 tagged, 0 set aside" in told
    assert sorted(pq.read_table(out).column("id").to_pylist()) == list(range(3000))
