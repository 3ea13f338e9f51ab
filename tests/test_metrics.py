"""Metrics: named and explained as promtool asks, right from the tests of the server on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from service import metrics
from service.settings import ROOT

OURS = {
    "kadogo_request_seconds",
    "kadogo_queue_seconds",
    "kadogo_encode_seconds",
    "kadogo_model_seconds",
    "kadogo_batch_texts",
    "kadogo_batch_tokens",
    "kadogo_padding_ratio",
    "kadogo_prediction_ratio",
    "kadogo_halted",
    "kadogo_queue_depth",
    "kadogo_rejections",
    "kadogo_dropped",
    "kadogo_degraded",
    "kadogo_shadow_said",
    "kadogo_shadow_difference_seconds",
    "kadogo_shadow_lost",
    "kadogo_last_answer_timestamp_seconds",
    "kadogo_texts",
    "kadogo_tokens",
    "kadogo_variant_info",
    "kadogo_promised_disagreement_ratio",
    "kadogo_trial_info",
    "kadogo_workers",
    "kadogo_worker_deaths",
}


def families() -> list[Metric]:
    exposition = metrics.exposition().decode()
    found = text_string_to_metric_families(exposition)
    return [family for family in found if family.name.startswith("kadogo_")]


def test_every_metric_is_there_under_its_name() -> None:
    assert {family.name for family in families()} == OURS


def test_names_and_helps_are_as_promtool_asks() -> None:
    for family in families():
        assert family.documentation.endswith("."), family.name
        assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z0-9]", family.name)
        assert not re.search(r"_(gauge|counter|histogram|milliseconds|ms|count)$", family.name)
        totals = {sample.name.endswith("_total") for sample in family.samples}
        assert totals <= {family.type == "counter"}, family.name


def test_labels_are_few_and_never_of_a_caller() -> None:
    labels = {label for each in families() for sample in each.samples for label in sample.labels}
    allowed = {
        "task",
        "variant",
        "status_class",
        "reason",
        "le",
        "digest",
        "runtime",
        "state",
        "shadow",
        "by",
        "baseline",
        "route",
        "verdict",
    }
    assert labels <= allowed


def test_time_is_measured_from_half_a_millisecond() -> None:
    assert metrics.SECONDS[0] == 0.0005
    assert list(metrics.SECONDS) == sorted(set(metrics.SECONDS))


def test_a_process_that_forks_counts_apart(tmp_path: Path) -> None:
    script = (
        "import os\n"
        "from service import metrics\n"
        "metrics.rejected('before')\n"
        "child = os.fork()\n"
        "metrics.rejected('child' if not child else 'parent')\n"
        "if child: os.waitpid(child, 0); print(os.getpid(), child)\n"
    )
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    files = {file.name for file in tmp_path.glob("counter_*.db")}
    assert files == {f"counter_{pid}.db" for pid in done.stdout.split()} and len(files) == 2


def test_a_batch_is_counted_with_its_padding() -> None:
    observer = metrics.VariantMetrics("test-batch")
    observer.ran(items=3, tokens=75, padded=100, seconds=0.002)
    observer.waiting(7, 700)
    observer.dropped("deadline")
    observer.answered(texts=2, queue_s=0.1, encode_s=0.2)
    metrics.requested(task="ner", variant="test-batch", status=204, seconds=0.5)

    def value(name: str, **labels: str) -> float | None:
        return REGISTRY.get_sample_value(name, {"variant": "test-batch", **labels})

    assert value("kadogo_padding_ratio_sum") == 0.25
    assert value("kadogo_batch_texts_sum") == 3
    assert value("kadogo_batch_tokens_sum") == 75
    assert value("kadogo_tokens_total") == 75
    assert value("kadogo_texts_total") == 2
    assert (value("kadogo_last_answer_timestamp_seconds") or 0) > 0
    assert value("kadogo_queue_depth") == 7
    assert value("kadogo_dropped_total", reason="deadline") == 1
    assert value("kadogo_request_seconds_count", task="ner", status_class="2xx") == 1


PROCESS = """
import os, sys
from service import metrics
metrics.begin()
observer = metrics.VariantMetrics("v")
observer.waiting(5, 50)
observer.ran(items=1, tokens=2, padded=2, seconds=0.1)
metrics.LAST.labels("v").set({"first": 20, "last": 10}[sys.argv[1]])
if sys.argv[1] == "last":
    print(metrics.exposition().decode())
    print([(sample.name, sample.value) for sample in metrics.counted()])
os._exit(0)  # dies without saying so
"""


def test_processes_add_up_and_the_dead_wait_for_nothing(tmp_path: Path) -> None:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    for which in ("first", "last"):
        done = subprocess.run(
            [sys.executable, "-c", PROCESS, which],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
    assert 'kadogo_model_seconds_count{variant="v"} 2.0' in done.stdout
    assert 'kadogo_queue_depth{variant="v"} 5.0' in done.stdout
    assert 'kadogo_last_answer_timestamp_seconds{variant="v"} 20.0' in done.stdout
    assert "('kadogo_model_seconds_count', 2.0)" in done.stdout
    assert "_bucket'" not in done.stdout
    assert "kadogo_workers 1.0" in done.stdout
    assert "kadogo_worker_deaths_total 1.0" in done.stdout
    resident = re.findall(r"process_resident_memory_bytes{pid=.*", done.stdout)
    assert len(resident) == 1  # of the one that lives


TOLD = """
from service import metrics
metrics.begin()
metrics.VariantMetrics("v").waiting(5, 50)
metrics.end()
"""


def test_a_process_that_was_told_to_end_is_no_dead_one(tmp_path: Path) -> None:
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    show = "from service import metrics; metrics.begin(); print(metrics.exposition().decode())"
    for code in (TOLD, show):
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            check=True,
        )
    assert "kadogo_worker_deaths_total 0.0" in done.stdout
    assert "kadogo_workers 1.0" in done.stdout
    assert "kadogo_queue_depth{" not in done.stdout


@pytest.mark.parametrize("pid", [os.getpid(), 1])
def test_the_living_are_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    file = tmp_path / f"gauge_livesum_{pid}.db"
    file.touch()
    metrics.forget_the_dead()
    assert file.exists()


def test_the_dead_are_forgotten_before_their_parent_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", ""]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)  # its end, without reaping it
        file = tmp_path / f"gauge_livesum_{zombie.pid}.db"
        file.touch()
        metrics.forget_the_dead()
        assert not file.exists()


def test_a_process_that_may_not_be_asked_about_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    monkeypatch.setattr(psutil.Process, "status", denied)
    file = tmp_path / f"gauge_livesum_{os.getppid()}.db"
    file.touch()
    metrics.forget_the_dead()
    assert file.exists()
