"""Static int8: scales set once on dev text, and what is left in float."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from build.checkpoint import Checkpoint
from build.data import DataError
from build.errors import BuildError
from build.export import export
from build.graph import MODEL, load, runner
from build.publish import Title, publish
from build.quantize_static import LINEAR, grouped, quantize_static
from build.steps import GROUPS, Export, QuantizeStatic
from models.catalog import open_variant
from models.spec import Licence, Runtime, Task
from models.weights import census
from tests.company import same_alone_and_in_company
from tests.tiny_checkpoint import LAYERS, exported, quantized, write_for_corpus
from tests.tiny_corpus import write_corpus

NAIVE = QuantizeStatic(texts=12, exclude=())
CAREFUL = QuantizeStatic(texts=12)
TITLE = Title(
    name="toy", description="A toy.", licence=Licence(name="none", sources=()), command="none"
)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("static")
    write_corpus(root / "corpus", sentences=12)
    for task in Task:
        source = write_for_corpus(root / f"finetuned-{task}", task)
        (root / f"exported-{task}").mkdir()
        export(Export(weights="float16"), source, root / f"exported-{task}")
    return root


@cache
def static(room: Path, task: Task, step: QuantizeStatic) -> Path:
    target = room / f"static-{task}-{len(step.exclude)}"
    target.mkdir()
    quantize_static(step, room / f"exported-{task}", target, room / "corpus")
    return target


def apart(room: Path, step: QuantizeStatic) -> float:
    ids = np.random.default_rng(4).integers(4, 40, (4, 30))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    floats = runner(room / f"exported-{Task.NER}")(feed)
    whole = runner(static(room, Task.NER, step))(feed)
    return float(np.abs(whole - floats).mean() / floats.std())


def test_every_operator_that_can_be_in_int8_is_in_one_group() -> None:
    found = grouped(load(exported(Task.NER)).graph)
    assert found.keys() == {LINEAR, *GROUPS}
    names = [node.name for nodes in found.values() for node in nodes]
    assert len(set(names)) == len(names)
    assert len(found[LINEAR]) == 6 * LAYERS
    assert len(found["layernorm"]) == 2 * LAYERS + 1 and len(found["gelu"]) == LAYERS
    assert all(found[name] for name in GROUPS)


def test_what_is_left_in_float_is_what_keeps_answers(room: Path) -> None:
    assert apart(room, CAREFUL) < 0.1
    assert apart(room, NAIVE) > apart(room, CAREFUL)


@pytest.mark.parametrize("task", list(Task))
def test_a_text_gets_the_same_logits_alone_and_in_company(room: Path, task: Task) -> None:
    assert same_alone_and_in_company(static(room, task, CAREFUL), task)


def test_linear_layers_are_stored_in_int8_and_the_manifest_counts_them(room: Path) -> None:
    folder = static(room, Task.NER, CAREFUL)
    floats = census(room / f"exported-{Task.NER}", Runtime.ONNX)["float16"]
    stored = census(folder, Runtime.ONNX)
    assert stored["int8"] > 0.5 * floats
    variant, _ = publish(Checkpoint(folder, ("toy",)), room / "zoo", TITLE, golden=False)
    assert open_variant(room / "zoo" / "toy").variant == variant
    assert variant.parameters == pytest.approx(floats, rel=0.01)


def test_a_graph_is_quantized_once(room: Path, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="quantize once, after exporting"):
        quantize_static(CAREFUL, quantized(Task.NER), tmp_path, room / "corpus")
    assert not (tmp_path / MODEL).exists()


def test_scales_are_not_set_on_nothing(room: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=2)
    for language in ("hau", "swa"):
        (corpus / "ner" / language / "dev.txt").write_text("")
    with pytest.raises(DataError, match="no dev texts"):
        quantize_static(CAREFUL, room / f"exported-{Task.NER}", tmp_path, corpus)
