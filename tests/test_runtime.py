"""Sessions: what they accept, how they are set, what they say when they cannot."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models.catalog import read
from models.errors import BadSetting, BrokenVariant
from models.runtime import open_session
from models.runtime_onnx import OnnxSession
from models.session import Halt, Halted, Session, SessionOptions
from models.spec import Task
from tests.tiny import NER_LABELS, write_variant
from tests.tiny_torch import write_torch_variant

ROOT = Path(__file__).parent.parent
IDS = np.array([[0, 5, 6, 2]])
MASK = np.ones_like(IDS)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_variant(tmp_path, "ner-tiny", Task.NER)


def opened(folder: Path, **options) -> Session:
    return open_session(read(folder), folder, SessionOptions(**options))


def save_graph(
    folder: Path, inputs: tuple[str, ...], output: str = "logits", dtype: int = TensorProto.FLOAT
) -> None:
    """A graph whose one output is the sum of its inputs, cast."""
    nodes = [
        helper.make_node("Sum", [f"{name}_f" for name in inputs], ["sum"]),
        *(helper.make_node("Cast", [name], [f"{name}_f"], to=1) for name in inputs),
        helper.make_node("Cast", ["sum"], [output], to=dtype),
    ]
    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        sorted(nodes, key=lambda node: (node.op_type == "Sum", node.output[0] == output)),
        "sum",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in inputs],
        [helper.make_tensor_value_info(output, dtype, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, folder / "model.onnx")


def test_onnx_gives_float32_logits_for_each_token(folder):
    logits = opened(folder).run(IDS, MASK)
    assert logits.shape == (1, 4, len(NER_LABELS))
    assert logits.dtype == np.float32


def test_a_graph_that_wants_token_types_gets_zeros(folder):
    save_graph(folder, ("input_ids", "attention_mask", "token_type_ids"))
    np.testing.assert_array_equal(opened(folder).run(IDS, MASK), IDS + MASK)


def test_a_graph_without_a_mask_is_fed_without_one(folder):
    save_graph(folder, ("input_ids",))
    np.testing.assert_array_equal(opened(folder).run(IDS, MASK), IDS)


def test_half_precision_logits_become_float32(folder):
    save_graph(folder, ("input_ids",), dtype=TensorProto.FLOAT16)
    assert opened(folder).run(IDS, MASK).dtype == np.float32


@pytest.mark.parametrize(
    ("inputs", "output", "complaint"),
    [
        (("input_ids", "pixels"), "logits", "pixels"),
        (("attention_mask",), "logits", "expected input_ids"),
        (("input_ids",), "scores", r"outputs \['scores'\]"),
    ],
)
def test_a_graph_of_another_kind_is_refused_with_a_reason(folder, inputs, output, complaint):
    save_graph(folder, inputs, output)
    with pytest.raises(BrokenVariant, match=complaint):
        opened(folder)


@pytest.mark.parametrize("content", [None, b"", b"not a graph"])
def test_a_model_file_that_does_not_load_is_refused(folder, content):
    (folder / "model.onnx").unlink()
    if content is not None:
        (folder / "model.onnx").write_bytes(content)
    with pytest.raises(BrokenVariant, match=r"model\.onnx does not load"):
        opened(folder)


def test_a_provider_this_host_lacks_is_named_with_those_it_has(folder):
    with pytest.raises(BadSetting, match=r"NoSuchProvider is not.*CPUExecutionProvider"):
        opened(folder, provider="NoSuchProvider")


def test_idle_threads_sleep_unless_told_to_spin(folder):
    for spinning, entry in ((False, "0"), (True, "1")):
        session = opened(folder, threads=2, spinning=spinning, arena=True)
        assert isinstance(session, OnnxSession)
        options = session._session.get_session_options()
        spins = options.get_session_config_entry("session.intra_op.allow_spinning")
        assert spins == entry
        assert options.intra_op_num_threads == 2
        assert options.inter_op_num_threads == 1
        assert (options.enable_cpu_mem_arena, options.enable_mem_pattern) == (True, False)


def test_a_run_is_halted_and_the_next_one_is_as_ever(folder):
    session = opened(folder)
    before = session.run(IDS, MASK)
    halt = Halt()
    halt.now()  # as early as can be: a run of this model is over in no time
    with pytest.raises(Halted):
        session.run(IDS, MASK, halt)
    np.testing.assert_array_equal(session.run(IDS, MASK, Halt()), before)
    late = Halt()
    np.testing.assert_array_equal(session.run(IDS, MASK, late), before)
    late.now()
    np.testing.assert_array_equal(session.run(IDS, MASK), before)


def test_torch_runs_the_folder_transformers_wrote(tmp_path):
    folder = write_torch_variant(tmp_path, "ner-torch")
    logits = opened(folder).run(IDS, MASK)
    assert logits.shape == (1, 4, len(NER_LABELS))
    assert logits.dtype == np.float32


def test_a_checkpoint_that_lacks_weights_is_refused(tmp_path):
    """transformers would fill them with random numbers and only warn."""
    folder = write_torch_variant(tmp_path, "news-torch", Task.CLASSIFICATION)
    manifest = (folder / "variant.json").read_text()
    (folder / "variant.json").write_text(manifest.replace('"classification"', '"ner"'))
    with pytest.raises(BrokenVariant, match="lacks"):
        opened(folder)


def test_a_torch_variant_without_torch_says_what_to_install(tmp_path):
    folder = write_torch_variant(tmp_path, "ner-torch")
    probe = f"""
import sys
sys.modules["torch"] = None
from pathlib import Path
from models.catalog import open_variant
try:
    open_variant(Path({str(folder)!r}))
except Exception as error:
    print(type(error).__name__, error)
"""
    run = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout.startswith("BrokenVariant this is a torch variant and torch is missing")
    assert "requirements/build.txt" in run.stdout


@pytest.mark.parametrize("module", ["models.runtime_onnx", "build.graph"])
def test_onnxruntime_keeps_no_number_of_this_machine_and_tells_nobody(
    module: str, tmp_path: Path
) -> None:
    # Its telemetry is off where tests run on a CI machine, so that must not be seen.
    own = {
        name: value
        for name, value in os.environ.items()
        if name not in {"CI", "ORT_DISABLE_TELEMETRY"} and not name.startswith("XDG_")
    }
    subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        cwd=ROOT,
        env={**own, "HOME": str(tmp_path)},
        check=True,
        capture_output=True,
    )
    kept = [file for file in tmp_path.rglob("*") if "onnxruntime" in file.name]
    assert kept == []
