"""OpenVINO, where it is installed; where it is not, what to install."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from build.checkpoint import Checkpoint
from build.export import HALVES, export, store_as_half
from build.graph import MODEL, runner
from build.pack import pack
from build.publish import Title, publish
from build.quantize_blocks import quantize_blocks
from build.quantize_static import quantize_static, widen
from build.run_with import run_with
from build.steps import Export, Pack, QuantizeBlocks, QuantizeStatic, RunWith
from models.catalog import open_variant, read
from models.errors import BrokenVariant
from models.pipeline import Pipeline
from models.runtime import open_session
from models.session import SessionOptions
from models.spec import Licence, Runtime, Task, Variant
from tests.company import served_the_same
from tests.tiny import write_variant
from tests.tiny_checkpoint import exported, write_for_corpus
from tests.tiny_corpus import write_corpus

ROOT = Path(__file__).parent.parent
ZOO = ROOT / "models" / "zoo"
INSTALLED = importlib.util.find_spec("openvino") is not None
needs_openvino = pytest.mark.skipif(not INSTALLED, reason="needs requirements/openvino.txt")
IDS = np.random.default_rng(4).integers(4, 100, (4, 30))


def published(graph: Path, room: Path, *steps: RunWith | Pack) -> Variant:
    """The graph as a variant of OpenVINO's, in `room`."""
    folder = graph
    for number, step in enumerate(steps or (RunWith(),)):
        target = room / f"step-{number}"
        target.mkdir(parents=True)
        if isinstance(step, RunWith):
            run_with(step, folder, target)
        else:
            pack(step, folder, target)
        folder = target
    title = Title(
        name="toy", description="A toy.", licence=Licence(name="none", sources=()), command="none"
    )
    return publish(Checkpoint(folder, ("Toy()",)), room, title)[0]


def processor_has_bfloat16() -> bool:
    from models.runtime_openvino import has_bfloat16

    return has_bfloat16()


def as_openvino(folder: Path, room: Path, weights: str = "float16") -> Path:
    """A copy of a variant whose manifest names OpenVINO, its weights rounded to bfloat16 or not."""
    target = room / folder.name
    shutil.copytree(folder, target)
    if weights == "bfloat16":
        half = HALVES[weights]
        dtype = helper.tensor_dtype_to_np_dtype(half.onnx)
        model = onnx.load(folder / MODEL)
        widen(model.graph)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims:
                rounded = numpy_helper.to_array(tensor).astype(dtype).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
        store_as_half(model.graph, half)
        onnx.save(model, target / MODEL)
    variant = msgspec.structs.replace(read(folder), runtime=Runtime.OPENVINO)
    (target / "variant.json").write_bytes(msgspec.json.encode(variant))
    return target


# --- the law ----------------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("task", list(Task))
@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_a_text_gets_the_same_logits_alone_and_in_company(
    tmp_path: Path, task: Task, weights: str
) -> None:
    if weights == "bfloat16" and not processor_has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    published(exported(task, weights), tmp_path)
    assert served_the_same(open_variant(tmp_path / "toy"))


@needs_openvino
def test_static_int8_keeps_company_too(tmp_path: Path) -> None:
    source, graph, target = (tmp_path / name for name in ("source", "graph", "target"))
    write_for_corpus(source, Task.NER)
    graph.mkdir()
    target.mkdir()
    export(Export(), source, graph)
    quantize_static(QuantizeStatic(texts=4), graph, target, write_corpus(tmp_path / "corpus"))
    published(target, tmp_path / "room")
    assert served_the_same(open_variant(tmp_path / "room" / "toy"))


@needs_openvino
@pytest.mark.parametrize("weights", ["float16", "bfloat16"])
def test_an_embedded_variant_keeps_company_too(tmp_path: Path, weights: str) -> None:
    if weights == "bfloat16" and not processor_has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    folder = as_openvino(ZOO / "ner-base", tmp_path, weights)
    assert served_the_same(Pipeline.open(read(folder), folder, SessionOptions()))


# --- answers ----------------------------------------------------------------------------------


@needs_openvino
def test_float32_answers_are_those_of_onnxruntime(tmp_path: Path) -> None:
    plain = open_variant(ZOO / "ner-base")
    other = open_variant(as_openvino(ZOO / "ner-base", tmp_path))
    windows = [
        window for each in plain.variant.golden for window in plain.encode(each.text).windows
    ]
    for mine, theirs in zip(other.run(windows), plain.run(windows), strict=True):
        assert np.abs(mine - theirs).max() < 1e-3
        assert mine.dtype == np.float32


@needs_openvino
def test_weights_in_bfloat16_are_multiplied_in_it(tmp_path: Path) -> None:
    if not processor_has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    graph = exported(Task.NER, "bfloat16")
    variant = published(graph, tmp_path)
    assert variant.evidence is not None and variant.evidence.parity is not None
    feed = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
    floats = runner(graph)(feed)
    apart = np.abs(
        open_session(variant, tmp_path / "toy", SessionOptions()).run(*feed.values()) - floats
    )
    assert 1e-4 < apart.mean() < 0.05 * floats.std()
    assert variant.evidence.parity > 1e-3


@needs_openvino
def test_a_processor_without_bfloat16_refuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.runtime_openvino.has_bfloat16", lambda: False)
    with pytest.raises(BrokenVariant, match="which this processor does not multiply in"):
        published(exported(Task.NER, "bfloat16"), tmp_path)
    published(exported(Task.NER, "float16"), tmp_path / "float16")


@needs_openvino
def test_rows_are_not_quantized_behind_the_graphs_back(tmp_path: Path) -> None:
    """int8 weights of blocks: activations stay float, as onnxruntime leaves them."""
    graph = tmp_path / "blocks"
    graph.mkdir()
    step = QuantizeBlocks(embedding=False)
    quantize_blocks(step, exported(Task.NER), graph)
    feed = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
    session = open_session(published(graph, tmp_path), tmp_path / "toy", SessionOptions())
    assert np.abs(session.run(*feed.values()) - runner(graph)(feed)).max() < 1e-3


@needs_openvino
def test_threads_share_a_session(tmp_path: Path) -> None:
    pipeline = open_variant(as_openvino(ZOO / "ner-base", tmp_path))
    texts = [each.text for each in pipeline.variant.golden[:24]]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda text: pipeline.answer([text]), texts))
    assert together == [pipeline.answer([text]) for text in texts]


# --- from step to catalog ---------------------------------------------------------------------


@needs_openvino
def test_a_published_variant_says_what_runs_it(tmp_path: Path) -> None:
    variant = published(exported(Task.NER, "float16"), tmp_path)
    assert variant.runtime is Runtime.OPENVINO
    assert set(variant.files) == {MODEL, "tokenizer.json"}
    plain = publish(
        Checkpoint(exported(Task.NER, "float16"), ("Toy()",)),
        tmp_path / "plain",
        Title(name="toy", description="", licence=Licence(name="", sources=()), command=""),
    )[0]
    for field in ("weights", "parameters", "sparsity", "labels"):
        assert getattr(variant, field) == getattr(plain, field), field


@needs_openvino
def test_a_packed_variant_is_the_same_variant(tmp_path: Path) -> None:
    graph = exported(Task.NER, "float16")
    plain = published(graph, tmp_path / "plain")
    small = published(graph, tmp_path / "small", RunWith(), Pack())
    assert small.runtime is Runtime.OPENVINO and set(small.files) == {
        "model.onnx.zst",
        "tokenizer.json.zst",
    }
    assert small.golden == plain.golden


# --- refusals ---------------------------------------------------------------------------------


@needs_openvino
@pytest.mark.parametrize("content", [None, b"not a graph"], ids=["missing", "strange"])
def test_a_model_file_that_does_not_load_is_refused(tmp_path: Path, content: bytes | None) -> None:
    folder = as_openvino(write_variant(tmp_path, "ner-tiny", Task.NER), tmp_path / "openvino")
    (folder / MODEL).unlink()
    if content is not None:
        (folder / MODEL).write_bytes(content)
    with pytest.raises(BrokenVariant, match=r"^model\.onnx does not load: \w.*$") as caught:
        Pipeline.open(read(folder), folder, SessionOptions())
    assert "Exception from" not in str(caught.value)


@needs_openvino
def test_an_operator_it_lacks_is_named(tmp_path: Path) -> None:
    graph = tmp_path / "blocks"
    graph.mkdir()
    quantize_blocks(QuantizeBlocks(), exported(Task.NER, "float16"), graph)
    with pytest.raises(BrokenVariant, match=r"does not load: .*GatherBlockQuantized$"):
        published(graph, tmp_path)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = as_openvino(write_variant(tmp_path, "ner-tiny", Task.NER), tmp_path / "openvino")
    probe = f"""
import sys
sys.modules["openvino"] = None
from pathlib import Path
from models.catalog import open_variant
try:
    open_variant(Path({str(folder)!r}))
except Exception as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == (
        "BrokenVariant this is an OpenVINO variant and openvino is missing: "
        "pip install -r requirements/openvino.txt\n"
    )
