"""Whether swapped answers are seen: through a small server that lies, and in values."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from loadtest import checker
from loadtest.checker import Checked, Post, Wrong, alone, checked, complaints, connection, singles
from loadtest.record import Call, Request, Run, Unusable
from loadtest.traffic import Traffic, body, calls, path, read_answer
from tests.scripted import Reply, scripted


class Lying(BaseHTTPRequestHandler):
    """Finds words of five letters; in the calls of `swapped` it says what it said the last time."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[str]] = []
    swapped: ClassVar[set[int]] = set()
    failing: ClassVar[set[str]] = set()
    last: ClassVar[list[Any]] = [None]

    def do_POST(self) -> None:
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        texts = [inputs] if isinstance(inputs, str) else inputs
        said = [{"entities": [*map(entity, re.finditer(r"\b\w{5}\b", text))]} for text in texts]
        number = len(self.asked)
        self.asked.append(texts[0])
        told, self.last[0] = (self.last[0] if number in self.swapped else said), said
        answer = json.dumps({"results": told}).encode()
        self.send_response(500 if texts[0] in self.failing else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


def entity(match: re.Match[str]) -> dict[str, object]:
    return {"start": match.start(), "end": match.end(), "label": "PER", "score": 0.9}


@pytest.fixture
def post() -> Iterator[Post]:
    Lying.asked.clear()
    Lying.swapped.clear()
    Lying.failing.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Lying)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with connection(f"http://127.0.0.1:{server.server_port}") as found:
        yield found
    server.shutdown()
    server.server_close()


def sent(asked: list[Call], post: Post) -> Run:
    """Each call once, in turn."""
    requests = []
    for number, call in enumerate(asked):
        answer, error = read_answer(call, *post(path(call), body(call, "any")))
        requests.append(
            Request(
                call=number, due_s=0, sent_s=0, done_s=1, status=200, answer=answer, error=error
            )
        )
    return Run(
        variant="any",
        task="ner",
        arrivals="closed:1",
        seconds=1,
        requests=tuple(requests),
        dropped=0,
        cores=0,
    )


@pytest.mark.parametrize("inputs", [1, 3])
def test_an_honest_server_passes(post: Post, inputs: int) -> None:
    asked = calls(Traffic(inputs=inputs, duplicates=1.1), task="ner", count=60)
    known = alone(asked, "any", post)
    found = checked(asked, sent(asked, post), known)
    assert (found.compared, found.unknown, found.wrong) == (60, 0, ())
    assert complaints(found, "any") == []


def test_a_swapped_answer_fails_the_run_and_names_the_calls(post: Post) -> None:
    asked = calls(Traffic(), task="ner", count=40)
    known = alone(asked, "any", post)
    Lying.swapped |= {len(Lying.asked) + 17}
    found = checked(asked, sent(asked, post), known)
    assert found.wrong == (Wrong(17, 16),) and found.compared == 40
    assert [*map(str, complaints(found, "any"))] == [
        "any: call 17 was answered as call 16 is alone: answers were swapped"
    ]


def test_every_text_is_asked_once_and_alone(post: Post) -> None:
    asked = calls(Traffic(inputs=4, duplicates=1.1), task="ner", count=50)
    known = alone(asked, "any", post)
    texts = {text for call in asked for text in call.texts}
    assert len(Lying.asked) == len(texts) == len(known) and set(Lying.asked) == texts


def test_what_is_not_answered_alone_is_said_to_be_unknown(post: Post) -> None:
    asked = calls(Traffic(), task="ner", count=10)
    Lying.failing.add(asked[3].texts[0])
    known = alone(asked, "any", post)
    Lying.failing.clear()
    found = checked(asked, sent(asked, post), known)
    assert (found.compared, found.unknown) == (9, 1)


def test_a_server_that_is_not_there_answers_nothing() -> None:
    with connection("http://127.0.0.1:1") as post:
        assert post("/v1/ner", b"{}") == (0, b"")


def test_texts_are_asked_alone_behind_the_path_that_the_server_is_behind() -> None:
    with scripted(lambda _: Reply()) as server, connection(f"{server.url}/kadogo/") as post:
        assert alone(ASKED[:1], "any", post) == {("ner", "Kano"): NOBODY}
    assert server.heads[0].startswith("POST /kadogo/v1/ner HTTP/1.1\r\n")


def test_the_first_text_that_gets_no_answer_in_time_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checker, "PATIENCE_S", 0.1)
    said = r"^no answer within 0.1 s to a text asked alone$"
    with (
        scripted(lambda _: Reply(after_s=60)) as server,
        connection(server.url) as post,
        pytest.raises(Unusable, match=said),
    ):
        alone(ASKED, "any", post)
    assert len(server.heads) <= 1


# --- values ----------------------------------------------------------------------------------

KANO, ABUJA, NOBODY = frozenset({(0, 4, "LOC")}), frozenset({(0, 5, "LOC")}), frozenset[Any]()
ASKED = [Call(task="ner", texts=(text,), languages=("",)) for text in ("Kano", "Abuja", "a", "b")]
KNOWN = {
    ("ner", "Kano"): KANO,
    ("ner", "Abuja"): ABUJA,
    ("ner", "a"): NOBODY,
    ("ner", "b"): NOBODY,
}


def test_calls_that_were_begun_anew_count_on() -> None:
    found = checker.compared(ASKED, [(0, (KANO,)), (4, (KANO,)), (9, (KANO,))], KNOWN)
    assert found.wrong == (Wrong(9, 0),)


def test_an_answer_that_is_nobodys_is_wrong_too() -> None:
    odd = frozenset({(1, 2, "PER")})
    found = checker.compared(ASKED, [(0, (odd,)), (1, (NOBODY,))], KNOWN)
    assert found.wrong == (Wrong(0, None), Wrong(1, None))
    assert (
        str(complaints(found, "v")[0]) == "v: call 0 was answered otherwise than its text is alone"
    )


def test_the_answers_within_a_call_have_their_order() -> None:
    both = Call(task="ner", texts=("Kano", "Abuja"), languages=("", ""))
    assert not checker.compared([both], [(0, (KANO, ABUJA))], KNOWN).wrong
    assert checker.compared([both], [(0, (ABUJA, KANO))], KNOWN).wrong == (Wrong(0, None),)


def test_sight_is_the_share_of_pairs_that_are_answered_differently() -> None:
    # Of six pairs of texts only (a, b) have the same answer.
    assert checker.compared(ASKED, [], KNOWN).sight == pytest.approx(5 / 6)
    assert checker.compared(ASKED, [], {}).sight == 0


def test_many_wrong_answers_are_a_few_complaints() -> None:
    found = Checked(compared=50, unknown=0, wrong=tuple(Wrong(n, None) for n in range(9)), sight=1)
    told = [*map(str, complaints(found, "v"))]
    assert len(told) == 6 and told[-1] == "v: so were 4 more of 50 calls"
    assert len(complaints(replace(found, wrong=found.wrong[:5]), "v")) == 5


def test_where_no_text_was_answered_alone_nothing_is_proved_of_what_was_answered() -> None:
    found = checker.compared(ASKED, [(0, (KANO,))], {})
    assert checker.blind(found)[0].startswith("none of its answers could be compared")
    assert checker.blind(checker.compared(ASKED, [], {})) == []
    assert checker.blind(checker.compared(ASKED, [(0, (KANO,)), (1, (KANO,))], KNOWN)) == []


def test_several_runs_are_told_together() -> None:
    one = Checked(compared=50, unknown=1, wrong=(Wrong(3, None),), sight=0.5)
    both = checker.together([one, replace(one, unknown=0, wrong=())])
    assert both.wrong == (Wrong(3, None),)
    assert checker.told(both) == "100 answers, 1 unknown, 50.0% of swaps are seen"


def test_a_text_that_two_calls_share_is_one_single() -> None:
    assert len(singles([*ASKED, *ASKED])) == 4
