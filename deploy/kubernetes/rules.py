"""
The rules of deploy/prometheus as the Prometheus Operator takes them; the text below `groups:` is
theirs, so that there is one place to change.

    python deploy/kubernetes/rules.py        writes production/rules.yaml beside it
"""

from __future__ import annotations

import textwrap
from pathlib import Path

HERE = Path(__file__).parent
RULES = HERE.parent / "prometheus"
# Names of groups are each file's own, so each file is an object.
NAMES = ("rules", "alerts")
HEAD = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: kadogo-{name}
  labels:
    app.kubernetes.io/name: kadogo
spec:
"""


def written() -> str:
    """Of production/rules.yaml, the text."""
    return "# Written by ../rules.py.\n" + "---\n".join(map(_wrapped, NAMES))


def _wrapped(name: str) -> str:
    text = (RULES / f"{name}.yml").read_text(encoding="utf-8")
    return HEAD.format(name=name) + textwrap.indent(text[text.index("groups:\n") :], "  ")


if __name__ == "__main__":
    (HERE / "production" / "rules.yaml").write_text(written(), encoding="utf-8")
