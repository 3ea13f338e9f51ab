from __future__ import annotations

import argparse
import errno
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from build import provenance, training
from build.__main__ import main
from build.chain import check
from build.commands.common import device, keep_to_one_corpus
from build.commands.recipe import _default_catalog
from build.commands.seeds import reseeded
from build.errors import BuildError
from build.form import Form
from build.prepare import prepared
from build.publish import write
from build.recipes import RECIPES
from build.run import Kitchen
from build.steps import (
    Calibrate,
    CountEmbeddings,
    Distill,
    Export,
    Factorize,
    Finetune,
    Healing,
    NarrowWindows,
    Pretrain,
    Quantize,
    Restore,
    TrainTokenizer,
    TrimVocabulary,
)
from models import catalog
from models.spec import Input, Interval, Scores, Task
from tests.tiny import NER_WORDS, tokenizer
from tests.tiny_checkpoint import network
from tests.tiny_corpus import write_corpus

ROOT = Path(__file__).parent.parent
TINY = (
    TrainTokenizer(vocabulary=250, sentences=500),
    CountEmbeddings(layers=2, hidden=16, heads=2, inner=32, tokens=20_000),
    Pretrain(tokens=4_000, window=32, batch_tokens=512),
)
TAGGING = Finetune(
    task=Task.NER, languages=("hau", "swa"), epochs=6, window=48, overlap=8, peak=1e-2
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus", sentences=24)


@pytest.fixture
def tiny_recipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real recipes' names and chains, at sizes a test has time for."""
    base = (*TINY, TAGGING, Export(weights="float16"))
    monkeypatch.setitem(RECIPES, "ner-base", base)
    monkeypatch.setitem(RECIPES, "ner-int8", (*base, Quantize()))


def command(root: Path, *words: str) -> list[str]:
    folders = ["--cache", str(root / "cache"), "--catalog", str(root / "catalog")]
    return [*words, *folders, "--device", "cpu"]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr; progress bars are not lines."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("build: ")]
    assert len(lines) == 1
    return lines[0]


# --- the whole path ---------------------------------------------------------------------------


def test_a_stopped_recipe_continues_and_ends_in_a_catalog_that_answers(
    tmp_path: Path,
    corpus: Path,
    tiny_recipes: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = command(tmp_path, "ner-int8", "--data", str(corpus), "--split-name", "toy split")
    monkeypatch.setattr(training, "SAVE_EVERY_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr("build.pretrain._loss", _stopping(after=3))
        assert main(words) == 130
    assert "the same command continues" in capsys.readouterr().err
    (part,) = (tmp_path / "cache").glob("pretrain-*.part")
    assert (part / "resume.pt").is_file()
    assert not (tmp_path / "catalog").exists()

    assert main(words) == 0
    out = capsys.readouterr().out
    assert "ner-int8 is compared with ner-base, which comes first" in out
    assert not list((tmp_path / "cache").glob("*.part"))
    loaded = catalog.load(tmp_path / "catalog")
    assert sorted(loaded.variants) == ["ner-base", "ner-int8"] and not loaded.quarantined
    variant = loaded.variants["ner-int8"].variant
    assert variant.parent == "ner-base" and variant.languages == ("hau", "swa")
    assert variant.lineage == tuple(str(step) for step in RECIPES["ner-int8"])
    assert variant.licence.name == "CC BY-NC 4.0"
    assert variant.evidence is not None and variant.evidence.split == "toy split"
    assert variant.evidence.quality["f1"].keys() == {Input.RAW, Input.TOKENISED, Input.JOINED}
    assert variant.evidence.difference["f1"][Input.RAW].languages.keys() == {"hau", "swa"}
    answer = loaded.variants["ner-base"].answer(["Sani Bello ya isa Kano ranar Litinin."])[0]
    assert answer.tokens > 0

    file = corpus / "text" / "hau.txt"
    file.write_text(file.read_text() + "Sabuwar jimla.\n")
    assert main(words) == 2
    assert "holds work on other data" in said(capsys)


def test_a_cache_is_of_one_corpus_to_the_last_tag(tmp_path: Path, corpus: Path) -> None:
    kitchen = Kitchen(corpus, "cpu", tmp_path / "cache")
    keep_to_one_corpus(kitchen)
    (kitchen.cache / "contents.txt").unlink()  # as in an older cache
    keep_to_one_corpus(kitchen)
    file = corpus / "ner" / "hau" / "train.txt"
    before = file.stat().st_size
    file.write_text(file.read_text().replace("B-PER", "B-LOC"))
    assert file.stat().st_size == before
    with pytest.raises(BuildError, match="holds work on other data"):
        keep_to_one_corpus(kitchen)


def test_languages_that_are_links_count(tmp_path: Path, corpus: Path) -> None:
    linked = tmp_path / "linked"
    for language in corpus.glob("*/*"):
        link = linked / language.relative_to(corpus)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(language)
    for digest in (provenance.fingerprint, provenance.contents):
        assert digest(linked) == digest(corpus)


def _stopping(*, after: int) -> object:
    from build.pretrain import _loss

    calls: list[int] = []

    def loss(network: torch.nn.Module, batch: training.Batch) -> torch.Tensor:
        calls.append(1)
        if len(calls) > after:
            raise KeyboardInterrupt
        return _loss(network, batch)

    return loss


def test_a_recipe_is_scored_with_other_seeds_and_checked_again(
    tmp_path: Path,
    corpus: Path,
    tiny_recipes: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    student = (*TINY, TAGGING, Distill(layers=(0,), epochs=1, transfer=4, peak=1e-2))
    monkeypatch.setitem(RECIPES, "ner-int8", (*student, Export(weights="float16"), Quantize()))
    assert main(command(tmp_path, "ner-int8", "--data", str(corpus))) == 0
    words = ["seeds", "ner-int8", "--data", str(corpus), "--seeds", "1,2"]
    assert main(command(tmp_path, *words)) == 0
    assert "macro F1 by seed 1: " in capsys.readouterr().out
    variant = catalog.read(tmp_path / "catalog" / "ner-int8")
    evidence = variant.evidence
    assert evidence is not None and evidence.seeds.keys() == {1, 2}
    assert evidence.seeds[1] == evidence.quality["f1"][Input.RAW].macro.mean

    words = ["evaluate", "ner-int8", "--data", str(corpus), "--check"]
    words += ["--catalog", str(tmp_path / "catalog")]
    assert main(words) == 0
    assert "ner-int8: 9 of 9 scores inside" in capsys.readouterr().out
    worse = Interval(n=1, mean=-1, low=-1, high=-1)
    table = evidence.quality["f1"] | {Input.RAW: Scores(macro=worse, languages={})}
    wrong = msgspec.structs.replace(evidence, quality={"f1": table})
    write(tmp_path / "catalog" / "ner-int8", msgspec.structs.replace(variant, evidence=wrong))
    assert main(words) == 1
    assert "outside its interval: f1 (raw) macro" in capsys.readouterr().err


def test_a_trimmed_tokenizer_is_not_taken_for_the_one_that_was_trained(
    tmp_path: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    short = msgspec.structs.replace(TAGGING, epochs=1)
    trimmed = (*TINY[:2], short, TrimVocabulary(languages=("hau",)), Export())
    monkeypatch.setitem(RECIPES, "ner-base", trimmed)
    assert main(command(tmp_path, "ner-base", "--data", str(corpus))) == 0
    words = command(tmp_path, "seeds", "ner-base", "--data", str(corpus), "--seeds", "2")
    capsys.readouterr()
    assert main([*words, "--cache", str(tmp_path / "empty")]) == 2
    assert "give the --cache it was built with" in said(capsys)
    assert not list((tmp_path / "empty").glob("traintokenizer-*"))
    assert main(words) == 0


def test_seeds_of_data_that_is_not_there_leave_the_manifest_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "models" / "zoo" / "ner-int8", tmp_path / "catalog" / "ner-int8")
    manifest = tmp_path / "catalog" / "ner-int8" / "variant.json"
    before = manifest.stat().st_mtime_ns
    assert main(command(tmp_path, "seeds", "ner-int8", "--data", "/no/such")) == 2
    assert "there is no folder /no/such" in said(capsys)
    assert manifest.stat().st_mtime_ns == before and not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("measure ner-int8 --rounds 1", "1 is less than 2"),
        ("import . --task ner --name AfroXLMR", "'AfroXLMR' is no name: give lower-case letters"),
        ("import . --task ner --name ../x", "'../x' is no name"),
        (f"shape afriberta-base --out . --name {'x' * 41}", "40 at most"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(
    words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(words.split())
    assert stopped.value.code == 2 and line in capsys.readouterr().err


@pytest.mark.parametrize("name", RECIPES)
def test_another_seed_reaches_every_step_that_learns_from_labels(name: str) -> None:
    before, after = RECIPES[name], reseeded(RECIPES[name], 2)
    changed = [type(new) for old, new in zip(before, after, strict=True) if old != new]
    learning = (Finetune, Distill, Healing)
    assert changed == [type(step) for step in before if isinstance(step, learning)]


def test_a_recipe_starts_from_an_encoder_of_ones_own(
    tmp_path: Path, corpus: Path, tiny_recipes: None
) -> None:
    mine = encoder(tmp_path / "mine")
    words = command(tmp_path, "ner-base", "--data", str(corpus), "--base", str(mine))
    assert main(words) == 0
    variant = catalog.open_variant(tmp_path / "catalog" / "ner-base").variant
    assert variant.lineage[0].startswith("Base(mine, sha256=")
    assert [step.split("(")[0] for step in variant.lineage[1:]] == ["Finetune", "Export"]
    assert "fine-tuned here from Base(mine" in variant.description
    served = (tmp_path / "catalog" / "ner-base" / "tokenizer.json").read_bytes()
    assert served == (mine / "tokenizer.json").read_bytes()


def test_a_variant_is_compared_with_the_baseline_of_its_own_encoder(
    tmp_path: Path, corpus: Path, tiny_recipes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(tmp_path, "ner-int8", "--data", str(corpus))
    folders = [tmp_path / "catalog" / each for each in ("ner-base", "ner-int8")]
    for name, inner in (("one", 32), ("two", 48)):
        mine = str(encoder(tmp_path / name, intermediate_size=inner))
        assert main([*words, "--base", mine]) == 0
        assert "compared with ner-base, which comes first" in capsys.readouterr().out
        base, int8 = (catalog.read(folder) for folder in folders)
        assert base.lineage[0] == int8.lineage[0] and base.lineage[0].startswith(f"Base({name}")

    assert base.evidence is not None
    other = msgspec.structs.replace(base.evidence, data="ner/, of others")
    write(folders[0], msgspec.structs.replace(base, evidence=other))
    assert main([*words, "--base", mine]) == 0
    told = capsys.readouterr()
    assert "comes first" not in told.out and "was judged on other data" in told.err


def test_a_toy_lies_in_its_own_cache(tmp_path: Path) -> None:
    args = argparse.Namespace(quick=True, base=None, cache=tmp_path)
    assert _default_catalog(args) == tmp_path / "quick"


def encoder(folder: Path, **changes: int) -> Path:
    """Two layers that read 128 tokens at once."""
    network(Task.NER, **changes).roberta.save_pretrained(folder)
    tokenizer(NER_WORDS).save(str(folder / "tokenizer.json"))
    return folder


def test_a_recipe_takes_its_fractions_of_an_encoder_of_ones_own(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = msgspec.structs.replace(TINY[1], layers=4)
    base = (TINY[0], deep, TAGGING, Export())
    half = Distill(layers=(1, 3), epochs=1, transfer=4)
    monkeypatch.setitem(RECIPES, "ner-base", base)
    monkeypatch.setitem(RECIPES, "ner-small", (*base, Restore(), half, Export()))
    words = command(tmp_path, "ner-small", "--data", str(corpus))
    assert main([*words, "--base", str(encoder(tmp_path / "mine"))]) == 0
    lineage = catalog.open_variant(tmp_path / "catalog" / "ner-small").variant.lineage
    assert any(step.startswith("Distill(layers=1, epochs=1") for step in lineage)


@pytest.mark.parametrize("how", [(), ("--quick",)])
def test_an_encoder_that_reads_too_little_is_refused_before_any_work(
    how: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = str(encoder(tmp_path / "mine"))
    words = command(tmp_path, "ner-tiny", "--data", str(tmp_path), "--base", mine, *how)
    assert main(words) == 2
    assert "windows of 256 tokens pass what the encoder reads at once: 128 at most" in said(capsys)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "catalog").exists()


def given(layers: int) -> Form:
    return Form(layers=layers, width=768, heads=6, inner=3072, positions=512, vocabulary=70_006)


def test_a_given_encoder_is_trained_gently() -> None:
    steps = prepared(RECIPES["ner-int8"], base=given(4), quick=False)
    assert [type(step) for step in steps] == [Finetune, Calibrate, Export, Quantize, NarrowWindows]
    assert steps[0].peak == 5e-5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("layers", "halves"), [(1, [(0,), (0,)]), (2, [(1,), (0,)]), (10, [(1, 3, 5, 7, 9), (1, 4)])]
)
def test_fractions_are_of_the_given_encoder(layers: int, halves: list[tuple[int, ...]]) -> None:
    steps = prepared(RECIPES["news-tiny"], base=given(layers), quick=False)
    assert [step.layers for step in steps if isinstance(step, Distill)] == halves
    assert [step.embedding for step in steps if isinstance(step, Factorize)] == [192]


def test_an_encoder_as_deep_keeps_the_very_layers() -> None:
    recipe = (*TINY, TAGGING, Distill(layers=(0,), epochs=1))
    assert prepared(recipe, base=given(2), quick=False)[-1].layers == (0,)  # type: ignore[attr-defined]
    assert prepared(recipe, base=given(4), quick=False)[-1].layers == (1, 3)  # type: ignore[attr-defined]


@pytest.mark.parametrize("layers", range(1, 13))
@pytest.mark.parametrize("quick", [False, True])
def test_every_recipe_can_be_made_of_an_encoder_of_any_depth(layers: int, quick: bool) -> None:
    for recipe in RECIPES.values():
        check(prepared(recipe, base=given(layers), quick=quick), given(layers))


def test_a_quick_run_is_the_same_chain_smaller() -> None:
    whole, quick = RECIPES["ner-int8"], prepared(RECIPES["ner-int8"], base=None, quick=True)
    assert [type(step) for step in quick] == [type(step) for step in whole]
    assert quick != whole and quick[-2:] == whole[-2:]


# --- what it says -----------------------------------------------------------------------------


def test_the_list_shows_every_recipe_and_needs_no_torch() -> None:
    probe = (
        "import sys; from build.__main__ import main; main(['--list']);"
        "sys.exit(bool({'torch', 'transformers', 'onnx', 'onnxruntime'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout.splitlines() for name in RECIPES)


def test_only_devices_that_are_here_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [device(each) for each in ("auto", "cpu", "cuda:1")] == ["cuda", "cpu", "cuda:1"]
    for other in ("cuda:2", "cuda:x", "tpu"):
        with pytest.raises(BuildError, match="known are cpu, cuda, cuda:0, cuda:1"):
            device(other)


def test_build_is_ours() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "build", "--list"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "ner-base" in done.stdout


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["ner-imt8", "--data", "."], "there is no recipe ner-imt8: did you mean ner-int8?"),
        (["--quick", "evaluate"], "evaluate is a command of its own: say it first"),
        (["evalute", "ner-int8"], "there is no recipe evalute: did you mean evaluate?"),
        (["xyz"], "known are ner-base, ner-int8"),
        ([], "give a recipe, or --list"),
        (["ner-int8"], "give --data DIR"),
        (["ner-int8", "--data", "/no/such"], "there is no folder /no/such"),
        (["ner-int8", "--data", ".", "--device", "tpu"], "--device tpu is not here"),
        (["ner-int8", "--data", ".", "--device", "cuda:x"], "--device cuda:x is not here"),
        (
            ["import", ".", "--task", "ner", "--name", "a", "--multi-label"],
            "--multi-label is for topics",
        ),
        (
            ["evaluate", "ner-int8", "--data", ".", "--check", "--split-name", "half"],
            "--split-name is for evidence, which --check does not write",
        ),
        (["import", "/no/such", "--task", "ner", "--name", "a"], "neither a folder nor a hub id"),
        (["evaluate", "ner-tiny", "--data", ".", "--catalog", "."], "holds no variant ner-tiny"),
        (["measure", "ner-tiny", "--catalog", "."], "holds no variant ner-tiny"),
        (["shape", "afriberta-base", "--out", ".", "--tokenizer", "nix"], "no tokenizer nix"),
        (
            ["shape", "afriberta-base", "--out", ".", "--like", "ner-smal"],
            "did you mean ner-small?",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    words: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    unknown = [word for word in words if word == "evalute"]
    assert main(words[:1] if unknown else words) == 2
    assert line in said(capsys)


def test_missing_files_are_named_before_hours_are_spent(
    tmp_path: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, "ner-base", "--data", str(corpus))) == 2
    assert "no train.txt or train.txt.xz in" in said(capsys)
    assert not (tmp_path / "cache").exists()


def test_labels_training_never_saw_are_named_before_hours_are_spent(
    tmp_path: Path, corpus: Path, tiny_recipes: None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = corpus / "ner" / "swa" / "test.txt"
    file.write_text(file.read_text().replace("B-LOC", "B-LCO"))
    assert main(command(tmp_path, "ner-base", "--data", str(corpus))) == 2
    assert "the swa test split has LCO, which no training text has: DATE, LOC, PER" in said(capsys)


@pytest.mark.parametrize(("split", "line"), [("dev", "hau+swa"), ("test", "hau")])
def test_splits_without_texts_are_named_before_hours_are_spent(
    split: str,
    line: str,
    tmp_path: Path,
    corpus: Path,
    tiny_recipes: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(RECIPES, "ner-base", (*TINY, TAGGING, Calibrate(), Export()))
    for language in ("hau", "swa"):
        (corpus / "ner" / language / f"{split}.txt").write_text("")
    assert main(command(tmp_path, "ner-base", "--data", str(corpus))) == 2
    assert f"no {split} texts for {line} in" in said(capsys)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        Exception("No space left on device (os error 28)"),  # as tokenizers says it
    ],
)
def test_a_full_disk_is_one_line_and_leaves_no_half_folder(
    error: Exception,
    tmp_path: Path,
    corpus: Path,
    tiny_recipes: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*_: object) -> None:
        raise error

    monkeypatch.setattr("build.tokenizer.save", full)
    assert main(command(tmp_path, "ner-base", "--data", str(corpus))) == 2
    assert "the disk is full" in said(capsys)
    left = {path.name for path in (tmp_path / "cache").iterdir()}
    assert left == {"data.txt", "contents.txt"}


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("import", "shape", "evaluate", "measure", "bench"))
