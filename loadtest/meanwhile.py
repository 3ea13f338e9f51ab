"""
Something that is looked at again and again while something else runs.

Knows nothing of what is looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from loadtest.record import Unusable

T = TypeVar("T")


@contextmanager
def meanwhile(look: Callable[[], T | None], every_s: float) -> Iterator[list[T]]:
    """
    What was seen so far, first at once, until it is left.

    A look that finds nothing (None) or cannot be had (Unusable) is left out: the next is taken.
    """
    seen: list[T] = []
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            with suppress(Unusable):
                if (found := look()) is not None:
                    seen.append(found)
            over.wait(every_s)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
