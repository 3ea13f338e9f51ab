"""Fair shares of a real server: one key floods a lane while another asks; counts, no times."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service import keys
from service.keys import Scope
from service.settings import ROOT
from tests.test_serve import Server, serving

FLOOD = 48  # connections, each of which asks again as soon as it is answered
ASKED = 20
# Nearly a batch by itself, so that answers are counted one by one.
LONG = "Sani Bello ya je Kano a ranar Litinin. " * 15
TOKENS: dict[str, str] = {}


@pytest.fixture(
    scope="module", params=["2048", "32"], ids=["all of it is queued", "the queue is full"]
)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    catalog, home = (tmp_path_factory.mktemp(name) for name in ("zoo", "home"))
    (catalog / "ner-base").symlink_to(ROOT / "models" / "zoo" / "ner-base")
    settings = {
        "KADOGO_KEYS": str(written(home)),
        "KADOGO_QUEUE_TEXTS": request.param,
        "KADOGO_THREADS": "1",
    }
    with serving(catalog, home, **settings) as server:
        yield server


def written(home: Path) -> Path:
    file = home / "keys.toml"
    lines = ""
    for name in ("flood", "gentle"):
        TOKENS[name], more = keys.new(name, [Scope.INFER], None)
        lines += more
    file.write_text(lines)
    return file


def test_a_key_that_floods_a_lane_does_not_starve_another(server: Server) -> None:
    """
    However much of the flood has come before, a gentle request is answered before half of it is:
    in order of arrival all of it would go first.
    """
    between, refused = asyncio.run(flooded(server.url))
    assert refused == 0
    assert max(between) <= FLOOD // 4, between


async def flooded(url: str) -> tuple[list[int], int]:
    """
    Of each gentle request how much of the flood was answered between asking and its answer, and
    how many of them were refused.
    """
    answered = refused = 0
    between: list[int] = []
    over = asyncio.Event()

    async def flood(client: httpx.AsyncClient) -> None:
        nonlocal answered
        while not over.is_set():
            reply = await client.post("/v1/ner", json={"inputs": LONG})
            if reply.status_code == 429:
                await asyncio.sleep(0.05)
                continue
            assert reply.status_code == 200, reply.text
            answered += 1

    async with bearing(url, "flood") as many, bearing(url, "gentle") as one:
        flooding = [asyncio.ensure_future(flood(many)) for _ in range(FLOOD)]
        while answered < FLOOD:  # by now the queue is never empty
            await asyncio.sleep(0.01)
        for _ in range(ASKED):
            before = answered
            reply = await one.post("/v1/ner", json={"inputs": "Sani ya je Kano."})
            refused += reply.status_code == 429
            between.append(answered - before)
        over.set()
        await asyncio.gather(*flooding)
    return between, refused


def bearing(url: str, key: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {TOKENS[key]}"}
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=60, limits=limits)
