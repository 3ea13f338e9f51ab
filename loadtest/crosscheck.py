"""
Whether the server's figures of a run are the client's: who measures himself is checked.

Counts are equal, but for what got no answer at all. The server's time, from the first byte it read
to the last it sent, lies within the client's: it is no longer, and shorter by what lies between
them. Pure; knows nothing of how either was measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from loadtest.complaint import Complaint
from loadtest.record import Call, Run
from loadtest.watch import Window

REQUESTS, TEXTS = "kadogo_request_seconds", "kadogo_texts_total"

# Two clocks, and on the mean what is rounded.
LONGER_S = 0.001
# Network, the socket's buffer, the generator's own loop: more than the larger of the two says that
# the client measured something else than the server.
BETWEEN_S, BETWEEN_SHARE = 0.05, 0.5
SHARES = (0.5, 0.9, 0.99)


def mismatches(calls: Sequence[Call], run: Run, window: Window) -> list[Complaint]:
    """One for each; `window` holds this run and nothing before it."""
    return [
        Complaint(run.variant, f"{each} ({run.arrivals})")
        for each in (*_counts(calls, run, window), *_strangers(run, window), *_times(run, window))
    ]


def _counts(calls: Sequence[Call], run: Run, window: Window) -> list[str]:
    found = []
    classes = Counter(each.status // 100 for each in run.requests)
    open_ended = classes.pop(0, 0)  # no answer: the server may have counted it as anything
    for status in sorted({2, 4, 5} | classes.keys()):
        # Those that are refused before a variant is chosen are of none.
        names = (run.variant,) if status == 2 else (run.variant, "none")
        theirs = sum(
            window.total(f"{REQUESTS}_count", variant=name, status_class=f"{status}xx")
            for name in names
        )
        mine = classes.get(status, 0)
        if not mine <= theirs <= mine + open_ended:
            found.append(
                f"the server counted {theirs:.0f} answers of {status}xx, the client {mine}"
                + (f" and {open_ended} without an answer" if open_ended else "")
            )
    texts = sum(len(calls[each.call].texts) for each in run.requests if each.status == 200)
    theirs, more = window.total(TEXTS, variant=run.variant), open_ended * _most(calls)
    if not texts <= theirs <= texts + more:
        found.append(f"the server counted {theirs:.0f} texts, the client {texts}")
    return found


def _strangers(run: Run, window: Window) -> list[str]:
    """Whoever else asks disturbs what is measured."""
    others = {
        dict(labels)["variant"]: value
        for (name, labels), value in window.counted.items()
        if name == TEXTS and value > 0 and ("variant", run.variant) not in labels
    }
    return [f"somebody else asked {name} {n:.0f} texts meanwhile" for name, n in others.items()]


def _times(run: Run, window: Window) -> list[str]:
    # From when it was sent: of what waited for a caller, the server knows nothing.
    mine = [each.done_s - each.sent_s for each in run.requests if each.status // 100 == 2]
    answered = {"variant": run.variant, "status_class": "2xx"}
    theirs = window.mean(REQUESTS, **answered)
    # Where the server answered some after the client gave up on them, the times are of others.
    if not mine or not theirs >= 0 or window.total(f"{REQUESTS}_count", **answered) != len(mine):
        return []
    found = []
    mean = float(np.mean(mine))
    if theirs > mean + LONGER_S:
        found.append(
            f"the server took {_ms(theirs)} on average, longer than the {_ms(mean)} its client saw"
        )
    if mean - theirs > max(BETWEEN_S, BETWEEN_SHARE * mean):
        found.append(
            f"of {_ms(mean)} on average {_ms(mean - theirs)} passed outside the server, more than "
            f"{_ms(BETWEEN_S)} and {BETWEEN_SHARE:.0%}"
        )
    for share in SHARES:
        least = window.least(REQUESTS, share, **answered)
        seen = float(np.quantile(mine, share, method="inverted_cdf"))
        if least > seen + LONGER_S:
            found.append(
                f"the server's p{100 * share:g} is above {_ms(least)}, its client's is {_ms(seen)}"
            )
    return found


def _most(calls: Sequence[Call]) -> int:
    return max((len(call.texts) for call in calls), default=0)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
