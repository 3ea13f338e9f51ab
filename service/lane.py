"""
Loaded variants: a lane is one with its queue and metrics, `Lanes` all of them and their life.

Knows nothing of HTTP or BentoML.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any, TypeVar

from models.catalog import Catalog, load
from models.encode import Encoded
from models.errors import KadogoError, NotReady, Quarantined, UnknownVariant
from models.pipeline import Pipeline
from models.runtime import SessionOptions
from models.spec import Answer, Options, Task, Variant
from service import metrics, route
from service.batch import Batcher, Job, Limits, Pool
from service.schemas import State, Status, VariantDetail, VariantStatus, VariantSummary
from service.settings import Settings

logger = logging.getLogger("kadogo")

T = TypeVar("T")
Told = TypeVar("Told", bound=VariantSummary)

# Up to this many characters are encoded and decoded on the event loop: handing them to a thread
# and back would take longer than the work.
INLINE = 2_000
# Characters of longer requests encoded at a stretch: about as long as a batch runs, so that
# strangers' batches get their turn between.
STRETCH = 20_000
# Most answers come sooner than this; only for the others is it watched whether the caller left.
PATIENCE_S = 0.05
# Words in the texts a variant answers before it is ready, so that the first caller does not wait
# for memory to be found.
WARM_UP = (1, 12, 60, 250)

Leaving = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Answered:
    """Answers in the order of the texts, and where the time went, in seconds."""

    answers: list[Answer]
    queue_s: float
    encode_s: float
    model_s: float


class Lane:
    """A loaded variant and the queue before it."""

    def __init__(self, pipeline: Pipeline, pool: Pool, limits: Limits) -> None:
        self.variant = pipeline.variant
        self.digest = pipeline.variant.digest
        self.metrics = metrics.VariantMetrics(self.variant.name)
        self.batcher = Batcher(pipeline.run, limits, pool, self.metrics)
        self.pipeline = pipeline
        self._pool = pool

    async def answer(
        self,
        texts: Sequence[str],
        options: Options,
        *,
        deadline: float,
        leaving: Leaving | None = None,
    ) -> Answered:
        """
        Answer `texts`. Windows not begun by `deadline` (`perf_counter`) are not run, nor are
        those of a caller for whom `leaving()` has returned: that raises `CallerLeft`.

        Raises what `Batcher.submit` raises; a full queue is told before anything is encoded.
        """
        started = perf_counter()
        self.batcher.admit(len(texts), len(texts))  # each is a window at least
        short = sum(map(len, texts)) <= INLINE
        encoded = self._encode(texts) if short else await self._encode_aside(texts)
        encode_s = perf_counter() - started
        windows = [window for each in encoded for window in each.windows]
        job = self.batcher.submit(windows, [len(w.ids) for w in windows], deadline=deadline)
        logits = await _unless_gone(job, leaving)
        work = (encoded, logits, options)
        answers = self._decode(*work) if short else await self._aside(self._decode, *work)
        queue_s = job.begun - job.submitted
        self.metrics.answered(texts=len(texts), queue_s=queue_s, encode_s=encode_s)
        return Answered(answers, queue_s, encode_s, job.done - job.begun)

    def warm_up(self) -> None:
        for words in WARM_UP:
            self.pipeline.answer(["kadogo " * words])

    def _encode(self, texts: Sequence[str]) -> list[Encoded]:
        return [self.pipeline.encode(text) for text in texts]

    async def _encode_aside(self, texts: Sequence[str]) -> list[Encoded]:
        """In stretches, and no further than the queue could take. Raises what `admit` raises."""
        encoded: list[Encoded] = []
        items = tokens = 0
        for stretch in stretches(texts, STRETCH):
            some = await self._aside(self._encode, stretch)
            encoded += some
            items += sum(len(each.windows) for each in some)
            tokens += sum(len(window.ids) for each in some for window in each.windows)
            self.batcher.admit(items, tokens)
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

    async def _aside(self, work: Callable[..., T], *args: object) -> T:
        """Long texts are worked on in the models' threads, so cores stay within their budget."""
        return await asyncio.get_running_loop().run_in_executor(self._pool.executor, work, *args)


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


class Lanes:
    """
    Every lane of the process, from opening the catalog to the last answer.

    Cheap to make; `start` returns at once and opens the catalog beside the event loop.
    """

    def __init__(self, settings: Settings) -> None:
        self.state = State.LOADING
        self.reason: str | None = None
        self.pool = Pool(settings.runs)
        self._settings = settings
        self._lanes: dict[str, Lane] = {}
        self._serving: dict[str, Variant] = {}
        self._catalog = Catalog()
        self._opening: asyncio.Task[None] | None = None
        self._started = monotonic()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Lanes]:
        """Started and no longer loading within, closed after."""
        self.start()
        try:
            if self._opening is not None:
                await self._opening
            yield self
        finally:
            await self.close()

    def start(self) -> None:
        """Begin to load; `state` tells when that is done. Needs a running event loop."""
        self._opening = asyncio.ensure_future(self._open())

    def drain(self) -> None:
        """Say "not ready" from now on; what comes is still answered, once all is loaded."""
        if self.state is not State.FAILED:
            self.state = State.DRAINING

    async def close(self) -> None:
        """Refuse what comes, fail what waits and let what runs end."""
        self.state = State.DRAINING
        if self._opening is not None:
            self._opening.cancel()
        await self.pool.close()

    def choose(self, task: Task, wanted: str | None) -> Lane:
        """The lane that answers. Raises `NotReady` and what `route.choose` raises."""
        self._check_loaded()
        if self.state is State.FAILED and not self._catalog.quarantined:
            raise NotReady(f"nothing serves: {self.reason}")
        variant = route.choose(self._serving, self._catalog.quarantined, task, wanted)
        return self._lanes[variant.name]

    def named(self, name: str) -> Lane:
        """
        The lane of that name, whatever its task.

        Raises `NotReady`, `Quarantined`, and `UnknownVariant` naming the known ones.
        """
        self._check_loaded()
        lane = self._lanes.get(name)
        if lane is not None:
            return lane
        if name in self._catalog.quarantined:
            reason = self._catalog.quarantined[name]
            raise Quarantined(f"variant {name} is quarantined: {reason}")
        if not self._lanes:
            raise NotReady(f"nothing serves: {self.reason}")
        raise UnknownVariant(f"{route.unknown(name)}; known are {', '.join(sorted(self._lanes))}")

    def summaries(self) -> list[VariantSummary]:
        """Every variant whose manifest could be read, by name. Raises `NotReady`."""
        self._check_loaded()
        manifests = sorted(self._catalog.manifests.items())
        return [self._told(VariantSummary, variant) for _, variant in manifests]

    def detail(self, name: str) -> VariantDetail:
        """Raises `UnknownVariant` naming the known ones, and `NotReady`."""
        self._check_loaded()
        variant = self._catalog.manifests.get(name)
        if variant is None:
            reason = self._catalog.quarantined.get(name)
            wrong = route.unknown(name) if reason is None else f"{name} is quarantined: {reason}"
            known = ", ".join(sorted(self._catalog.manifests)) or "none yet"
            raise UnknownVariant(f"{wrong}; known are {known}")
        return self._told(VariantDetail, variant)

    def status(self) -> Status:
        serving = {name: _status(lane) for name, lane in self._lanes.items()}
        quarantined = {
            name: self._quarantined(name, reason)
            for name, reason in self._catalog.quarantined.items()
        }
        return Status(
            process=os.getpid(),
            state=self.state,
            reason=self.reason,
            uptime_seconds=round(monotonic() - self._started, 3),
            threads=self.pool.threads,
            backlog_seconds=round(self.pool.drain_s, 3),
            variants=dict(sorted({**serving, **quarantined}.items())),
        )

    async def _open(self) -> None:
        try:
            await asyncio.to_thread(self._load)
            await self._warm_up()
        except KadogoError as error:
            self._fail(str(error))
        except Exception:
            logger.exception("the catalog could not be opened")
            self._fail("the catalog could not be opened; the log says more")
        else:
            self._show()
            if not self._serving:
                self._fail("every variant of the catalog is quarantined")
            elif self.state is State.LOADING:  # and not told meanwhile to stop
                self.state = State.READY
                took_s = monotonic() - self._started
                logger.info("ready in %.1f s: %s", took_s, ", ".join(self._serving))

    def _load(self) -> None:
        """Open the catalog, in a thread."""
        settings = self._settings
        catalog = load(settings.catalog, SessionOptions(provider=settings.provider))
        limits = Limits(
            items=settings.batch_items,
            tokens=settings.batch_tokens,
            waiting_items=settings.queue_texts,
            waiting_tokens=settings.queue_tokens,
        )
        variants = catalog.variants.items()
        self._lanes = {name: Lane(pipeline, self.pool, limits) for name, pipeline in variants}
        self._serving = {name: pipeline.variant for name, pipeline in variants}
        self._catalog = catalog

    async def _warm_up(self) -> None:
        """Let every variant answer a few texts in every thread, as it will when all are busy."""
        loop = asyncio.get_running_loop()
        for lane in self._lanes.values():
            threads = range(self.pool.threads)
            await asyncio.gather(
                *(loop.run_in_executor(self.pool.executor, lane.warm_up) for _ in threads)
            )

    def _check_loaded(self) -> None:
        """A server told to stop may still be loading."""
        known = self._catalog.manifests or self._catalog.quarantined
        if self.state is State.LOADING or (self.state is State.DRAINING and not known):
            raise NotReady("the models are still loading")

    def _fail(self, reason: str) -> None:
        self.state, self.reason = State.FAILED, reason
        logger.error("not ready: %s", reason)

    def _show(self) -> None:
        """Each variant once in the metrics; quarantined ones in the log too."""
        for variant in self._serving.values():
            _show(variant.name, variant, State.READY)
        for name, reason in self._catalog.quarantined.items():
            logger.error("variant %s is quarantined: %s", name, reason)
            _show(name, self._catalog.manifests.get(name), State.QUARANTINED)

    def _told(self, kind: type[Told], variant: Variant) -> Told:
        reason = self._catalog.quarantined.get(variant.name)
        default = route.default(self._serving.values(), variant.task)
        return kind.of(
            variant,
            state=State.READY if reason is None else State.QUARANTINED,
            default=default is not None and default.name == variant.name,
            reason=reason,
        )

    def _quarantined(self, name: str, reason: str) -> VariantStatus:
        manifest = self._catalog.manifests.get(name)
        return VariantStatus(
            state=State.QUARANTINED,
            task=manifest.task if manifest else None,
            digest=manifest.digest if manifest else None,
            reason=reason,
        )


def _status(lane: Lane) -> VariantStatus:
    return VariantStatus(
        state=State.READY,
        task=lane.variant.task,
        digest=lane.digest,
        waiting_windows=lane.batcher.waiting_items,
        waiting_tokens=lane.batcher.waiting_tokens,
    )


def _show(name: str, variant: Variant | None, state: State) -> None:
    metrics.shown(
        variant=name,
        task=variant.task if variant else "",
        runtime=variant.runtime if variant else "",
        digest=variant.digest if variant else "",
        state=state,
    )
