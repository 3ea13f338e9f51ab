"""A packed variant is the same variant in fewer bytes, or is kept out with a reason."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from build.checkpoint import Checkpoint, read_purpose
from build.entropy import of_folder
from build.errors import BuildError
from build.graph import MODEL, PARITY, load
from build.pack import pack
from build.publish import Title, publish
from build.steps import Pack
from models import stored
from models.catalog import describe, open_variant, read
from models.catalog import load as load_catalog
from models.errors import BrokenVariant
from models.pipeline import TOKENIZER, Pipeline
from models.session import SessionOptions
from models.spec import Licence, Runtime, Task, Variant
from models.weights import census
from tests.tiny import write_variant
from tests.tiny_checkpoint import exported, finetuned, quantized

ZOO = Path(__file__).parent.parent / "models" / "zoo"
LICENCE = Licence(name="none", sources=())
PACKED_MODEL, PACKED_TOKENIZER = f"{MODEL}.zst", f"{TOKENIZER}.zst"
KINDS = [
    pytest.param(exported, Task.NER, "float16", id="ner-float16"),
    pytest.param(exported, Task.CLASSIFICATION, "float32", id="news-float32"),
    pytest.param(quantized, Task.NER, "float16", id="ner-int8"),
]
TEXTS = ["Sani Bello ya je Kano.", "", "NNPC a Lagos ranar Litinin " * 30]


def packed(source: Path, target: Path, level: int = 19) -> Path:
    target.mkdir(parents=True)
    pack(Pack(level=level), source, target)
    return target


def published(source: Path, root: Path, name: str) -> Variant:
    title = Title(name=name, description="A toy.", licence=LICENCE, command="none")
    return publish(Checkpoint(source, ("Toy()",)), root, title)[0]


def served_packed(source: Path, target: Path) -> Path:
    """A copy of a served folder with both its files packed and the manifest of that."""
    shutil.copytree(source, target)
    for name in (MODEL, TOKENIZER):
        (target / f"{name}.zst").write_bytes(stored.pack((target / name).read_bytes(), 3))
        (target / name).unlink()
    describe_again(target)
    return target


def describe_again(folder: Path) -> None:
    manifest = msgspec.json.decode((folder / "variant.json").read_bytes())
    manifest |= {"name": folder.name, "files": msgspec.to_builtins(describe(folder))}
    (folder / "variant.json").write_bytes(msgspec.json.encode(manifest))


# --- laws -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "task", "weights"), KINDS)
def test_unpacking_gives_the_same_bytes(
    tmp_path: Path, kind: Callable[..., Path], task: Task, weights: str
) -> None:
    source = kind(task, weights)
    target = packed(source, tmp_path / "packed")
    for name in (MODEL, TOKENIZER):
        assert not (target / name).exists()
        assert stored.read(target / name) == (source / name).read_bytes()
    for name in ("config.json", "task.json", PARITY):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    assert read_purpose(target) == read_purpose(source)
    assert load(target) == load(source)
    assert of_folder(target) == of_folder(source)


@pytest.mark.parametrize(("kind", "task", "weights"), KINDS)
def test_a_packed_variant_is_the_same_variant(
    tmp_path: Path, kind: Callable[..., Path], task: Task, weights: str
) -> None:
    source = kind(task, weights)
    plain = published(source, tmp_path, "plain")
    small = published(packed(source, tmp_path / "step"), tmp_path, "small")
    for field in ("runtime", "labels", "windows", "weights", "parameters", "sparsity", "golden"):
        assert getattr(small, field) == getattr(plain, field), field
    assert small.evidence is not None and plain.evidence is not None
    assert small.evidence.parity == plain.evidence.parity
    assert set(small.files) == {PACKED_MODEL, PACKED_TOKENIZER}
    for name, file in small.files.items():
        assert file.bytes == (tmp_path / "small" / name).stat().st_size
    assert small.bytes < plain.bytes

    one, other = (open_variant(tmp_path / name) for name in ("plain", "small"))
    assert other.answer(TEXTS) == one.answer(TEXTS)
    for text in TEXTS:
        windows = one.encode(text).windows
        for mine, theirs in zip(other.run(windows), one.run(windows), strict=True):
            assert np.array_equal(mine, theirs)


def test_packing_is_the_same_each_time(tmp_path: Path) -> None:
    one, other = (
        packed(exported(Task.NER, "float16"), tmp_path / name) for name in ("one", "other")
    )
    assert describe(one) == describe(other)


def test_weights_that_are_zero_take_next_to_nothing(tmp_path: Path) -> None:
    """Sparse weights are stored compressed; which ones are zero is what is left to say."""
    sizes = []
    for share in (0.0, 0.5, 1.0):
        folder = tmp_path / f"sparse-{share}"
        shutil.copytree(quantized(Task.NER, "float16"), folder)
        model = onnx.load(folder / MODEL)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.INT8:
                weight = numpy_helper.to_array(tensor).copy()
                weight[np.random.default_rng(1).random(weight.shape) < share] = 0
                tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
        onnx.save(model, folder / MODEL)
        small = packed(folder, tmp_path / f"packed-{share}")
        sizes.append((small / PACKED_MODEL).stat().st_size)
    weights = census(quantized(Task.NER, "float16"), Runtime.ONNX)["int8"]
    dense, half, none = sizes
    assert dense - none > 0.8 * weights
    assert half - none < 0.8 * (dense - none)


def test_embedded_variants_answer_the_same_from_packed_files(tmp_path: Path) -> None:
    folder = served_packed(ZOO / "ner-int8", tmp_path / "ner-int8-packed")
    small, plain = open_variant(folder), open_variant(ZOO / "ner-int8")
    texts = [each.text for each in plain.variant.golden]
    assert small.answer(texts) == plain.answer(texts)
    assert small.variant.bytes < 0.9 * plain.variant.bytes
    assert small.variant.digest != plain.variant.digest


# --- refusals ---------------------------------------------------------------------------------


def test_what_cannot_be_packed_is_refused_in_one_line(tmp_path: Path) -> None:
    again = packed(exported(Task.NER, "float16"), tmp_path / "once")
    large = tmp_path / "large"
    shutil.copytree(exported(Task.NER, "float16"), large)
    (large / f"{MODEL}.data").write_bytes(b"weights")
    for source, line in (
        (finetuned(Task.NER), "there is no model.onnx to pack: Export comes before Pack"),
        (again, "model.onnx is packed already: Pack is once, and last"),
        (large, "model.onnx.data is not packed"),
    ):
        target = tmp_path / "target"
        target.mkdir(exist_ok=True)
        with pytest.raises(BuildError, match=line) as caught:
            pack(Pack(), source, target)
        assert "\n" not in str(caught.value)
        assert not list(target.iterdir())


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    plain = write_variant(tmp_path, "ner-plain", Task.NER)
    return served_packed(plain, tmp_path / "ner-packed")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0xFF
    file.write_bytes(content)


def bomb(file: Path) -> None:
    file.write_bytes(stored.pack(bytes(100_000_000), 3))


@pytest.mark.parametrize("name", [PACKED_MODEL, PACKED_TOKENIZER])
@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, "is cut off or was added to"),
        (flip, "is corrupt"),
        (bomb, "would unpack to 100000000 bytes, more than the weights in the manifest take"),
        (lambda file: file.write_bytes(b"{}"), "is not packed with zstd"),
    ],
)
def test_a_damaged_file_is_quarantined_and_the_others_serve(
    tmp_path: Path, tiny: Path, name: str, damage: Callable[[Path], None], reason: str
) -> None:
    damage(tiny / name)
    found = load_catalog(tmp_path)
    assert f"{name} is not the file the manifest describes" in found.quarantined["ner-packed"]
    describe_again(tiny)  # as if it had been made so
    found = load_catalog(tmp_path)
    assert list(found.variants) == ["ner-plain"]
    assert found.quarantined["ner-packed"].startswith(f"{name} {reason}")
    assert "\n" not in found.quarantined["ner-packed"]


@pytest.mark.parametrize("name", [MODEL, TOKENIZER])
def test_a_file_there_twice_is_quarantined(tmp_path: Path, tiny: Path, name: str) -> None:
    shutil.copy(tmp_path / "ner-plain" / name, tiny / name)
    assert load_catalog(tmp_path).quarantined == {
        "ner-packed": f"files are not in the manifest: {name}"
    }
    describe_again(tiny)
    assert load_catalog(tmp_path).quarantined == {
        "ner-packed": f"{name} and {name}.zst are both there: keep one of them"
    }


def test_an_empty_or_strange_file_that_is_packed_well_is_refused(tiny: Path) -> None:
    variant = read(tiny)
    for content in (b"", b"not a graph"):
        (tiny / PACKED_MODEL).write_bytes(stored.pack(content, 3))
        with pytest.raises(BrokenVariant, match=r"model\.onnx does not load"):
            Pipeline.open(variant, tiny, SessionOptions())


def test_onnxruntime_keeps_no_second_copy_of_a_packed_model(tiny: Path) -> None:
    assert open_variant(tiny).session._session._model_bytes is None  # type: ignore[attr-defined]
