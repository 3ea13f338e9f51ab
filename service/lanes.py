"""
Every lane of the process: loaded, changed while it serves, and closed.

What serves is one frozen value that is swapped as a whole. Knows nothing of HTTP or BentoML.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping
from dataclasses import replace
from pathlib import Path
from random import random
from time import monotonic

from models import catalog
from models.errors import BrokenVariant, KadogoError, NotReady, UnknownVariant
from models.pipeline import Pipeline
from models.session import SessionOptions
from models.spec import Task, Variant
from service import metrics, route, routes, shared
from service.batch import Limits
from service.fair import Priority
from service.generation import LOADING, Content, Generation, Generations, Load, Unreadable
from service.keys import UNCHANGED
from service.ladder import Standing, moved
from service.lane import Lane
from service.policy import Decision, Estimate, degraded
from service.pool import Pool
from service.routes import Canary, Routes
from service.schemas import State, Status, VariantDetail, VariantSummary
from service.served import Served, known
from service.settings import Settings
from service.trial import Trial, trial_of
from service.waitlist import Room

logger = logging.getLogger("kadogo")

# What the file of routes held at the start, for workers that come later.
ROUTES_FILE = "routes.toml"
# Between two looks at whether something was changed.
LOOK_S = 0.1
# The same, while it cannot be seen.
AWAY_S = 1.0


class Lanes:
    """
    All lanes and their life, from opening the catalog to the last answer.

    Cheap to make; `start` returns at once and opens the catalog beside the event loop.

    at  where to ask, for the log
    """

    def __init__(self, settings: Settings, at: str | None = None) -> None:
        self.state = State.LOADING
        self.reason: str | None = None
        self.pool = Pool(settings.runs)
        self._settings = settings
        self._at = at
        self.generations: Generations | None = None
        self.key_changes = UNCHANGED  # what guards this process, whatever else it could take over
        self._now = Served()
        self._standing = Standing()
        self._trials: dict[str, Trial] = {}
        self._prepared: dict[str, Pipeline] = {}
        self._file: str | None = None  # of routes, once it was read
        self._untold: tuple[int, str | None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[None] | None = None
        self._started = monotonic()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Lanes]:
        """Started and no longer loading within, closed after."""
        self.start()
        try:
            await self.loaded()
            yield self
        finally:
            await self.close()

    def start(self) -> None:
        """Begin to load; `state` tells when that is done. Needs a running event loop."""
        current = Generation()
        if folder := _state_folder(self._settings):
            self.generations = Generations(folder, shared.of_this_server("workers"))
            self.generations.take(LOADING)
            try:
                current = self.generations.current()
            except Unreadable as error:  # who may ask is not known either: nobody is answered
                self._fail(str(error))
                self._untold = 0, self.reason
                self._beside(self._follow(self.generations))
                return
            self.key_changes = current.content.keys  # from the first request on
            if not self._settings.state:
                logger.info("changes at run time are kept until the server stops: no KADOGO_STATE")
            elif self._settings.routes and current.content.routes is not None:
                logger.warning(
                    "the routes are those of generation %d, changed at run time, and not those of "
                    "KADOGO_ROUTES: restore generation 0 to go back to the file",
                    current.number,
                )
        self._opening = self._beside(self._open(current))

    async def loaded(self) -> None:
        """Once it is no longer loading, whatever came of it."""
        if self._opening is not None:
            await self._opening

    @property
    def unready(self) -> str | None:
        """Why requests should not come; None once every worker that takes them can answer."""
        if self.state is not State.READY:
            return self.reason or f"the server is {self.state}"
        others = self.generations.taken().values() if self.generations else ()
        if any(each.number == LOADING for each in others):
            return "another worker is still loading"
        lost = next((each for each in others if not each.serves), None)
        return f"another worker does not serve: {lost.error}" if lost else None

    @property
    def others_serve(self) -> bool:
        """Whether another worker of this server answers already."""
        others = self.generations.taken() if self.generations else {}
        return any(n != os.getpid() and each.number != LOADING for n, each in others.items())

    def drain(self) -> None:
        """Say "not ready" from now on; what comes is still answered, once all is loaded."""
        if self.state is not State.FAILED:
            self.state = State.DRAINING

    async def close(self) -> None:
        """Refuse what comes, fail what waits and let what runs end."""
        self.state = State.DRAINING
        for task in self._tasks:
            task.cancel()
        if self.generations:
            self.generations.leave()
        await self.pool.close()

    # --- choosing ----------------------------------------------------------------------------

    def choose(
        self, asked: route.Asked, characters: int, priority: Priority = Priority.INTERACTIVE
    ) -> tuple[Lane, Decision]:
        """
        The lane that answers texts of so many characters, and why: under pressure a smaller one
        that satisfies the same policy.

        Raises `NotReady` and what `Table.choose` raises.
        """
        self._check_loaded()
        now = self._now
        if self.state is State.FAILED and not now.quarantined:
            raise NotReady(self._nothing)

        def predict(variant: Variant) -> Estimate:
            return now.lanes[variant.name].predict(characters, asked.key, priority)

        decision = now.table.choose(asked, predict, random)
        if decision.smaller:
            waiting_s = self.pool.drain_s
            self._standing = moved(now.routes.ladder, self._standing, waiting_s, monotonic())
            if self._standing.rung:
                why = f"{waiting_s:.1f} s of work waits"
                decision = self.below(decision, self._standing.rung, why, "pressure")
        return now.lanes[decision.variant.name], decision

    def default(self, task: Task) -> Variant:
        """
        What answers who asks for nothing. Raises `NotReady` and what `Table.choose` raises where
        nothing serves the task.
        """
        self._check_loaded()
        return self._now.table.serving_default(task)

    def below(self, decision: Decision, rungs: int, why: str, kind: str) -> Decision:
        """The decision so many rungs down the ladder, or as many as there are; counted."""
        metrics.degraded(variant=decision.variant.name, reason=kind)
        return degraded(decision, rungs, why)

    def trial(self, route: str) -> Trial | None:
        """The trial that goes on on that route."""
        return self._trials.get(route)

    def named(self, name: str) -> Lane:
        """
        The lane of that name, whatever its task.

        Raises `NotReady`, `Quarantined`, and `UnknownVariant` naming the known ones.
        """
        self._check_loaded()
        now = self._now
        if not now.lanes and name not in now.quarantined:
            raise NotReady(self._nothing)
        return now.named(name)

    @property
    def _nothing(self) -> str:
        why = self.reason or "all variants are unloaded: POST /v1/variants/NAME/load"
        return f"nothing serves: {why}"

    def lane(self, name: str) -> Lane | None:
        """The lane of that name; None where none serves now."""
        return self._now.lanes.get(name)

    @property
    def routes(self) -> str | None:
        """Those in force, as TOML; None: there are none."""
        return self._now.text

    @property
    def all(self) -> list[Lane]:
        return list(self._now.lanes.values())

    # --- telling -----------------------------------------------------------------------------

    def summaries(self) -> list[VariantSummary]:
        """Every variant whose manifest could be read, by name. Raises `NotReady`."""
        self._check_loaded()
        return self._now.summaries()

    def detail(self, name: str) -> VariantDetail:
        """Raises `UnknownVariant` naming the known ones, and `NotReady`."""
        self._check_loaded()
        return self._now.detail(name)

    def status(self) -> Status:
        now = self._now
        return Status(
            process=os.getpid(),
            state=self.state,
            reason=self.reason,
            uptime_seconds=round(monotonic() - self._started, 3),
            threads=self.pool.threads,
            backlog_seconds=round(self.pool.drain_s, 3),
            generation=now.generation,
            variants=now.statuses(),
            trials=now.trials(self._trials),
        )

    def _check_loaded(self) -> None:
        """A server told to stop may still be loading."""
        known = self._now.manifests or self._now.quarantined
        if self.state is State.LOADING or (self.state is State.DRAINING and not known):
            raise NotReady("the models are still loading")

    # --- loading -----------------------------------------------------------------------------

    async def _open(self, current: Generation) -> None:
        try:
            await self._begin(current)
        except KadogoError as error:
            self._fail(str(error))
        except Exception:
            logger.exception("the catalog could not be opened")
            self._fail("the catalog could not be opened; the log says more")
        else:
            if not self._now.lanes:
                self._fail("no variant of the catalog serves")
            elif self.state is State.LOADING:  # and not told meanwhile to stop
                self.state = State.READY
                took_s = monotonic() - self._started
                at = f"; open {self._at}" if self._at else ""
                logger.info("ready in %.1f s: %s%s", took_s, ", ".join(self._now.lanes), at)
        if self.generations:
            self._untold = current.number, self.reason
            self._beside(self._follow(self.generations))

    async def _begin(self, generation: Generation) -> None:
        """Open the catalog as that generation has it."""
        content = generation.content
        options = self._session_options()
        found = await asyncio.to_thread(
            catalog.load,
            self._settings.catalog,
            options,
            without=content.unloaded,
            threads=self.pool.threads,
        )
        lanes = {name: self._lane(pipeline) for name, pipeline in found.variants.items()}
        for name, load in content.loads.items():
            if name in lanes and lanes[name].variant.digest != load.digest:
                logger.warning(
                    "%s is %s on disk, and %s was loaded in generation %d or before: workers that "
                    "are older still serve that; POST /v1/variants/%s/load makes all serve one",
                    *(name, lanes[name].variant.digest, load.digest, generation.number, name),
                )
        for lane in lanes.values():
            await lane.warm_up()
        text = self.text_of(content)
        self._swap(
            Served(
                generation=generation.number,
                content=content,
                lanes=lanes,
                quarantined=found.quarantined,
                manifests=found.manifests,
                text=text,
            ),
            self._routes(text, known(found.quarantined, found.manifests)),
        )
        _give_back()

    async def _follow(self, generations: Generations) -> None:
        """Take over every change, and say so, for as long as the process serves."""
        while True:
            try:
                if self._untold is not None:
                    generations.take(*self._untold, serves=self.state is not State.FAILED)
                    self._untold = None
                never_read = self.state is State.FAILED and self._opening is None
                if never_read or generations.newest != self._now.generation:
                    await self._take_over(generations)
                    continue
            except (OSError, Unreadable) as error:  # a disk that is away for a while
                logger.error("changes cannot be read in %s: %s", generations.folder, error)
                await asyncio.sleep(AWAY_S)
            except Exception:  # what comes next may be right again
                logger.exception("changes cannot be followed in %s", generations.folder)
                await asyncio.sleep(AWAY_S)
            await asyncio.sleep(LOOK_S)

    async def _take_over(self, generations: Generations) -> None:
        """The newest generation, or say why not."""
        newest = generations.current()
        self.key_changes = newest.content.keys
        error = None
        never_opened = not self._now.manifests and not self._now.quarantined
        try:
            await (self._begin(newest) if never_opened else self._change(newest))
        except KadogoError as refused:
            error = str(refused)
        except Exception:
            logger.exception("generation %d could not be taken over", newest.number)
            error = "unforeseen; the log says more"
        if error:
            logger.error("generation %d is not taken over: %s", newest.number, error)
            self._now = replace(self._now, generation=newest.number)
        elif self.state is State.FAILED and self._now.lanes:
            self.state, self.reason = State.READY, None
        self._untold = newest.number, error

    def forget(self, name: str) -> None:
        """What was prepared and never taken."""
        self._prepared.pop(name, None)

    async def prepare(self, name: str) -> str:
        """
        Open the variant's folder as it is now, so that it can take the place of what serves.

        Gives its digest. Raises `UnknownVariant`, `BrokenVariant`.
        """
        folder = self._settings.catalog / name
        if not route.is_name(name) or not (folder / catalog.MANIFEST).is_file():
            known = ", ".join(catalog.manifests(self._settings.catalog))
            raise UnknownVariant(f"{route.unknown(name)} in the catalog; there are {known}")
        pipeline = await asyncio.to_thread(catalog.open_variant, folder, self._session_options())
        self._prepared[name] = pipeline
        return pipeline.variant.digest

    def check_routes(self, text: str, keys: Collection[str]) -> None:
        """Raises `BadRoutes` where they cannot be what was meant; `keys`: names of those known."""
        now = self._now
        # Empty where the catalog was never opened.
        variants = now.known or catalog.manifests(self._settings.catalog)
        routes.check(routes.read(text), text, routes.Known(variants=variants, keys=keys))

    async def _change(self, generation: Generation) -> None:
        """
        Take that generation over. What it does not change serves on meanwhile and after; what it
        takes away answers whoever has come so far.
        """
        now, content = self._now, generation.content
        opened: dict[str, Lane] = {}
        try:
            for name in self._to_open(content):
                opened[name] = self._lane(await self._opened(name, content.loads.get(name)))
                await opened[name].warm_up()
            manifests = {**now.manifests, **{n: lane.variant for n, lane in opened.items()}}
            text = self.text_of(content)
            chosen = self._routes(text, known(now.quarantined, manifests))
        except Exception:
            for lane in opened.values():
                self.pool.part(lane.batcher)
            raise
        stay = {name: lane for name, lane in now.lanes.items() if name not in content.unloaded}
        lanes = {**stay, **opened}
        wrong = await self._disproved(lanes) if content.checks != now.content.checks else {}
        quarantined = {n: why for n, why in now.quarantined.items() if n not in opened}
        served = Served(
            generation=generation.number,
            content=content,
            lanes={name: lanes[name] for name in sorted(lanes) if name not in wrong},
            quarantined={**quarantined, **wrong},
            manifests=manifests,
            text=text,
        )
        self._swap(served, chosen)
        logger.info("generation %d: %s, by %s", generation.number, generation.what, generation.who)
        for name, lane in now.lanes.items():
            if served.lanes.get(name) is not lane:
                self._beside(_retire(lane))
        if opened:
            _give_back()

    async def _opened(self, name: str, load: Load | None) -> Pipeline:
        """The variant as its folder is, or as it was prepared. Raises `BrokenVariant`."""
        pipeline = self._prepared.pop(name, None)
        if pipeline is None or load is None or pipeline.variant.digest != load.digest:
            folder = self._settings.catalog / name
            options = self._session_options()
            pipeline = await asyncio.to_thread(catalog.open_variant, folder, options)
        if load is not None and pipeline.variant.digest != load.digest:
            found = pipeline.variant.digest
            raise BrokenVariant(f"{name} is {found} now, {load.digest} was to be loaded")
        return pipeline

    async def _disproved(self, lanes: Mapping[str, Lane]) -> dict[str, str]:
        """Name -> what is wrong, of those that no longer do on this host what they should."""
        wrong = {}
        for name, lane in lanes.items():
            try:
                await asyncio.to_thread(catalog.prove, lane.pipeline)
            except BrokenVariant as error:
                wrong[name] = str(error)
        return wrong

    def _to_open(self, content: Content) -> list[str]:
        """Variants that were loaded, or are unloaded no longer, since what serves now."""
        before = self._now.content
        again = [name for name in before.unloaded if name not in content.unloaded]
        loads = {*before.loads, *content.loads}
        other = [name for name in loads if before.loads.get(name) != content.loads.get(name)]
        return sorted({*again, *other} - {*content.unloaded})

    def _swap(self, served: Served, chosen: Routes) -> None:
        serving = {name: lane.variant for name, lane in served.lanes.items()}
        content = served.content
        names = content.routes_of(served.text)
        verdicts = {name: each for name, each in content.verdicts.items() if each.routes == names}
        table = route.Table(
            serving,
            served.quarantined,
            chosen,
            unloaded=content.unloaded,
            verdicts=verdicts,
        )
        before = self._now
        self._now = replace(served, table=table, routes=chosen, verdicts=verdicts)
        self._standing = Standing()
        self._trials = {
            each.name: self._trial(trial_of(each.name, content, names), each.name, each.canary)
            for each in chosen.route
            if each.canary and each.name not in verdicts
        }
        self._show(before)

    def _trial(self, name: str, route: str, canary: Canary) -> Trial:
        """The one that goes on, whatever else has changed; a new one where the routes have."""
        going = self._trials.get(route)
        if going and going.name == name:
            return going
        return Trial(name, canary, shared.of_this_server(name))

    def text_of(self, content: Content) -> str | None:
        """Of the routes as the content has them, else as the settings' file was at the start."""
        if content.routes is None and (file := self._settings.routes) and self._file is None:
            self._file = shared.first_of_this_server(ROUTES_FILE, lambda: routes.text_of(file))
        return self._file if content.routes is None else content.routes

    def _routes(self, text: str | None, variants: Mapping[str, Variant | None]) -> Routes:
        """
        They were checked when they were given. What the catalog has lost since is out of service,
        and a route never refuses: one folder that is gone must not end a server.
        """
        text = text or ""
        chosen = routes.read(text)
        try:
            routes.check(chosen, text, routes.Known(variants=variants))
        except routes.BadRoutes as error:
            logger.warning("a route names what is not there, and does without it: %s", error)
        return chosen

    def _lane(self, pipeline: Pipeline) -> Lane:
        settings = self._settings
        limits = Limits(
            items=settings.batch_items,
            tokens=settings.batch_tokens,
            spare=settings.batch_padding,
            room=Room(items=settings.queue_texts, tokens=settings.queue_tokens),
        )
        return Lane(pipeline, self.pool, limits)

    def _session_options(self) -> SessionOptions:
        return SessionOptions(provider=self._settings.provider)

    def _fail(self, reason: str) -> None:
        self.state, self.reason = State.FAILED, reason
        logger.error("not ready: %s", reason)

    def _show(self, before: Served) -> None:
        """Each variant's state in the metrics; newly quarantined ones in the log too."""
        now = self._now
        before.show(here=False)
        now.show(here=True)
        for name, reason in now.quarantined.items():
            if name not in before.quarantined:
                logger.error("variant %s is quarantined: %s", name, reason)

    def _beside(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task of this process's own, which ends with it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _state_folder(settings: Settings) -> Path | None:
    """Where every worker of this server finds what was changed; None: nothing can be."""
    return settings.state or shared.of_this_server("state")


async def _retire(lane: Lane) -> None:
    """Its memory is given back to the system once the last answer is out."""
    await lane.retire()
    del lane
    _give_back()


def _give_back() -> None:
    """What is free goes back to the system: opening a model takes more than it keeps."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc alone keeps it otherwise
        ctypes.CDLL(None).malloc_trim(0)
