"""
Supervised training of an encoder with a fresh head: entities or classes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn import functional

from build import examples, training
from build.checkpoint import TOKENIZER_FILES, Purpose, copy_files, write_purpose
from build.networks import AUTO
from build.steps import Finetune
from models.encode import Encoder
from models.spec import Windows


def finetune(step: Finetune, source: Path, target: Path, corpus: Path, device: str) -> None:
    """Train `source` on the step's languages; leave checkpoint and `task.json` in `target`."""
    windows = Windows(tokens=step.window, overlap=step.overlap)
    encoder = Encoder(source / "tokenizer.json", windows)
    reading = examples.Reading(
        task=step.task,
        languages=step.languages,
        window=step.window,
        batch_tokens=step.batch_tokens,
        epochs=step.epochs,
        seed=step.seed,
        headlines=bool(step.headlines),
    )
    labels, draws = examples.gold(reading, corpus, encoder)
    batch, steps = examples.batches(reading, draws, encoder)
    torch.manual_seed(step.seed)
    network = AUTO[step.task].from_pretrained(
        source,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        hidden_dropout_prob=step.dropout,
        attention_probs_dropout_prob=step.dropout,
        dtype=torch.float32,
    )
    training.fit(
        network,
        batch,
        _loss,
        steps=steps,
        peak=step.peak,
        warmup=step.warmup,
        device=device,
        resume=target / "resume.pt",
        title=f"finetune {step.task}",
    )
    network.save_pretrained(target)
    copy_files(source, target, TOKENIZER_FILES)
    purpose = Purpose(task=step.task, labels=labels, languages=step.languages, windows=windows)
    write_purpose(target, purpose)


def _loss(network: torch.nn.Module, batch: training.Batch) -> torch.Tensor:
    logits = network(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
    return functional.cross_entropy(logits.flatten(0, -2), batch["labels"].flatten())
