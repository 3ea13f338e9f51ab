"""
Distillation: a student with fewer layers, perhaps narrower ones, taught by the network it is of.

For a task it learns, text by text, the teacher's softened answers (Hinton et al. 2015), its hidden
states (Jiao et al. 2020) and attention maps (Wang et al. 2020) at the kept layers, and the gold
labels where there are any. Text without gold is what makes it follow its teacher where the training
text ends. Of an encoder without a head it learns states and maps alone, on plain text.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from build import data, examples, losses, training
from build.checkpoint import PURPOSE, Purpose, read_purpose
from build.errors import BuildError
from build.layers import WORDS, reshape
from build.networks import load, load_encoder, longest_window, save
from build.steps import Distill
from models.encode import Encoder
from models.spec import Task, Windows

# Of plain text that an encoder without a purpose is taught on.
WINDOW = 128


def distill(step: Distill, source: Path, target: Path, corpus: Path, device: str) -> None:
    """
    Read a teacher from `source`, fine-tuned or an encoder; leave its student in `target`.

    Raises BuildError where the teacher lacks what the step names, DataError.
    """
    purpose = read_purpose(source) if (source / PURPOSE).exists() else None
    # Only eager attention shows its maps.
    seen = "eager" if step.attention else "sdpa"
    teacher = load(source, purpose, attention=seen) if purpose else load_encoder(source)
    torch.manual_seed(step.seed)
    student = Student(begun(step, teacher), teacher)
    lesson = Lesson(step, teacher.to(device).requires_grad_(requires_grad=False))
    batch, steps = _text(step, purpose, source, corpus, teacher)
    training.fit(
        student,
        batch,
        lesson.loss,
        steps=steps,
        peak=step.peak,
        warmup=step.warmup,
        device=device,
        resume=target / "resume.pt",
        title=f"distill {purpose.task if purpose else 'encoder'}",
    )
    save(student.network, source, target)


def _text(
    step: Distill, purpose: Purpose | None, source: Path, corpus: Path, teacher: Any
) -> tuple[Callable[[int], training.Batch], int]:
    """Batches of training text and of text without gold; of the latter alone for an encoder."""
    window = purpose.windows.tokens if purpose else min(WINDOW, longest_window(teacher.config))
    encoder = Encoder(source / "tokenizer.json", Windows(tokens=window, overlap=0))
    reading = examples.Reading(
        task=purpose.task if purpose else Task.CLASSIFICATION,  # which reads running text
        languages=purpose.languages if purpose else tuple(sorted(data.running_text(corpus))),
        window=window,
        batch_tokens=step.batch_tokens,
        epochs=step.epochs,
        seed=step.seed,
    )
    draws = examples.gold_of(purpose.labels, reading, corpus, encoder) if purpose else []
    draws += examples.unlabelled(reading, corpus, encoder, step.transfer)
    if not draws:
        raise BuildError("an encoder is distilled on text without gold: transfer is 0")
    return examples.batches(reading, draws, encoder)


# --- how a student begins ---------------------------------------------------------------------


class Student(nn.Module):
    """A network, and what makes its hidden states comparable with a wider teacher's."""

    def __init__(self, network: Any, teacher: Any) -> None:
        super().__init__()
        self.network = network
        mine, theirs = network.config.hidden_size, teacher.config.hidden_size
        self.widen = nn.Identity() if mine == theirs else nn.Linear(mine, theirs)

    def forward(self, **inputs: Any) -> Any:
        return self.network(**inputs)


def begun(step: Distill, teacher: Any) -> Any:
    """The student before its first lesson. Raises BuildError where it cannot be the teacher's."""
    config = teacher.config
    heads = step.heads or config.num_attention_heads
    width, inner = step.width or config.hidden_size, step.inner or config.intermediate_size
    if width % heads:
        raise BuildError(f"a width of {width} is not a multiple of {heads} heads")
    if width > config.hidden_size:
        raise BuildError(f"a student is no wider than its teacher's {config.hidden_size}")
    if step.attention and heads != config.num_attention_heads:
        raise BuildError(f"attention maps need the teacher's {config.num_attention_heads} heads")
    _check_layers(step.layers, config.num_hidden_layers)
    sizes = {"num_attention_heads": heads, "hidden_size": width, "intermediate_size": inner}
    same = (width, inner) == (config.hidden_size, config.intermediate_size)
    if same and not step.fresh:
        return shallower(teacher, step.layers, num_attention_heads=heads)
    student = _fresh(teacher, num_hidden_layers=len(step.layers), **sizes)
    narrow_embeddings(student, teacher)
    return student


def shallower(teacher: Any, layers: tuple[int, ...], **changes: Any) -> Any:
    """A network of the teacher's embeddings, chosen layers and head, all with its weights."""
    _check_layers(layers, teacher.config.num_hidden_layers)
    student = _fresh(teacher, num_hidden_layers=len(layers), **changes)
    own = teacher.base_model is teacher  # then names have no prefix
    prefix = f"{'' if own else f'{teacher.base_model_prefix}.'}encoder.layer."
    renumbered = {f"{prefix}{old}.": f"{prefix}{new}." for new, old in enumerate(layers)}
    weights = {}
    for name, tensor in teacher.state_dict().items():
        if not name.startswith(prefix):
            weights[name] = tensor
            continue
        for old, new in renumbered.items():
            if name.startswith(old):
                weights[new + name.removeprefix(old)] = tensor
    reshape(student, {name: tensor.shape for name, tensor in weights.items()})
    student.load_state_dict(weights)
    return student


def narrow_embeddings(student: Any, teacher: Any) -> None:
    """
    Begin the student's embeddings as the teacher's, seen along their principal axes.

    As many axes as the student is wide, of the word embedding; all of them change nothing but the
    directions' names.
    """
    mine, theirs = student.base_model.embeddings, teacher.base_model.embeddings
    table = teacher.base_model.get_submodule(WORDS)
    if not isinstance(table, nn.Embedding):
        raise BuildError("a student of another width learns before the embedding is factorized")
    words = table.weight.detach()
    _, axes = torch.linalg.eigh((words.T @ words).double())  # ascending
    axes = axes[:, -student.config.hidden_size :].float()
    with torch.no_grad():
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            getattr(mine, name).weight.copy_(getattr(theirs, name).weight @ axes)


def _check_layers(layers: tuple[int, ...], depth: int) -> None:
    if not layers or not set(layers) <= set(range(depth)) or sorted(set(layers)) != [*layers]:
        raise BuildError(f"layers {layers} do not rise within the teacher's 0 to {depth - 1}")


def _fresh(teacher: Any, **changes: Any) -> Any:
    """A network of the teacher's kind and config, but for the changes; its weights are its own."""
    config = teacher.config
    options = {"attn_implementation": config._attn_implementation}
    if teacher.base_model is teacher:
        options["add_pooling_layer"] = teacher.pooler is not None
    changed = type(config).from_dict({**config.to_dict(), **changes})
    return type(teacher)._from_config(changed, **options)


# --- what it learns ---------------------------------------------------------------------------


class Lesson:
    """What a student is to learn of a batch, as one number."""

    def __init__(self, step: Distill, teacher: Any) -> None:
        self._step = step
        self._teacher = teacher

    def loss(self, student: Any, batch: training.Batch) -> torch.Tensor:
        """
        soft x KL x T^2 + (1 - soft) x cross-entropy with gold
        + hidden x MSE + attention x KL at the kept layers
        """
        step = self._step
        mask = batch["attention_mask"].bool()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        shown = {"output_hidden_states": True, "output_attentions": bool(step.attention)}
        with torch.no_grad():
            wanted = self._teacher(**inputs, **shown)
        given = student(**inputs, **shown)
        # hidden_states[0] is the embeddings' output.
        apart = [
            functional.mse_loss(
                student.widen(mine[mask]).float(), wanted.hidden_states[layer + 1][mask].float()
            )
            for mine, layer in zip(given.hidden_states[1:], step.layers, strict=True)
        ]
        loss = step.hidden * torch.stack(apart).mean()
        if step.attention:
            maps = zip(given.attentions, step.layers, strict=True)
            unlike = [maps_apart(mine, wanted.attentions[layer], mask) for mine, layer in maps]
            loss = loss + step.attention * torch.stack(unlike).mean()
        if "logits" in given:
            soft = losses.divergence(
                losses.answers(given.logits, mask),
                losses.answers(wanted.logits, mask),
                step.temperature,
            )
            gold = losses.gold(given.logits, batch["labels"])
            loss = loss + step.soft * soft + (1 - step.soft) * gold
        return loss


def maps_apart(mine: torch.Tensor, theirs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Kullback-Leibler of attention maps (batch, heads, from, to), a mean over heads and real pieces.

    mask (batch, tokens): who is no padding; padding is attended to by nobody.
    """
    rows = mask[:, None, :].expand(mine.shape[:3])
    p, q = (each.float()[rows].clamp(min=1e-9) for each in (theirs, mine))
    return (p * (p / q).log()).sum(dim=-1).mean()
