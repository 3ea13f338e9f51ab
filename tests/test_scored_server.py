"""A server is judged as a pipeline is: the same texts, the same scores, through HTTP."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from build import evaluate
from build.errors import BuildError
from build.server import Server
from models import catalog
from models.spec import Input, Task
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
