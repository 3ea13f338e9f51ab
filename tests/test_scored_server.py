"""A server is judged as a pipeline is: the same texts, the same scores, through HTTP."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pytest

from build import evaluate
from build.errors import BuildError
from build.server import KEY, Server
from models import catalog
from models.spec import Input, Task
from service import keys
from service.keys import Scope
from tests.test_serve import serving
from tests.tiny import write_variant
from tests.tiny_corpus import write_corpus


def test_answers_through_http_are_those_in_process(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=4)
    root = tmp_path / "catalog"
    folders = [
        write_variant(root, "ner-tiny", Task.NER),
        write_variant(root, "news-tiny", Task.CLASSIFICATION),
    ]
    with serving(root, tmp_path) as server:
        for folder in folders:
            pipeline = catalog.open_variant(folder)
            asked = Server(server.url, pipeline.variant)
            here, there = (
                evaluate.ask_all(pipeline.variant, ask, corpus, "test")
                for ask in (pipeline.answer, asked.answer)
            )
            assert here == there and here[Input.RAW]["hau"]
        variant = catalog.read(folders[0])
        nobody = msgspec.structs.replace(variant, name="nobody")
        with pytest.raises(BuildError, match="answers 404: "):
            Server(server.url, nobody).answer(["Kano"])
        other = msgspec.structs.replace(variant, files={})
        with pytest.raises(BuildError, match="not the same weights"):
            Server(server.url, other).answer(["Kano"])
    with pytest.raises(BuildError, match="does not answer"):
        Server(server.url, variant).answer(["Kano"])


class _Page(BaseHTTPRequestHandler):
    """A proxy's own words, in a page of HTML."""

    status = 503

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b"<html><h1>Not now</h1>")

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "line"),
    [(503, "answers 503: Service Unavailable"), (200, "does not answer as a Kadogo does: ")],
)
def test_a_page_of_a_proxy_is_one_line(
    status: int, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Page, "status", status)
    folder = write_variant(tmp_path, "ner-tiny", Task.NER)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Page) as page:
        threading.Thread(target=page.serve_forever, daemon=True).start()
        with pytest.raises(BuildError, match=line):
            Server(f"http://127.0.0.1:{page.server_port}", catalog.read(folder)).answer(["Kano"])
        page.shutdown()


def test_a_server_with_keys_is_asked_with_the_one_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_variant(tmp_path / "catalog", "ner-tiny", Task.NER)
    token, lines = keys.new("judge", [Scope.INFER], None)
    (tmp_path / "keys.toml").write_text(lines)
    pipeline = catalog.open_variant(folder)
    with serving(tmp_path / "catalog", tmp_path, KADOGO_KEYS=str(tmp_path / "keys.toml")) as server:
        for wrong in ("", "kadogo_SECRET"):
            monkeypatch.setenv(KEY, wrong)
            with pytest.raises(BuildError, match=r"answers 401: set KADOGO_KEY to one") as error:
                Server(server.url, pipeline.variant).answer(["Kano"])
            assert "SECRET" not in str(error.value) and "\n" not in str(error.value)
        monkeypatch.setenv(KEY, f"{token}\n")
        answers = Server(server.url, pipeline.variant).answer(["Sani ya je Kano"])
        assert answers == pipeline.answer(["Sani ya je Kano"])
    monkeypatch.setenv(KEY, "SECRET\nX-Y: z")
    with pytest.raises(BuildError, match="KADOGO_KEY is not a key") as error:
        Server(server.url, pipeline.variant)
    assert "SECRET" not in str(error.value)
