"""A real server of two workers, changed over HTTP while it is asked: nothing fails, all follow."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from models.spec import Task
from service import keys
from service.keys import Scope
from tests.test_serve import SENTENCE, Server, serving
from tests.tiny import NER_WORDS, judged, write_variant

ROUTES = """
[[route]]
name = "all"
task = "ner"
variant = "ner-tiny"
"""


CANARY = """
[[route]]
name = "trial"
task = "ner"
split = { ner-base = 1, ner-tiny = 1 }
canary = { variant = "ner-tiny", max_disagreement = 0.2, max_slowdown = 1000 }
"""
LADDER = """
[ladder]
down_s = 0.0002
up_s = 0.0001
"""


class Operated:
    """A server, its catalog and how its operator asks."""

    def __init__(self, server: Server, catalog: Path, state: Path, tokens: dict[str, str]) -> None:
        self.server = server
        self.catalog = catalog
        self.state = state
        self.tokens = tokens

    def ask(self, method: str, path: str, *, key: str = "operator", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[key]}"}
        url = f"{self.server.url}{path}"
        return httpx.request(method, url, headers=headers, timeout=60, **more)

    def changed(self, method: str, path: str, **more: Any) -> int:
        """The number of the generation that it made."""
        response = self.ask(method, path, **more)
        assert response.status_code == 200, response.text
        change = response.json()
        assert change["who"] == "operator" and change["what"]
        return int(change["generation"])

    def both(self) -> dict[int, Any]:
        """The status of each of the two workers, once both are ready."""
        found: dict[int, Any] = {}
        for _ in range(3000):
            status = self.ask("GET", "/v1/status").json()
            if status["state"] == "ready":
                found[status["process"]] = status
            if len(found) == 2:
                return found
        raise AssertionError("one worker takes every connection")

    def answering(self, **ask: Any) -> set[str]:
        """Who answers, asked so often that both workers do."""
        replies = [
            self.ask("POST", "/v1/ner", key="newsroom", json={"inputs": SENTENCE, **ask})
            for _ in range(30)
        ]
        return {reply.json().get("variant", reply.json().get("detail")) for reply in replies}


@pytest.fixture
def operated(tmp_path: Path) -> Iterator[Operated]:
    catalog, state, home = (tmp_path / name for name in ("zoo", "state", "home"))
    for folder in (state, home):
        folder.mkdir()
    words = {**NER_WORDS, "Dodoma": "B-LOC"}
    write_variant(catalog, "ner-base", Task.NER, words=words, evidence=judged(0.9))
    write_variant(catalog, "ner-tiny", Task.NER, parent="ner-base", evidence=judged(0.7, -0.2))
    made = {
        "operator": keys.new("operator", [Scope.ADMIN], None),
        "newsroom": keys.new("newsroom", [Scope.INFER], None),
    }
    file = tmp_path / "keys.toml"
    file.write_text("\n".join(lines for _, lines in made.values()))
    settings = {"KADOGO_WORKERS": "2", "KADOGO_KEYS": str(file), "KADOGO_STATE": str(state)}
    tokens = {name: token for name, (token, _) in made.items()}
    with serving(catalog, home, **settings) as server:
        found = Operated(server, catalog, state, tokens)
        found.both()
        yield found


def test_a_server_is_changed_while_it_is_asked_and_nothing_fails(operated: Operated) -> None:
    done = threading.Event()
    failures: list[str] = []
    asked = itertools.count()

    def asking() -> None:
        with httpx.Client(base_url=operated.server.url, timeout=30) as client:
            headers = {"Authorization": f"Bearer {operated.tokens['newsroom']}"}
            while not done.is_set():
                reply = client.post("/v1/ner", json={"inputs": SENTENCE}, headers=headers)
                next(asked)
                if reply.status_code != 200 or len(reply.json()["results"][0]["entities"]) != 3:
                    failures.append(reply.text)

    with ThreadPoolExecutor(4) as callers:
        running = [callers.submit(asking) for _ in range(4)]
        try:
            assert operated.answering() == {"ner-base"}
            assert operated.changed("PUT", "/v1/routes", content=ROUTES.encode()) == 1
            assert operated.answering() == {"ner-tiny"}
            assert {each["generation"] for each in operated.both().values()} == {1}

            assert operated.changed("POST", "/v1/variants/ner-base/unload") == 2
            [gone] = operated.answering(variant="ner-base")
            assert gone == "ner-base is unloaded; known are ner-tiny"
            assert operated.changed("POST", "/v1/variants/ner-base/load") == 3
            assert operated.answering(variant="ner-base") == {"ner-base"}

            before = {s["variants"]["ner-base"]["digest"] for s in operated.both().values()}
            replace(operated.catalog, "ner-base", operated.server.home)
            assert operated.changed("POST", "/v1/variants/ner-base/load") == 4
            after = {s["variants"]["ner-base"]["digest"] for s in operated.both().values()}
            assert len(before) == len(after) == 1 and before != after

            assert operated.changed("POST", "/v1/generations/0/restore") == 5
            assert operated.answering() == {"ner-base"}
            assert operated.changed("POST", "/v1/check") == 6
        finally:
            done.set()
        for each in running:
            each.result(60)
    assert failures == [] and next(asked) > 50
    history = operated.ask("GET", "/v1/generations").json()["generations"]
    assert [each["number"] for each in history] == [6, 5, 4, 3, 2, 1]
    assert operated.server.lines_with("generation 5: restore 0, by operator")


def replace(catalog: Path, name: str, scratch: Path) -> None:
    """Other weights under that name."""
    words = {**NER_WORDS, "Dodoma": "B-LOC", "Arusha": "B-LOC"}
    made = write_variant(scratch, name, Task.NER, words=words)
    shutil.rmtree(catalog / name)
    shutil.copytree(made, catalog / name)


def test_what_cannot_be_is_refused_and_what_serves_serves_on(operated: Operated) -> None:
    wrong = operated.ask("PUT", "/v1/routes", content=ROUTES.replace("tiny", "huge").encode())
    assert wrong.status_code == 422
    told = "line 5: route all: there is no variant ner-huge; of ner there are ner-base, ner-tiny"
    assert wrong.json()["detail"] == told
    assert operated.ask("PUT", "/v1/routes", content=b"\xff").status_code == 400
    other = operated.ask("POST", "/v1/routes", content=ROUTES.encode())
    assert other.status_code == 405
    assert set(other.headers["allow"].split(", ")) == {"GET", "HEAD", "PUT"}
    key = operated.ask("GET", "/v1/keys/operator")
    assert set(key.headers["allow"].split(", ")) == {"PUT", "DELETE"}
    for number in ("9" * 300, "-1", "one"):
        assert operated.ask("POST", f"/v1/generations/{number}/restore").status_code == 422
    nothing = operated.ask("PUT", "/v1/routes", content=b"\n")  # as of a file that is not there
    assert nothing.status_code == 422 and "the body is empty" in nothing.json()["detail"]
    assert operated.ask("PUT", "/v1/routes", content=b"#" * (2 << 20)).status_code == 413
    assert operated.ask("POST", "/v1/variants/ner-new/load").status_code == 404
    assert operated.ask("POST", "/v1/variants/..%2fner-base/load").status_code == 404
    assert operated.ask("POST", "/v1/generations/9/restore").status_code == 404
    model = operated.catalog / "ner-base" / "model.onnx"
    model.write_bytes(model.read_bytes()[:-9])
    spoilt = operated.ask("POST", "/v1/variants/ner-base/load")
    assert spoilt.status_code == 409
    assert spoilt.json()["detail"].startswith("ner-base is not loaded: model.onnx is not the file")
    assert operated.answering(variant="ner-base") == {"ner-base"}
    assert operated.ask("GET", "/v1/generations").json() == {"generations": []}
    assert operated.ask("GET", "/v1/routes").json() == {"generation": 0, "routes": None}


def test_keys_are_limited_and_revoked_while_both_workers_serve(operated: Operated) -> None:
    def statuses(key: str, times: int = 30) -> list[int]:
        body = {"json": {"inputs": SENTENCE}}
        return [operated.ask("POST", "/v1/ner", key=key, **body).status_code for _ in range(times)]

    limit = {"rate": {"requests": 5, "seconds": 36_000}}
    assert operated.changed("PUT", "/v1/keys/newsroom", json=limit) == 1
    assert sorted(statuses("newsroom")) == [200] * 5 + [429] * 25  # of both workers together
    assert operated.changed("PUT", "/v1/keys/newsroom", json={"rate": None}) == 2
    assert set(statuses("newsroom")) == {200}
    told = operated.ask("GET", "/v1/keys").json()
    assert told["generation"] == 2 and [each["name"] for each in told["keys"]] == [
        "operator",
        "newsroom",
    ]
    for wrong, status in (
        ({"content": b"SECRET"}, 400),
        ({"data": {"rate": "SECRET"}}, 415),
        ({"json": {"rate": {"requests": 0}}}, 422),
        ({"json": {"rate": {"requests": 10**400}}}, 422),
        ({"json": {"SECRET": 5}}, 422),
        ({"json": {}}, 422),
    ):
        refused = operated.ask("PUT", "/v1/keys/newsroom", **wrong)
        assert refused.status_code == status and "SECRET" not in refused.text, wrong
    assert operated.ask("PUT", "/v1/keys/SECRET", json=limit).status_code == 404

    assert operated.changed("DELETE", "/v1/keys/newsroom") == 3
    assert set(statuses("newsroom")) == {401}
    assert operated.changed("POST", "/v1/generations/0/restore") == 4
    assert set(statuses("newsroom", 10)) == {401}
    last = operated.ask("DELETE", "/v1/keys/operator")
    assert last.status_code == 409 and "?sure=true" in last.json()["detail"]
    assert operated.ask("DELETE", "/v1/keys/operator?sure=SECRET").status_code == 422
    kept = "".join(file.read_text() for file in operated.state.rglob("*.json"))
    assert not [token for token in operated.tokens.values() if token in kept + operated.server.log]
    assert operated.changed("DELETE", "/v1/keys/operator?sure=true") == 5
    assert operated.ask("GET", "/v1/keys").status_code == 401


def test_tritons_client_loads_and_unloads(operated: Operated) -> None:
    bearing = {"Authorization": f"Bearer {operated.tokens['operator']}"}
    with triton.InferenceServerClient(operated.server.url.removeprefix("http://")) as client:
        client.unload_model("ner-tiny", headers=bearing)
        index = client.get_model_repository_index(headers=bearing)
        assert {each["name"]: each["state"] for each in index} == {
            "ner-base": "READY",
            "ner-tiny": "UNAVAILABLE",
        }
        assert not client.is_model_ready("ner-tiny", headers=bearing)
        client.load_model("ner-tiny", headers=bearing)
        assert client.is_model_ready("ner-tiny", headers=bearing)
        with pytest.raises(InferenceServerException, match="send nothing else"):
            client.load_model("ner-tiny", headers=bearing, config='{"backend": "python"}')
        with pytest.raises(InferenceServerException, match="there is no variant ner-new"):
            client.load_model("ner-new", headers=bearing)
        newsroom = {"Authorization": f"Bearer {operated.tokens['newsroom']}"}
        with pytest.raises(InferenceServerException):
            client.unload_model("ner-tiny", headers=newsroom)
    history = operated.ask("GET", "/v1/generations").json()["generations"]
    assert [each["what"].split()[0] for each in history] == ["load", "unload"]


def test_only_a_key_that_may_administer_changes_anything(operated: Operated) -> None:
    for method, path in (
        ("PUT", "/v1/routes"),
        ("GET", "/v1/routes"),
        ("GET", "/v1/generations"),
        ("POST", "/v1/generations/0/restore"),
        ("POST", "/v1/variants/ner-base/unload"),
        ("POST", "/v1/variants/ner-base/load"),
        ("POST", "/v1/check"),
        ("GET", "/v1/keys"),
        ("PUT", "/v1/keys/newsroom"),
        ("DELETE", "/v1/keys/newsroom"),
    ):
        assert operated.ask(method, path, key="newsroom").status_code == 403
        assert httpx.request(method, f"{operated.server.url}{path}").status_code == 401


def test_a_worker_that_starts_later_reads_what_was_changed_first(operated: Operated) -> None:
    assert operated.changed("PUT", "/v1/routes", content=ROUTES.encode()) == 1
    killed = next(iter(operated.both()))
    os.kill(killed, signal.SIGKILL)
    found = without(operated, killed)
    assert {each["generation"] for each in found.values()} == {1}
    assert operated.answering() == {"ner-tiny"}
    # And the next change is done when both of the living have taken it over.
    assert operated.changed("POST", "/v1/generations/0/restore") == 2
    assert operated.answering() == {"ner-base"}


def test_a_worker_that_starts_later_does_without_what_was_spoilt_since(operated: Operated) -> None:
    assert operated.changed("PUT", "/v1/routes", content=ROUTES.encode()) == 1
    (operated.catalog / "ner-tiny" / "variant.json").write_bytes(b"")
    (operated.catalog.parent / "keys.toml").write_text("[[key")  # it opens to whom the other does
    killed = next(iter(operated.both()))
    os.kill(killed, signal.SIGKILL)
    found = without(operated, killed)
    assert sorted(each["variants"]["ner-tiny"]["state"] for each in found.values()) == [
        "quarantined",
        "ready",
    ]
    assert operated.answering() == {"ner-tiny", "ner-base"}
    assert {httpx.get(f"{operated.server.url}/readyz").status_code for _ in range(30)} == {200}


def without(operated: Operated, killed: int) -> dict[int, Any]:
    """The status of both workers once another one stands in for that one."""
    for _ in range(300):
        time.sleep(0.1)
        try:
            found = operated.both()
        except (httpx.TransportError, AssertionError):
            continue
        if killed not in found:
            return found
    raise AssertionError("none came in its place")


def test_a_canary_is_judged_by_both_workers_and_answers_everybody(operated: Operated) -> None:
    assert operated.changed("PUT", "/v1/routes", content=CANARY.encode()) == 1
    compared = set()
    for _ in range(100):
        operated.answering()
        compared |= {each["trials"]["trial"]["comparisons"] for each in operated.both().values()}
        [newest, *_] = operated.ask("GET", "/v1/generations").json()["generations"]
        if newest["number"] == 2:
            break
    assert newest["who"] == "canary" and newest["what"].startswith("promote ner-tiny on route tri")
    assert operated.answering() == {"ner-tiny"}
    assert {each["generation"] for each in operated.both().values()} == {2}
    trials = [each["trials"]["trial"] for each in operated.both().values()]
    assert {each["state"] for each in trials} == {"promoted"} and max(compared - {None}) > 1


def test_under_pressure_both_workers_go_down_the_ladder(operated: Operated) -> None:
    assert operated.changed("PUT", "/v1/routes", content=LADDER.encode()) == 1

    def asked(policy: dict[str, Any]) -> tuple[str, str]:
        floor = {"prefer": "best", "min_f1": 0.1}
        ask = {"inputs": [SENTENCE * 30] * 32, "policy": {**floor, **policy}}
        reply = operated.ask("POST", "/v1/ner", key="newsroom", json=ask)
        assert reply.status_code == 200, reply.text
        return reply.json()["variant"], reply.json()["reason"]

    with ThreadPoolExecutor(8) as callers:
        some = set(callers.map(asked, [{}] * 80))
        never = set(callers.map(asked, [{"degrade": "never"}] * 40))
    assert {variant for variant, _ in some} == {"ner-base", "ner-tiny"}
    assert all("s of work waits" in reason for variant, reason in some if variant == "ner-tiny")
    assert {variant for variant, _ in never} == {"ner-base"}
    degraded = {"variant": "ner-base", "reason": "pressure"}
    assert operated.server.metric("kadogo_degraded_total", **degraded) > 0


def test_without_keys_a_server_cannot_be_changed(tmp_path: Path) -> None:
    catalog, home = tmp_path / "zoo", tmp_path / "home"
    home.mkdir()
    write_variant(catalog, "ner-base", Task.NER)
    with serving(catalog, home) as server:
        refused = httpx.put(f"{server.url}/v1/routes", content=ROUTES.encode())
        assert refused.status_code == 403
        assert "python -m service.keys new" in refused.json()["detail"]
