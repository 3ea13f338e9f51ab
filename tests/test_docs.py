"""What the pages show is run: the client that they tell people to copy."""

from __future__ import annotations

import contextlib
import re
import runpy
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from models.spec import Task
from service.api import Answers, build
from service.lanes import Lanes
from service.settings import ROOT, Settings
from tests.tiny import write_variant


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The names that the client's code defines, copied as people would."""
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs/client.md").read_text(), re.DOTALL)
    file = tmp_path_factory.mktemp("mine") / "kadogo_client.py"
    file.write_text(code)
    return runpy.run_path(str(file))


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    catalog = tmp_path_factory.mktemp("zoo")
    write_variant(catalog, "ner-base", Task.NER)
    write_variant(catalog, "news-base", Task.CLASSIFICATION)
    settings = Settings(catalog=Path(catalog))
    lanes = Lanes(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with lanes.open():
            yield

    with TestClient(build(Answers(lanes, settings), lifespan=lifespan)) as http:
        yield http


def test_the_client_finds_entities_and_topics(client: dict[str, Any], http: TestClient) -> None:
    kadogo = client["Kadogo"]("", http=http)
    texts = ["Sani Bello ya je Kano.", "ya je"]
    found, by = kadogo.ner(texts, variant="ner-base")
    assert [[(e.label, texts[0][e.start : e.end]) for e in each] for each in found] == [
        [("PER", "Sani Bello"), ("LOC", "Kano")],
        [],
    ]
    assert (by.variant, by.reason) == ("ner-base", "named") and len(by.digest) == 16
    topics, _ = kadogo.classify(["kwallo kwallo"], policy={"prefer": "smallest"})
    assert topics[0][0].label == "sports"


def test_the_client_takes_one_text_and_lets_be_what_it_does_not_know(
    client: dict[str, Any], http: TestClient
) -> None:
    kadogo = client["Kadogo"]("", http=http)
    found, _ = kadogo.ner("Sani Bello", variant="ner-base", parameters={"aggregation": "none"})
    assert len(found) == 1 and {each.text for each in found[0]} == {"Sani", "Bello"}


def test_the_client_tells_what_a_proxy_says_in_between(client: dict[str, Any]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(502, text="<h1>Bad Gateway</h1>")

    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://kadogo")
    with pytest.raises(client["Refused"], match="502 Bad Gateway"):
        client["Kadogo"]("", http=http).ner("Kano")


def test_the_client_gives_a_problem_as_an_exception(
    client: dict[str, Any], http: TestClient
) -> None:
    kadogo = client["Kadogo"]("", http=http)
    with pytest.raises(client["Refused"], match=r"^409 Policy unsatisfied: no variant") as error:
        kadogo.ner(["Kano"], policy={"min_f1": 0.5})
    assert error.value.status == 409 and error.value.problem["nearest"]


def test_the_client_comes_back_when_it_is_told_to(client: dict[str, Any]) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        if len(asked) < 3:
            problem = {"status": 429, "title": "Overloaded", "detail": "", "retry_after_ms": 1}
            return httpx.Response(429, json=problem)
        reply = {"results": [], "variant": "a", "digest": "b", "reason": "c"}
        return httpx.Response(200, json=reply)

    def kadogo(tries: int) -> Any:
        asked.clear()
        http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://kadogo")
        return client["Kadogo"]("", key="k", tries=tries, http=http)

    assert kadogo(3).ner([])[1].variant == "a"
    assert len(asked) == 3 and asked[0].headers["authorization"] == "Bearer k"
    with pytest.raises(client["Refused"]):
        kadogo(2).ner([])
    assert len(asked) == 2


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ +(.+)$", page.read_text(), re.MULTILINE)
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {each.strip().replace(" ", "-") for each in kept}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), target
