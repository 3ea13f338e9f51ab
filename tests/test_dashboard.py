"""The dashboard as it is shipped: made by its code, in Grafana's schema, of rules there are."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from service import metrics
from service.settings import ROOT

FOLDER = ROOT / "deploy" / "grafana"
DASHBOARD: dict[str, Any] = json.loads((FOLDER / "kadogo.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yml").read_text())
RECORDED = {rule["record"]: rule["expr"] for group in RULES["groups"] for rule in group["rules"]}


def test_it_is_what_its_code_makes() -> None:
    made = runpy.run_path(str(FOLDER / "dashboard.py"))["written"]()
    assert made == (FOLDER / "kadogo.json").read_text(), "run python deploy/grafana/dashboard.py"


def lost(given: Any, kept: Any, path: str = "") -> Iterator[str]:
    """Where something given is missing or another in what was kept."""
    if isinstance(given, dict) and isinstance(kept, dict):
        for name, value in given.items():
            yield from lost(value, kept.get(name), f"{path}/{name}")
    elif isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        for place, (one, other) in enumerate(zip(given, kept, strict=True)):
            yield from lost(one, other, f"{path}/{place}")
    elif given != kept:
        yield path


def through_the_schema(dashboard: dict[str, Any]) -> Any:
    """What Grafana's own types make of it, as JSON again: fields they do not know are gone."""
    pytest.importorskip("grafana_foundation_sdk")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    return json.loads(json.dumps(Dashboard.from_json(dashboard), cls=JSONEncoder))


def test_every_field_is_one_that_grafana_knows() -> None:
    assert list(lost(DASHBOARD, through_the_schema(DASHBOARD))) == []


def test_a_misspelt_field_would_be_found() -> None:
    panel = {**PANELS[0], "titel": "Servers"}
    wrong = {**DASHBOARD, "panels": [panel]}
    assert list(lost(wrong, through_the_schema(wrong))) == ["/panels/0/titel"]


def test_panels_have_numbers_and_places_of_their_own() -> None:
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        across = range(place["x"], place["x"] + place["w"])
        mine = {(x, y) for x in across for y in range(place["y"], place["y"] + place["h"])}
        assert not mine & taken, panel["title"]
        taken |= mine


def test_what_a_rule_has_reckoned_is_read_from_there() -> None:
    expressions = [target["expr"] for panel in PANELS for target in panel["targets"]]
    assert {name for e in expressions for name in re.findall(r"kadogo:[\w:]+", e)} <= {*RECORDED}
    raw = {name for e in expressions for name in re.findall(r"\bkadogo_\w+", e)}
    exposed = {sample for family in REGISTRY.collect() for sample in _samples(family.name)}
    assert metrics.REQUEST and raw <= exposed
    ruled = {name for e in RECORDED.values() for name in re.findall(r"kadogo_\w+_(?:sum|count)", e)}
    assert not raw & ruled


def _samples(name: str) -> set[str]:
    return {name, *(f"{name}_{end}" for end in ("total", "count", "sum", "bucket"))}
