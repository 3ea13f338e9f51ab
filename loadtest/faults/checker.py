"""
Whether each caller got his own answer: the one that his text gets when it is asked alone.

Knows nothing of how answers came.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from loadtest.faults.client import Answer, Pool


async def alone(pool: Pool, path: str, bodies: Iterable[bytes]) -> dict[bytes, str]:
    """What each body is answered with when nothing else is asked."""
    found = {}
    for body in bodies:
        answer = await pool.post(path, body)
        if answer and answer.status == 200:
            found[body] = told(answer)
    return found


def told(answer: Answer) -> str:
    """What an answer says, without who said it when; scores to the third digit."""
    results = json.loads(answer.body, parse_float=lambda digits: round(float(digits), 3))["results"]
    return json.dumps(results, sort_keys=True)


def wrong(answers: Iterable[Answer], expected: dict[bytes, str]) -> list[Answer]:
    """Those that say something else than their text is answered with alone."""
    return [
        each
        for each in answers
        if each.status == 200 and each.asked in expected and told(each) != expected[each.asked]
    ]
