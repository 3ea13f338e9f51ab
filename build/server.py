"""
A running server as something that answers texts, so that it is judged as a pipeline is.

HTTP only: what `service/` promises in docs/api.md is all that is known of it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import msgspec

from build.errors import BuildError
from models.spec import Answer, ClassificationAnswer, NerAnswer, Task, Variant

PATHS = {Task.NER: "/v1/ner", Task.CLASSIFICATION: "/v1/classify"}
RESULTS: dict[Task, Any] = {
    Task.NER: list[NerAnswer],
    Task.CLASSIFICATION: list[ClassificationAnswer],
}
# Texts in one request: whole articles have hundreds of windows among them.
TEXTS = 16
PATIENCE_S = 120


class Server:
    """One variant of the server at `url`."""

    def __init__(self, url: str, variant: Variant) -> None:
        self._url = url.rstrip("/") + PATHS[variant.task]
        self._variant = variant
        # A proxy set for the internet would be asked for 127.0.0.1 too.
        self._open = build_opener(ProxyHandler({})).open

    def answer(self, texts: Sequence[str]) -> list[Answer]:
        """In the order of the texts. Raises BuildError where the server answers otherwise."""
        return [
            answer
            for begin in range(0, len(texts), TEXTS)
            for answer in self._ask(texts[begin : begin + TEXTS])
        ]

    def _ask(self, texts: Sequence[str]) -> list[Answer]:
        body = json.dumps({"inputs": texts, "variant": self._variant.name}).encode()
        request = Request(self._url, body, {"Content-Type": "application/json"})
        try:
            with self._open(request, timeout=PATIENCE_S) as reply:
                said = json.load(reply)
        except HTTPError as error:
            detail = json.loads(error.read()).get("detail", error.reason)
            raise BuildError(f"{self._url} answers {error.code}: {detail}") from error
        except URLError as error:
            raise BuildError(f"{self._url} does not answer: {error.reason}") from error
        if said["digest"] != self._variant.digest:
            raise BuildError(
                f"the server's {self._variant.name} is {said['digest']}, "
                f"the catalog's {self._variant.digest}: not the same weights"
            )
        answers: list[Answer] = msgspec.convert(said["results"], RESULTS[self._variant.task])
        return answers
