"""
Shadows: a second variant reads along, for nobody, and its answers are compared with those given.

No text is kept, and nobody who asks waits. Knows nothing of HTTP or of who is chosen.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import reduce
from time import perf_counter

from models.errors import KadogoError
from models.spec import Options
from service import metrics
from service.compare import Agreement, agreement
from service.fair import Priority
from service.generation import Verdict
from service.lane import Answered, Lane
from service.trial import Trial

logger = logging.getLogger("kadogo")

# Requests that are read along at once in a process: what comes beyond is let go of.
MOST = 16
# After which nobody wants to know any more.
LATE_S = 30.0

Tell = Callable[[str, str, Verdict], Awaitable[object]]


class Shadows:
    """
    Whoever reads along in this process.

    tell  is told of a trial's verdict: the route's name, the trial's, and how it ended
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._reading: set[asyncio.Task[None]] = set()

    def begin(
        self,
        lane: Lane,
        texts: Sequence[str],
        options: Options,
        *,
        given: Answered,
        by: str,
        trial: tuple[str, Trial] | None = None,
    ) -> None:
        """
        Let `lane` read along what was answered with `given` `by` a variant; returns at once.

        trial  of that variant on a route, against the lane's
        """
        if len(self._reading) >= MOST:
            metrics.shadow_lost(variant=by, shadow=lane.variant.name, reason="busy")
            return
        work = self._read(lane, texts, options, given, by, trial)
        task = asyncio.ensure_future(work)
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def settle(self) -> None:
        """Until all that was begun is done."""
        while self._reading:
            await asyncio.gather(*self._reading)

    async def _read(
        self,
        lane: Lane,
        texts: Sequence[str],
        options: Options,
        given: Answered,
        by: str,
        trial: tuple[str, Trial] | None,
    ) -> None:
        shadow = lane.variant.name
        try:
            late = perf_counter() + LATE_S
            # The queue looks at deadlines where it cuts, and while callers come it cuts no shadow.
            async with asyncio.timeout(LATE_S):
                read = await lane.answer(texts, options, deadline=late, priority=Priority.SHADOW)
        except TimeoutError:
            metrics.shadow_lost(variant=by, shadow=shadow, reason="deadlineexceeded")
            return
        except KadogoError as error:
            metrics.shadow_lost(variant=by, shadow=shadow, reason=type(error).__name__.lower())
            return
        except Exception:
            logger.exception("%s could not read along what %s answered", shadow, by)
            metrics.shadow_lost(variant=by, shadow=shadow, reason="unforeseen")
            return
        each = [agreement(*pair) for pair in zip(given.answers, read.answers, strict=True)]
        said = reduce(Agreement.plus, each)
        metrics.shadowed(
            variant=by,
            shadow=shadow,
            said={"both": said.both, "variant": said.reference, "shadow": said.other},
            seconds=read.core_s - given.core_s,
        )
        if trial:
            await self._count(*trial, each, slowdown=given.core_s / max(read.core_s, 1e-9))

    async def _count(
        self, route: str, trial: Trial, each: Sequence[Agreement], *, slowdown: float
    ) -> None:
        """The texts of one request are no independent comparisons: it is one, their mean."""
        share = sum(agreed.share for agreed in each) / len(each)
        verdict = trial.compare(disagreement=1 - share, slowdown=slowdown)
        if verdict:
            try:
                await self._tell(route, trial.name, verdict)
            except KadogoError as error:  # the next comparison tells again
                logger.error("route %s: its verdict could not be kept: %s", route, error)
