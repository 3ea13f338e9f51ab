"""A student of some of its teacher's layers, and what it is taught."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from torch.nn import functional

from build.checkpoint import read_purpose
from build.distill import Lesson, Student, begun, distill, maps_apart, shallower
from build.errors import BuildError
from build.losses import divergence
from build.networks import AUTO, load, load_encoder
from build.steps import Distill
from models.spec import Task
from tests.tiny_checkpoint import network, write_for_corpus
from tests.tiny_corpus import write_corpus

TEACHER = {"num_hidden_layers": 3}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def batch(labels: list[list[int]]) -> dict[str, torch.Tensor]:
    ids = torch.tensor([[0, 5, 6, 2], [0, 7, 2, 1]])
    return {
        "input_ids": ids,
        "attention_mask": (ids != 1).long(),
        "labels": torch.tensor(labels),
    }


SILENT = [[-100] * 4] * 2


def test_a_student_of_every_layer_is_its_teacher() -> None:
    teacher = network(Task.NER, **TEACHER)
    student = shallower(teacher, (0, 1, 2)).eval()
    inputs = batch(SILENT)
    wanted, given = (each(inputs["input_ids"]).logits for each in (teacher, student))
    assert torch.equal(given, wanted)
    nothing = Lesson(Distill(layers=(0, 1, 2), epochs=1), teacher).loss(
        Student(student, teacher), inputs
    )
    assert nothing.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("task", list(Task))
def test_a_student_keeps_the_chosen_layers_in_their_order(task: Task) -> None:
    teacher = network(task, **TEACHER)
    student = shallower(teacher, (0, 2))
    assert student.config.num_hidden_layers == 2
    kept, all_layers = student.roberta.encoder.layer, teacher.roberta.encoder.layer
    for mine, theirs in ((kept[0], all_layers[0]), (kept[1], all_layers[2])):
        for one, other in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other)
    assert torch.equal(student.get_input_embeddings().weight, teacher.get_input_embeddings().weight)
    assert sum(p.numel() for p in student.parameters()) < sum(
        p.numel() for p in teacher.parameters()
    )


@pytest.mark.parametrize("layers", [(), (3,), (1, 0), (1, 1)])
def test_layers_a_teacher_lacks_are_refused(layers: tuple[int, ...]) -> None:
    with pytest.raises(BuildError, match="do not rise within the teacher's 0 to 2"):
        shallower(network(Task.NER, **TEACHER), layers)


def test_the_divergence_is_kullback_and_leiblers() -> None:
    student, teacher = torch.randn(5, 3), torch.randn(5, 3)
    p, q = (functional.softmax(each / 2, dim=-1) for each in (teacher, student))
    wanted = 4 * (p * (p / q).log()).sum(dim=-1).mean()
    assert divergence(student, teacher, 2.0).item() == pytest.approx(wanted.item(), abs=1e-5)


def test_padding_teaches_nothing() -> None:
    teacher = network(Task.NER, **TEACHER)
    student = Student(shallower(teacher, (1,)), teacher).eval()
    lesson = Lesson(Distill(layers=(1,), epochs=1), teacher)
    padded = batch([[-100, 1, 0, -100], [-100, 2, -100, -100]])
    longer = {
        name: functional.pad(tensor, (0, 3), value=fill)
        for (name, tensor), fill in zip(padded.items(), (1, 0, -100), strict=True)
    }
    one, other = lesson.loss(student, padded), lesson.loss(student, longer)
    assert one.item() == pytest.approx(other.item(), rel=1e-5)


@pytest.mark.parametrize("task", list(Task))
def test_distilling_brings_a_student_nearer_to_its_teacher(tmp_path: Path, task: Task) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    teacher, target = tmp_path / "teacher", tmp_path / "student"
    target.mkdir()
    write_for_corpus(teacher, task)
    step = Distill(layers=(0,), epochs=4, transfer=8, batch_tokens=256, peak=1e-2)
    distill(step, teacher, target, corpus, "cpu")
    assert read_purpose(target) == read_purpose(teacher)
    config = msgspec.json.decode((target / "config.json").read_bytes())
    assert config["num_hidden_layers"] == 1
    taught = AUTO[task].from_pretrained(target)
    wanted = AUTO[task].from_pretrained(teacher)
    lesson = Lesson(msgspec.structs.replace(step, soft=1.0, hidden=0.0), wanted.eval())
    silent = SILENT if task is Task.NER else [-100, -100]
    before = lesson.loss(Student(shallower(wanted, (0,)), wanted).eval(), batch(silent))  # type: ignore[arg-type]
    after = lesson.loss(Student(taught, wanted).eval(), batch(silent))  # type: ignore[arg-type]
    assert after.item() < before.item()


# --- narrower, fresh, for any task ------------------------------------------------------------


def test_a_narrower_student_begins_along_the_embeddings_principal_axes() -> None:
    teacher = network(Task.NER, **TEACHER)
    with torch.no_grad():  # of rank 16: half the width holds them whole
        words = teacher.roberta.embeddings.word_embeddings.weight
        words.copy_(torch.randn(len(words), 16) @ torch.randn(16, 32))
    student = begun(Distill(layers=(0, 2), epochs=1, width=16, heads=2, inner=24), teacher)
    config = student.config
    assert (config.hidden_size, config.num_attention_heads) == (16, 2)
    assert (config.intermediate_size, config.num_hidden_layers) == (24, 2)
    mine = student.roberta.embeddings.word_embeddings.weight
    torch.testing.assert_close(mine @ mine.T, words @ words.T, rtol=1e-3, atol=1e-2)


def test_a_fresh_student_has_its_own_layers_and_the_teachers_embeddings() -> None:
    teacher = network(Task.NER, **TEACHER)
    student = begun(Distill(layers=(0, 2), epochs=1, fresh=True), teacher)
    one, other = (each.roberta.encoder.layer[0].output.dense.weight for each in (student, teacher))
    assert not torch.equal(one, other)
    mine, theirs = (each.get_input_embeddings().weight for each in (student, teacher))
    torch.testing.assert_close(mine @ mine.T, theirs @ theirs.T, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"width": 30}, "30 is not a multiple of 4 heads"),
        ({"width": 64}, "no wider than its teacher's 32"),
        ({"heads": 2, "attention": 1.0}, "attention maps need the teacher's 4 heads"),
    ],
)
def test_sizes_that_cannot_be_are_refused(changes: dict[str, int], line: str) -> None:
    with pytest.raises(BuildError, match=line):
        begun(Distill(layers=(0,), epochs=1, **changes), network(Task.NER, **TEACHER))


def test_equal_attention_maps_are_not_apart() -> None:
    maps = torch.rand(2, 4, 5, 5).softmax(dim=-1)
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]).bool()
    assert maps_apart(maps, maps, mask).item() == pytest.approx(0, abs=1e-6)
    other = torch.rand(2, 4, 5, 5).mul(3).softmax(dim=-1)
    apart = maps_apart(maps, other, mask)
    assert apart.item() > 0
    changed = other.clone()
    changed[1, :, 2:] = maps[1, :, 2:]  # rows of padding
    assert maps_apart(maps, changed, mask).item() == pytest.approx(apart.item())


@pytest.mark.parametrize("changes", [{"width": 16, "heads": 4, "inner": 32}, {"attention": 0.5}])
def test_students_of_every_kind_learn(tmp_path: Path, changes: dict[str, float]) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    teacher, target = tmp_path / "teacher", tmp_path / "student"
    target.mkdir()
    write_for_corpus(teacher, Task.NER)
    step = Distill(layers=(0,), epochs=4, transfer=8, batch_tokens=256, peak=1e-2, **changes)
    distill(step, teacher, target, corpus, "cpu")
    wanted = load(teacher, read_purpose(teacher))
    taught = load(target, read_purpose(target))
    lesson = Lesson(Distill(layers=(0,), epochs=1, soft=1.0, hidden=0.0), wanted)
    torch.manual_seed(step.seed)
    fresh = Student(begun(step, wanted), wanted).eval()
    after = lesson.loss(Student(taught, wanted).eval(), batch(SILENT))
    assert after.item() < lesson.loss(fresh, batch(SILENT)).item()


def test_an_encoder_without_a_head_is_distilled_on_plain_text(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", sentences=12)
    teacher, target = tmp_path / "teacher", tmp_path / "student"
    target.mkdir()
    write_for_corpus(teacher, Task.NER)
    network(Task.NER, **TEACHER).roberta.save_pretrained(teacher)
    (teacher / "task.json").unlink()
    step = Distill(layers=(0, 2), epochs=3, transfer=20, batch_tokens=256, peak=1e-3)
    distill(step, teacher, target, corpus, "cpu")
    student = load_encoder(target)
    assert student.config.num_hidden_layers == 2 and not (target / "task.json").exists()
    with pytest.raises(BuildError, match="transfer is 0"):
        distill(msgspec.structs.replace(step, transfer=0), teacher, target, corpus, "cpu")


def test_options_not_taken_leave_the_name_of_older_work() -> None:
    assert "width" not in str(Distill(layers=(1, 3), epochs=2))
    assert str(Distill(layers=(1,), epochs=1, width=16)).endswith("version=1, width=16)")
