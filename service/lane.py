"""
A loaded variant with its queue and its metrics: from texts to answers.

Knows nothing of other variants, HTTP or BentoML.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

from models.encode import Encoded
from models.pipeline import Pipeline
from models.spec import Answer, Options
from service import metrics, tracing
from service.batch import Batcher, Limits
from service.cost import Mean
from service.fair import Priority
from service.job import Job
from service.policy import Estimate
from service.pool import Pool

T = TypeVar("T")

# Up to this many characters are encoded and decoded on the event loop: handing them to a thread
# and back would take longer than the work.
INLINE = 2_000
# Characters of longer requests encoded at a stretch: about as long as a batch runs, so that
# strangers' batches get their turn between.
STRETCH = 20_000
# Most answers come sooner than this; only for the others is it watched whether the caller left.
PATIENCE_S = 0.05
# Words in the texts a variant answers before it is ready, so that the first caller does not wait
# for memory to be found, and what a text costs is known.
WARM_UP = (1, 12, 60, 250)

Leaving = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answered:
    """
    Answers in the order of the texts, and where the time went, in seconds.

    model_s  from the first of its windows begun to the last done
    core_s   that its windows took of a core: of batches with strangers' their part
    """

    answers: list[Answer]
    queue_s: float
    encode_s: float
    model_s: float
    core_s: float


class Lane:
    """A loaded variant and the queue before it."""

    def __init__(self, pipeline: Pipeline, pool: Pool, limits: Limits) -> None:
        self.variant = pipeline.variant
        self.digest = pipeline.variant.digest
        self.metrics = metrics.VariantMetrics(self.variant.name)
        self.batcher = Batcher(pipeline.run, limits, pool, self.metrics)
        self.pipeline = pipeline
        self.idle = asyncio.Event()  # nobody waits for an answer
        self.idle.set()
        self._pool = pool
        self._asked = 0
        self._tokens = Mean()  # a character
        self._encode_s = Mean()  # a character

    def predict(
        self, characters: int, key: Hashable = None, priority: Priority = Priority.INTERACTIVE
    ) -> Estimate:
        """What texts of so many characters in all would take, here and now."""
        tokens = max(1, round(characters * self._tokens()))
        encode_s = characters * self._encode_s()
        batcher = self.batcher
        return Estimate(
            wait_s=batcher.wait_s(tokens, key=key, priority=priority),
            run_s=encode_s + batcher.run_s(tokens),
            core_s=encode_s + batcher.cost_s(tokens),
        )

    async def answer(
        self,
        texts: Sequence[str],
        options: Options,
        *,
        deadline: float,
        key: Hashable = None,
        priority: Priority = Priority.INTERACTIVE,
        leaving: Leaving | None = None,
    ) -> Answered:
        """
        Answer `texts`, of that `key`'s share of the cores.

        Windows not begun by `deadline` (`perf_counter`) are not run, nor are those of a caller
        for whom `leaving()` has returned: that raises `CallerLeft`.

        Raises what `Batcher.check_deadline` and `submit` raise; that there is no room or no time is
        told before anything is encoded.
        """
        with self.held():
            return await self._answer(
                texts, options, deadline=deadline, key=key, priority=priority, leaving=leaving
            )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """It does not retire meanwhile: somebody waits for it, or will."""
        self._asked += 1
        self.idle.clear()
        try:
            yield
        finally:
            self._asked -= 1
            if not self._asked:
                self.idle.set()

    async def retire(self) -> None:
        """Answer whoever has come so far, then leave the pool. None may come after."""
        await self.idle.wait()
        self._pool.part(self.batcher)

    async def warm_up(self) -> None:
        """Answer a few texts in every thread, as it will when all are busy."""
        runs = [self._pool.aside(_warm_up, self.pipeline) for _ in range(self._pool.threads)]
        for ran in chain.from_iterable(await asyncio.gather(*runs)):
            self._learn(ran)

    async def _answer(
        self,
        texts: Sequence[str],
        options: Options,
        *,
        deadline: float,
        key: Hashable,
        priority: Priority,
        leaving: Leaving | None,
    ) -> Answered:
        started = perf_counter()
        characters = sum(map(len, texts))
        likely = round(characters * self._tokens())
        # Each text is a window at least, and texts are never an eighth as many tokens as they seem,
        # whatever others were of: what cannot fit by far is not encoded first.
        self.batcher.waitlist.admit(len(texts), max(len(texts), likely // 8))
        short = characters <= INLINE and priority is not Priority.SHADOW
        predicted_s = self.batcher.check_deadline(likely, deadline, key=key, priority=priority)
        encoded = self._encode(texts) if short else await self._encode_aside(texts)
        encode_s = perf_counter() - started
        windows = [window for each in encoded for window in each.windows]
        tokens = [len(window.ids) for window in windows]
        if short:  # others waited for their turn too
            self._encode_s.learn(encode_s, characters)
        self._tokens.learn(sum(tokens), characters)
        job = self.batcher.submit(windows, tokens, deadline=deadline, key=key, priority=priority)
        try:
            logits = await _unless_gone(job, leaving)
        finally:
            job.leave()  # where a deadline cuts the waiting short
        settled = perf_counter()
        work = (encoded, logits, options)
        answers = self._decode(*work) if short else await self._pool.aside(self._decode, *work)
        if tracing.is_on():
            tracing.stages(
                {
                    "encode": (started, job.submitted),
                    "queue": (job.submitted, job.begun),
                    "run": (job.begun, job.done),
                    "decode": (settled, perf_counter()),
                },
                variant=self.variant.name,
                texts=len(texts),
                windows=len(windows),
                tokens=sum(tokens),
                priority=priority.name.lower(),
            )
        queue_s = job.begun - job.submitted
        self.metrics.answered(texts=len(texts), queue_s=queue_s, encode_s=encode_s)
        if short:  # of long ones encoding, which goes before, is most of what was to come
            self.metrics.predicted((job.done - job.submitted) / max(predicted_s, 1e-6))
        return Answered(answers, queue_s, encode_s, job.done - job.begun, job.core_s)

    def _learn(self, ran: _Ran) -> None:
        self._encode_s.learn(ran.encode_s, ran.characters)
        self._tokens.learn(sum(ran.tokens), ran.characters)
        self.batcher.line.learn(len(ran.tokens) * max(ran.tokens), ran.run_s)

    def _encode(self, texts: Sequence[str]) -> list[Encoded]:
        return [self.pipeline.encode(text) for text in texts]

    async def _encode_aside(self, texts: Sequence[str]) -> list[Encoded]:
        """In stretches, and no further than the queue could take. Raises what `admit` raises."""
        encoded: list[Encoded] = []
        items = tokens = 0
        for stretch in stretches(texts, STRETCH):
            some = await self._pool.aside(self._encode, stretch)
            encoded += some
            items += sum(len(each.windows) for each in some)
            tokens += sum(len(window.ids) for each in some for window in each.windows)
            self.batcher.waitlist.admit(items, tokens)
        return encoded

    def _decode(
        self, encoded: Sequence[Encoded], logits: Sequence[Any], options: Options
    ) -> list[Answer]:
        """`logits`: of every window, in the order of the texts and their windows."""
        each = iter(logits)
        return [
            self.pipeline.decode(text, [next(each) for _ in text.windows], options)
            for text in encoded
        ]


class _Ran(NamedTuple):
    """What one text cost; `tokens` of each window."""

    characters: int
    tokens: list[int]
    encode_s: float
    run_s: float


def _warm_up(pipeline: Pipeline) -> list[_Ran]:
    """Answer some texts, and then see what they cost."""
    texts = ["kadogo " * words for words in WARM_UP]
    for text in texts:
        pipeline.answer([text])
    return [_run(pipeline, text) for text in texts]


def _run(pipeline: Pipeline, text: str) -> _Ran:
    begun = perf_counter()
    encoded = pipeline.encode(text)
    read = perf_counter()
    pipeline.run(encoded.windows)
    tokens = [len(window.ids) for window in encoded.windows]
    return _Ran(len(text), tokens, read - begun, perf_counter() - read)


def stretches(texts: Sequence[str], characters: int) -> Iterator[list[str]]:
    """
    The texts in their order, cut where a stretch has reached so many characters.

    ["aaa", "b", "cc", "d"] characters=3  ->  ["aaa"] ["b", "cc"] ["d"]
    """
    stretch: list[str] = []
    size = 0
    for text in texts:
        stretch.append(text)
        size += len(text)
        if size >= characters:
            yield stretch
            stretch, size = [], 0
    if stretch:
        yield stretch


async def _unless_gone(job: Job[Any, T], leaving: Leaving | None) -> list[T]:
    """The job's results; the job is left when its caller leaves."""
    if leaving is None or job.answer.done():
        return await job.answer
    watches: list[asyncio.Task[None]] = []

    async def watch() -> None:
        await leaving()
        job.leave()

    def begin() -> None:
        watches.append(asyncio.ensure_future(watch()))

    patience = asyncio.get_running_loop().call_later(PATIENCE_S, begin)
    try:
        return await job.answer
    finally:
        patience.cancel()
        for each in watches:
            each.cancel()
