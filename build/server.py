"""
A running server as something that answers texts, so that it is judged as a pipeline is.

HTTP only: what `service/` promises in docs/api.md is all that is known of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import msgspec

from build.errors import BuildError
from models.spec import Answer, ClassificationAnswer, NerAnswer, Task, Variant

PATHS = {Task.NER: "/v1/ner", Task.CLASSIFICATION: "/v1/classify"}


class _Problem(msgspec.Struct):
    detail: str = ""


class _Entities(msgspec.Struct):
    digest: str
    results: list[NerAnswer]


class _Topics(msgspec.Struct):
    digest: str
    results: list[ClassificationAnswer]


REPLIES: dict[Task, type[_Entities] | type[_Topics]] = {
    Task.NER: _Entities,
    Task.CLASSIFICATION: _Topics,
}
# Of the environment: the key, where the server asks for one. Never an argument: those are listed.
KEY = "KADOGO_KEY"
# Texts in one request: whole articles have hundreds of windows among them.
TEXTS = 16
PATIENCE_S = 120


class Server:
    """One variant of the server at `url`. Raises BuildError for a key that cannot be one."""

    def __init__(self, url: str, variant: Variant) -> None:
        self._url = url.rstrip("/") + PATHS[variant.task]
        self._variant = variant
        self._reply = REPLIES[variant.task]
        self._key = os.environ.get(KEY, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise BuildError(f"{KEY} is not a key: those are of letters, digits, - and _")
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
        if self._key:  # for this server alone, wherever it may send us
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")
        try:
            with self._open(request, timeout=PATIENCE_S) as reply:
                said = msgspec.json.decode(reply.read(), type=self._reply)
        except HTTPError as error:
            if error.code in (401, 403):
                raise BuildError(
                    f"{self._url} answers {error.code}: set {KEY} to one of the server's keys "
                    "that has the scope infer"
                ) from None
            detail = _detail(error.read()) or error.reason
            raise BuildError(f"{self._url} answers {error.code}: {detail}") from error
        except URLError as error:
            raise BuildError(f"{self._url} does not answer: {error.reason}") from error
        except msgspec.DecodeError as error:
            raise BuildError(f"{self._url} does not answer as a Kadogo does: {error}") from error
        if said.digest != self._variant.digest:
            raise BuildError(
                f"the server's {self._variant.name} is {said.digest}, "
                f"the catalog's {self._variant.digest}: not the same weights"
            )
        return list(said.results)


def _detail(problem: bytes) -> str:
    """What a problem says; nothing of a page, which a proxy before the server may send."""
    try:
        return msgspec.json.decode(problem, type=_Problem).detail
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
