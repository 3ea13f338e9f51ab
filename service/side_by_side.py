"""
`POST /v1/compare`: texts through several variants of one task, and where those disagree.

Chooses the variants and asks them in turn; what disagreeing is, `compare.py` says.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial, reduce
from time import perf_counter
from typing import Any, NamedTuple

import msgspec

from models.errors import TooLarge
from models.spec import Answer, Task, Variant
from service import seen
from service.bodies import JSON
from service.compare import (
    Agreement,
    ClassificationComparison,
    NerComparison,
    agreement,
    compared,
)
from service.edge import Caller, Post
from service.forms import FieldError, FieldsInvalid, Form
from service.lane import INLINE, Answered, Lane
from service.lanes import Lanes
from service.problems import Outcome
from service.schemas import Ask, Inputs, State, Timing, convert_ask, texts_of
from service.settings import Settings


class CompareAsk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    The body of a comparison.

    inputs      one text or several; all the answers to them count towards the limit
    variants    names, of one task; left out, every one with the labels of the task's default
    task        needed where no variants are named
    parameters  as /v1/ner or /v1/classify has them; every variant answers with the same
    """

    inputs: Inputs
    variants: list[str] | None = None
    task: Task | None = None
    parameters: dict[str, Any] | None = None


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """
    How much a variant says as the reference does, over all texts; the reference agrees with itself.

    both   what both say; `reference`, `variant`: what one alone says
    share  of what either says the share that both say: F1, whichever is taken for right
    """

    both: int
    reference: int
    variant: int
    share: float


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """One variant of a comparison. Variants run in turn: none takes another's cores."""

    variant: str
    digest: str
    agreement: Tally
    timing_ms: Timing


class CompareReply(msgspec.Struct, frozen=True, kw_only=True):
    """`results` in the order of the inputs; `reference` is what the variants are compared with."""

    task: Task
    reference: str
    variants: list[Compared]
    results: list[Any]


class NerCompareReply(CompareReply, frozen=True, kw_only=True):
    __doc__ = CompareReply.__doc__
    results: list[NerComparison]


class ClassificationCompareReply(CompareReply, frozen=True, kw_only=True):
    __doc__ = CompareReply.__doc__
    results: list[ClassificationComparison]


class SideBySide:
    """Comparisons over the lanes of a process."""

    def __init__(self, lanes: Lanes, settings: Settings) -> None:
        self._lanes = lanes
        self._settings = settings

    def endpoint(self) -> Post:
        """POST of a `CompareAsk` as JSON."""
        return Post(
            self._outcome,
            task="compare",
            max_body=self._settings.max_body,
            deadline_s=self._settings.deadline_ms / 1000,
            body_s=self._settings.body_s,
        )

    async def _outcome(self, body: bytes, caller: Caller) -> Outcome:
        """One variant that does not answer leaves nothing to compare: its error is the answer."""
        asked = _FORM.read(body)
        lanes = self._named(asked.variants, asked.task) if asked.variants else self._kin(asked)
        task = lanes[0].variant.task
        ask = convert_ask({"inputs": asked.inputs, "parameters": asked.parameters}, task)
        texts = self._texts(ask, len(lanes))
        seen.note(*(lane.variant.name for lane in lanes))
        with contextlib.ExitStack() as held:
            for lane in lanes:  # the last is asked when all the others have answered
                held.enter_context(lane.held())
            replies = [await self._ask(lane, texts, ask, caller) for lane in lanes]
        caller.variant = None
        written = partial(_written, replies)
        if sum(map(len, texts)) <= INLINE:
            return Outcome(200, written(), _HEADERS)
        return Outcome(200, await self._lanes.pool.aside(written), _HEADERS)

    async def _ask(self, lane: Lane, texts: Sequence[str], ask: Ask, caller: Caller) -> _Reply:
        caller.variant = lane.variant.name
        started = perf_counter()
        answered = await lane.answer(
            texts,
            ask.options,
            deadline=caller.deadline,
            key=caller.key,
            priority=caller.priority,
            leaving=caller.leaving,
        )
        return _Reply(lane.variant, lane.digest, answered, perf_counter() - started)

    def _texts(self, ask: Ask, variants: int) -> list[str]:
        most = self._settings.max_inputs
        texts = texts_of(ask, max_inputs=most, max_text=self._settings.max_text)
        if len(texts) * variants > most:
            raise TooLarge(
                f"{len(texts)} inputs through {variants} variants are {len(texts) * variants} "
                f"answers; at most {most} go in one request: send fewer inputs, name fewer variants"
            )
        return texts

    def _kin(self, asked: CompareAsk) -> list[Lane]:
        """All that serve a task and may stand for its default: they answer with the same labels."""
        if asked.variants is not None:
            raise FieldsInvalid(
                FieldError("/variants", "name at least one, or give a task instead")
            )
        if asked.task is None:
            raise FieldsInvalid(
                FieldError("", "give variants, or a task to compare all that serve it")
            )
        default = self._lanes.default(asked.task)
        serving = [
            each
            for each in self._lanes.summaries()
            if each.task is asked.task and each.state is State.READY
        ]
        labels = set(default.labels)
        return [self._lanes.named(each.name) for each in serving if set(each.labels) == labels]

    def _named(self, names: Sequence[str], task: Task | None) -> list[Lane]:
        """The lanes of these names. Raises `FieldsInvalid` for what cannot be compared."""
        lanes: list[Lane] = []
        for index, name in enumerate(names):
            lane = self._lanes.named(name)
            if wrong := _unlike(lane, lanes):
                raise FieldsInvalid(FieldError(f"/variants/{index}", wrong))
            lanes.append(lane)
        first = lanes[0].variant
        if task not in (None, first.task):
            raise FieldsInvalid(
                FieldError("/task", f"{first.name} serves {first.task}: leave it out")
            )
        return lanes


_FORM = Form(CompareAsk)
_HEADERS = [(b"content-type", JSON)]


class _Reply(NamedTuple):
    """What one variant answered to all texts, and the seconds it took."""

    variant: Variant
    digest: str
    answered: Answered
    total_s: float


def _unlike(lane: Lane, others: Sequence[Lane]) -> str | None:
    """Why a variant is not compared with the others."""
    if not others:
        return None
    one, first = lane.variant, others[0].variant
    if lane in others:
        return f"{one.name} is named twice"
    if one.task is not first.task:
        return f"{one.name} serves {one.task}, {first.name} {first.task}: compare one task's"
    if one.task is Task.CLASSIFICATION and set(one.labels) != set(first.labels):
        return f"{one.name} and {first.name} tell different labels apart"
    return None


def _written(replies: Sequence[_Reply]) -> bytes:
    """The `CompareReply`, as JSON."""
    answers = {each.variant.name: each.answered.answers for each in replies}
    baseline = next((each for each in replies if each.variant.parent is None), replies[0])
    reference = baseline.variant.name
    each_text = zip(*answers.values(), strict=True)
    return msgspec.json.encode(
        CompareReply(
            task=baseline.variant.task,
            reference=reference,
            variants=[_compared(each, baseline.answered.answers) for each in replies],
            results=[
                compared(dict(zip(answers, each, strict=True)), reference) for each in each_text
            ],
        )
    )


def _compared(reply: _Reply, reference: Sequence[Answer]) -> Compared:
    answered = reply.answered
    return Compared(
        variant=reply.variant.name,
        digest=reply.digest,
        agreement=_tally(reference, answered.answers),
        timing_ms=Timing.of_seconds(
            queue=answered.queue_s,
            encode=answered.encode_s,
            model=answered.model_s,
            total=reply.total_s,
        ),
    )


def _tally(reference: Sequence[Answer], others: Sequence[Answer]) -> Tally:
    pairs = zip(reference, others, strict=True)
    found = reduce(Agreement.plus, (agreement(one, other) for one, other in pairs))
    return Tally(
        both=found.both,
        reference=found.reference,
        variant=found.other,
        share=found.share,
    )
