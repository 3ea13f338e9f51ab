"""The comparison with other servers: its parts on known input, all of it, short, on one peer."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from build.errors import BuildError
from build.plain_files import write_plain_files
from loadtest.faults import client
from loadtest.peers import tune
from loadtest.peers.check import agreement
from loadtest.peers.contests import CONTESTS, OTHERS, chosen, runners_of
from loadtest.peers.files import ZOO
from loadtest.peers.load import offer, rates
from loadtest.peers.measure import Found, Stretch, keep_whole, seconds_at
from loadtest.peers.ner import Ner, grouped
from loadtest.peers.peers import KADOGO, PEERS, ROOT, Entity
from loadtest.peers.report import markdown, outcome, verdict
from loadtest.peers.sentences import sentences
from loadtest.peers.server import command_of
from loadtest.peers.settings import Settings
from loadtest.peers.tune import GRIDS, tuned
from loadtest.process import NotServing
from models import catalog
from models.spec import Aggregation, NerAnswer, Options
from tests.interrupted import interruptible
from tests.scripted import Reply, scripted

# --- what peers say ---------------------------------------------------------------------------


class Pieces:
    """As the tokenizers library says them: a special, pieces with their spaces, a special."""

    offsets = ((0, 0), (0, 4), (4, 10), (10, 13), (13, 18), (0, 0))
    special_tokens_mask = (1, 0, 0, 0, 0, 1)


def test_pieces_become_entities_as_the_pipelines_simple_strategy_groups_them() -> None:
    text = "Sani Bello ya Kano"
    labels = ["O", "B-PER", "I-PER", "O", "I-LOC", "O"]
    found = list(grouped(text, Pieces(), labels, [1, 0.9, 0.7, 1, 0.6, 1]))
    assert found == [
        {"label": "PER", "start": 0, "end": 10, "score": pytest.approx(0.8)},
        {"label": "LOC", "start": 14, "end": 18, "score": 0.6},
    ]


def test_a_begin_tag_parts_neighbours_of_one_kind() -> None:
    labels = ["O", "B-PER", "B-PER", "I-LOC", "O", "O"]
    found = list(grouped("Sani Bello ya Kano", Pieces(), labels, [1] * 6))
    assert [(each["label"], each["start"], each["end"]) for each in found] == [
        ("PER", 0, 4), ("PER", 5, 10), ("LOC", 11, 13),
    ]  # fmt: skip


def test_the_plain_reader_answers_as_the_model_does(tmp_path: Path) -> None:
    write_plain_files(ZOO / "ner-int8", tmp_path / "ner-int8")
    ner = Ner(tmp_path / "ner-int8", threads=1)
    pipeline = catalog.open_variant(ZOO / "ner-int8")
    texts = [
        "Shugaba Bola Tinubu ya gana da gwamnan Kano a Abuja ranar Litinin.",
        "Rais Samia Suluhu Hassan alizungumza jijini Dodoma siku ya Jumatatu.",
        "",
    ]
    for text, plain in zip(texts, ner(texts), strict=True):
        (own,) = pipeline.answer([text], Options(aggregation=Aggregation.SIMPLE))
        assert isinstance(own, NerAnswer)
        wanted = [(each.label, each.start, each.end) for each in own.entities]
        assert [(each["label"], each["start"], each["end"]) for each in plain] == wanted


def test_files_for_others_are_written_once_and_never_over_other_weights(tmp_path: Path) -> None:
    write_plain_files(ZOO / "ner-tiny", tmp_path / "one")
    before = (tmp_path / "one" / "model.onnx").stat().st_mtime_ns
    write_plain_files(ZOO / "ner-tiny", tmp_path / "one")
    assert (tmp_path / "one" / "model.onnx").stat().st_mtime_ns == before
    with pytest.raises(BuildError, match="remove it"):
        write_plain_files(ZOO / "ner-small", tmp_path / "one")


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for labels in (None, "{}", "not JSON"):
        if labels:
            (tmp_path / "labels.json").write_text(labels)
        with pytest.raises(BuildError, match="holds something else: remove it"):
            write_plain_files(ZOO / "ner-tiny", tmp_path)


def test_a_baselines_files_open_in_transformers_and_answer_the_same(tmp_path: Path) -> None:
    from transformers import pipeline as transformers_pipeline

    write_plain_files(ZOO / "ner-base", tmp_path / "ner-base", network=True)
    theirs = transformers_pipeline(
        "token-classification", model=str(tmp_path / "ner-base"), aggregation_strategy="simple"
    )
    text = "Shugaba Bola Tinubu ya gana da gwamnan Kano a Abuja ranar Litinin."
    (own,) = catalog.open_variant(ZOO / "ner-base").answer(
        [text], Options(aggregation=Aggregation.SIMPLE)
    )
    assert isinstance(own, NerAnswer)
    wanted = [(each.label, each.start, each.end) for each in own.entities]
    assert [(each["entity_group"], each["start"], each["end"]) for each in theirs(text)] == wanted


# --- wires ------------------------------------------------------------------------------------

ANSWERS = {
    "bentoml": [[{"label": "LOC", "start": 0, "end": 4, "score": 0.5}]],
    "mlserver": {"outputs": [{"data": ['[{"label": "LOC", "start": 0, "end": 4, "score": 0.5}]']}]},
    KADOGO: {"results": [{"entities": [{"label": "LOC", "start": 0, "end": 4, "score": 0.5}]}]},
}
PLAIN = {"entities": [{"label": "LOC", "start": 0, "end": 4, "score": 0.5}]}


@pytest.mark.parametrize("name", PEERS)
def test_every_wire_is_read_to_the_same_entities_and_carries_its_mark(name: str) -> None:
    body = json.dumps(ANSWERS.get(name, PLAIN), separators=(",", ":")).encode()
    assert PEERS[name].entities(body) == (Entity("LOC", 0, 4, 0.5),)
    assert PEERS[name].mark.encode() in body


@pytest.mark.parametrize("name", OTHERS)
def test_every_peer_has_a_server_pinned_requirements_and_a_grid(name: str) -> None:
    folder = ROOT / "loadtest" / "peers" / name
    lines = (folder / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins and all("==" in line for line in pins)
    assert (folder / "server.py").is_file()
    assert tuned(name, "ner-base") in GRIDS[name]
    assert f"### {PEERS[name].shown}" in (folder.parent / "README.md").read_text()


def test_answers_are_the_same_only_with_spans_and_labels() -> None:
    one = [Entity("LOC", 0, 4, 0.5)], [Entity("PER", 0, 4, 0.5)], []
    other = [Entity("LOC", 0, 4, 0.4)], [Entity("PER", 0, 5, 0.5)], []
    found = agreement(one, other)
    assert (found.texts, found.same) == (3, 2)
    assert found.apart == pytest.approx(0.1)


# --- figures ----------------------------------------------------------------------------------


def test_answers_a_second_leave_out_the_warm_up() -> None:
    assert rates([0.5, 1.1, 1.9, 2.5, 3.5], after_s=1, seconds=2) == (2, 1)
    assert rates([1.1, 1.2], after_s=1, seconds=0.5) == (4,)


def test_the_interval_of_a_ratio_covers_the_truth_as_often_as_it_says() -> None:
    chance = np.random.default_rng(5)
    (contest,) = chosen(["starlette"], ["fp32"])
    covered = 0
    for _ in range(60):
        pace = chance.normal(1, 0.2, size=(8, 1))  # what slows a round slows both
        ours = pace * chance.normal(120, 12, size=(8, 6))
        theirs = pace * chance.normal(100, 10, size=(8, 6))
        found = outcome(contest, found_with(ours, theirs)).best
        covered += found.low <= 1.2 <= found.high
    assert covered >= 50


def test_p99_is_a_value_that_was_measured() -> None:
    (contest,) = chosen(["starlette"], ["fp32"])
    found = found_of(150, {"starlette": 100})
    for stretches in found.stretches.values():
        stretches[:] = [replace(stretches[0], latencies={70.0: tuple(np.arange(1.0, 101.0))})]
    assert outcome(contest, found).rows[0].p99_ms.mean == pytest.approx(99_000)


def stretch(rate: float, wait_s: float, failed: int = 0) -> Stretch:
    return Stretch(
        rates=(rate, rate * 1.02),
        cpu_s=0.004,
        latencies={70.0: (wait_s,) * 50},
        failed=failed,
        lag_s=0.001,
        memory_bytes=200_000_000,
        start_s=2.0,
    )


def found_of(kadogo: float, others: dict[str, float], *, failed: int = 0) -> Found:
    found = Found(offered={"fp32": 70.0})
    (contest,) = chosen(list(others), ["fp32"])
    for runner in contest.runners:
        rate = kadogo if runner.peer == KADOGO else others[runner.peer]
        wait = 0.01 if runner.peer == KADOGO else 0.02
        found.stretches[runner] = [stretch(rate, wait, failed) for _ in range(3)]
    return found


def found_with(ours: Any, theirs: Any) -> Found:
    """Of Kadogo and Starlette, their rates second by second, a line a round."""
    found = found_of(150, {"starlette": 100})
    for stretches, rounds in zip(found.stretches.values(), (ours, theirs), strict=True):
        stretches[:] = [replace(stretches[0], rates=tuple(each)) for each in rounds]
    return found


def test_the_verdict_names_the_fastest_other_and_what_became_of_the_target() -> None:
    (contest,) = chosen(["starlette", "mosec"], ["fp32"])
    told = outcome(contest, found_of(150, {"starlette": 100, "mosec": 90}))
    assert [row.runner.peer for row in told.rows] == [KADOGO, "starlette", "mosec"]
    assert told.best.mean == pytest.approx(1.5)
    assert "Starlette" in verdict(told) and "surely the 1.2 x" in verdict(told)
    assert "p99 is below every other's" in verdict(told)
    slower = outcome(contest, found_of(110, {"starlette": 100, "mosec": 90}))
    assert "short of the 1.2 x" in verdict(slower)


def test_a_contest_is_won_by_the_rate_and_the_p99_where_all_went_right() -> None:
    (contest,) = chosen(["starlette"], ["fp32"])
    assert outcome(contest, found_of(150, {"starlette": 100})).kept
    assert not outcome(contest, found_of(110, {"starlette": 100})).kept
    assert not outcome(contest, found_of(150, {"starlette": 100}, failed=1)).kept
    late, waits = found_of(150, {"starlette": 100}), found_of(150, {"starlette": 100})
    for found, change in ((late, {"lag_s": 0.02}), (waits, {"latencies": {70.0: (0.02,) * 50}})):
        ours = found.stretches[contest.kadogo]
        ours[:] = [replace(each, **change) for each in ours]
        assert not outcome(contest, found).kept


def test_a_verdict_that_is_not_to_be_believed_says_so() -> None:
    (contest,) = chosen(["starlette"], ["fp32"])
    good, bad = found_of(150, {"starlette": 100}), found_of(150, {"starlette": 100}, failed=1)
    assert "believed" not in verdict(outcome(contest, good))
    told = verdict(outcome(contest, bad))
    assert "p99 is below its" in told and told.endswith(" Not to be believed: requests failed.")
    theirs = bad.stretches[contest.others[0]]
    theirs[:] = [replace(each, lag_s=0.02) for each in theirs]
    told = verdict(outcome(contest, bad))
    assert told.endswith(" Not to be believed: requests failed and requests went out late.")
    assert "p99" not in told


def test_who_refuses_most_has_no_p99() -> None:
    (contest,) = chosen(["starlette"], ["fp32"])
    found = found_of(150, {"starlette": 100})
    refusing = {70.0: (0.001,) * 10 + (math.inf,) * 40}
    ours = found.stretches[contest.kadogo]
    ours[:] = [replace(each, latencies=refusing) for each in ours]
    told = outcome(contest, found)
    assert not told.quicker and "p99 is not surely below its" in verdict(told)
    text = markdown([told], {"processor": "any"})
    assert "| never [0, never] |" in text and "of 150 requests to each or more" in text


@pytest.mark.parametrize(("rate", "seconds"), [(273, 3), (78.4, 6.4), (16.1, 31.1), (2, 60)])
def test_a_slow_server_is_given_the_time_for_its_p99(rate: float, seconds: float) -> None:
    assert seconds_at(rate, 3.0) == pytest.approx(seconds, abs=0.05)


def test_what_is_offered_and_fails_takes_for_ever() -> None:
    with scripted(lambda number: Reply(status=503 if number % 5 else 200)) as server:
        body = b'{"inputs": "Kano"}'
        found = offer(server.url, "/ner", [body], '"entities"', rate=100, seconds=0.5, seed=1)
    assert 0 < found.failed < len(found.latencies_s)
    assert sum(map(math.isinf, found.latencies_s)) == found.failed


def test_what_was_broken_off_is_told_of_its_whole_rounds_and_proves_nothing() -> None:
    (contest,) = chosen(["starlette"], ["fp32"])
    found = found_of(150, {"starlette": 100})
    del found.stretches[contest.kadogo][2:]
    keep_whole(found, contest.runners, 4, NotServing("starlette did not answer:\nits log"))
    assert [len(each) for each in found.stretches.values()] == [2, 2]
    told = outcome(contest, found)
    said = "broken off after 2 of 4 rounds: starlette did not answer:"
    assert not told.kept and verdict(told) == f"Nothing is proved: {said}."
    assert said in markdown([told], {})
    found.stretches[contest.kadogo].clear()
    with pytest.raises(KeyboardInterrupt):
        keep_whole(found, contest.runners, 4, KeyboardInterrupt())


def test_failed_requests_are_told_in_the_report() -> None:
    (contest,) = chosen(["starlette"], ["fp32"])
    told = outcome(contest, found_of(150, {"starlette": 100}, failed=2))
    assert "6 requests failed" in markdown([told], {"processor": "any"})


def test_each_server_with_a_model_runs_once_a_round() -> None:
    runners = runners_of(CONTESTS)
    assert len(runners) == len(set(runners))
    assert {runner.peer for runner in runners} == set(PEERS)


def test_settings_are_shown_in_a_word() -> None:
    assert str(Settings(workers=2)) == "2 x 1 x 1"
    assert str(Settings(batch=8, wait_ms=1.0)) == "1 x 1 x 1, batch 8, 1 ms"


# --- all of it --------------------------------------------------------------------------------


def short_run(tmp_path: Path, *flags: str) -> list[str]:
    write_plain_files(ZOO / "ner-int8", tmp_path / "files" / "ner-int8")
    # What Starlette and onnxruntime need is in the environment of the tests.
    (tmp_path / "environments").mkdir()
    (tmp_path / "environments" / "starlette").symlink_to(Path(sys.executable).parents[1])
    command = [sys.executable, "-m", "loadtest.peers", "--files", str(tmp_path / "files")]
    command += ["--environments", str(tmp_path / "environments"), "run", "--names", "starlette"]
    command += ["--contests", "int8", "--seconds", "1", "--warmup", "0.5"]
    return [*command, "--out", str(tmp_path / "reports"), *flags]


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
@pytest.mark.parametrize("seed", [1, 2])
def test_what_every_server_is_asked_fills_no_more_than_a_window(seed: int) -> None:
    encoder = catalog.open_variant(ZOO / "ner-int8").encoder
    asked = sentences(512, seed)
    assert len(asked) == 512 and all(len(encoder.encode(text).windows) == 1 for text in asked)


def test_a_short_run_compares_a_peer_with_kadogo(tmp_path: Path) -> None:
    command = short_run(tmp_path, "--rounds", "1")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "reports" / "peers.json").read_text())
    (contest,) = told["contests"]
    kadogo, starlette = contest["rows"]
    assert kadogo["peer"] == KADOGO and starlette["peer"] == "starlette"
    assert starlette["same"].startswith("300 of 300")
    assert starlette["rate_ratio"]["mean"] > 0
    assert (tmp_path / "reports" / "peers.md").read_text().count("| Starlette") == 1


@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is not installed")
def test_a_run_that_is_broken_off_writes_its_whole_rounds(tmp_path: Path) -> None:
    command = short_run(tmp_path, "--rounds", "9")
    run = interruptible(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert run.stderr
    errors = []
    for line in run.stderr:
        errors.append(line)
        if line.startswith("round 2: "):
            run.send_signal(signal.SIGINT)
    assert run.wait(60) == 130, errors
    assert errors[-1] == "peers: broken off\n" and "Traceback" not in "".join(errors)
    (contest,) = json.loads((tmp_path / "reports" / "peers.json").read_text())["contests"]
    assert contest["void"].startswith("broken off after ") and not contest["kept"]
    assert "Nothing is proved" in (tmp_path / "reports" / "peers.md").read_text()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("run --rounds 0", "argument --rounds: 0 is not a whole number, 1 or more"),
        ("run --seconds -1", "argument --seconds: -1 is not a number above 0"),
        ("run --warmup -1", "argument --warmup: -1 is not a number, 0 or more"),
        ("run --connections 0", "argument --connections: 0 is not a whole number, 1 or more"),
        ("serve mosec --port 0", "argument --port: 0 is not a whole number, 1 or more"),
        ("run --out {file}/reports", "peers: {file}/reports/peers.md cannot be written: "),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(tmp_path: Path, flags: str, said: str) -> None:
    file = tmp_path / "file"
    file.write_text("")
    command = [sys.executable, "-m", "loadtest.peers", *flags.format(file=file).split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and said.format(file=file) in done.stderr.splitlines()[-1]


def test_kadogo_is_no_peer_to_be_installed(tmp_path: Path) -> None:
    away = replace(PEERS[KADOGO], command=("nothing",))
    with pytest.raises(NotServing, match=r"kadogo is not installed: make \.venv/\.serve"):
        command_of(away, 3000, Settings(), tmp_path)


def test_a_peer_that_is_not_installed_is_one_line(tmp_path: Path) -> None:
    write_plain_files(ZOO / "ner-int8", tmp_path / "files" / "ner-int8")
    command = [sys.executable, "-m", "loadtest.peers", "--files", tmp_path / "files"]
    command += ["--environments", tmp_path, "serve", "mosec", "--model", "ner-int8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "peers: mosec is not installed: make peer NAME=mosec\n"


# --- the client's reading ---------------------------------------------------------------------


def test_what_won_before_stays_where_nothing_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune, "folder_of", lambda *_: tmp_path)
    file = tmp_path / "tuned.json"
    file.write_text("{}")
    with pytest.raises(NotServing, match="starlette on ner-base ran with none of its settings"):
        tune.tune(PEERS["starlette"], "ner-base", environments=tmp_path, file=file)
    assert file.read_text() == "{}"
    # It was looked for where the environments are said to be, and each time it is said why not.
    made = tmp_path / "starlette" / "bin" / PEERS["starlette"].command[0]
    assert "1 x 2 x 1: starlette is not installed" in capsys.readouterr().err
    made.parent.mkdir(parents=True)
    made.write_text("#!/nowhere/python\n")
    made.chmod(0o755)
    with pytest.raises(NotServing):
        tune.tune(PEERS["starlette"], "ner-base", environments=tmp_path, file=file)
    assert "starlette cannot be started" in capsys.readouterr().err


def test_an_answer_in_chunks_is_read_once_it_is_whole() -> None:
    head = b"http/1.1 200 ok\r\ntransfer-encoding: chunked"
    sent = b'4\r\n{"en\r\nA;x=1\r\ntities":[]\r\n0\r\n\r\n'
    assert client._body(head, sent + b"HTTP") == (b'{"entities":[]', len(sent))
    assert all(client._body(head, sent[:end]) == (None, 0) for end in range(len(sent)))
    assert client._body(b"x\r\ncontent-length: 3", b"abcd") == (b"abc", 3)
    assert client._body(b"x\r\ncontent-length: 3", b"ab") == (None, 0)
