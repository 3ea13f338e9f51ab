"""
Some epochs after a transform that hurts: taught by gold, and by the network as it was before, whose
answers are all there is to learn of text without gold.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from build import examples, losses, training
from build.checkpoint import Purpose, read_purpose
from build.networks import load
from build.steps import Healing
from models.encode import Encoder


def heal(
    step: Healing,
    network: Any,
    source: Path,
    target: Path,
    corpus: Path,
    device: str,
    *,
    gradual: Callable[[int], training.Pruning] | None = None,
) -> None:
    """
    Train `network` in place for the step's epochs on its training text, and on text without gold
    where the step asks for some; no epochs leave it as it is.

    source   the checkpoint it was made of: its teacher
    gradual  steps of training there will be -> what prunes after each of them
    """
    if not step.epochs:
        return
    purpose = read_purpose(source)
    batch, steps = training_text(step, purpose, source, corpus)
    teacher = load(source, purpose, attention="sdpa").to(device).requires_grad_(requires_grad=False)

    def loss(student: Any, inputs: training.Batch) -> torch.Tensor:
        read = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        mask = inputs["attention_mask"].bool()
        given = student(**read).logits
        with torch.no_grad():
            wanted = teacher(**read).logits
        soft = losses.divergence(
            losses.answers(given, mask), losses.answers(wanted, mask), losses.TEMPERATURE
        )
        return step.soft * soft + (1 - step.soft) * losses.gold(given, inputs["labels"])

    if step.dropout is not None:
        for module in network.modules():
            if isinstance(module, nn.Dropout):
                module.p = step.dropout
    torch.manual_seed(step.seed)
    training.fit(
        network,
        batch,
        loss,
        steps=steps,
        peak=step.peak,
        warmup=step.warmup,
        device=device,
        resume=target / "resume.pt",
        title=f"heal {purpose.task}",
        prune=gradual(steps) if gradual else None,
    )


def training_text(
    step: Healing, purpose: Purpose, source: Path, corpus: Path, *, texts: int | None = None
) -> tuple[Callable[[int], training.Batch], int]:
    """
    Batches of the purpose's training text and of the step's text without gold, and how many; of
    `texts` with gold alone where a sample will do.

    Raises DataError where the data has other labels than the checkpoint.
    """
    encoder = Encoder(source / "tokenizer.json", purpose.windows)
    reading = examples.Reading(
        task=purpose.task,
        languages=purpose.languages,
        window=purpose.windows.tokens,
        batch_tokens=step.batch_tokens,
        epochs=max(1, step.epochs),
        seed=step.seed,
    )
    draws = examples.gold_of(purpose.labels, reading, corpus, encoder)
    if texts is not None:
        draws = random.Random(step.seed).sample(draws, min(texts, len(draws)))
    elif step.transfer:
        draws += examples.unlabelled(reading, corpus, encoder, step.transfer)
    return examples.batches(reading, draws, encoder)
