"""The scripts and compose.yaml of deploy/: what they need is there, or is named in one line."""

from __future__ import annotations

import re
import runpy
import subprocess
from pathlib import Path

import pytest
import yaml

from models.spec import Task
from service.settings import ROOT
from tests.test_serve import serving
from tests.tiny import write_variant

FOLDER = ROOT / "deploy"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
# The one that its operator makes.
KEYS = "./keys.toml"


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["try.sh", "kadogo:slim"], "podman is needed: apt-get install podman"),
        (["base.sh"], "podman is needed: apt-get install podman"),
        (["kubernetes/play.sh"], "podman is needed: apt-get install podman"),
        (["kubernetes/check.sh"], "kubectl is needed: "),
    ],
)
def test_a_script_says_what_to_install(tmp_path: Path, words: list[str], needed: str) -> None:
    script, *more = words
    (tmp_path / "dirname").symlink_to("/usr/bin/dirname")
    run = subprocess.run(
        ["/bin/bash", str(FOLDER / script), *more],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.startswith(needed) and run.stderr.count("\n") == 1


def test_every_surface_is_asked(tmp_path: Path) -> None:
    zoo, home = tmp_path / "zoo", tmp_path / "home"
    home.mkdir()
    write_variant(zoo, "ner-base", Task.NER)
    write_variant(zoo, "news-base", Task.CLASSIFICATION)
    ours = runpy.run_path(str(FOLDER / "ask.py"))
    with serving(zoo, home) as server:
        asked = ours["ask_all"](ours["Server"](server.url, ""))
    assert {name.split(",")[0].split(" of ")[0] for name in asked} >= {
        "/", "/page", "/docs", "/openapi.json", "/metrics", "the probes",
        "/v1/variants", "/v1/status", "/v1/ner", "/v1/classify", "/v1/compare", "/v1/generations",
        "/models", "/ner", "/classify", "/v2", "/v2/models", "/v2/models/.../infer",
    }  # fmt: skip


def test_a_bill_lacks_what_it_does_not_list_in_its_version() -> None:
    unlisted = runpy.run_path(str(FOLDER / "bill.py"))["unlisted"]
    pinned = (ROOT / "requirements" / "serve.txt").read_text(encoding="utf-8")
    pins = dict(re.findall(r"^([\w.-]+)==([^\s;]+)", pinned, re.MULTILINE))
    assert pins["simple-di"] and "bentoml" in pins
    named = {**pins, "Simple_DI": pins["simple-di"]}
    del named["simple-di"]
    bill = {"components": [{"name": n, "version": v} for n, v in named.items()]}
    assert unlisted(bill, pinned) == []
    bill["components"] = [each for each in bill["components"] if each["name"] != "bentoml"]
    bill["components"][0]["version"] = "0"
    assert len(unlisted(bill, pinned)) == 2


def test_what_compose_mounts_is_there_or_made_by_a_step_and_in_no_commit() -> None:
    mounted = {
        volume.split(":")[0]
        for service in COMPOSE.values()
        for volume in service.get("volumes", [])
        if volume.startswith(".")
    }
    assert KEYS in mounted
    assert all((FOLDER / each).exists() for each in mounted - {KEYS})
    assert "/deploy/keys.toml" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    made = "service.keys new operator --scope infer --scope admin >> deploy/keys.toml"
    for file in ("deploy/compose.yaml", "docs/operating.md"):
        assert made in (ROOT / file).read_text(encoding="utf-8")


def test_the_load_has_a_key_where_the_server_asks_for_one() -> None:
    assert "KADOGO_KEYS" in COMPOSE["kadogo"]["environment"]
    assert COMPOSE["locust"]["environment"]["KADOGO_KEY"] == "${KADOGO_KEY:-}"
