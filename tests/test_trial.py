"""Trials of canaries: they end with the right verdict, and rarely with the wrong one."""

from __future__ import annotations

import random
from pathlib import Path

from service.generation import Verdict
from service.routes import Canary
from service.trial import Progress, Trial, verdict

CANARY = Canary(variant="ner-tiny", max_disagreement=0.1)


def ended(canary: Canary, *, differs: float, slower: float, seed: int, most: int) -> Verdict | None:
    """What becomes of a canary whose answers differ so often and that is so often slower."""
    draw, trial = random.Random(seed), Trial("one", canary, None)
    for _ in range(most):
        found = trial.compare(
            disagreement=float(draw.random() < differs),
            slowdown=2.0 if draw.random() < slower else 0.5,
        )
        if found:
            return found
    return None


def test_a_canary_that_agrees_and_is_quick_is_promoted() -> None:
    found = ended(CANARY, differs=0.03, slower=0.1, seed=1, most=3000)
    assert found is not None and found.promoted and found.variant == "ner-tiny"
    assert found.why.startswith("answers differ by 0.0") and "surely below 0.1" in found.why


def test_a_canary_that_differs_is_rolled_back() -> None:
    found = ended(CANARY, differs=0.3, slower=0.1, seed=1, most=3000)
    assert found is not None and not found.promoted
    assert "surely above 0.1, after" in found.why


def test_a_canary_that_is_slower_is_rolled_back() -> None:
    found = ended(CANARY, differs=0.0, slower=0.9, seed=1, most=3000)
    assert found is not None and not found.promoted
    assert found.why.startswith("surely more than 1 times the time, after")


def test_how_a_trial_stands_is_what_its_verdict_is_of() -> None:
    draw, trial, found = random.Random(1), Trial("one", CANARY, None), None
    while found is None:
        found = trial.compare(disagreement=float(draw.random() < 0.03), slowdown=0.5)
    progress = trial.progress()
    low, high = progress.disagreement
    assert high < CANARY.max_disagreement and progress.slower[1] < 0.5
    assert found == verdict(CANARY, progress)
    assert found.why.startswith(f"answers differ by {low:.3f} to {high:.3f}, surely below 0.1")
    assert found.why.endswith(f"after {progress.comparisons} comparisons")


def test_a_canary_on_the_edge_is_not_judged() -> None:
    assert ended(CANARY, differs=0.1, slower=0.1, seed=1, most=2000) is None


def test_a_wrong_verdict_is_as_rare_as_promised() -> None:
    loose = Canary(variant="ner-tiny", max_disagreement=0.1, alpha=0.2)
    verdicts = [ended(loose, differs=0.13, slower=0.1, seed=n, most=1000) for n in range(100)]
    assert sum(found is not None and found.promoted for found in verdicts) <= 20


def test_without_comparisons_there_is_no_verdict() -> None:
    trial = Trial("one", CANARY, None)
    assert trial.progress() == Progress(0, disagreement=(0, 1), slower=(0, 1))
    assert verdict(CANARY, trial.progress()) is None


def test_workers_count_together(tmp_path: Path) -> None:
    one, other = (Trial("one", CANARY, tmp_path / "trial") for _ in range(2))
    for trial in (one, other, other):
        trial.compare(disagreement=0.5, slowdown=2.0)
    assert one.progress() == other.progress()
    progress = one.progress()
    assert progress.comparisons == 3
    assert progress.disagreement[0] < 0.5 < progress.disagreement[1] <= 1
    assert progress.slower[1] == 1
