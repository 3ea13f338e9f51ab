"""
How BentoML's arbiter, the process that has started the workers, minds them and stops.

Knows circus's arbiter as BentoML makes it; nothing of what the workers do.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

# Between two looks at whether a worker has died, in seconds.
WATCH_S = 2
# Between two tries to stop, in seconds: another worker is begun in some hundredths.
AGAIN_S = 0.1


def mind_workers() -> None:
    """
    A worker that dies is missed within seconds, where BentoML's arbiter looks every ten, and a
    signal to stop is never lost.

    BentoML imports what it makes its arbiter with only after the service's file.
    """
    with contextlib.suppress(ImportError, AttributeError):
        from bentoml._internal.utils import circus

        make = circus.create_standalone_arbiter

        def made(*watchers: Any, **options: Any) -> Any:
            arbiter = make(*watchers, **{"check_delay": WATCH_S, **options})
            stop_in_the_end(arbiter)
            return arbiter

        circus.create_standalone_arbiter = made


def stop_in_the_end(arbiter: Any) -> None:
    """
    Let `arbiter.stop` try again until it may: while circus begins a worker it refuses to stop, and
    drops the signal that asked (its issue 935), so that the server would serve on until it is
    killed with all that it was about to answer.
    """
    from circus.exc import ConflictError

    stop = arbiter.stop

    def stopped() -> Any:
        try:
            return stop()
        except ConflictError:
            arbiter.loop.call_later(AGAIN_S, stopped)
            return None

    arbiter.stop = stopped


def replace_the_dead() -> None:
    """
    A worker that dies is replaced in a container too: BentoML's images would leave it dead, for an
    orchestrator to notice, but that one would end the workers that live with it.
    """
    os.environ.pop("BENTOML_CONTAINERIZED", None)
