"""Tiny random XLM-RoBERTa checkpoints as training leaves them, exported once a test session."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import (
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
)

from build.checkpoint import Purpose, read_purpose, write_purpose
from build.export import export
from build.quantize import quantize
from build.steps import Export, Quantize
from models.spec import Task, Windows
from tests.tiny import NER_LABELS, NER_WORDS, NEWS_LABELS, tokenizer

LAYERS, HIDDEN, INNER = 2, 32, 64
KINDS: dict[Task, Any] = {
    Task.NER: XLMRobertaForTokenClassification,
    Task.CLASSIFICATION: XLMRobertaForSequenceClassification,
}
_ROOM = tempfile.TemporaryDirectory()


def labels_of(task: Task) -> tuple[str, ...]:
    return NER_LABELS if task is Task.NER else NEWS_LABELS


def network(task: Task, **changes: Any) -> Any:
    """Two layers of 32 with wide random weights, biases too, so that answers differ."""
    labels = labels_of(task)
    sizes = {
        "vocab_size": tokenizer(NER_WORDS).get_vocab_size(),
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "intermediate_size": INNER,
        "max_position_embeddings": 130,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    fixed = {"type_vocab_size": 1, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    torch.manual_seed(3)
    built = KINDS[task](XLMRobertaConfig(**{**sizes, **fixed, **changes})).eval()
    with torch.no_grad():
        for weight in built.parameters():
            weight.normal_(std=0.2)
    return built


def write_checkpoint(folder: Path, task: Task, **changes: Any) -> Path:
    """What finetune leaves: config, safetensors, tokenizer, task.json."""
    network(task, **changes).save_pretrained(folder)
    tokenizer(NER_WORDS).save(str(folder / "tokenizer.json"))
    windows = Windows(tokens=64, overlap=16 if task is Task.NER else 0)
    purpose = Purpose(task=task, labels=labels_of(task), languages=("hau", "swa"), windows=windows)
    write_purpose(folder, purpose)
    return folder


# What tests/tiny_corpus.py is tagged with.
CORPUS_LABELS = {
    Task.NER: ("O", "B-DATE", "I-DATE", "B-LOC", "I-LOC", "B-PER", "I-PER"),
    Task.CLASSIFICATION: ("business", "health", "sports"),
}


def write_for_corpus(folder: Path, task: Task) -> Path:
    """A checkpoint with the labels of tests/tiny_corpus.py, as if it had learned from it."""
    names = dict(enumerate(CORPUS_LABELS[task]))
    write_checkpoint(folder, task, id2label=names, label2id={each: i for i, each in names.items()})
    purpose = msgspec.structs.replace(read_purpose(folder), labels=CORPUS_LABELS[task])
    write_purpose(folder, purpose)
    return folder


@cache
def finetuned(task: Task) -> Path:
    return write_checkpoint(_folder(f"finetuned-{task}"), task)


def exported(task: Task, weights: str = "float32") -> Path:
    return _exported(task, weights)


def quantized(task: Task, weights: str = "float32") -> Path:
    return _quantized(task, weights)


@cache
def _exported(task: Task, weights: str) -> Path:
    folder = _folder(f"exported-{task}-{weights}")
    export(Export(weights=weights), finetuned(task), folder)
    return folder


@cache
def _quantized(task: Task, weights: str) -> Path:
    folder = _folder(f"quantized-{task}-{weights}")
    quantize(Quantize(), exported(task, weights), folder)
    return folder


def _folder(name: str) -> Path:
    folder = Path(_ROOM.name) / name
    folder.mkdir()
    return folder
