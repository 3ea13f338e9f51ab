"""A watched server: Prometheus and Alertmanager as shipped, real alerts, every panel's data."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from models.spec import Task
from service.generation import Content, Generations, Verdict
from service.settings import ROOT
from tests.listening import listening
from tests.test_alerts import FOLDER
from tests.test_dashboard import PANELS
from tests.test_serve import SENTENCE, Server, serving
from tests.tiny import NER_WORDS, judged, write_variant

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("prometheus-alertmanager")),
    reason="prometheus and prometheus-alertmanager are not installed",
)

# Panels of what does not come up here; tests/test_dashboard.py looks at their labels.
NOTHING_HAPPENED = {"Down the ladder", "Not run", "Not read along"}

ROUTES = """
[[route]]
name = "all"
task = "ner"
variant = "ner-base"
shadow = { variant = "ner-small", share = 1 }
"""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Webhook:
    """What Alertmanager told of alerts: their names and what was said of each."""

    url = ""

    def __init__(self) -> None:
        self.told: dict[str, dict[str, Any]] = {}

    def hear(self, _path: str, body: bytes) -> None:
        for alert in json.loads(body)["alerts"]:
            self.told[alert["labels"]["alertname"]] = alert


class Watched:
    def __init__(self, server: Server, prometheus: str, alertmanager: str, hook: Webhook) -> None:
        self.server = server
        self.alertmanager = alertmanager
        self.hook = hook
        self._prometheus = prometheus

    def values(self, expression: str) -> list[float]:
        """Of what Prometheus answers now, the numbers that are some."""
        answer = httpx.get(f"{self._prometheus}/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, answer.text
        values = [float(each["value"][1]) for each in answer.json()["data"]["result"]]
        return [value for value in values if math.isfinite(value)]

    def ask(self) -> None:
        """Some of everything that can be asked, right and wrong."""
        with httpx.Client(base_url=self.server.url, timeout=30) as client:
            for _ in range(5):
                assert client.post("/v1/ner", json={"inputs": [SENTENCE, "Kano"]}).is_success
                assert client.post("/v1/classify", json={"inputs": "kwallo"}).is_success
            assert client.post("/v1/ner", json={"inputs": "a", "variant": "ner-small"}).is_success
            assert client.post("/v1/compare", json={"inputs": "a", "task": "ner"}).is_success
            assert client.post("/v1/ner", json={"inputs": ""}).status_code == 422
            spoilt = {"inputs": "a", "variant": "ner-spoilt"}
            assert client.post("/v1/ner", json=spoilt).status_code == 503


def until(true: Callable[[], Any], meanwhile: Callable[[], Any] = lambda: None) -> None:
    for _ in range(120):
        if true():
            return
        meanwhile()
        time.sleep(0.5)
    raise AssertionError("not within a minute")


def quickly(folder: Path, server: Server, alertmanager: int, hook: Webhook) -> None:
    """The files as they are shipped, of these addresses and without the waiting."""
    changes = {
        "prometheus.yml": {
            "kadogo:3000": server.url.removeprefix("http://"),
            "alertmanager:9093": f"127.0.0.1:{alertmanager}",
            "_interval: 15s": "_interval: 1s",
        },
        "rules.yml": {},
        "alerts.yml": {f"for: {time}": "for: 0m" for time in ("1m", "2m", "5m", "10m", "15m")},
        "alertmanager.yml": {
            "http://webhook:8080": hook.url,
            "group_wait: 30s": "group_wait: 0s",
            "group_interval: 5m": "group_interval: 1s",
        },
    }
    for name, replaced in changes.items():
        text = (FOLDER / name).read_text()
        for old, new in replaced.items():
            assert old in text, f"{name} has no {old}"
            text = text.replace(old, new)
        (folder / name).write_text(text)


@contextlib.contextmanager
def running(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{command[0]}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/-/ready").status_code == 200
    return False


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    home, catalog = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("zoo")
    write_variant(catalog, "ner-base", Task.NER)
    write_variant(catalog, "news-base", Task.CLASSIFICATION)
    evidence = judged(0.7)
    evidence = msgspec.structs.replace(evidence, disagreement=evidence.quality["f1"])
    words = {**NER_WORDS, "Litinin": "O"}
    write_variant(catalog, "ner-small", Task.NER, words=words, parent="ner-base", evidence=evidence)
    spoilt = write_variant(catalog, "ner-spoilt", Task.NER) / "model.onnx"
    spoilt.write_bytes(spoilt.read_bytes() + b"x")
    (home / "routes.toml").write_text(ROUTES)
    (home / "state").mkdir()
    routes = Content().routes_of(ROUTES)
    trial = Verdict(variant="ner-small", promoted=False, why="answers differ", routes=routes)
    ended = {"trial": trial}
    Generations(home / "state").change(
        lambda content: msgspec.structs.replace(content, verdicts=ended), who="canary", what="trial"
    )
    prometheus, alertmanager = free_port(), free_port()
    urls = [f"http://127.0.0.1:{port}" for port in (prometheus, alertmanager)]
    settings = {
        "KADOGO_WORKERS": "2",
        "KADOGO_ROUTES": str(home / "routes.toml"),
        "KADOGO_STATE": str(home / "state"),
    }
    hook = Webhook()
    with listening(hook.hear) as hook.url, serving(catalog, home, **settings) as server:
        quickly(home, server, alertmanager, hook)
        with (
            running(
                home,
                "prometheus-alertmanager",
                "--config.file=alertmanager.yml",
                "--storage.path=alerts",
                f"--web.listen-address=127.0.0.1:{alertmanager}",
                "--cluster.listen-address=",
            ),
            running(
                home,
                "prometheus",
                "--config.file=prometheus.yml",
                "--storage.tsdb.path=series",
                f"--web.listen-address=127.0.0.1:{prometheus}",
            ),
        ):
            until(lambda: all(answers(url) for url in urls))
            yield Watched(server, *urls, hook)


def test_alerts_fire_and_arrive(watched: Watched) -> None:
    provoked = {"KadogoVariantQuarantined", "KadogoCanaryRolledBack"}
    until(lambda: provoked <= watched.hook.told.keys())
    alert = watched.hook.told["KadogoVariantQuarantined"]
    assert alert["status"] == "firing"
    assert alert["labels"]["variant"] == "ner-spoilt"
    assert alert["annotations"]["summary"].startswith("ner-spoilt on 127.0.0.1:")
    assert alert["annotations"]["action"].endswith("POST /v1/variants/ner-spoilt/load.")
    held = httpx.get(f"{watched.alertmanager}/api/v2/alerts").json()
    assert provoked <= {each["labels"]["alertname"] for each in held}
    assert not {"KadogoDown", "KadogoNotReady", "KadogoWorkerDied"} & {*watched.hook.told}


def test_every_panel_has_data(watched: Watched) -> None:
    asked = {"$job": "kadogo", "$variant": "ner-base", "$__rate_interval": "1m"}
    lacking: list[str] = []

    def told() -> bool:
        lacking.clear()
        for panel in PANELS:
            for target in panel["targets"]:
                expression = target["expr"]
                for variable, value in asked.items():
                    expression = expression.replace(variable, value)
                assert "$" not in expression
                if panel["title"] not in NOTHING_HAPPENED:
                    # Or it could not fail: what stands for nothing is there whatever is asked.
                    expression = expression.removesuffix(" or vector(0)")
                    assert " or " not in expression
                if not watched.values(expression):
                    lacking.append(f"{panel['title']}: {expression}")
        return not lacking

    try:
        until(told, watched.ask)
    except AssertionError:
        raise AssertionError("\n".join(lacking)) from None


def test_a_worker_that_is_killed_is_told(watched: Watched) -> None:
    assert watched.values("kadogo_workers") == [2]
    os.kill(httpx.get(f"{watched.server.url}/v1/status").json()["process"], signal.SIGKILL)
    until(lambda: "KadogoWorkerDied" in watched.hook.told)
    until(lambda: watched.values("kadogo_workers") == [2])
    assert watched.values("kadogo_worker_deaths_total") == [1]


def test_real_metrics_are_as_prometheus_asks(watched: Watched) -> None:
    exposed = httpx.get(f"{watched.server.url}/metrics").content
    done = subprocess.run(
        ["promtool", "check", "metrics"], cwd=ROOT, input=exposed, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
