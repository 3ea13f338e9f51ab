"""A variant proves itself or is kept out, with a reason, and the others serve."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models.catalog import SCORE_TOLERANCE, describe, golden, load, open_variant, read
from models.errors import BadSetting, BrokenVariant
from models.pipeline import Pipeline
from models.runtime_onnx import OnnxSession
from models.session import SessionOptions
from models.spec import Golden, Runtime, Task, Variant
from models.weights import census
from tests.tiny import write_variant
from tests.tiny_torch import write_torch_variant

TEXTS = {
    Task.NER: ("Sani Bello ya je Kano.", "NNPC a Lagos ranar Litinin"),
    Task.CLASSIFICATION: ("kudi banki", "asibiti a Kano"),
}


def write_manifest(folder: Path, **changes) -> None:
    manifest = msgspec.json.decode((folder / "variant.json").read_bytes())
    (folder / "variant.json").write_bytes(msgspec.json.encode(manifest | changes))


def with_golden(root: Path, name: str, task: Task) -> Path:
    """A whole variant that carries golden answers to the texts above."""
    folder = write_variant(root, name, task)
    pipeline = open_variant(folder)
    proofs = golden(pipeline, [(text, "hau") for text in TEXTS[task]])
    write_manifest(folder, golden=msgspec.to_builtins(proofs))
    return folder


def flip(file: Path) -> None:
    """Flip every bit of one block in the middle of a file, where a model has its weights."""
    content = bytearray(file.read_bytes())
    block = slice(len(content) // 2, len(content) // 2 + 64)
    content[block] = bytes(byte ^ 0xFF for byte in content[block])
    file.write_bytes(content)


def reweigh(folder: Path, change) -> None:
    """Change the weights table and let the manifest's hashes agree with it."""
    model = onnx.load(folder / "model.onnx")
    table = model.graph.initializer[0]
    changed = change(numpy_helper.to_array(table).copy())
    table.CopyFrom(numpy_helper.from_array(changed, "table"))
    onnx.save(model, folder / "model.onnx")
    write_manifest(folder, files=msgspec.to_builtins(describe(folder)))


def mistyped(folder: Path) -> None:
    """A graph that onnxruntime refuses: it says which file."""
    reweigh(folder, lambda table: table.astype(np.float16))
    write_manifest(folder, weights=census(folder, Runtime.ONNX))


def broken(folder: Path) -> str:
    with pytest.raises(BrokenVariant) as caught:
        open_variant(folder)
    return str(caught.value)


@pytest.fixture
def ner(tmp_path) -> Path:
    return with_golden(tmp_path, "ner-tiny", Task.NER)


@pytest.fixture
def news(tmp_path) -> Path:
    return with_golden(tmp_path, "news-tiny", Task.CLASSIFICATION)


def test_whole_variants_prove_themselves_and_answer(tmp_path, ner, news):
    (tmp_path / "LICENSE").write_text("terms")
    (tmp_path / ".cache").mkdir()
    found = load(tmp_path)
    assert list(found.variants) == ["ner-tiny", "news-tiny"]
    assert found.quarantined == {}
    assert found.manifests["ner-tiny"] == read(ner) == found.variants["ner-tiny"].variant
    assert len(found.variants["news-tiny"].answer(["kudi"])) == 1


def test_a_flipped_block_of_weights_is_quarantined_and_the_others_serve(tmp_path, ner, news):
    flip(ner / "model.onnx")
    found = load(tmp_path)
    assert list(found.variants) == ["news-tiny"]
    assert found.quarantined["ner-tiny"].startswith("model.onnx is not the file the manifest")
    assert set(found.manifests) == {"ner-tiny", "news-tiny"}


@pytest.mark.parametrize("task", Task)
def test_flipped_weights_with_matching_hashes_are_caught_by_the_golden_answers(tmp_path, task):
    folder = with_golden(tmp_path, "tiny", task)
    reweigh(folder, lambda table: -table)
    reason = broken(folder)
    assert reason.startswith("golden answer 0 of 2 (hau) is not reproduced")
    assert not any(text in reason for text in TEXTS[task])


@pytest.mark.parametrize("task", Task)
def test_scores_may_drift_a_little_and_no_more(tmp_path, task):
    folder = with_golden(tmp_path, "tiny", task)
    kept = (folder / "variant.json").read_bytes()
    key = "entities" if task is Task.NER else "labels"
    for drift, agrees in ((0.9 * SCORE_TOLERANCE, True), (1.5 * SCORE_TOLERANCE, False)):
        manifest = msgspec.json.decode(kept)
        manifest["golden"][1][key][-1]["score"] += drift
        write_manifest(folder, golden=manifest["golden"])
        if agrees:
            open_variant(folder)
        else:
            assert "golden answer 1 of 2" in broken(folder)


def test_a_golden_answer_with_another_span_or_label_is_not_reproduced(ner):
    kept = read(ner).golden
    (first, *rest) = kept[0].entities or ()
    for other in ({"end": first.end - 1}, {"label": "ORG"}):
        entities = (msgspec.structs.replace(first, **other), *rest)
        changed = [msgspec.structs.replace(kept[0], entities=entities), kept[1]]
        write_manifest(ner, golden=msgspec.to_builtins(changed))
        assert "golden answer 0" in broken(ner)


def test_a_golden_answer_of_the_other_task_is_not_reproduced(ner, news):
    kept = msgspec.to_builtins(read(news).golden), msgspec.to_builtins(read(ner).golden)
    for folder, foreign in zip((ner, news), kept, strict=True):
        write_manifest(folder, golden=foreign)
        assert "golden answer 0" in broken(folder)
    write_manifest(news, golden=[{"text": "kudi", "language": "hau", "labels": []}])
    assert "golden answer 0 of 1" in broken(news)


def test_golden_answers_are_rounded_so_that_manifests_read_well(ner):
    for each in read(ner).golden:
        assert isinstance(each, Golden) and each.labels is None
        for entity in each.entities or ():
            assert entity.score == round(entity.score, 4)


def test_weights_stored_otherwise_than_the_manifest_says_are_refused(ner):
    reweigh(ner, lambda table: table.astype(np.float16))
    assert broken(ner).startswith("weights are stored as {'float16'")


def test_an_output_of_another_width_than_the_labels_is_refused(ner, news):
    write_manifest(ner, labels=["O", "B-PER"], golden=[])
    assert broken(ner) == "the output for one window is (128, 9), 2 labels need (128, 2)"
    write_manifest(news, task="ner", golden=[])
    assert "labels need (128, 3)" in broken(news)


def test_a_tokenizer_with_more_pieces_than_the_model_is_refused(ner):
    reweigh(ner, lambda table: table[:-1])
    write_manifest(ner, weights=census(ner, Runtime.ONNX))
    assert broken(ner).startswith("the model does not run")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "files are missing: tokenizer.json"),
        (lambda f: (f / "notes.txt").touch(), "files are not in the manifest: notes.txt"),
        (lambda f: (f / "variant.json").unlink(), "variant.json cannot be read"),
        (
            lambda f: ((f / "variant.json").unlink(), (f / "variant.json").mkdir()),
            r"^variant.json cannot be read: \[Errno 21\] Is a directory: 'variant.json'$",
        ),
        (lambda f: (f / "variant.json").write_text("{"), "variant.json cannot be read"),
        (lambda f: write_manifest(f, colour="red"), "variant.json cannot be read: .*colour"),
        (
            lambda f: write_manifest(f, format="kadogo-variant/2", new=1),
            "^variant.json is kadogo-variant/2, newer than the kadogo-variant/1 that this "
            "code reads: update Kadogo, or make it again: python -m build ner-tiny --data DIR, "
            "or python -m build import$",
        ),
        (
            lambda f: write_manifest(f, format="kadogo-variant/0", old=1),
            "^variant.json is kadogo-variant/0, older than the kadogo-variant/1 that this "
            "code reads; make it again: python -m build ner-tiny --data DIR, "
            "or python -m build import$",
        ),
        (
            lambda f: write_manifest(f, format="safetensors\n"),
            "^variant.json has none of our formats, this code reads kadogo-variant/1; ",
        ),
        (lambda f: write_manifest(f, name="other"), "is of other, its folder is called ner-tiny"),
        (lambda f: flip(f / "tokenizer.json"), "tokenizer.json is not the file"),
        (mistyped, "^model.onnx does not load: .*from model.onnx failed"),
    ],
)
def test_a_damaged_folder_is_quarantined_with_what_is_wrong(tmp_path, ner, news, damage, reason):
    damage(ner)
    found = load(tmp_path)
    assert list(found.variants) == ["news-tiny"]
    with pytest.raises(BrokenVariant, match=reason) as caught:
        open_variant(ner)
    assert found.quarantined["ner-tiny"] == str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_an_error_nobody_foresaw_is_one_variants_affair(tmp_path, news):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "variant.json").write_text('{"x":' + "[" * 100_000)
    found = load(tmp_path)
    assert list(found.variants) == ["news-tiny"]
    assert found.quarantined["deep"].startswith("it cannot be opened: RecursionError")


def test_a_variant_that_fails_leaves_no_session_in_memory(tmp_path, ner):
    write_manifest(ner, labels=["O", "B-PER"], golden=[])

    def sessions() -> int:
        gc.collect()
        return sum(type(each) is OnnxSession for each in gc.get_objects())

    before = sessions()
    assert load(tmp_path).quarantined
    assert sessions() == before


@pytest.mark.parametrize("content", ["nothing", "empty", "files"])
def test_a_catalog_without_variants_says_what_to_set(tmp_path, content):
    root = tmp_path / "zoo"
    if content != "nothing":
        root.mkdir()
    if content == "files":
        (root / "LICENSE").touch()
        (root / "half").mkdir()
    with pytest.raises(BadSetting, match="KADOGO_CATALOG"):
        load(root)


def test_a_setting_this_host_cannot_meet_stops_the_load(tmp_path, ner):
    with pytest.raises(BadSetting, match="execution provider"):
        load(tmp_path, SessionOptions(provider="NoSuchProvider"))


def test_a_torch_variant_proves_itself_too(tmp_path):
    folder = write_torch_variant(tmp_path, "ner-torch")
    proofs = golden(open_variant(folder), [("Sani ya je Kano", "hau")])
    write_manifest(folder, golden=msgspec.to_builtins(proofs))
    assert open_variant(folder).variant.golden == proofs
    flip(folder / "model.safetensors")
    assert broken(folder).startswith("model.safetensors is not the file")


def test_a_pipeline_opens_before_its_manifest_is_written(tmp_path, ner):
    """How build/ makes the golden answers a manifest needs."""
    variant: Variant = read(ner)
    draft = tmp_path / "draft"
    shutil.copytree(ner, draft, ignore=shutil.ignore_patterns("variant.json"))
    pipeline = Pipeline.open(variant, draft, SessionOptions())
    texts = [(each.text, each.language) for each in variant.golden]
    assert golden(pipeline, texts) == variant.golden
    assert describe(draft) == variant.files
