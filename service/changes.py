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
from service.keys import Key, KeyChanges, Keys, Scope
from service.lanes import Lanes
from service.rate import Rate
from service.trial import trial_of

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


class UnknownKey(RequestError):
    """The server's file has no key of that name, or it was revoked."""

    status = 404
    title = "Unknown key"


class Changes:
    """
    Every change that is made of this server's workers while they serve.

    keys  as the file has them
    """

    def __init__(self, lanes: Lanes, keys: Keys | None = None) -> None:
        self._lanes = lanes
        self._keys = keys or Keys()
        self._turn = asyncio.Lock()
        self._making: set[asyncio.Future[Generation]] = set()

    @property
    def _generations(self) -> Generations:
        if self._lanes.generations is None:
            raise NotReady("nothing can be changed yet, or this process has no KADOGO_STATE")
        return self._lanes.generations

    def current(self) -> Generation:
        """The newest, with the routes of the settings where none were put since."""
        current = self._generations.current()
        if current.content.routes is not None:
            return current
        content = msgspec.structs.replace(current.content, routes=self._lanes.routes)
        return msgspec.structs.replace(current, content=content)

    def history(self) -> list[Generation]:
        """The newest first."""
        return self._generations.history()

    async def route(self, text: str, *, who: str) -> Generation:
        """
        Route as the TOML says from now on; trials begin anew.

        Raises `BadRoutes` and what `_make` raises.
        """
        self._lanes.check_routes(text, [key.name for key in self._keys.every])

        def routed(content: Content) -> Content:
            return msgspec.structs.replace(
                content,
                routes=text,
                routed=content.routed + 1,
                trials=content.trials + 1,
                verdicts={},
            )

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

        try:
            return await self._make(loaded, who=who, what=f"load {name} {digest}")
        finally:
            self._lanes.forget(name)  # where it could not be kept nobody took it

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

    def every_key(self) -> list[tuple[Key, bool]]:
        """Each with what it may send now, and whether it was revoked."""
        changes = self.current().content.keys
        limits = msgspec.structs.replace(changes, revoked={})
        every = self._keys.changed(limits).every
        return [(key, key.sha256 in changes.revoked) for key in every]

    async def limit(self, name: str, rate: Rate | None, *, who: str) -> Generation:
        """
        What a key may send from now on; None: as much as it likes.

        Raises `UnknownKey` and what `_make` raises.
        """

        def limited(content: Content) -> Content:
            self._key(name, content)
            rates = {**content.keys.rates, name: rate}
            return _with_keys(content, msgspec.structs.replace(content.keys, rates=rates))

        return await self._make(limited, who=who, what=f"limit {name} to {_told(rate)}")

    async def revoke(self, name: str, *, sure: bool, who: str) -> Generation:
        """
        The key opens nothing from now on, and no going back lets it in again.

        sure  also where it is the key of who asks, or the last that may change the server

        Raises `UnknownKey`, `ChangeRefused` and what `_make` raises.
        """

        def revoked(content: Content) -> Content:
            key = self._key(name, content)
            if not sure and (wrong := self._shuts_out(key, who, content)):
                raise ChangeRefused(f"{wrong}; with ?sure=true it is revoked all the same")
            gone = {**content.keys.revoked, key.sha256: name}
            return _with_keys(content, msgspec.structs.replace(content.keys, revoked=gone))

        return await self._make(revoked, who=who, what=f"revoke {name}")

    def _key(self, name: str, content: Content) -> Key:
        left = self._keys.changed(content.keys)
        if key := left.named(name):
            return key
        known = ", ".join(each.name for each in left.every)
        raise UnknownKey(f"there is no key of that name; known are {known}")

    def _shuts_out(self, key: Key, who: str, content: Content) -> str | None:
        """Why whoever revokes it could not change his mind."""
        others = [each for each in self._keys.changed(content.keys).every if each != key]
        if key.may(Scope.ADMIN) and not any(each.may(Scope.ADMIN) for each in others):
            return f"{key.name} is the last key that may change this server"
        return f"{key.name} is the key that asks" if key.name == who else None

    async def judge(self, route: str, trial: str, verdict: Verdict) -> Generation:
        """
        That trial of a route has ended. Another worker may have said so at the same moment, and
        the routes may be others by now.
        """

        def judged(content: Content) -> Content:
            routes = content.routes_of(self._lanes.text_of(content))
            known = content.verdicts.get(route)
            if trial != trial_of(route, content, routes) or (known and known.routes == routes):
                return content
            told = msgspec.structs.replace(verdict, routes=routes)
            return msgspec.structs.replace(content, verdicts={**content.verdicts, route: told})

        done = "promote" if verdict.promoted else "roll back"
        what = f"{done} {verdict.variant} on route {route}: {verdict.why}"
        return await self._make(judged, who="canary", what=what)

    async def restore(self, number: int, *, who: str) -> Generation:
        """
        Go back to what that generation was; keys revoked since stay so.

        Raises `UnknownGeneration` and what `_make` raises.
        """
        try:
            content = self._generations.read(number).content
        except KeyError:
            raise UnknownGeneration(f"there is no generation {number}, or none any more") from None
        return await self._make(content.restored, who=who, what=f"restore {number}")

    async def _make(self, into: Callable[[Content], Content], *, who: str, what: str) -> Generation:
        """
        One change at a time, and to its end though whoever asked for it no longer waits.

        Raises `ChangeRefused` where a worker could not take it over, and then it is taken back;
        `DeadlineExceeded` where one has not yet, `NotReady` where it cannot be kept.
        """
        making = asyncio.ensure_future(self._made(into, who=who, what=what))
        self._making.add(making)
        making.add_done_callback(self._over)
        return await asyncio.shield(making)

    def _over(self, making: asyncio.Future[Generation]) -> None:
        self._making.discard(making)
        if not making.cancelled() and (error := making.exception()):
            logger.warning("a change was not made: %s", error)  # who asked may have left

    async def _made(self, into: Callable[[Content], Content], *, who: str, what: str) -> Generation:
        try:
            # Of each process one thread waits at most: who has the turn needs threads himself.
            async with self._turn:
                with self._generations.turn() as wait:
                    await asyncio.to_thread(wait)
                    return await self._in_turn(into, who=who, what=what)
        except OSError as error:
            folder = self._generations.folder
            raise NotReady(f"changes cannot be kept in {folder}: {error.strerror}") from None

    async def _in_turn(
        self, into: Callable[[Content], Content], *, who: str, what: str
    ) -> Generation:
        change = self._generations.change
        before, after = await asyncio.to_thread(change, into, who=who, what=what)
        if after is before:
            return msgspec.structs.replace(after, who=who, what=f"{what}: it is so already")
        wrong = await self._taken(after.number)
        if wrong is None:
            return after
        back = f"take {after.number} back: {wrong}"
        _, old = await asyncio.to_thread(change, before.content.restored, who=who, what=back)
        await self._taken(old.number)
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


def _with_keys(content: Content, keys: KeyChanges) -> Content:
    return msgspec.structs.replace(content, keys=keys)


def _told(rate: Rate | None) -> str:
    if rate is None:
        return "nothing"
    return f"{rate.requests} requests in {rate.seconds} s, {rate.most} at once"
