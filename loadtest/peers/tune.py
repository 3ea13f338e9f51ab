"""
The best settings of a peer on a model: a small grid, then its best few again, interleaved.

What won, and every figure, goes into tuned.json, which the servers are run with.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from loadtest.peers.files import HERE, folder_of
from loadtest.peers.load import saturate
from loadtest.peers.peers import ENVIRONMENTS, KADOGO, Peer
from loadtest.peers.sentences import sentences
from loadtest.peers.server import serving
from loadtest.peers.settings import Settings
from loadtest.process import NotServing

TUNED = Path(__file__).with_name("tuned.json")
CONNECTIONS = 16
BEST = 3  # are tried again
AGAIN = 3  # times
TEXTS = 256
WARMUP_S, SECONDS = 1.5, 2.5

# Two cores: workers, threads in each, threads in a call. More of each were no better in any peer.
SPREADS = ((1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1))
MORE = ((1, 4, 1), (2, 2, 1), (3, 1, 1))
ALONE = ((1, 0.0),)
BATCHES = ((4, 1.0), (8, 1.0), (16, 1.0), (8, 5.0), (16, 5.0))
# BentoML finds its own wait.
UNTIMED = ((4, 0.0), (8, 0.0), (16, 0.0), (64, 0.0))

Spread = tuple[int, int, int]
Batch = tuple[int, float]


def grid(spreads: Iterable[Spread], batches: Iterable[Batch]) -> Iterator[Settings]:
    for (workers, threads, intra), (batch, wait_ms) in itertools.product(spreads, batches):
        yield Settings(workers=workers, threads=threads, intra=intra, batch=batch, wait_ms=wait_ms)


def _one_thread(spreads: Iterable[Spread]) -> tuple[Spread, ...]:
    """Of frameworks whose workers run one call at a time."""
    return tuple(each for each in spreads if each[1] == 1)


SINGLE = _one_thread((*SPREADS, *MORE))
GRIDS: Mapping[str, Sequence[Settings]] = {
    "fastapi": tuple(grid((*SPREADS, *MORE), ALONE)),
    "starlette": tuple(grid((*SPREADS, *MORE), ALONE)),
    "bentoml": (
        *grid((*SPREADS, *MORE), ALONE),
        *grid(_one_thread(SPREADS), UNTIMED),
    ),
    "litserve": (*grid(SINGLE, ALONE), *grid(_one_thread(SPREADS), BATCHES)),
    "mosec": (*grid(SINGLE, ALONE), *grid(_one_thread(SPREADS), BATCHES)),
    "mlserver": (*grid(SINGLE, ALONE), *grid(_one_thread(SPREADS), BATCHES)),
    "ray": (*grid(SINGLE, ALONE), *grid(((1, 1, 1), (1, 1, 2), (2, 1, 1)), BATCHES[1::2])),
}


def tuned(peer: str, model: str, file: Path = TUNED) -> Settings:
    """What won for the peer on the model, or on another where that was not tried."""
    if peer == KADOGO:
        return Settings()
    book = _read(file).get(peer, {})
    found = book.get(model) or next(iter(book.values()), None)
    return Settings(**found["best"]) if found else Settings()


def tune(
    peer: Peer,
    model: str,
    *,
    here: Path = HERE,
    environments: Path = ENVIRONMENTS,
    file: Path = TUNED,
) -> Settings:
    """Try the peer's grid and write down what came of it. Raises NotServing where nothing did."""
    tried: dict[Settings, list[float]] = {}
    for settings in GRIDS[peer.name]:
        tried[settings] = [_rate(peer, model, here, environments, settings)]
    best = sorted(tried, key=lambda each: tried[each][0], reverse=True)[:BEST]
    for number in range(AGAIN):
        for settings in best[:: 1 if number % 2 else -1]:
            tried[settings].append(_rate(peer, model, here, environments, settings))
    # The first try chose them, so it does not count among them.
    won = max(best, key=lambda each: statistics.median(tried[each][1:]))
    if not statistics.median(tried[won][1:]):
        raise NotServing(f"{peer.name} on {model} ran with none of its settings: none is written")
    book = _read(file)
    book.setdefault(peer.name, {})[model] = {
        "best": asdict(won),
        "tried": {str(each): [round(rate, 1) for rate in rates] for each, rates in tried.items()},
    }
    file.write_text(json.dumps(book, indent=1) + "\n")
    return won


def _rate(peer: Peer, model: str, here: Path, environments: Path, settings: Settings) -> float:
    """0 where it does not run so, or not without failures."""
    texts = sentences(TEXTS, seed=2)
    bodies = [peer.body_of(text, model) for text in texts]
    try:
        folder, ask = folder_of(peer, model, here), (texts[0], model)
        with serving(peer, folder, settings, ask=ask, environments=environments) as server:
            found = saturate(
                server.url + peer.path_of(model),
                bodies,
                peer.mark,
                connections=CONNECTIONS,
                warmup_s=WARMUP_S,
                seconds=SECONDS,
            )
    except NotServing as error:
        _say(f"{peer.name} {model} {settings}: {error}")
        return 0.0
    rate = statistics.fmean(found.rates)
    failed = f", which does not count: {found.failed} failed" if found.failed else ""
    _say(f"{peer.name} {model} {settings}: {rate:.1f} texts/s{failed}")
    return 0.0 if found.failed else rate


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text())) if file.is_file() else {}
