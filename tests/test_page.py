"""The page at `/`: served to everybody and locked in; and in a real browser, right and legible."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import pytest
import yaml
from bentoml._internal.bento.build_config import BentoPathSpec
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.testclient import TestClient

from models.catalog import manifests
from models.spec import Evidence, Interval, Speed, Task
from service import keys
from service.keys import Scope
from service.page import FOLDER, Page
from service.settings import ROOT, Settings
from tests.test_api import spoil
from tests.test_serve import Server, serving
from tests.tiny import NER_WORDS, NEWS_WORDS, judged, write_variant

FILES = sorted(FOLDER.iterdir())
# Names of what XML is, which nobody asks.
NAMESPACE = "http://www.w3.org/2000/svg"


# --- the files -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client() -> TestClient:
    return TestClient(Starlette(routes=Page().routes()))


@pytest.mark.parametrize("path", ["/", *(f"/page/{file.name}" for file in FILES)])
def test_every_file_is_locked_in_and_asked_after_each_time(client: TestClient, path: str) -> None:
    got = client.get(path)
    assert got.status_code == 200
    told = got.headers
    policy = dict(each.split(" ", 1) for each in told["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'" and policy["frame-ancestors"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "connect", "img")} == {"'self'"}
    assert "unsafe" not in told["content-security-policy"]
    assert told["x-content-type-options"] == "nosniff"
    assert told["referrer-policy"] == "no-referrer"
    assert told["cache-control"] == "no-cache"
    again = client.get(path, headers={"if-none-match": told["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == told["content-security-policy"]
    head = client.head(path)
    assert head.status_code == 200 and head.headers["content-length"] == str(len(got.content))


def test_a_browser_takes_each_file_for_what_it_is(client: TestClient) -> None:
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
    kinds |= {".svg": "image/svg+xml", ".json": "application/json"}
    for file in FILES:
        kind = client.get(f"/page/{file.name}").headers["content-type"].partition(";")[0]
        # Python 3.11 has the older name of scripts, which browsers take as well.
        assert kind.replace("application/java", "text/java") == kinds[file.suffix], file.name


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/page/page.js"])
def test_it_is_only_read(client: TestClient, path: str, method: str) -> None:
    refused = client.request(method, path)
    assert refused.status_code == 405
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


@pytest.mark.parametrize(
    "name", ["nothing.js", "", "%2e%2e%2fpage.py", "%2e%2e", "%00", "x" * 300, "a/b"]
)
def test_nothing_else_is_given(client: TestClient, name: str) -> None:
    assert client.get(f"/page/{name}").status_code == 404


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_file_names_another_origin_nor_makes_markup_of_text(file: Path) -> None:
    text = file.read_text().replace(NAMESPACE, "")
    assert not re.search(r"https?:|//[a-z0-9-]+\.[a-z]", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b", text)
    assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", text)
    if file.suffix == ".html":  # nothing inline: the policy would not run it
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)", text)


def test_what_the_files_ask_for_is_there() -> None:
    names = {file.name for file in FILES}
    for file in FILES:
        asked = re.findall(r"(?:\"\./|\"page/)([\w.-]+)\"", file.read_text())
        assert set(asked) <= names, file.name


def test_the_image_has_every_file() -> None:
    listed = yaml.safe_load((ROOT / "bentofile.yaml").read_text())
    spec = BentoPathSpec(listed["include"], listed["exclude"], str(ROOT))
    assert FILES
    for file in FILES:
        assert spec.includes(str(file.relative_to(ROOT))), file.name


def test_the_examples_are_of_the_languages_that_are_served() -> None:
    examples = json.loads((FOLDER / "examples.json").read_text())
    served: dict[str, set[str]] = {}
    for variant in manifests(Settings().catalog).values():
        assert variant is not None
        served.setdefault(variant.task, set()).update(variant.languages)
    assert examples.keys() == served.keys()
    for task, several in examples.items():
        assert {each["language"] for each in several} == served[task]
        assert all(each["text"].strip() for each in several)


# --- in a browser ----------------------------------------------------------------------------


def evidence(f1: float, difference: float, tokens_per_second: float) -> Evidence:
    def sure(value: float) -> Interval:
        return Interval(n=20, mean=value, low=value, high=value)

    speed = Speed(
        tokens_per_second=sure(tokens_per_second),
        ratio_to_baseline=sure(tokens_per_second / 1000),
        load_seconds=sure(0.1),
        resident_bytes=1,
    )
    return msgspec.structs.replace(judged(f1, difference), speed=speed)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three that agree on little, two topics', and one that is out of service."""
    folder = tmp_path_factory.mktemp("zoo")
    more = {f"Kano{number}": "B-LOC" for number in range(50)}
    base, parent = evidence(0.8, 0.0, 1000), "ner-base"
    write_variant(folder, "ner-base", Task.NER, words={**NER_WORDS, **more}, evidence=base)
    near = evidence(0.799, -0.001, 2500)
    write_variant(folder, "ner-int8", Task.NER, parent=parent, evidence=near)
    words = {**NER_WORDS, "Kano": "B-ORG", "Litinin": "O"}
    far = evidence(0.7, -0.1, 9000)
    write_variant(folder, "ner-tiny", Task.NER, words=words, parent=parent, evidence=far)
    write_variant(folder, "news-base", Task.CLASSIFICATION, evidence=base)
    words = {**NEWS_WORDS, "kwallo": "health"}
    parent = "news-base"
    write_variant(
        folder, "news-tiny", Task.CLASSIFICATION, words=words, parent=parent, evidence=far
    )
    spoil(write_variant(folder, "ner-spoilt", Task.NER))
    return folder


@pytest.fixture(scope="module")
def server(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(catalog, tmp_path_factory.mktemp("open")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    found = filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    path = next(found, None)
    if path is None:
        pytest.skip("there is no Chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"]
        )
        yield browser
        browser.close()


class Tab:
    """A tab of the browser, and all that went wrong in it."""

    def __init__(self, browser: Any, url: str, **options: Any) -> None:
        options = {"viewport": {"width": 1280, "height": 800}, **options}
        self.context = browser.new_context(**options)
        self.page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.url = url
        self.page.goto(url)

    def _said(self, message: Any) -> None:
        # A refusal is told by the browser too; the page tells it in words.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.wrong.append(message.text)

    def ask(self, text: str | None = None) -> None:
        if text is not None:
            self.page.fill("#text", text)
        # What is drawn next is told from what is there.
        self.page.evaluate("window.before = document.querySelector('#answer').firstElementChild")
        self.page.press("#text", "Control+Enter")
        self.page.wait_for_function(
            "() => { const now = document.querySelector('#answer').firstElementChild;"
            " return now && now !== window.before; }"
        )

    def marks(self, within: str = "#answer .marked") -> list[list[str]]:
        """The label and the text of each mark."""
        found: list[list[str]] = self.page.locator(f"{within} mark").evaluate_all(
            "marks => marks.map(each => [each.lastChild.textContent, each.firstChild.data])"
        )
        return found

    def text(self, within: str = "#answer .marked") -> str:
        """What is marked, without the marks' labels and numbers."""
        found: str = self.page.locator(within).evaluate(
            "each => { const copy = each.cloneNode(true);"
            " copy.querySelectorAll('.label, sup').forEach(one => one.remove());"
            " return copy.textContent; }"
        )
        return found

    def rows(self, caption: str) -> list[list[str]]:
        found: list[list[str]] = self.page.get_by_role("group", name=caption, exact=True).evaluate(
            "each => [...each.querySelectorAll('tbody tr')]"
            ".map(row => [...row.cells].map(cell => cell.textContent))"
        )
        return found

    def go(self, view: str) -> None:
        self.page.get_by_role("link", name=view, exact=True).click()

    def close(self) -> None:
        """Nothing was wrong, and nobody else was asked."""
        self.context.close()
        assert self.wrong == []
        there = urlsplit(self.url).netloc
        assert {urlsplit(url).netloc for url in self.asked} == {there}


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Tab]:
    tab = Tab(browser, server.url)
    yield tab
    tab.close()


def test_entities_are_marked_at_their_letters_emoji_or_not(tab: Tab) -> None:
    text = "🦁👏🏾 𞤀 Sani Bello ya je Kano 🇳🇬🎉 ranar Litinin."
    tab.ask(text)
    assert tab.marks() == [["PER", "Sani Bello"], ["LOC", "Kano"], ["DATE", "Litinin"]]
    assert tab.text() == text
    assert "Answered by ner-int8" in tab.page.inner_text("#answer")
    assert "default: smallest of" in tab.page.inner_text("#answer")
    assert [row[0] for row in tab.rows("Variants that did not answer")]
    assert "PER: a person. LOC: a place. DATE: a date" in tab.page.inner_text("#answer")
    assert tab.page.locator("mark .label").first.get_attribute("title") == "a person"
    assert tab.page.inner_text("#said") == "3 entities found by ner-int8."


def test_a_text_is_text_whatever_it_looks_like(tab: Tab) -> None:
    text = "<img src=x onerror=alert(1)> Kano </p><script>alert(2)</script> & &amp;\n Sani"
    tab.ask(text)
    assert tab.text() == text
    assert tab.page.locator("#answer img, #answer script").count() == 0
    assert ["LOC", "Kano"] in tab.marks()


def test_variants_are_shown_side_by_side_and_their_disagreements_numbered(tab: Tab) -> None:
    tab.page.check("text=I choose, and compare")
    chosen = "input[name=variant]:checked"
    names = tab.page.locator(chosen).evaluate_all("all => all.map(each => each.value)")
    assert names == ["ner-base", "ner-tiny"]  # the baseline, and what is smallest
    text = "🎉 Sani Bello ya je Kano ranar Litinin."
    tab.ask(text)
    sides = [f".side >> nth={index} >> .marked" for index in (0, 1)]
    assert [tab.text(side) for side in sides] == [text, text]
    assert tab.marks(sides[0]) == [["PER", "Sani Bello"], ["LOC", "Kano"], ["DATE", "Litinin"]]
    assert tab.marks(sides[1]) == [["PER", "Sani Bello"], ["ORG", "Kano"]]
    apart = tab.page.locator(".side >> nth=1 >> .apart").all_text_contents()
    assert apart == ["KanoORG disagreement 1", "Litinin disagreement 2, nothing found"]
    first, second = tab.rows("Disagreements")
    assert first[:2] == ["1", "Kano"] and second[:2] == ["2", "Litinin"]
    assert first[2].startswith("LOC Kano") and first[3].startswith("ORG Kano")
    assert second[3] == "nothing"
    [base, tiny] = tab.rows("The variants compared")
    assert tiny[1].startswith("40\u00a0%: 2 left out, 1 added")
    assert base[-1] == "the baseline" and tiny[-1] == "−0.100 [−0.105,\u00a0−0.095]"


@pytest.mark.parametrize("width", [1200, 1600])
def test_side_by_side_is_beside_and_variants_compared_are_a_table(
    browser: Any, server: Server, width: int
) -> None:
    tab = Tab(browser, server.url, viewport={"width": width, "height": 900})
    tab.page.check("text=I choose, and compare")
    tab.ask("Sani Bello ya je Kano ranar Litinin.")
    one, other = (each.bounding_box() for each in tab.page.locator(".side").all())
    assert one["y"] == other["y"] and other["x"] >= one["x"] + one["width"]
    compared = tab.page.get_by_role("group", name="The variants compared", exact=True)
    assert compared.locator("table").evaluate("each => getComputedStyle(each).display") == "table"
    assert compared.evaluate("each => each.scrollWidth <= each.clientWidth")
    tab.close()


def test_topics_are_compared_too(tab: Tab) -> None:
    tab.page.check("text=Topic")
    tab.page.check("text=I choose, and compare")
    tab.ask("kwallo kwallo")
    assert "2 variants disagree on the topic." in tab.page.inner_text("#answer")
    best = {row[0]: ["best" in cell for cell in row[1:]] for row in tab.rows("Topics by variant")}
    assert best["sports"] == [True, False] and best["health"] == [False, True]
    tab.page.check("text=The server decides")
    tab.ask()
    assert tab.rows("Topics")[0][0] in ("sports", "health")


def test_one_that_is_chosen_answers_alone(tab: Tab) -> None:
    tab.page.check("text=I choose, and compare")
    tab.page.uncheck("input[value=ner-base]")
    tab.ask("Kano")
    assert tab.marks() == [["ORG", "Kano"]] and "it was named" in tab.page.inner_text("#answer")
    tab.page.uncheck("input[value=ner-tiny]")
    tab.ask("Kano")
    assert "Choose a variant" in tab.page.inner_text("#answer")
    spoilt = tab.page.locator("label", has_text="ner-spoilt")
    assert spoilt.count() == 0 or spoilt.locator("input").is_disabled()


def test_a_field_without_a_limit_shows_none(tab: Tab) -> None:
    fields = tab.page.locator("#policy input")
    shown = fields.evaluate_all("all => all.map(each => each.value + each.placeholder)")
    assert shown == ["", "", ""]
    with tab.page.expect_request("**/v1/ner") as asked:
        tab.ask("Kano")
    assert "policy" not in asked.value.post_data_json


def test_a_policy_is_asked_as_it_is_given(tab: Tab) -> None:
    tab.page.select_option("[name=prefer]", "best")
    tab.page.select_option("[name=language]", "yor")
    tab.page.fill("[name=max_f1_drop]", "0.05")
    with tab.page.expect_request("**/v1/ner") as asked:
        tab.ask("Kano")
    assert asked.value.post_data_json["policy"] == {
        "prefer": "best",
        "language": "yor",
        "max_f1_drop": 0.05,
    }
    assert "best of 2 that satisfy max_f1_drop 0.05 for yor" in tab.page.inner_text("#answer")


def test_a_policy_that_nothing_satisfies_says_what_comes_near(tab: Tab) -> None:
    tab.page.fill("[name=min_f1]", "0.9")
    tab.ask("Kano")
    told = tab.page.get_by_role("alert").filter(has_text="409").inner_text()
    assert "Policy unsatisfied" in told and "a lower F1" in told
    near = tab.rows("Variants that miss the policy")
    assert [row[0] for row in near] == ["ner-base", "ner-int8", "ner-tiny"]
    assert "below 0.9" in near[0][1]
    assert "F1 surely: the low end of the 95\u00a0% interval of F1" in told


@pytest.mark.parametrize("name", ["max_latency_ms", "max_f1_drop"])
def test_a_limit_of_nothing_is_not_sent(tab: Tab, name: str) -> None:
    tab.page.wait_for_selector("#variants input", state="attached")
    tab.page.fill("#text", "Kano")
    tab.page.fill(f"[name={name}]", "0")
    tab.page.press("#text", "Control+Enter")
    assert tab.page.evaluate("document.activeElement.name") == name  # the browser says why
    assert not any("/v1/ner" in url for url in tab.asked)
    tab.page.fill(f"[name={name}]", "0.5")
    tab.ask()
    assert tab.page.locator("#answer h3").count() >= 1


def test_what_is_refused_is_told_in_words(tab: Tab) -> None:
    tab.ask("  ")
    assert "Write or paste a text" in tab.page.inner_text("#answer")
    tab.ask("Kano " * 25_000)
    assert "at most 100000 are taken" in tab.page.inner_text("#answer")
    tab.context.set_offline(True)
    tab.ask("Kano")
    assert "The server does not answer" in tab.page.inner_text("#answer")
    tab.context.set_offline(False)
    tab.ask()
    assert tab.marks() == [["LOC", "Kano"]]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (429, {"title": "Overloaded", "detail": "full", "retry_after_ms": 2500}, "in 2.5 s"),
        (503, {"title": "Not ready", "detail": "loading", "retry_after_ms": 1000}, "in 1.0 s"),
        (403, {"title": "Forbidden", "detail": "the key may not"}, "for a key that may"),
        (422, {"title": "Invalid", "detail": "a text has"}, "Change what it names, and ask again."),
        (502, None, "a proxy before it?"),
    ],
)
def test_refusals_of_every_kind_say_what_to_do(
    tab: Tab, status: int, body: dict[str, Any] | None, told: str
) -> None:
    answer = {"body": "<h1>Bad gateway</h1>"} if body is None else {"json": body}
    tab.page.route("**/v1/ner", lambda route: route.fulfill(status=status, **answer))
    tab.ask("Kano")
    assert told in tab.page.inner_text("#answer")


def test_an_example_is_asked_at_a_press_and_the_next_at_another(tab: Tab) -> None:
    texts = []
    for _ in range(2):
        with tab.page.expect_response("**/v1/ner"):
            tab.page.click("#examples >> text=Yoruba")
        texts.append(tab.page.input_value("#text"))
    examples = json.loads((FOLDER / "examples.json").read_text())["ner"]
    assert texts == [each["text"] for each in examples if each["language"] == "yor"]
    assert tab.page.get_attribute("#text", "lang") == "yo"


def test_the_catalog_shows_every_variant_and_no_name_on_another(tab: Tab) -> None:
    tab.go("Catalog")
    rows = tab.rows("Variants: Names and dates")
    assert [row[0].removesuffix(" default") for row in rows][:1] == ["ner-base"]
    assert {row[0].removesuffix(" default") for row in rows} >= {"ner-base", "ner-int8", "ner-tiny"}
    assert rows[-1][3] == "0.700 [0.695,\u00a00.705]" and "9,000 · 9.00\u00a0×" in rows[-1][5]
    assert "Minus baseline: this F1 minus that of the baseline" in tab.page.inner_text("#catalog")
    titles = tab.page.locator("#catalog thead").first.locator("th[title]").all_text_contents()
    assert titles == ["F1", "Minus baseline"]
    for against in ("F1 against size", "F1 against speed"):
        tab.page.get_by_role("button", name=against).first.click()
        for plot in tab.page.locator("svg.plot").all():
            boxes = plot.locator(".point, circle").evaluate_all(
                "all => all.map(each => { const {x, y, width, height} ="
                " each.getBoundingClientRect(); return [x, y, x + width, y + height]; })"
            )
            assert len(boxes) >= 4
            for at, one in enumerate(boxes):
                for other in boxes[at + 1 :]:
                    assert not overlap(one, other)
    assert "ner-tiny 0.700 at 9,000, on the front" in (
        tab.page.locator("svg.plot").first.get_attribute("aria-label") or ""
    )


def overlap(one: list[float], other: list[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_the_status_tells_who_is_out_of_service_and_what_is_done(tab: Tab, server: Server) -> None:
    tab.go("Status")
    [[name, why]] = tab_rows(tab, "Variants out of service")
    assert name == "ner-spoilt" and why.startswith("quarantined") and len(why) > 20
    for _ in range(20):
        asked = {"inputs": "Kano", "variant": "ner-tiny"}
        assert httpx.post(f"{server.url}/v1/ner", json=asked).status_code == 200
    tab.page.wait_for_function(
        "() => [...document.querySelectorAll('#status tr')].some(row =>"
        " row.cells[0].textContent === 'ner-tiny' && parseFloat(row.cells[2].textContent) > 0)"
    )
    rows = {row[0]: row for row in tab.rows("Variants now")}
    assert rows["ner-tiny"][5].endswith("ms") and rows["ner-tiny"][7] == "0"
    assert rows["news-tiny"][2] == "0" and rows["ner-spoilt"][1] == "quarantined"


def tab_rows(tab: Tab, caption: str) -> list[list[str]]:
    tab.page.get_by_role("group", name=caption, exact=True).wait_for()
    return tab.rows(caption)


def test_the_status_tells_how_a_canary_does(browser: Any, catalog: Path, tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(
        '[[route]]\nname = "trial"\ntask = "ner"\nsplit = { ner-base = 1, ner-int8 = 99 }\n'
        'canary = { variant = "ner-int8", max_disagreement = 0.3, max_slowdown = 1000 }\n'
    )
    with serving(catalog, tmp_path, KADOGO_ROUTES=str(file)) as server:
        for _ in range(3):
            httpx.post(f"{server.url}/v1/ner", json={"inputs": ["Kano"]}).raise_for_status()
        tab = Tab(browser, server.url)
        tab.go("Status")
        [[route, who, compared, differ, slower, verdict]] = tab_rows(tab, "Trials of canaries")
        assert (route, who, verdict) == ("trial", "ner-int8 instead of ner-base", "goes on")
        assert 0 <= int(compared) <= 3
        assert "to 100" in differ and differ.endswith("; limit 30\u00a0%")
        assert slower.endswith("; limit 50\u00a0%")
        for _ in range(300):
            httpx.post(f"{server.url}/v1/ner", json={"inputs": ["Kano"]}).raise_for_status()
        tab.page.wait_for_function(
            "() => document.querySelector('#status').textContent.includes('promoted: answers')"
        )
        tab.close()


def test_metrics_are_read_as_prometheus_reads_them(tab: Tab, server: Server) -> None:
    text = httpx.get(f"{server.url}/metrics").text
    text += '# TYPE odd gauge\nodd{a="x\\"y\\\\n\\n,}",b=""} 1e-3\nodd{a="2",b="é"} +Inf\n'
    theirs = [
        [sample.name, sample.labels, sample.value]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]
    read = """async text => {
        const { parse } = await import("./page/metrics.js");
        return [...parse(text)].flatMap(([name, all]) => all.map((s) => [name, s.labels, s.value]));
    }"""
    ours = tab.page.evaluate(read, text)
    assert len(theirs) > 100
    assert sorted(ours, key=repr) == sorted(theirs, key=repr)


@pytest.mark.parametrize(
    ("before", "now", "q", "expected"),
    [
        ([0, 0, 0], [10, 20, 20], 0.5, 1.0),
        ([0, 0, 0], [10, 20, 20], 0.75, 1.5),
        ([10, 20, 20], [10, 30, 30], 0.5, 1.5),  # only what came since
        ([0, 0, 0], [0, 0, 8], 0.5, 2.0),  # at least the last bound
        ([10, 20, 20], [4, 4, 4], 0.5, 0.5),  # the server began anew
        ([3, 3, 3], [3, 3, 3], 0.5, None),
    ],
)
def test_a_quantile_is_of_what_was_counted_between_two_readings(
    tab: Tab, before: list[int], now: list[int], q: float, expected: float | None
) -> None:
    def told(counts: list[int]) -> str:
        bounds = zip(("1.0", "2.0", "+Inf"), counts, strict=True)
        return "".join(f't_bucket{{v="a",le="{le}"}} {count}\n' for le, count in bounds)

    reckon = """async ([before, now, q]) => {
        const { parse, quantile } = await import("./page/metrics.js");
        return quantile(parse(before), parse(now), "t", { v: "a" }, q);
    }"""
    assert tab.page.evaluate(reckon, [told(before), told(now), q]) == expected


@pytest.mark.parametrize("width", [320, 1200])
def test_names_in_a_picture_never_overlap_however_many_there_are(tab: Tab, width: int) -> None:
    chance = random.Random(width)
    points = [
        {"name": f"variant-{at}", "x": 10 ** chance.uniform(3, 5), "y": y, "low": y - d, "high": y}
        for at in range(40)
        for y, d in [(chance.uniform(0.6, 0.9), 0.02)]
    ]
    draw = """async ([points, width]) => {
        const { picture } = await import("./page/picture.js");
        const drawn = picture(points, { width, against: "speed", title: "many" });
        document.querySelector("#answer").replaceChildren(drawn);
        return [...drawn.querySelectorAll(".point, circle")].map((each) => {
            const { x, y, width, height } = each.getBBox();
            return [each.tagName, x, y, x + width, y + height];
        });
    }"""
    boxes = tab.page.evaluate(draw, [points, width])
    names = [box[1:] for box in boxes if box[0] == "text"]
    dots = [box[1:] for box in boxes if box[0] == "circle"]
    assert len(dots) == 40 and len(names) > 4
    for at, name in enumerate(names):
        assert name[0] >= 0 and name[2] <= width
        assert not any(overlap(name, other) for other in [*names[at + 1 :], *dots])


def test_a_text_is_cut_without_loss_whatever_the_spans_are(tab: Tab) -> None:
    cut = """async () => {
        const { pieces } = await import("./page/marks.js");
        const spans = [[3, 5], [0, 2], [4, 9], [1, 1], [8, 99], [9, 11]];
        const told = spans.map(([start, end]) => ({ start, end }));
        const found = pieces("ab cd 🦁 ef", told);
        return found.map((each) => [each.text, Boolean(each.span)]);
    }"""
    assert tab.page.evaluate(cut) == [
        ["ab", True],
        [" ", False],
        ["cd", True],
        [" 🦁 ", False],
        ["ef", True],
    ]


def test_nothing_is_polled_that_is_not_seen(tab: Tab) -> None:
    tab.go("Status")
    tab_rows(tab, "Variants now")
    tab.go("Try")
    tab.page.wait_for_timeout(100)
    before = len(tab.asked)
    tab.page.wait_for_timeout(6000)
    assert len(tab.asked) == before


def test_where_metrics_are_kept_inside_the_rest_is_shown(tab: Tab) -> None:
    tab.page.route("**/metrics", lambda route: route.fulfill(status=404, json={}))
    tab.go("Status")
    assert tab_rows(tab, "Variants now")
    assert "/metrics is not to be had here" in tab.page.inner_text("#status")


def test_where_keys_are_asked_for_so_does_the_page(
    browser: Any, catalog: Path, tmp_path: Path
) -> None:
    token, lines = keys.new("newsroom", [Scope.INFER], None)
    file = tmp_path / "keys.toml"
    file.write_text(lines)
    with serving(catalog, tmp_path, KADOGO_KEYS=str(file)) as server:
        tab = Tab(browser, server.url)
        field = tab.page.get_by_label("Key", exact=True)
        field.wait_for()
        assert "This server asks for a key" in tab.page.inner_text("#key")
        assert "A key is needed" in tab.page.inner_text("#answer")
        field.fill("wrong")
        field.press("Enter")
        tab.page.wait_for_function("() => document.querySelector('#key-wrong').textContent")
        assert "does not take this key" in tab.page.inner_text("#key-wrong")
        field.fill(token)
        field.press("Enter")
        tab.page.wait_for_selector("#variants input", state="attached")
        assert "A key is in use" in tab.page.inner_text("#key") and field.input_value() == ""
        tab.ask("Kano")
        assert tab.marks() == [["LOC", "Kano"]]
        tab.go("Status")
        assert tab_rows(tab, "Variants now")
        kept = tab.page.evaluate(
            "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie,"
            " location.href, document.documentElement.outerHTML])"
        )
        assert token not in kept and all(token not in url for url in tab.asked)
        tab.close()


@pytest.mark.parametrize("width", [1280, 360])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_legible_and_has_names_for_everything(
    browser: Any, server: Server, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    viewport = {"width": width, "height": 740}
    tab = Tab(browser, server.url, color_scheme=scheme, viewport=viewport)

    def fine() -> None:
        wrong = axe.run(tab.page).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in wrong] == []
        wide = tab.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0

    fine()
    tab.ask("Sani Bello ya je " + "ngwuru" * 40 + " Kano ranar Litinin. " + "حلب قديمة Kano مدينة")
    fine()
    tab.page.check("text=I choose, and compare")
    for box in tab.page.locator("input[name=variant]:enabled").all():
        box.check()
    tab.ask()
    fine()
    tab.page.check("text=Topic")
    tab.ask("kwallo banki")
    fine()
    tab.page.check("text=The server decides")
    tab.page.fill("[name=min_f1]", "0.99")
    tab.ask()
    fine()
    tab.go("Catalog")
    tab.page.wait_for_selector("svg.plot")
    fine()
    tab.go("Status")
    tab_rows(tab, "Variants now")
    fine()
    tab.close()


def test_the_keyboard_is_enough_and_is_seen(tab: Tab) -> None:
    tab.page.wait_for_selector("#examples button")
    tab.page.keyboard.press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "main"
    seen = set()
    for _ in range(40):
        tab.page.keyboard.press("Tab")
        name, width = tab.page.evaluate(
            "[document.activeElement.id || document.activeElement.name"
            " || document.activeElement.textContent.trim(),"
            " getComputedStyle(document.activeElement).outlineWidth]"
        )
        seen.add(name)
        if name == "Ask":
            break
        assert width != "0px", name
    assert {"task", "text", "Hausa", "who", "prefer", "min_f1", "Ask"} <= seen
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector("#answer .marked")
