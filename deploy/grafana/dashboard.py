"""
The dashboard as code: `python deploy/grafana/dashboard.py` writes kadogo.json beside it.

Plain values in Grafana's own schema, so that it needs nothing installed. What a rule of
deploy/prometheus/rules.yml has reckoned is read from there. Knows nothing of any server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("kadogo.json")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # columns of Grafana's grid
HEIGHT = 8

Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """
    queries  legend -> expression; the legend may have {{labels}}
    unit     of Grafana's: s, bytes, reqps, short, percentunit
    kind     timeseries, stat or table
    signed   may be below nothing
    """

    title: str
    about: str
    queries: dict[str, str]
    unit: str = "short"
    width: int = 8
    kind: str = "timeseries"
    stacked: bool = False
    signed: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """Panels under a title; `each` repeats them for every value of that variable."""

    title: str
    panels: Sequence[Panel]
    each: str | None = None


def or_none(counter: str, *labels: str) -> str:
    """How much is counted a second by these labels; where nothing ever was, that nothing is."""
    none = "vector(0)"
    for label in labels:
        none = f'label_replace({none}, "{label}", "none", "", "")'
    counted = f'rate({counter}{{job="$job"}}[$__rate_interval])'
    return f"sum by ({', '.join(labels)}) ({counted}) or {none}"


ROWS = (
    Row(
        title="Overview",
        panels=(
            Panel(
                title="Servers",
                about="That answer Prometheus.",
                queries={"up": 'sum(up{job="$job"})'},
                width=3,
                kind="stat",
            ),
            Panel(
                title="Variants",
                about="That serve on at least one server.",
                queries={
                    "ready": 'count(max by (variant) (kadogo_variant_info{job="$job", '
                    'state="ready"}) == 1)'
                },
                width=3,
                kind="stat",
            ),
            Panel(
                title="Requests",
                about="A second, whatever came of them.",
                queries={"requests": 'sum(kadogo:requests:rate5m{job="$job"})'},
                unit="reqps",
                width=3,
                kind="stat",
            ),
            Panel(
                title="Failed, last hour",
                about="Answered with 5xx; promised is less than 0.5 %.",
                queries={"5xx": 'kadogo:errors:ratio_rate1h{job="$job"}'},
                unit="percentunit",
                width=3,
                kind="stat",
            ),
            Panel(
                title="Slow, last hour",
                about="Answered after more than 0.5 s; promised is less than 1 %.",
                queries={"slow": 'kadogo:slow:ratio_rate1h{job="$job"}'},
                unit="percentunit",
                width=3,
                kind="stat",
            ),
            Panel(
                title="Waiting",
                about="Windows of text in all queues.",
                queries={"windows": 'kadogo:queue_depth:sum{job="$job"}'},
                width=3,
                kind="stat",
            ),
            Panel(
                title="Quarantined",
                about="Variants that did not prove themselves, over all servers.",
                queries={
                    "variants": 'sum(kadogo_variant_info{job="$job", state="quarantined"}) '
                    "or vector(0)"
                },
                width=3,
                kind="stat",
            ),
            Panel(
                title="Alerts",
                about="That fire now: docs/runbook.md.",
                queries={
                    "alerts": 'count(ALERTS{alertname=~"Kadogo.+", alertstate="firing"}) '
                    "or vector(0)"
                },
                width=3,
                kind="stat",
            ),
            Panel(
                title="Requests by status",
                about="4xx are refusals and callers who left (499).",
                queries={
                    "{{status_class}}": 'sum by (status_class) (kadogo:requests:rate5m{job="$job"})'
                },
                unit="reqps",
                stacked=True,
            ),
            Panel(
                title="99 of 100 answers within",
                about="From the first byte read to the last sent, by variant.",
                queries={"{{variant}}": 'kadogo:request_seconds:p99_5m{job="$job"}'},
                unit="s",
            ),
            Panel(
                title="Budget burnt",
                about="How many times faster than the promise allows: 1 uses it up in a month. "
                "Alerts begin at 14.4 (an hour), 6 (six hours), 3 (a day), 1 (three days).",
                queries={
                    "failed, 1 h": 'kadogo:errors:ratio_rate1h{job="$job"} / 0.005',
                    "failed, 6 h": 'kadogo:errors:ratio_rate6h{job="$job"} / 0.005',
                    "slow, 1 h": 'kadogo:slow:ratio_rate1h{job="$job"} / 0.01',
                    "slow, 6 h": 'kadogo:slow:ratio_rate6h{job="$job"} / 0.01',
                },
            ),
        ),
    ),
    Row(
        title="$variant",
        each="variant",
        panels=(
            Panel(
                title="Requests by status",
                about="That this variant answered, or was to.",
                queries={
                    "{{status_class}}": "sum by (status_class) "
                    '(kadogo:requests:rate5m{job="$job", variant="$variant"})'
                },
                unit="reqps",
                width=6,
                stacked=True,
            ),
            Panel(
                title="Answered within",
                about="Half of the answers, 95 and 99 of 100.",
                queries={
                    f"p{p}": f'kadogo:request_seconds:p{p}_5m{{job="$job", variant="$variant"}}'
                    for p in (50, 95, 99)
                },
                unit="s",
                width=6,
            ),
            Panel(
                title="Where the time goes",
                about="95 of 100 within: waiting, encoding, and one run of the model.",
                queries={
                    name: f'kadogo:{name}_seconds:p95_5m{{job="$job", variant="$variant"}}'
                    for name in ("queue", "encode", "model")
                },
                unit="s",
                width=6,
            ),
            Panel(
                title="Texts and tokens",
                about="A second; tokens without padding.",
                queries={
                    name: f'kadogo:{name}:rate5m{{job="$job", variant="$variant"}}'
                    for name in ("texts", "tokens")
                },
                width=6,
            ),
        ),
    ),
    Row(
        title="Routing",
        panels=(
            Panel(
                title="Who answers",
                about="Share of each variant in what was answered.",
                queries={
                    "{{variant}}": "sum by (variant) "
                    '(kadogo:requests:rate5m{job="$job", status_class="2xx"}) '
                    "/ ignoring (variant) group_left sum "
                    '(kadogo:requests:rate5m{job="$job", status_class="2xx"})'
                },
                unit="percentunit",
                width=6,
                stacked=True,
            ),
            Panel(
                title="Down the ladder",
                about="Requests answered by a smaller variant, by who would have and why.",
                queries={
                    "{{variant}}: {{reason}}": or_none("kadogo_degraded_total", "variant", "reason")
                },
                unit="reqps",
                width=6,
            ),
            Panel(
                title="Not answered",
                about="Requests without a result, by reason.",
                queries={"{{reason}}": 'kadogo:rejections:rate5m{job="$job"}'},
                unit="reqps",
                width=6,
                stacked=True,
            ),
            Panel(
                title="Trials that ended",
                about="Canaries and their verdicts: docs/routing.md.",
                queries={
                    "{{route}}: {{variant}} {{verdict}}": "max by (route, variant, verdict) "
                    '(kadogo_trial_info{job="$job"}) == 1'
                },
                width=6,
                kind="table",
            ),
        ),
    ),
    Row(
        title="Batches",
        panels=(
            Panel(
                title="Waiting",
                about="Windows in the queue of each variant.",
                queries={"{{variant}}": 'sum by (variant) (kadogo_queue_depth{job="$job"})'},
                width=6,
            ),
            Panel(
                title="Padding",
                about="Mean share of a batch that is padding.",
                queries={"{{variant}}": 'kadogo:padding:mean5m{job="$job"}'},
                unit="percentunit",
                width=6,
            ),
            Panel(
                title="Windows in a batch",
                about="Mean: more where more waits.",
                queries={"{{variant}}": 'kadogo:batch_texts:mean5m{job="$job"}'},
                width=6,
            ),
            Panel(
                title="Tokens in a batch",
                about="Mean, without padding.",
                queries={"{{variant}}": 'kadogo:batch_tokens:mean5m{job="$job"}'},
                width=6,
            ),
            Panel(
                title="Waited",
                about="95 of 100 at most, until the first window was begun.",
                queries={"{{variant}}": 'kadogo:queue_seconds:p95_5m{job="$job"}'},
                unit="s",
                width=12,
            ),
            Panel(
                title="Not run",
                about="Windows that nobody waited for any more, by reason.",
                queries={
                    "{{variant}}: {{reason}}": or_none("kadogo_dropped_total", "variant", "reason")
                },
                width=12,
            ),
        ),
    ),
    Row(
        title="Quality",
        panels=(
            Panel(
                title="Shadows agree",
                about="Of what a variant or its shadow says, the share that both say. Last hour.",
                queries={
                    "{{variant}} and {{shadow}}": "1 - "
                    'kadogo:shadow_disagreement:ratio1h{job="$job"}'
                },
                unit="percentunit",
                width=6,
            ),
            Panel(
                title="Drift from the evidence",
                about="Disagreement with the baseline over six hours, and at most as promised.",
                queries={
                    "{{variant}}, live": 'kadogo:baseline_disagreement:ratio6h{job="$job"}',
                    "{{variant}}, promised": 'kadogo:promised_disagreement:ratio{job="$job"}',
                },
                unit="percentunit",
                width=6,
            ),
            Panel(
                title="Shadows are slower by",
                about="Mean time in the model, the shadow's minus that of who answered.",
                queries={
                    "{{variant}} and {{shadow}}": "sum by (variant, shadow) (rate("
                    'kadogo_shadow_difference_seconds_sum{job="$job"}[$__rate_interval])) / '
                    "sum by (variant, shadow) (rate("
                    'kadogo_shadow_difference_seconds_count{job="$job"}[$__rate_interval]))'
                },
                unit="s",
                width=6,
                signed=True,
            ),
            Panel(
                title="Not read along",
                about="Requests a shadow was to read and did not, by reason.",
                queries={
                    "{{shadow}}: {{reason}}": or_none(
                        "kadogo_shadow_lost_total", "shadow", "reason"
                    )
                },
                unit="reqps",
                width=6,
            ),
        ),
    ),
    Row(
        title="Resources",
        panels=(
            Panel(
                title="Cores",
                about="In use, by server.",
                queries={"{{instance}}": 'kadogo:cores:rate5m{job="$job"}'},
                width=6,
            ),
            Panel(
                title="Memory",
                about="Resident, all workers of a server; pages that they share count for each.",
                queries={"{{instance}}": 'kadogo:resident_bytes:sum{job="$job"}'},
                unit="bytes",
                width=6,
            ),
            Panel(
                title="Workers",
                about="That live, and those that died in the last hour.",
                queries={
                    "{{instance}}": 'kadogo_workers{job="$job"}',
                    "{{instance}}, died": 'increase(kadogo_worker_deaths_total{job="$job"}[1h])',
                },
                width=6,
            ),
            Panel(
                title="Files and connections",
                about="Open, all workers of a server.",
                queries={"{{instance}}": 'sum by (instance) (process_open_fds{job="$job"})'},
                width=6,
            ),
        ),
    ),
)


def dashboard() -> Json:
    return {
        "uid": "kadogo",
        "title": "Kadogo",
        "description": "Made by deploy/grafana/dashboard.py; change it there.",
        "tags": ["kadogo"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,  # one crosshair through all panels
        "refresh": "30s",
        "schemaVersion": 39,
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(_variables())},
        "panels": list(_panels()),
    }


def _variables() -> Iterator[Json]:
    yield {
        "name": "datasource",
        "type": "datasource",
        "label": "Source",
        "query": "prometheus",
        "hide": 0,
        "refresh": 1,
        "regex": "",
        "multi": False,
        "includeAll": False,
        "options": [],
    }
    yield _asked("job", "Job", "label_values(kadogo_variant_info, job)", several=False)
    variants = 'label_values(kadogo_variant_info{job="$job", state="ready"}, variant)'
    yield _asked("variant", "Variants", variants, several=True)


def _asked(name: str, label: str, query: str, *, several: bool) -> Json:
    """A variable whose values Prometheus knows."""
    variable = {
        "name": name,
        "type": "query",
        "label": label,
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "hide": 0,
        "refresh": 2,  # as the time range changes
        "sort": 1,
        "regex": "",
        "multi": several,
        "includeAll": several,
        "options": [],
    }
    if several:
        variable["current"] = {"selected": True, "text": ["All"], "value": ["$__all"]}
    return variable


def _panels() -> Iterator[Json]:
    numbers = count(1)
    top = 0
    for row in ROWS:
        head = {
            "id": next(numbers),
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": top},
            "panels": [],
        }
        yield {**head, "repeat": row.each} if row.each else head
        top += 1
        left = tallest = 0
        for panel in row.panels:
            height = HEIGHT // 2 if panel.kind == "stat" else HEIGHT
            if left + panel.width > WIDTH:
                left, top = 0, top + tallest
                tallest = 0
            place = {"h": height, "w": panel.width, "x": left, "y": top}
            yield _panel(panel, next(numbers), place)
            left, tallest = left + panel.width, max(tallest, height)
        top += tallest


def _panel(panel: Panel, number: int, place: Json) -> Json:
    looks = {
        "timeseries": (
            {
                "legend": {
                    "displayMode": "list",
                    "placement": "bottom",
                    "showLegend": True,
                    "calcs": [],
                },
                "tooltip": {"mode": "multi", "sort": "desc"},
            },
            {
                "drawStyle": "line",
                "lineWidth": 1,
                "fillOpacity": 20 if panel.stacked else 0,
                "showPoints": "never",
                "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            },
        ),
        "stat": (
            {
                "colorMode": "none",
                "graphMode": "area",
                "justifyMode": "auto",
                "textMode": "value",
                "orientation": "auto",
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
            },
            {},
        ),
        "table": ({"showHeader": True, "cellHeight": "sm"}, {}),
    }
    options, custom = looks[panel.kind]
    defaults: Json = {"unit": panel.unit, "custom": custom}
    if not panel.signed:
        defaults["min"] = 0
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "gridPos": place,
        "targets": [
            _target(panel, chr(ord("A") + i), legend, expr)
            for i, (legend, expr) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
    }


def _target(panel: Panel, ref: str, legend: str, expr: str) -> Json:
    target = {
        "refId": ref,
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": expr,
        "legendFormat": legend,
        "range": panel.kind == "timeseries",
        "instant": panel.kind != "timeseries",
    }
    return {**target, "format": "table"} if panel.kind == "table" else target


def written() -> str:
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(written())
