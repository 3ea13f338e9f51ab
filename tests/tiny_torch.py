"""
A tiny random XLM-RoBERTa with real attention, as a Hugging Face folder and as a torch variant.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import torch
from transformers import (
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaForTokenClassification,
)

from models.catalog import describe
from models.spec import Licence, Runtime, Task, Variant, Windows
from models.weights import census
from tests.tiny import NER_LABELS, NER_WORDS, NEWS_LABELS, tokenizer


def write_torch_variant(
    catalog: Path, name: str, task: Task = Task.NER, *, windows: Windows | None = None
) -> Path:
    """Write a whole, valid torch variant that `transformers` can read too; give back its path."""
    folder = catalog / name
    built = tokenizer(NER_WORDS)
    labels = NER_LABELS if task is Task.NER else NEWS_LABELS
    torch.manual_seed(7)
    config = XLMRobertaConfig(
        vocab_size=built.get_vocab_size(),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=130,
        type_vocab_size=1,
        initializer_range=0.6,  # wide, so that labels differ from piece to piece
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    kind = (
        XLMRobertaForTokenClassification
        if task is Task.NER
        else XLMRobertaForSequenceClassification
    )
    model = kind(config)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=built,
        model_max_length=128,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
    ).save_pretrained(folder)
    variant = Variant(
        name=name,
        task=task,
        runtime=Runtime.TORCH,
        labels=labels,
        languages=("hau",),
        windows=windows or Windows(tokens=128, overlap=32),
        lineage=("Tiny()",),
        description="Random weights for tests",
        licence=Licence(name="Apache-2.0", sources=()),
        files=describe(folder),
        weights=census(folder, Runtime.TORCH),
        parameters=model.num_parameters(),
        sparsity=0.0,
        golden=(),
    )
    (folder / "variant.json").write_bytes(msgspec.json.encode(variant))
    return folder
