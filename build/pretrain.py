"""
Masked-language modelling of an XLM-RoBERTa-type encoder (Devlin et al. 2019).

The head is computed at masked positions only: with a small network the vocabulary product would
otherwise cost more than the encoder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import XLMRobertaForMaskedLM

from build import stream, training
from build.checkpoint import TOKENIZER_FILES, copy_files
from build.losses import IGNORED
from build.steps import Pretrain
from build.tokenizer import MASK, SPECIALS


def pretrain(step: Pretrain, source: Path, target: Path, corpus: Path, device: str) -> None:
    """Train the encoder in `source` on `corpus`; leave a masked-LM checkpoint in `target`."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    torch.manual_seed(step.seed)
    network = XLMRobertaForMaskedLM.from_pretrained(source, dtype=torch.float32)
    body = step.window - 2
    ids = stream.pieces(tokenizer, corpus, step.tokens, seed=step.seed)
    rows = ids[: len(ids) // body * body].reshape(-1, body)
    order = np.random.default_rng(step.seed).permutation(len(rows))
    size = max(1, step.batch_tokens // step.window)
    mask_id = tokenizer.get_vocab()[MASK]

    def batch(number: int) -> training.Batch:
        chosen = order[np.arange(number * size, (number + 1) * size) % len(order)]
        return masked(rows[chosen], mask_id, step.masked, seed=step.seed * 1_000_003 + number)

    training.fit(
        network,
        batch,
        _loss,
        steps=max(1, step.tokens // (size * step.window)),
        peak=step.peak,
        warmup=step.warmup,
        device=device,
        resume=target / "resume.pt",
        title="pretrain",
    )
    network.save_pretrained(target)
    copy_files(source, target, TOKENIZER_FILES)


def masked(rows: np.ndarray, mask_id: int, share: float, *, seed: int) -> training.Batch:
    """
    BERT's corruption: of the chosen positions 80 % become <mask>, 10 % a random piece.

    rows (batch, tokens) without specials -> input_ids, attention_mask, labels (batch, tokens + 2)
    """
    chance = np.random.default_rng(seed)
    chosen = chance.random(rows.shape) < share
    fate = chance.random(rows.shape)
    corrupted = np.where(chosen & (fate < 0.8), mask_id, rows)
    strangers = chance.integers(len(SPECIALS), mask_id, rows.shape)
    corrupted = np.where(chosen & (fate >= 0.8) & (fate < 0.9), strangers, corrupted)
    edges = [np.full((len(rows), 1), SPECIALS.index(piece)) for piece in ("<s>", "</s>")]
    silent = np.full((len(rows), 1), IGNORED)
    labels = np.hstack([silent, np.where(chosen, rows, IGNORED), silent])
    ids = np.hstack([edges[0], corrupted, edges[1]])
    return {
        "input_ids": torch.from_numpy(ids.astype(np.int64)),
        "attention_mask": torch.ones(ids.shape, dtype=torch.int64),
        "labels": torch.from_numpy(labels.astype(np.int64)),
    }


def _loss(network: torch.nn.Module, batch: training.Batch) -> torch.Tensor:
    model: XLMRobertaForMaskedLM = network
    # No attention mask: rows are full, and without one the fastest attention is taken.
    hidden = model.roberta(batch["input_ids"]).last_hidden_state
    wanted = batch["labels"] != IGNORED
    logits = model.lm_head(hidden[wanted])
    return functional.cross_entropy(logits.float(), batch["labels"][wanted])
