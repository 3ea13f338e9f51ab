"""
Masked-language modelling of a fresh XLM-RoBERTa-type encoder (Devlin et al. 2019).

The head is computed at masked positions only: with a small network the vocabulary product would
otherwise cost more than the encoder.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch.nn import functional
from tqdm import tqdm
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

from build import data, training
from build.checkpoint import TOKENIZER_FILES, copy_files
from build.steps import Pretrain
from build.tokenizer import MASK, SPECIALS

IGNORED = -100


def pretrain(step: Pretrain, source: Path, target: Path, corpus: Path, device: str) -> None:
    """Read `source/tokenizer.json`, train on `corpus`, leave a masked-LM checkpoint in `target`."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    torch.manual_seed(step.seed)
    network = XLMRobertaForMaskedLM(config(step, tokenizer.get_vocab_size()))
    body = step.window - 2
    ids = np.fromiter(_stream(tokenizer, corpus, step), np.int32, count=-1)
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


def config(step: Pretrain, vocabulary: int) -> XLMRobertaConfig:
    return XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=step.hidden,
        num_hidden_layers=step.layers,
        num_attention_heads=step.heads,
        intermediate_size=step.inner,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        bos_token_id=SPECIALS.index("<s>"),
        pad_token_id=SPECIALS.index("<pad>"),
        eos_token_id=SPECIALS.index("</s>"),
    )


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


def _stream(tokenizer: Tokenizer, corpus: Path, step: Pretrain) -> Iterator[int]:
    """Pieces of as much text as the budget asks for (all of it once, if it asks for more)."""
    wanted = step.tokens
    bar = tqdm(total=wanted, desc="encode text", unit="token", mininterval=5)
    lines = mixed(texts(corpus), seed=step.seed)
    while bar.n < wanted and (block := [line for _, line in zip(range(2048), lines, strict=False)]):
        for encoding in tokenizer.encode_batch(block, add_special_tokens=False):
            bar.update(len(encoding.ids))
            yield from encoding.ids
    bar.close()


def texts(corpus: Path) -> dict[str, list[str]]:
    """Language -> blocks of running text: plain sentences joined by twenties, and training news."""
    found: dict[str, list[str]] = {}
    for language, file in data.plain_text(corpus).items():
        lines = list(data.read_plain(file))
        found[language] = [" ".join(lines[i : i + 20]) for i in range(0, len(lines), 20)]
    for folder in sorted((corpus / "news").glob("*/")):
        articles = data.articles(corpus, folder.name, "train")
        found.setdefault(folder.name, []).extend(article.text for article in articles)
    return found


def mixed(blocks: dict[str, list[str]], *, seed: int, power: float = 0.5) -> Iterator[str]:
    """
    Blocks of all languages, each drawn with its size to the `power`; a language that runs out
    begins again. Ends when the largest has been read once.
    """
    chance = random.Random(seed)
    pools = {language: chance.sample(lines, len(lines)) for language, lines in blocks.items()}
    sizes = {language: sum(map(len, lines)) for language, lines in pools.items()}
    names = sorted(pools)
    weights = [sizes[name] ** power / max(1, sizes[name] // len(pools[name])) for name in names]
    places = dict.fromkeys(names, 0)
    largest = max(names, key=lambda name: sizes[name])
    while places[largest] < len(pools[largest]):
        name = chance.choices(names, weights)[0]
        yield pools[name][places[name] % len(pools[name])]
        places[name] += 1


def sentences(corpus: Path) -> dict[str, Iterable[str]]:
    """Language -> sentences a tokenizer is trained on: the same text, and tagged training text."""
    found: dict[str, list[str]] = {}
    for language, file in data.plain_text(corpus).items():
        found[language] = list(data.read_plain(file))
    for folder in sorted((corpus / "news").glob("*/")):
        lines = found.setdefault(folder.name, [])
        for article in data.articles(corpus, folder.name, "train"):
            lines.extend(article.text.split("\n"))
    for folder in sorted((corpus / "ner").glob("*/")):
        lines = found.setdefault(folder.name, [])
        lines.extend(s.text for s in data.sentences(corpus, folder.name, "train", raw=True))
    return dict(found)
