"""
What is asked of the servers: the load test's texts, one a request, on the route of their task.

Knows nothing of what a server is, nor of what is made of the answers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from build.bench.load import Load, saturate
from build.bench.plan import Plan
from build.errors import BuildError
from models.spec import Task

ROOT = Path(__file__).resolve().parents[2]

ROUTES = {Task.NER: "/v1/ner", Task.CLASSIFICATION: "/v1/classify"}
KINDS = {Task.NER: "sentences", Task.CLASSIFICATION: "articles"}
TEXTS = 512


def texts_of(task: Task, seed: int) -> list[str]:
    """The texts the load test sends: asked of it as a command, since we share no code with it."""
    command = [sys.executable, "-m", "loadtest.texts", "--kind", KINDS[task]]
    command += ["--count", str(TEXTS), "--seed", str(seed)]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    return [json.loads(line)["text"] for line in lines.decode().split("\n") if line]


def bodies_of(texts: Sequence[str], variant: str) -> list[bytes]:
    asks = [{"inputs": text, "variant": variant} for text in texts]
    return [json.dumps(ask, ensure_ascii=False).encode() for ask in asks]


def send(url: str, task: Task, bodies: Sequence[bytes], plan: Plan) -> Load:
    """Keep the server at `url` busy for the warm-up and the measurement. Raises BuildError."""
    seconds = plan.warmup_s + plan.seconds
    load = saturate(url + ROUTES[task], bodies, connections=plan.connections, seconds=seconds)
    if not load.rate(after_s=plan.warmup_s, until_s=seconds):
        raise BuildError(
            f"no right answer came in {plan.seconds:g} s ({load.failures} failed): "
            "is the machine busy? --seconds gives it more time"
        )
    return load
