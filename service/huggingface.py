"""
`POST /models/{variant}`: the Hugging Face inference schema, as `huggingface_hub` speaks it.

Turns that wire's words into an `Ask` and a reply into that wire's answer; knows nothing of queues.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.types import Receive, Scope, Send

from models.errors import KadogoError
from models.spec import (
    Aggregation,
    Answer,
    Entity,
    LabelScore,
    NerAnswer,
    Options,
    Squash,
    Task,
    Variant,
)
from service.edge import Caller, Post
from service.forms import FieldError, FieldsInvalid, Form
from service.lanes import Lanes
from service.problems import Outcome, error_alone
from service.schemas import Ask, Inputs, Reply
from service.settings import Settings


class Switches(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the hosted service once heeded; here nothing is cached and no model comes later."""

    use_cache: bool | None = None
    wait_for_model: bool | None = None


class TokenClassificationParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    aggregation_strategy  left out, `simple`: as the hosted service, not as transformers has it
    ignore_labels         kinds (`PER`) or, for `none`, labels (`B-PER`); left out, only `O`
    stride                pieces that windows share at the least; texts of any length are read whole
    """

    aggregation_strategy: Aggregation | None = None
    ignore_labels: list[str] | None = None
    stride: Annotated[int, Meta(ge=0)] | None = None

    def options(self, variant: Variant) -> Options:
        """Raises `FieldsInvalid` for a stride that the variant's windows do not keep."""
        most = variant.windows.overlap
        if self.stride is not None and self.stride > most:
            detail = (
                f"{variant.name} reads long texts in windows that share {most} pieces, so stride "
                f"is at most {most}; leave it out: nothing is cut off without it"
            )
            raise FieldsInvalid(FieldError("/parameters/stride", detail))
        ignore = Options().ignore if self.ignore_labels is None else frozenset(self.ignore_labels)
        return Options(aggregation=self.aggregation_strategy or Aggregation.SIMPLE, ignore=ignore)


class TextClassificationParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`function_to_apply`: left out, as the variant was trained. `top_k`: left out, every label."""

    function_to_apply: Squash | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None

    def options(self, variant: Variant) -> Options:
        return Options(squash=self.function_to_apply, top_k=self.top_k)


class TokenClassificationInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`inputs`: one text, or several. `options` change nothing."""

    inputs: Inputs
    parameters: TokenClassificationParameters | None = None
    options: Switches | None = None


class TextClassificationInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    __doc__ = TokenClassificationInput.__doc__

    inputs: Inputs
    parameters: TextClassificationParameters | None = None
    options: Switches | None = None


class TokenGroup(msgspec.Struct, frozen=True, kw_only=True):
    """An entity; `word` is the caller's own `text[start:end]`."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


class TokenPiece(msgspec.Struct, frozen=True, kw_only=True):
    """A piece; `word` is how the vocabulary spells it, `index` its number in the text from 1 on."""

    entity: str
    score: float
    index: int
    word: str
    start: int
    end: int


Told = list[TokenGroup | TokenPiece] | list[LabelScore]
# As `api.Answers.outcome`.
Answering = Callable[[Task, Ask, Caller, Callable[[Reply], bytes]], Awaitable[Outcome]]


class Models:
    """The ASGI endpoint of every variant: what is asked and answered goes by the variant's task."""

    def __init__(self, lanes: Lanes, settings: Settings, answer: Answering) -> None:
        self._lanes = lanes
        self._settings = settings
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A whole path, for a hub's name has a slash: who gives one is told which names there are.
        name = scope["path_params"]["variant"].rstrip("/")
        post = Post(
            partial(self._outcome, name),
            task=self._task(name),
            max_body=self._settings.max_body,
            deadline_s=self._settings.deadline_ms / 1000,
            body_s=self._settings.body_s,
            retold=error_alone,
        )
        await post(scope, receive, send)

    def _task(self, name: str) -> str:
        """For the metrics; what is wrong is told once the body has been read."""
        try:
            return self._lanes.named(name).variant.task
        except KadogoError:
            return "none"

    async def _outcome(self, name: str, body: bytes, caller: Caller) -> Outcome:
        variant = self._lanes.named(name).variant
        asked = FORMS[variant.task].read(body)
        parameters = asked.parameters or _PARAMETERS[variant.task]()
        ask = Ready(inputs=asked.inputs, variant=name, settled=parameters.options(variant))
        written = partial(_written, single=isinstance(asked.inputs, str))
        return await self._answer(variant.task, ask, caller, written)


class Ready(Ask, frozen=True):
    """An ask whose options are settled already."""

    settled: Options = Options()

    @property
    def options(self) -> Options:
        return self.settled


_NAMES = {Task.NER: "token classification", Task.CLASSIFICATION: "text classification"}
_PARAMETERS = {
    Task.NER: TokenClassificationParameters,
    Task.CLASSIFICATION: TextClassificationParameters,
}


def _elsewhere(task: Task, other: Task) -> dict[str, str]:
    known = ", ".join(_PARAMETERS[task].__struct_fields__)
    return {
        name: f"{name} is a parameter of {_NAMES[other]}; {_NAMES[task]} knows {known}"
        for name in _PARAMETERS[other].__struct_fields__
    }


FORMS: dict[Task, Form[TokenClassificationInput] | Form[TextClassificationInput]] = {
    Task.NER: Form(TokenClassificationInput, _elsewhere(Task.NER, Task.CLASSIFICATION)),
    Task.CLASSIFICATION: Form(TextClassificationInput, _elsewhere(Task.CLASSIFICATION, Task.NER)),
}


def _written(reply: Reply, *, single: bool) -> bytes:
    """
    A list for each text; of one text alone its entities bare, its labels in a list once more.

    That is what the hosted service sends, and what its client takes apart again.
    """
    told = [_told(answer) for answer in reply.results]
    bare = single and reply.task is Task.NER
    return msgspec.json.encode(told[0] if bare else told)


def _told(answer: Answer) -> Told:
    if isinstance(answer, NerAnswer):
        return [_token(entity) for entity in answer.entities]
    return list(answer.labels)


def _token(found: Entity) -> TokenGroup | TokenPiece:
    if found.index is None:
        return TokenGroup(
            entity_group=found.label,
            score=found.score,
            word=found.text,
            start=found.start,
            end=found.end,
        )
    return TokenPiece(
        entity=found.label,
        score=found.score,
        index=found.index,
        word=found.piece or found.text,
        start=found.start,
        end=found.end,
    )
