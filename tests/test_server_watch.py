"""Laws of the watch: what metrics say between two looks, and of a server that runs here."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest

from loadtest import watch
from loadtest.meanwhile import meanwhile
from loadtest.record import Unusable
from loadtest.server import resident
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


def test_what_the_look_itself_took_is_none_of_it() -> None:
    seen = between(look(0, 0, cpu_s=5.0, told_cpu_s=5.2), look(1, 0, cpu_s=6.0, told_cpu_s=6.2))
    assert seen.cpu_s == pytest.approx(0.8)


class Telling:
    """A process that took a second for each time it told its metrics."""

    def __init__(self) -> None:
        self.told = 0

    def metrics(self) -> bytes:
        self.told += 1
        return TEXT.format(one=1, eight=2, sum=4, texts=4, depth=0).encode()

    def cpu_times(self) -> SimpleNamespace:
        ended = {"children_user": 0.0, "children_system": 0.0}
        return SimpleNamespace(user=float(self.told), system=0.0, **ended)

    def memory_full_info(self) -> SimpleNamespace:
        return SimpleNamespace(pss=7)


def test_telling_metrics_is_not_charged_to_who_is_measured() -> None:
    telling: Any = Telling()
    with scripted(lambda _: Reply(), {"/metrics": telling.metrics}) as running:
        server = Server(running.url)
        server._processes = [telling]
        before, after = server.look(), server.look()
    assert telling.told == 2 and between(before, after).cpu_s == 0


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(status=404), "/metrics answers HTTP 404: is it Kadogo?"),
        (Reply(status=401), "/metrics answers HTTP 401: is KADOGO_KEY its key?"),
    ],
)
def test_a_server_that_does_not_tell_its_metrics_is_one_line(reply: Reply, said: str) -> None:
    with (
        scripted(lambda _: Reply(), {"/metrics": reply}) as running,
        pytest.raises(Unusable) as error,
    ):
        Server(running.url).look()
    assert str(error.value) == f"{running.url}{said}"


def test_a_server_that_has_gone_is_one_line() -> None:
    with scripted(lambda _: Reply()) as running:
        server = Server(running.url)
    with pytest.raises(Unusable, match=r"no server answers at .* run `make serve`") as error:
        server.look()
    assert "\n" not in str(error.value)


def test_a_look_that_cannot_be_had_is_left_out_and_the_next_is_taken() -> None:
    turns = iter([1, None, Unusable("gone"), 4])
    over = threading.Event()

    def look() -> int | None:
        found = next(turns, 5)
        if found == 5:
            over.set()
        if isinstance(found, Unusable):
            raise found
        return found

    with meanwhile(look, 0.001) as seen:
        assert over.wait(30)
    assert seen[:3] == [1, 4, 5]


def test_what_is_ended_counts_nothing() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    gone = psutil.Process(ended.pid)
    ended.wait()
    here = psutil.Process()
    assert resident([gone]) is resident([]) is None
    assert (resident([gone, here]) or 0) > 2**20


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
    with scripted(lambda _: Reply(status=404)) as other, pytest.raises(Unusable):
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
    assert server._processes
    assert watch._cpu_s(server._processes) is watch._memory(server._processes) is None
