"""
Changes at run time: checked, written as a generation, and done when every live worker took it over.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

import msgspec

from models.errors import BrokenVariant, DeadlineExceeded, NotReady, RequestError
from service.generation import Content, Generation, Generations, Load, Verdict
from service.lanes import Lanes

logger = logging.getLogger("kadogo")

# How long workers may take to take a change over: a load of a large variant, on busy cores.
TAKEN_S = 120.0
LOOK_S = 0.02


class ChangeRefused(RequestError):
    """It cannot be made, and what served before serves on."""

    status = 409
    title = "Change refused"


class UnknownGeneration(RequestError):
    """There never was one of that number, or it is no longer kept."""

    status = 404
    title = "Unknown generation"


class Changes:
    """Every change that is made of this server's workers while they serve."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes

    @property
    def _generations(self) -> Generations:
        if self._lanes.generations is None:
            raise NotReady("nothing can be changed yet, or this process has no KADOGO_STATE")
        return self._lanes.generations

    def current(self) -> Generation:
        return self._generations.current()

    def history(self) -> list[Generation]:
        """The newest first."""
        return self._generations.history()

    async def route(self, text: str, *, who: str) -> Generation:
        """
        Route as the TOML says from now on; trials begin anew.

        Raises `BadRoutes` and what `_make` raises.
        """

        def routed(content: Content) -> Content:
            times = content.routed + 1
            return msgspec.structs.replace(content, routes=text, routed=times, verdicts={})

        return await self._make(routed, who=who, what="routes")

    async def load(self, name: str, *, who: str) -> Generation:
        """
        Serve the variant as its folder is now: new, again, or in place of what serves.

        Raises `UnknownVariant`, `ChangeRefused` where it does not prove itself, and what `_make`
        raises.
        """
        try:
            digest = await self._lanes.prepare(name)
        except BrokenVariant as error:
            raise ChangeRefused(f"{name} is not loaded: {error}") from None

        def loaded(content: Content) -> Content:
            before = content.loads.get(name)
            times = before.times + 1 if before else 1
            return msgspec.structs.replace(
                content,
                unloaded=tuple(each for each in content.unloaded if each != name),
                loads={**content.loads, name: Load(digest, times)},
            )

        return await self._make(loaded, who=who, what=f"load {name} {digest}")

    async def unload(self, name: str, *, who: str) -> Generation:
        """
        Serve the variant no longer; whoever asked before is answered.

        Raises `UnknownVariant` and what `_make` raises.
        """
        self._lanes.detail(name)

        def without(content: Content) -> Content:
            return msgspec.structs.replace(
                content, unloaded=tuple(sorted({*content.unloaded, name}))
            )

        return await self._make(without, who=who, what=f"unload {name}")

    async def check(self, *, who: str) -> Generation:
        """
        Every variant proves itself again on this host; one that does not is quarantined.

        Raises what `_make` raises.
        """

        def again(content: Content) -> Content:
            return msgspec.structs.replace(content, checks=content.checks + 1)

        return await self._make(again, who=who, what="check")

    async def judge(self, route: str, verdict: Verdict) -> Generation:
        """A trial has ended. Another worker may have said so at the same moment."""

        def judged(content: Content) -> Content:
            if route in content.verdicts:
                return content
            return msgspec.structs.replace(content, verdicts={**content.verdicts, route: verdict})

        done = "promote" if verdict.promoted else "roll back"
        what = f"{done} {verdict.variant} on route {route}: {verdict.why}"
        return await self._make(judged, who="canary", what=what)

    async def restore(self, number: int, *, who: str) -> Generation:
        """Go back to what that generation was. Raises `UnknownGeneration` and what `_make` does."""
        try:
            content = self._generations.read(number).content
        except KeyError:
            raise UnknownGeneration(f"there is no generation {number}, or none any more") from None
        return await self._make(lambda _: content, who=who, what=f"restore {number}")

    async def _make(self, into: Callable[[Content], Content], *, who: str, what: str) -> Generation:
        """
        Raises `ChangeRefused` where a worker could not take it over, and then it is taken back;
        `DeadlineExceeded` where one has not yet, `NotReady` where it cannot be kept.
        """
        try:
            self._lanes.check(into(self._generations.current().content))
            before, after = await asyncio.to_thread(
                self._generations.change, into, who=who, what=what
            )
            wrong = await self._taken(after.number)
            if wrong is None:
                return after
            back = f"take {after.number} back: {wrong}"
            _, old = await asyncio.to_thread(
                self._generations.change, lambda _: before.content, who=who, what=back
            )
            await self._taken(old.number)
        except OSError as error:
            folder = self._generations.folder
            raise NotReady(f"changes cannot be kept in {folder}: {error.strerror}") from None
        raise ChangeRefused(f"{wrong}; generation {old.number} is as {before.number} was")

    async def _taken(self, number: int) -> str | None:
        """Once every live worker has: what hindered one of them."""
        until = monotonic() + TAKEN_S
        while True:
            taken = self._generations.taken()
            lacking = [process for process, each in taken.items() if each.number < number]
            if not lacking:
                wrong = (each.error for each in taken.values() if each.number == number)
                return next((error for error in wrong if error), None)
            if monotonic() > until:
                raise DeadlineExceeded(
                    f"generation {number} is written, and processes {lacking} did not take it "
                    f"over within {TAKEN_S:g} s"
                )
            await asyncio.sleep(LOOK_S)
