"""
What a decision costs a request: by a policy, against naming the variant that it decides for.

One connection, one text, each way in turn, so that all else is the same. Knows nothing of how a
decision is made.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from http.client import HTTPConnection
from urllib.parse import urlsplit

from build.bench.plan import Plan
from build.bench.report import say
from build.bench.server import kadogo
from build.bench.traffic import texts_of
from build.errors import BuildError
from build.figures import Figure, Target
from models.spec import Task

NAMED = "named"
POLICIES: Mapping[str, Mapping[str, object]] = {
    "policy": {"prefer": "smallest", "max_f1_drop": 0.01},
    "policy of a time": {"prefer": "smallest", "max_f1_drop": 0.01, "max_latency_ms": 60_000},
}
ADDS_US = 50.0


def measure(plan: Plan) -> list[Figure]:
    """Nothing where no variant of the catalog satisfies the policies: who has no evidence."""
    text = min(texts_of(Task.NER, plan.seed), key=len)
    with kadogo(plan.catalog, threads=plan.cores) as server:
        asking = Asking(server.url)
        ways = {name: asking.body(text, policy=policy) for name, policy in POLICIES.items()}
        decided = {name: asking.variant(body) for name, body in ways.items()}
        chosen = {name: variant for name, variant in decided.items() if variant is not None}
        if len(chosen) < len(ways):
            say("routing: left out, for no variant here satisfies max_f1_drop 0.01")
            return []
        # A policy of a time may choose another one: each is held against naming its own.
        named = {variant: f"{NAMED} {variant}" for variant in chosen.values()}
        bodies = {way: asking.body(text, variant=variant) for variant, way in named.items()}
        rounds = [asking.medians_us(bodies | ways, plan.seconds) for _ in range(plan.rounds)]
        asking.close()
    return [
        *(
            Figure("routing", variant, f"a request, {NAMED}", "us", tuple(r[way] for r in rounds))
            for variant, way in named.items()
        ),
        *(
            Figure(
                "routing",
                variant,
                f"{name} adds",
                "us",
                tuple(each[name] - each[named[variant]] for each in rounds),
                Target(ADDS_US, at_least=False),
            )
            for name, variant in chosen.items()
        ),
    ]


class Asking:
    """One connection that asks a server of entities, one request at a time."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=60)

    @staticmethod
    def body(text: str, **ask: object) -> bytes:
        return json.dumps({"inputs": text, **ask}).encode()

    def variant(self, body: bytes) -> str | None:
        """Who answered; None where a policy is not satisfied. Raises BuildError."""
        status, answer = self._post(body)
        if status == 409:
            return None
        if status != 200:
            raise BuildError(f"the server answered {status}: {answer.decode(errors='replace')}")
        return str(json.loads(answer)["variant"])

    def medians_us(self, ways: Mapping[str, bytes], seconds: float) -> dict[str, float]:
        """Of each way the median time of a request, all in turn for so long."""
        took: dict[str, list[float]] = defaultdict(list)
        until = time.perf_counter() + seconds
        while time.perf_counter() < until:
            for name, body in ways.items():
                began = time.perf_counter()
                self._post(body)
                took[name].append(time.perf_counter() - began)
        return {name: 1e6 * statistics.median(each) for name, each in took.items()}

    def close(self) -> None:
        self._connection.close()

    def _post(self, body: bytes) -> tuple[int, bytes]:
        headers = {"Content-Type": "application/json"}
        self._connection.request("POST", "/v1/ner", body, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()
