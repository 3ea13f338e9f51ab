"""Blocks of 8 and 4 bits: near the weights, honest in the manifest, the same in company."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from build.blocks import Blocks, in_blocks, pack, unpack
from build.checkpoint import Checkpoint, read_purpose
from build.errors import BuildError
from build.export import export
from build.graph import MODEL, PARITY, Parity, operators, runner
from build.networks import load
from build.publish import Title, onnx_weights, publish
from build.quantize_blocks import quantize_blocks
from build.restore import restore
from build.steps import BITS, BLOCKS, Export, QuantizeBlocks, Restore
from models.catalog import open_variant
from models.spec import Licence, Runtime, Task
from models.weights import census
from tests.company import same_alone_and_in_company
from tests.tiny_checkpoint import LAYERS, exported, network, quantized, write_checkpoint

TASKS = list(Task)
WIDE = {"hidden_size": 128, "intermediate_size": 256}  # several blocks a row
MATRICES = arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 80)),
    elements=st.floats(-9, 9, width=32),
)
BITS_OF = st.sampled_from(BITS)
BLOCK_OF = st.sampled_from(BLOCKS)
TITLE = Title(
    name="toy", description="A toy.", licence=Licence(name="none", sources=()), command="none"
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wide")
    source = write_checkpoint(folder / "finetuned", Task.NER, **WIDE)
    (folder / "exported").mkdir()
    export(Export(weights="float16"), source, folder / "exported")
    return folder


@cache
def blocks_of(folder: Path, step: QuantizeBlocks) -> Path:
    target = folder / f"{step.bits}-{step.block}-{step.embedding}"
    target.mkdir()
    quantize_blocks(step, folder / "exported", target)
    return target


def floats(found: Blocks, columns: int) -> np.ndarray:
    whole = found.codes.astype(np.float32) - found.zeros[:, :, None]
    return (whole * found.scales[:, :, None].astype(np.float32)).reshape(len(whole), -1)[
        :, :columns
    ]


@given(MATRICES, BITS_OF, BLOCK_OF)
def test_weights_are_within_half_a_step_of_what_they_were(
    weight: np.ndarray, bits: int, block: int
) -> None:
    found = in_blocks(weight, bits, block)
    assert found.codes.max() < 2**bits and found.zeros.max() < 2**bits
    steps = np.repeat(found.scales.astype(np.float32), block, axis=1)[:, : weight.shape[1]]
    apart = np.abs(floats(found, weight.shape[1]) - weight)
    assert (apart <= steps * 0.5001 + 1e-6).all()


@given(MATRICES, BITS_OF, BLOCK_OF)
def test_what_is_zero_stays_zero(weight: np.ndarray, bits: int, block: int) -> None:
    weight[:, ::3] = 0
    assert not floats(in_blocks(weight, bits, block), weight.shape[1])[:, ::3].any()


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=st.integers(0, 15))
)
def test_codes_come_out_of_their_bytes_in_order(codes: np.ndarray) -> None:
    for bits in BITS:
        assert np.array_equal(unpack(pack(codes, bits), bits)[:, : codes.shape[1]], codes)
    assert pack(np.array([1, 2, 3], np.uint8), 4).tolist() == [0x21, 0x03]


@pytest.mark.parametrize("bits", BITS)
def test_onnxruntime_reads_the_blocks_as_they_were_meant(wide: Path, bits: int) -> None:
    net = load(wide / "finetuned", read_purpose(wide / "finetuned"))
    with torch.no_grad():
        for name, weight in net.named_parameters():
            rounded = weight.half().float().numpy()
            if weight.ndim == 2 and (".layer." in name or "word_embeddings" in name):
                rounded = floats(in_blocks(rounded, bits, 64), weight.shape[1])
            weight.copy_(torch.from_numpy(rounded))
    ids = np.random.default_rng(4).integers(4, 100, (4, 31))
    with torch.inference_mode():
        wanted = net(torch.from_numpy(ids)).logits.numpy()
    run = runner(blocks_of(wide, QuantizeBlocks(bits=bits, block=64)))
    assert (
        np.abs(run({"input_ids": ids, "attention_mask": np.ones_like(ids)}) - wanted).max() < 2e-3
    )


def test_eight_bits_are_nearer_than_four(wide: Path) -> None:
    ids = np.random.default_rng(4).integers(4, 100, (4, 31))
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    wanted = runner(wide / "exported")(feed)
    eight, four = (
        np.abs(runner(blocks_of(wide, QuantizeBlocks(bits=bits)))(feed) - wanted).mean()
        for bits in BITS
    )
    assert 0 < 4 * eight < four < wanted.std()


@pytest.mark.parametrize("bits", BITS)
def test_smaller_blocks_are_nearer(bits: int) -> None:
    weight = np.random.default_rng(1).normal(size=(16, 256)).astype(np.float32)
    apart = [
        np.abs(floats(in_blocks(weight, bits, block), 256) - weight).mean() for block in BLOCKS
    ]
    assert apart == sorted(apart)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("block", BLOCKS)
def test_a_text_gets_the_same_logits_alone_and_in_company(
    wide: Path, bits: int, block: int
) -> None:
    step = QuantizeBlocks(bits=bits, block=block)
    assert same_alone_and_in_company(blocks_of(wide, step), Task.NER)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("task", TASKS)
def test_a_published_variant_opens_and_counts_parameters_not_bytes(
    tmp_path: Path, task: Task, bits: int
) -> None:
    folder = tmp_path / "blocks"
    folder.mkdir()
    quantize_blocks(QuantizeBlocks(bits=bits), exported(task, "float16"), folder)
    assert same_alone_and_in_company(folder, task)
    variant, _ = publish(Checkpoint(folder, ("Toy()",)), tmp_path / "catalog", TITLE)
    assert open_variant(tmp_path / "catalog" / "toy").variant == variant
    assert variant.parameters == sum(each.numel() for each in network(task).parameters())
    assert 0 < variant.sparsity < (0.02 if bits == 8 else 0.2)


@pytest.mark.parametrize("bits", BITS)
def test_sparsity_is_of_codes_that_mean_zero(wide: Path, bits: int) -> None:
    zeros = sum(int((each == 0).sum()) for each in onnx_weights(wide / "exported"))
    for name, weight in network(Task.NER, **WIDE).named_parameters():
        if weight.ndim == 2 and (".layer." in name or "word_embeddings" in name):
            rounded = weight.detach().half().float().numpy()
            zeros += int((floats(in_blocks(rounded, bits, 32), rounded.shape[1]) == 0).sum())
    found = onnx_weights(blocks_of(wide, QuantizeBlocks(bits=bits)))
    assert sum(int((each == 0).sum()) for each in found) == zeros


def test_the_file_says_what_it_stores(wide: Path) -> None:
    stored = census(blocks_of(wide, QuantizeBlocks(bits=4)), Runtime.ONNX)
    weights = dict(network(Task.NER, **WIDE).named_parameters())
    words = weights["roberta.embeddings.word_embeddings.weight"].numel()
    inside = sum(
        each.numel() for name, each in weights.items() if ".layer." in name and each.ndim == 2
    )
    assert stored["uint4"] == words + words // 32  # as many zero points as blocks
    assert stored["uint8"] == inside // 2 + inside // 64
    rest = sum(each.numel() for each in weights.values()) - words - inside
    assert stored["float16"] == rest + (words + inside) // 32
    assert stored["float32"] < 10


def test_all_before_the_head_but_positions_becomes_blocks(wide: Path) -> None:
    kinds = operators(blocks_of(wide, QuantizeBlocks(bits=4)) / MODEL)
    assert kinds["MatMulNBits"] == 6 * LAYERS and kinds["GatherBlockQuantized"] == 1
    assert kinds["MatMul"] == 2 * LAYERS + 1 and kinds["Gather"] == 1


def test_the_word_embedding_can_stay_as_it_was(wide: Path) -> None:
    folder = blocks_of(wide, QuantizeBlocks(bits=4, embedding=False))
    names = {tensor.name for tensor in onnx.load(folder / MODEL).graph.initializer}
    assert not any("word_embeddings" in name and name.endswith(".blocks") for name in names)
    assert "GatherBlockQuantized" not in operators(folder / MODEL)


def test_parity_grows_by_what_was_rounded(wide: Path) -> None:
    before, after = (
        msgspec.json.decode((folder / PARITY).read_bytes(), type=Parity)
        for folder in (wide / "exported", blocks_of(wide, QuantizeBlocks()))
    )
    assert before.logits < 1e-4 < after.logits


def test_a_quantized_graph_is_refused(tmp_path: Path, wide: Path) -> None:
    for folder in (quantized(Task.NER), blocks_of(wide, QuantizeBlocks())):
        with pytest.raises(BuildError, match="quantize once, after exporting"):
            quantize_blocks(QuantizeBlocks(), folder, tmp_path)


@pytest.mark.parametrize("embedding", [True, False])
def test_blocks_are_not_restored_to_torch(tmp_path: Path, wide: Path, embedding: bool) -> None:
    step = QuantizeBlocks(bits=4, embedding=embedding)
    with pytest.raises(BuildError, match="does not hold a plain network"):
        restore(Restore(), blocks_of(wide, step), tmp_path)
