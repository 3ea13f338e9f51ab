"""
Embeddings of pieces from how often they stand near each other, before anything is trained.

Positive pointwise mutual information, its contexts smoothed, and a truncated SVD of it: what
word2vec factorizes implicitly (Levy, Goldberg and Dagan 2015). Half a minute here stands for the
millions of tokens that a small network otherwise spends on learning which words are alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from build import stream
from build.checkpoint import TOKENIZER_FILES, copy_files
from build.steps import POSITIONS, CountEmbeddings
from build.tokenizer import SPECIALS

REACH = 5
SMOOTHING = 0.75
# How many positions are counted at once: a few hundred MB.
CHUNK = 4_000_000


def count_embeddings(step: CountEmbeddings, source: Path, target: Path, corpus: Path) -> None:
    """Read `source/tokenizer.json`; leave an encoder with untrained layers."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    ids = stream.pieces(tokenizer, corpus, step.tokens, seed=step.seed)
    torch.manual_seed(step.seed)
    network = XLMRobertaForMaskedLM(config(step, tokenizer.get_vocab_size()))
    table = network.get_input_embeddings().weight
    deviation = network.config.initializer_range
    found = embeddings(ids, len(table), step.hidden, deviation=deviation, seed=step.seed)
    with torch.no_grad():
        table[len(SPECIALS) : -1] = found[len(SPECIALS) : -1]
    network.save_pretrained(target)
    copy_files(source, target, TOKENIZER_FILES)


def config(step: CountEmbeddings, vocabulary: int) -> XLMRobertaConfig:
    return XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=step.hidden,
        num_hidden_layers=step.layers,
        num_attention_heads=step.heads,
        intermediate_size=step.inner,
        max_position_embeddings=POSITIONS + SPECIALS.index("<pad>") + 1,  # the first are no token's
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        bos_token_id=SPECIALS.index("<s>"),
        pad_token_id=SPECIALS.index("<pad>"),
        eos_token_id=SPECIALS.index("</s>"),
    )


def embeddings(
    ids: NDArray[np.int32], vocabulary: int, width: int, *, deviation: float, seed: int
) -> torch.Tensor:
    """
    Running text as pieces -> (vocabulary, width) float32.

    Rows are centred and have the length that numbers of that standard deviation would give;
    pieces that never occur, which say nothing, are small and random. Needs about 3 x 4 x
    vocabulary^2 bytes.
    """
    near = counts(ids, vocabulary)
    seen = near.sum(dim=1) > 0
    torch.manual_seed(seed)
    information = positive_information(near)
    left, strength, _ = torch.svd_lowrank(information, q=min(width + 16, vocabulary), niter=3)
    rows = left[:, :width] * strength[:width].sqrt()
    rows = functional.normalize(rows - rows[seen].mean(dim=0), dim=1) * deviation * width**0.5
    return torch.where(seen[:, None], rows, torch.randn_like(rows) * deviation)


def counts(ids: NDArray[np.int32], vocabulary: int) -> torch.Tensor:
    """(vocabulary, vocabulary), symmetric: 1 / distance for every two pieces within REACH."""
    stream = torch.from_numpy(ids.astype(np.int64))
    flat = torch.zeros(vocabulary * vocabulary)
    for distance in range(1, REACH + 1):
        for begin in range(0, len(stream) - distance, CHUNK):
            after = stream[begin + distance : begin + distance + CHUNK]
            before = stream[begin : begin + len(after)]
            share = torch.full((len(after),), 1 / distance)
            flat.index_add_(0, before * vocabulary + after, share)
    square = flat.view(vocabulary, vocabulary)
    return square + square.T


def positive_information(near: torch.Tensor) -> torch.Tensor:
    """max(0, log p(piece, context) / (p(piece) p(context)^SMOOTHING, made to sum to 1))."""
    pieces = near.sum(dim=1)
    contexts = pieces**SMOOTHING / (pieces**SMOOTHING).sum()
    expected = pieces[:, None] * contexts[None, :]
    return torch.where(near > 0, near / expected, torch.ones(())).log_().clamp_(min=0)
