"""
Distillation for a task: fewer layers, taught by the network they came from.

The student starts as the chosen layers of its teacher (Sanh et al. 2019) and learns, text by text,
the teacher's softened answers (Hinton et al. 2015), its hidden states at the kept layers (Jiao et
al. 2020) and the gold labels where there are any. Text without gold is what makes it follow its
teacher where the training text ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from build import examples, training
from build.checkpoint import TOKENIZER_FILES, copy_files, read_purpose, write_purpose
from build.errors import BuildError
from build.networks import AUTO
from build.steps import Distill
from models.encode import Encoder


def distill(step: Distill, source: Path, target: Path, corpus: Path, device: str) -> None:
    """
    Read a fine-tuned teacher from `source`; leave its student in `target`.

    Raises BuildError where the teacher lacks a layer that the step names.
    """
    purpose = read_purpose(source)
    encoder = Encoder(source / "tokenizer.json", purpose.windows)
    reading = examples.Reading(
        task=purpose.task,
        languages=purpose.languages,
        window=purpose.windows.tokens,
        batch_tokens=step.batch_tokens,
        epochs=step.epochs,
        seed=step.seed,
    )
    labels, draws = examples.gold(reading, corpus, encoder)
    if labels != purpose.labels:
        raise BuildError(f"the data has {', '.join(labels)}; its teacher {purpose.labels}")
    draws += examples.unlabelled(reading, corpus, encoder, step.transfer)
    batch, steps = examples.batches(reading, draws, encoder)
    torch.manual_seed(step.seed)
    teacher = AUTO[purpose.task].from_pretrained(source, dtype=torch.float32)
    teacher.to(device).eval().requires_grad_(requires_grad=False)
    student = shallower(teacher, step.layers)
    lesson = Lesson(step, teacher)
    training.fit(
        student,
        batch,
        lesson.loss,
        steps=steps,
        peak=step.peak,
        warmup=step.warmup,
        device=device,
        resume=target / "resume.pt",
        title=f"distill {purpose.task}",
    )
    student.save_pretrained(target)
    copy_files(source, target, TOKENIZER_FILES)
    write_purpose(target, purpose)


def shallower(teacher: Any, layers: tuple[int, ...]) -> Any:
    """A network of the teacher's embeddings, chosen layers and head, all with its weights."""
    depth = teacher.config.num_hidden_layers
    if not layers or not set(layers) <= set(range(depth)) or sorted(set(layers)) != [*layers]:
        raise BuildError(f"layers {layers} do not rise within the teacher's 0 to {depth - 1}")
    config = type(teacher.config).from_dict(
        {**teacher.config.to_dict(), "num_hidden_layers": len(layers)}
    )
    student = type(teacher)(config)
    prefix = f"{teacher.base_model_prefix}.encoder.layer."
    renumbered = {f"{prefix}{old}.": f"{prefix}{new}." for new, old in enumerate(layers)}
    weights = {}
    for name, tensor in teacher.state_dict().items():
        if not name.startswith(prefix):
            weights[name] = tensor
            continue
        for old, new in renumbered.items():
            if name.startswith(old):
                weights[new + name.removeprefix(old)] = tensor
    student.load_state_dict(weights)
    return student


class Lesson:
    """What a student is to learn of a batch, as one number."""

    def __init__(self, step: Distill, teacher: Any) -> None:
        self._step = step
        self._teacher = teacher

    def loss(self, student: Any, batch: training.Batch) -> torch.Tensor:
        """soft x KL x T^2 + (1 - soft) x cross-entropy with gold + hidden x MSE at kept layers."""
        step = self._step
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            wanted = self._teacher(**inputs, output_hidden_states=True)
        given = student(**inputs, output_hidden_states=True)
        mask = batch["attention_mask"].bool()
        soft = divergence(
            _of_texts(given.logits, mask), _of_texts(wanted.logits, mask), step.temperature
        )
        # hidden_states[0] is the embeddings' output.
        apart = [
            functional.mse_loss(mine[mask].float(), wanted.hidden_states[layer + 1][mask].float())
            for mine, layer in zip(given.hidden_states[1:], step.layers, strict=True)
        ]
        hidden = torch.stack(apart).mean()
        return step.soft * soft + (1 - step.soft) * _gold(given, batch) + step.hidden * hidden


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Kullback-Leibler of softened answers, (rows, labels) each; T^2 keeps gradients in scale."""
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student.float() / temperature, dim=-1),
        functional.log_softmax(teacher.float() / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def _of_texts(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(rows, labels): pieces that are no padding, or texts."""
    return logits[mask] if logits.dim() == 3 else logits


def _gold(given: Any, batch: training.Batch) -> torch.Tensor:
    labels = batch["labels"].flatten()
    known = labels != examples.IGNORED
    logits: torch.Tensor = given.logits.float().flatten(0, -2)
    if not known.any():
        return logits.sum() * 0.0
    return functional.cross_entropy(logits[known], labels[known])
