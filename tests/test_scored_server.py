"""A server is judged as a pipeline is: the same texts, the same scores, through HTTP."""

from __future__ import annotations

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
