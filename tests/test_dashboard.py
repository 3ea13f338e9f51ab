"""The dashboard as it is shipped: made by its code, in Grafana's schema, of rules there are."""

from __future__ import annotations

import copy
import json
import re
import runpy
from collections.abc import Iterator
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

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


def as_grafana_reads(dashboard: dict[str, Any]) -> Any:
    """The dashboard as values of Grafana's own types, which take what they are given."""
    pytest.importorskip("grafana_foundation_sdk")
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    return Dashboard.from_json(dashboard)


def unknown(dashboard: dict[str, Any]) -> list[str]:
    """Fields that Grafana's types do not have: they are gone when it is JSON again."""
    read = as_grafana_reads(dashboard)
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    return list(lost(dashboard, json.loads(json.dumps(read, cls=JSONEncoder))))


def of_another_type(value: Any, wanted: Any, path: str = "") -> Iterator[str]:
    """Where a value is not what the annotations of Grafana's types say."""
    arguments = get_args(wanted)
    if get_origin(wanted) is Union:
        found = [list(of_another_type(value, each, path)) for each in arguments]
        if all(found):  # of no kind: tell of the one that fits farthest
            yield from max(found, key=lambda wrong: len(wrong[0]))
    elif get_origin(wanted) is Literal:
        if value not in arguments:
            yield path
    elif get_origin(wanted) in (list, dict):
        if not isinstance(value, get_origin(wanted)):
            yield path
            return
        several = value.items() if isinstance(value, dict) else enumerate(value)
        for name, each in several:
            yield from of_another_type(each, arguments[-1], f"{path}/{name}")
    elif wanted is object:  # a panel's options: of its plugin's own type, where there is one
        if hasattr(value, "from_json"):
            yield from of_another_type(value, type(value), path)
        elif value and isinstance(value, dict):
            yield path
    elif issubclass(wanted, Enum):
        if value not in [each.value for each in wanted]:
            yield path
    elif wanted in (bool, int, float, str):
        if type(value) not in ((int, float) if wanted is float else (wanted,)):
            yield path
    else:
        if isinstance(value, dict) and hasattr(wanted, "from_json"):  # left as it was given
            value = wanted.from_json(value)
        if not isinstance(value, wanted):
            yield path
            return
        for name, each in get_type_hints(type(value)).items():
            yield from of_another_type(getattr(value, name), each, f"{path}/{name}")


def of_other_types(dashboard: dict[str, Any]) -> list[str]:
    read = as_grafana_reads(dashboard)
    return list(of_another_type(read, type(read)))


def test_every_field_is_one_that_grafana_knows_and_of_its_type() -> None:
    assert unknown(DASHBOARD) == []
    assert of_other_types(DASHBOARD) == []


def test_a_misspelt_field_would_be_found() -> None:
    panel = {**PANELS[0], "titel": "Servers"}
    assert unknown({**DASHBOARD, "panels": [panel]}) == ["/panels/0/titel"]


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("gridPos/w", "three", "grid_pos/w"),
        ("targets/0/expr", 42, "targets/0/expr"),
        ("targets/0/range", "no", "targets/0/range_val"),
        ("targets/0/editorMode", "vi", "targets/0/editor_mode"),
        ("title", 7, "title"),
        ("type", "nosuchpanel", "options"),
        ("id", 1.5, "id_val"),
        ("fieldConfig/defaults/unit", ["s"], "field_config/defaults/unit"),
        ("options/reduceOptions/calcs", "mean", "options/reduce_options/calcs"),
    ],
)
def test_a_value_of_another_type_would_be_found(path: str, value: Any, told: str) -> None:
    panel = copy.deepcopy(next(each for each in PANELS if each["type"] == "stat"))
    place: Any = panel
    *steps, last = path.split("/")
    for step in steps:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    assert of_other_types({**DASHBOARD, "panels": [panel]}) == [f"/panels/0/{told}"]


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


LABELED = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
LABELS = {sample: {*each._labelnames} for each in LABELED for sample in _samples(each._name)}
# What Prometheus adds, and what a histogram's buckets have.
ADDED = {"job", "instance", "le"}


def not_labels(expression: str) -> set[str]:
    """What an expression selects or sums by that no metric in it has; data would be missing."""
    found = set()
    for name, selected in re.findall(r"\b(kadogo_\w+)(?:\{([^}]*)\})?", expression):
        found |= {*re.findall(r"(\w+)\s*[!=]~?", selected)} - LABELS[name] - ADDED
    named = {*re.findall(r"\bkadogo_\w+", expression)}
    if named and "kadogo:" not in expression:
        has = set[str]().union(*(LABELS[name] for name in named)) | ADDED
        for summed in re.findall(r"\bby \(([^)]*)\)", expression):
            found |= {*summed.split(", ")} - has
    return found


def test_what_is_selected_and_summed_by_are_labels_there_are() -> None:
    asked = [target["expr"] for panel in PANELS for target in panel["targets"]]
    assert {e: not_labels(e) for e in (*asked, *RECORDED.values()) if not_labels(e)} == {}


@pytest.mark.parametrize(
    ("good", "bad"), [('state="quarantined"', 'stat="quarantined"'), ("(shadow, ", "(shade, ")]
)
def test_a_label_there_is_not_would_be_found(good: str, bad: str) -> None:
    (expression,) = (
        target["expr"]
        for panel in PANELS
        for target in panel["targets"]
        if good in target["expr"] and "vector(0)" in target["expr"]
    )
    assert not_labels(expression.replace(good, bad))
