"""Alerts as they are shipped: well-formed, each tried by promtool, each in the runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from service import metrics
from service.settings import ROOT

FOLDER = ROOT / "deploy" / "prometheus"
RUNBOOK = ROOT / "docs" / "runbook.md"

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("promtool") and shutil.which("amtool")),
    reason="prometheus and prometheus-alertmanager are not installed",
)


def rules(file: Path) -> list[dict[str, Any]]:
    groups = yaml.safe_load(file.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules(FOLDER / "alerts.yml")}


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_is_so_and_what_to_do(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert alert["annotations"].keys() == {"summary", "cause", "action", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"docs/runbook.md#{name.lower()}"


def test_the_runbook_has_every_alert_and_no_other_in_the_same_order() -> None:
    assert re.findall(r"^## (.+)$", RUNBOOK.read_text(), re.MULTILINE) == list(ALERTS)
    severities = re.findall(r"^\*(critical|warning)\.\*", RUNBOOK.read_text(), re.MULTILINE)
    assert severities == [alert["labels"]["severity"] for alert in ALERTS.values()]


def test_every_alert_is_tried() -> None:
    tried = (FOLDER / "alerts.test.yml").read_text()
    assert set(re.findall(r'labels: ALERTS\{alertname="(\w+)"', tried)) == set(ALERTS)


def test_rules_read_only_what_is_there() -> None:
    files = (FOLDER / "rules.yml", FOLDER / "alerts.yml")
    expressions = " ".join(rule["expr"] for file in files for rule in rules(file))
    recorded = {rule["record"] for rule in rules(FOLDER / "rules.yml")}
    assert set(re.findall(r"kadogo:[\w:]+", expressions)) <= recorded
    read = re.findall(r"\bkadogo_\w+", expressions)
    exposed = {family.name for family in metrics.REGISTRY.collect()}
    assert {re.sub(r"_(total|count|bucket|sum)$", "", name) for name in read} <= exposed


def test_the_promised_time_is_a_bucket() -> None:
    text = (FOLDER / "rules.yml").read_text()
    assert {float(le) for le in re.findall(r'le="([\d.]+)"', text)} <= {*metrics.SECONDS}


@needs_prometheus
@pytest.mark.parametrize(
    "command",
    [
        ["promtool", "check", "config", "prometheus.yml"],
        ["promtool", "check", "rules", "rules.yml", "alerts.yml"],
        ["promtool", "test", "rules", "alerts.test.yml"],
        ["amtool", "check-config", "alertmanager.yml"],
    ],
    ids=" ".join,
)
def test_prometheus_own_tools_find_nothing_wrong(command: list[str]) -> None:
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
