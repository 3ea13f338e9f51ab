"""Laws of the watch: what metrics say between two looks, and of a server that runs here."""

from __future__ import annotations

import math
from pathlib import Path

import httpx
import pytest

from loadtest import watch
from loadtest.watch import Look, Quality, Server, between, fact, followed
from models.spec import Task
from tests.scripted import Reply, scripted
from tests.test_serve import serving
from tests.tiny import write_variant

TEXT = """# TYPE kadogo_batch_texts histogram
kadogo_batch_texts_bucket{{variant="a",le="1.0"}} {one}
kadogo_batch_texts_bucket{{variant="a",le="8.0"}} {eight}
kadogo_batch_texts_bucket{{variant="a",le="+Inf"}} {eight}
kadogo_batch_texts_count{{variant="a"}} {eight}
kadogo_batch_texts_sum{{variant="a"}} {sum}
# TYPE kadogo_texts_total counter
kadogo_texts_total{{variant="a"}} {texts}
# TYPE kadogo_queue_depth gauge
kadogo_queue_depth{{variant="a"}} {depth}
"""


def look(at_s: float, texts: float, depth: float = 0, **more: object) -> Look:
    text = TEXT.format(one=texts / 4, eight=texts / 2, sum=texts, texts=texts, depth=depth)
    return Look(at_s=at_s, metrics=text, **more)  # type: ignore[arg-type]


def test_a_window_is_what_was_counted_between_two_looks() -> None:
    seen = between(look(1.0, 100, cpu_s=5.0, memory=7), look(3.0, 140, cpu_s=6.5, memory=9))
    assert (seen.seconds, seen.cpu_s, seen.memory, seen.energy_j) == (2.0, 1.5, 9, None)
    assert seen.total("kadogo_texts_total", variant="a") == 40
    assert seen.mean("kadogo_batch_texts", variant="a") == 2
    assert math.isnan(seen.mean("kadogo_batch_texts", variant="b"))
    assert seen.least("kadogo_batch_texts", 0.5, variant="a") == 0
    assert seen.least("kadogo_batch_texts", 0.51, variant="a") == 1


def test_a_counter_of_energy_that_began_anew_is_reckoned_with() -> None:
    before, after = look(0, 0, energy_j=90.0), look(1, 0, energy_j=15.0, wraps_j=100.0)
    assert between(before, after).energy_j == 25


def test_what_only_one_look_knows_is_not_known() -> None:
    assert between(look(0, 0, cpu_s=1.0), look(1, 0)).cpu_s is None
    assert between(look(0, 0), look(1, 0, energy_j=3.0)).energy_j is None


def test_energy_is_read_where_it_is_measured_and_else_absent(tmp_path: Path) -> None:
    assert watch._energy(tmp_path) == (None, 0.0)
    for name, used in (("intel-rapl:0", 7_000_000), ("intel-rapl:1", 5_000_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{used}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("262143328850\n")
    (tmp_path / "intel-rapl:0:0").mkdir()  # a part of it, counted already
    assert watch._energy(tmp_path) == (12.0, pytest.approx(262143.32885))


def test_a_followed_queue_is_told_by_the_clock_of_the_run() -> None:
    # The run began at 50 by the clock of the looks; ten answers a second.
    done = [i / 10 for i in range(40)]
    looks = [look(50 + i / 2, 100 + 5 * i, depth=i) for i in range(7)]
    moments = followed(looks, "a", done).moments
    assert [each.waiting for each in moments] == [1, 2, 3, 4, 5, 6]
    assert [each.at_s for each in moments] == pytest.approx([0.5, 1, 1.5, 2, 2.5, 3], abs=0.11)
    assert all(each.batch == 2 for each in moments)
    assert followed(looks[:1], "a", done).moments == ()


def test_quality_is_of_raw_text_and_its_drop_of_the_interval() -> None:
    macro = {"mean": 0.7, "low": 0.69, "high": 0.71}
    told = {"name": "a", "task": "ner", "state": "ready", "bytes": 9, "parent": "b"}
    evidence = {
        "quality": {"f1": {"raw": {"macro": macro}}},
        "difference": {"f1": {"raw": {"macro": {"mean": -0.01, "low": -0.02, "high": 0.001}}}},
    }
    assert fact({**told, "evidence": evidence}).quality == Quality(0.7, 0.69, 0.71, 0.02)
    base = {**told, "parent": None, "evidence": {**evidence, "difference": {}}}
    assert fact(base).quality == Quality(0.7, 0.69, 0.71, 0.0)
    assert fact({**told, "evidence": {**evidence, "difference": {}}}).quality == Quality(
        0.7, 0.69, 0.71, None
    )
    assert fact({**told, "evidence": None}).quality is None


def test_a_server_that_is_none_of_ours_is_told() -> None:
    with scripted(lambda _: Reply(status=404)) as other, pytest.raises(watch.Unusable):
        Server(other.url).facts()


def test_a_server_that_runs_here_is_looked_at(tmp_path: Path) -> None:
    write_variant(tmp_path / "zoo", "ner-int8", Task.NER)
    home = tmp_path / "home"
    home.mkdir()
    with serving(tmp_path / "zoo", home, KADOGO_WORKERS="2") as running:
        server = Server(running.url)
        before = server.look()
        for _ in range(8):
            body = {"inputs": ["Kano", "Jos"], "variant": "ner-int8"}
            assert httpx.post(f"{running.url}/v1/ner", json=body).status_code == 200
        seen = between(before, server.look())
        [known] = server.facts()
    labels = {"variant": "ner-int8", "status_class": "2xx"}
    assert seen.total("kadogo_request_seconds_count", **labels) == 8
    assert seen.total("kadogo_texts_total", variant="ner-int8") == 16
    assert seen.cpu_s is not None and seen.cpu_s > 0
    assert seen.memory is not None and seen.memory > 50 * 2**20
    assert (known.name, known.task, known.ready) == ("ner-int8", "ner", True)
    assert server._processes and watch._spent(server._processes) == (None, None)
