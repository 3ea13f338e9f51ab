"""
One row at a time: which texts can be read, why others are set aside, and what an answer adds.

Pure but for the pipeline it is given; the limits and the answers are the service's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from models.errors import RequestError
from models.pipeline import Pipeline
from models.spec import Answer, Options, Task
from service.schemas import Ask, texts_of

# Texts of one sorting; what they hold bounds the memory of their logits.
CHUNK_TEXTS = 512
CHUNK_CHARACTERS = 1 << 20

COLUMNS = {
    Task.NER: ("entities", "tokens", "windows", "unknown"),
    Task.CLASSIFICATION: ("label", "labels", "tokens", "windows", "unknown"),
}

MISSING = "the text is missing"
NOT_TEXT = "the text is not a string"
NO_ID = "the id is missing"
NOT_UTF8 = "the line is not UTF-8"
NOT_JSON = "the line is not JSON"
HALF = "half of a surrogate pair is missing in the line"
NOT_AN_OBJECT = "the line is not a JSON object"
LONG_LINE = "the line is too long"
TAKEN = "a field has the name of one of the answer's"
NO_COLUMN = "a field is not among the output's columns"
MISFIT = "a field does not fit its column"
NO_ANSWER = "the model failed on it"


class Fault(NamedTuple):
    """Why a row is set aside. Repeats nothing of it."""

    reason: str


def checked(value: object, max_text: int) -> str | Fault:
    """The text as the service would take it, or why it would not."""
    if value is None:
        return Fault(MISSING)
    if not isinstance(value, str):
        return Fault(NOT_TEXT)
    if len(value) > max_text:  # texts_of names the length, and reasons are counted
        return Fault(f"the text has more than {max_text} characters")
    try:
        (text,) = texts_of(Ask(value), max_inputs=1, max_text=max_text, pointer="")
    except RequestError as error:
        return Fault(str(error).removeprefix("the body: "))
    return text


def answered(
    pipeline: Pipeline, texts: Sequence[str], options: Options, *, batch_tokens: int
) -> list[Answer | Fault]:
    """Answers in the order of the texts; one that the model fails on costs no other its own."""
    found: list[Answer | Fault] = []
    for chunk in chunks(texts):
        try:
            found += pipeline.answer(chunk, options, batch_tokens=batch_tokens)
        except Exception:  # each engine has its own kinds
            found += [_alone(pipeline, text, options) for text in chunk]
    return found


def chunks(
    texts: Sequence[str], *, most: int = CHUNK_TEXTS, characters: int = CHUNK_CHARACTERS
) -> Iterator[list[str]]:
    """In their order, so many at most; beyond so many characters a text is alone in its chunk."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        if chunk and (len(chunk) == most or size + len(text) > characters):
            yield chunk
            chunk, size = [], 0
        chunk.append(text)
        size += len(text)
    if chunk:
        yield chunk


def columns(task: Task, prefix: str) -> tuple[str, ...]:
    """What an answer adds to its row."""
    return tuple(prefix + name for name in COLUMNS[task])


def fields(answer: Answer, prefix: str) -> dict[str, Any]:
    """An answer as JSON has it, by column; of topics also the best one by itself."""
    plain: dict[str, Any] = msgspec.to_builtins(answer)
    if "labels" in plain:
        best = plain["labels"][0]["label"] if plain["labels"] else None
        plain = {"label": best, **plain}
    return {prefix + name: value for name, value in plain.items()}


def _alone(pipeline: Pipeline, text: str, options: Options) -> Answer | Fault:
    try:
        return pipeline.answer([text], options)[0]
    except Exception:
        return Fault(NO_ANSWER)
