"""
A caller for Locust: asks one variant about one text after another over one connection.

`python -m loadtest` drives it; so does Locust itself, with its page and its distributed mode:
    locust -f loadtest/locustfile.py --host http://127.0.0.1:3000 --variant ner-int8
"""

from __future__ import annotations

import itertools
import json
import time
from argparse import ArgumentParser
from functools import cache
from typing import Any

from locust import FastHttpUser, constant, events, task

from loadtest.texts import LENGTHS, traffic

ROUTES = {"ner": "/v1/ner", "classification": "/v1/classify"}
KINDS = {"ner": "sentences", "classification": "articles"}
TEXTS = 512

# Callers start this share of the texts apart: no two send the same text at once.
APART = 0.618
REST_AFTER_FAILURE_S = 0.1


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def flags(parser: ArgumentParser) -> None:
    """The flags of `locust -f` beside Locust's own."""
    parser.add_argument("--variant", default="", help="empty: the task's default variant")
    parser.add_argument("--task", choices=sorted(ROUTES), default="ner")
    parser.add_argument(
        "--texts",
        default="",
        help=f"{', '.join(LENGTHS)}, or a .txt or .jsonl file or a folder of them "
        "(default: sentences for ner, articles for classification)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the texts")


class Caller(FastHttpUser):
    """Waits for each answer before it asks again; rests a moment after a failure."""

    wait_time = constant(0)
    numbers = itertools.count()

    def on_start(self) -> None:
        asked = self.environment.parsed_options
        self.route = ROUTES[asked.task]
        self.name = asked.variant or asked.task
        found = bodies(asked.texts or KINDS[asked.task], asked.variant, asked.seed)
        start = int(next(self.numbers) * APART * len(found)) % len(found)
        self.bodies = itertools.cycle(found[start:] + found[:start])

    @task
    def ask(self) -> None:
        with self.client.post(
            self.route,
            data=next(self.bodies),
            headers={"Content-Type": "application/json"},
            name=self.name,
            catch_response=True,
        ) as answer:
            wrong = fault(answer.status_code, answer.text)
            if wrong:
                answer.failure(wrong)
        if wrong:
            time.sleep(REST_AFTER_FAILURE_S)


@cache
def bodies(texts: str, variant: str, seed: int) -> list[str]:
    """A request body a text, encoded once for all callers."""
    named = {"variant": variant} if variant else {}
    found = traffic(texts, count=TEXTS, seed=seed)
    return [json.dumps({"inputs": text, **named}, ensure_ascii=False) for text in found]


def fault(status: int, body: Any) -> str | None:
    """What is wrong with an answer to one text; None for a right one."""
    if status == 0:
        return "no answer (connection refused, reset or timed out)"
    if status != 200:
        return f"HTTP {status}"
    try:
        return None if len(json.loads(body)["results"]) == 1 else "not one result for one text"
    except (ValueError, TypeError, KeyError):
        return "no results in the answer"
