from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from build import chain, run
from build.checkpoint import Checkpoint, filled
from build.recipes import BASELINES, RECIPES
from build.run import Kitchen, cook
from build.steps import (
    CountEmbeddings,
    Finetune,
    Quantize,
    Step,
    TrainTokenizer,
)
from models.spec import Task

ROOT = Path(__file__).parent.parent


class Append(Step, frozen=True, kw_only=True):
    """A step for these tests: copies `text.txt` and adds a word."""

    word: str
    version: int = 1


class Fail(Step, frozen=True, kw_only=True):
    """A step for these tests: leaves something, then fails; `resumable` leaves where it was."""

    resumable: bool


@run.apply.register
def _(step: Append, source: Path, target: Path, kitchen: Kitchen) -> None:
    before = (source / "text.txt").read_text() if (source / "text.txt").exists() else ""
    (target / "text.txt").write_text(before + step.word)


@run.apply.register
def _(step: Fail, source: Path, target: Path, kitchen: Kitchen) -> None:
    if (target / "resume.pt").exists():
        (target / "text.txt").write_text("continued")
        return
    (target / "half.txt").write_text("half")
    if step.resumable:
        (target / "resume.pt").write_text("here")
    raise KeyboardInterrupt


@pytest.fixture
def kitchen(tmp_path: Path) -> Kitchen:
    return Kitchen(tmp_path / "corpus", "cpu", tmp_path)


@pytest.fixture
def start(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path / "start", ())


def folders(kitchen: Kitchen) -> list[str]:
    return sorted(path.name.split("-")[0] for path in kitchen.cache.iterdir())


def test_steps_are_applied_in_turn(start: Checkpoint, kitchen: Kitchen) -> None:
    done = cook(start, [Append(word="Kano"), Append(word=" da Abuja")], kitchen)
    assert (done.folder / "text.txt").read_text() == "Kano da Abuja"
    assert done.lineage == ("Append(word=Kano, version=1)", "Append(word= da Abuja, version=1)")
    assert (done.folder / "lineage.txt").read_text().splitlines() == list(done.lineage)


def test_finished_steps_are_not_done_again(start: Checkpoint, kitchen: Kitchen) -> None:
    first = cook(start, [Append(word="Kano")], kitchen)
    (first.folder / "text.txt").write_text("Lagos")
    again = cook(start, [Append(word="Kano"), Append(word=".")], kitchen)
    assert (again.folder / "text.txt").read_text() == "Lagos."


def test_another_history_is_another_folder(start: Checkpoint) -> None:
    one = start.after(Append(word="a")).after(Append(word="b"))
    other = start.after(Append(word="b")).after(Append(word="a"))
    newer = start.after(Append(word="a")).after(Append(word="b", version=2))
    assert len({one.folder, other.folder, newer.folder}) == 3
    assert one == start.after(Append(word="a")).after(Append(word="b"))


def test_a_failed_step_leaves_no_half_folder(start: Checkpoint, kitchen: Kitchen) -> None:
    with pytest.raises(KeyboardInterrupt):
        cook(start, [Append(word="Kano"), Fail(resumable=False)], kitchen)
    assert folders(kitchen) == ["append"]


def test_a_stopped_step_continues_where_it_was(start: Checkpoint, kitchen: Kitchen) -> None:
    with pytest.raises(KeyboardInterrupt):
        cook(start, [Fail(resumable=True)], kitchen)
    done = cook(start, [Fail(resumable=True)], kitchen)
    assert (done.folder / "text.txt").read_text() == "continued"
    assert not (done.folder / "resume.pt").exists()
    assert folders(kitchen) == ["fail"]


def test_folders_with_dots_in_their_names_are_filled_apart(tmp_path: Path) -> None:
    with filled(tmp_path / "mine-1.0") as one, filled(tmp_path / "mine-1.1") as other:
        assert one and other and one != other
        (one / "text.txt").write_text("one")
    assert (tmp_path / "mine-1.0" / "text.txt").read_text() == "one"
    assert not list((tmp_path / "mine-1.1").iterdir())


def test_half_a_save_is_no_part_of_what_was_made(start: Checkpoint, kitchen: Kitchen) -> None:
    with pytest.raises(KeyboardInterrupt):
        cook(start, [Fail(resumable=True)], kitchen)
    (part,) = kitchen.cache.glob("fail-*.part")
    (part / "resume.writing").write_text("half")
    done = cook(start, [Fail(resumable=True)], kitchen)
    assert {file.name for file in done.folder.iterdir()} == {"text.txt", "half.txt", "lineage.txt"}


def test_a_step_nobody_registered_is_said_so(start: Checkpoint, kitchen: Kitchen) -> None:
    class Unknown(Step, frozen=True):
        pass

    with pytest.raises(NotImplementedError, match="nothing is registered for Unknown"):
        cook(start, [Unknown()], kitchen)
    assert folders(kitchen) == []


def test_a_killed_training_continues_from_its_last_save(tmp_path: Path) -> None:
    """With a signal nobody can catch, in the middle of a real training loop."""
    script = textwrap.dedent(
        """
        import sys, os, signal
        from pathlib import Path
        import torch
        from build import training
        training.SAVE_EVERY_S = 0.0
        def batch(number):
            print(number, flush=True)
            if number == int(sys.argv[2]):
                os.kill(os.getpid(), signal.SIGKILL)
            return {"x": torch.ones(2, 3), "attention_mask": torch.ones(2, 3)}
        training.fit(torch.nn.Linear(3, 1), batch, lambda n, b: n(b["x"]).mean(), steps=8, peak=0.1,
                     warmup=0.1, device="cpu", resume=Path(sys.argv[1]), title="toy")
        """
    )
    command = [sys.executable, "-c", script, str(tmp_path / "resume.pt")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}

    def train(kill_at: int) -> tuple[int, list[int]]:
        done = subprocess.run(
            [*command, str(kill_at)], env=environment, capture_output=True, text=True, cwd=ROOT
        )
        return done.returncode, [int(line) for line in done.stdout.split()]

    assert train(5) == (-signal.SIGKILL, [0, 1, 2, 3, 4, 5])
    assert train(-1) == (0, [5, 6, 7])


def test_every_recipe_is_a_chain_that_can_be_cooked() -> None:
    for name, steps in RECIPES.items():
        kinds = [type(step) for step in steps]
        assert kinds[:3] == [TrainTokenizer, CountEmbeddings, Finetune], name
        chain.check(steps)
        for kind in kinds:
            assert run.apply.dispatch(kind) is not run.apply.dispatch(Step), name


def test_every_task_has_a_baseline_recipe_that_is_not_compressed() -> None:
    assert BASELINES.keys() == set(Task)
    for task, name in BASELINES.items():
        steps = RECIPES[name]
        assert Quantize() not in steps
        assert next(step for step in steps if isinstance(step, Finetune)).task is task
