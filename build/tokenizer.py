"""
Train a tokenizer whose `tokenizer.json` says everything: normal form, splits, specials.

Words are split at white space and punctuation inside the tokenizer itself, and every piece of a
word starts from a marked word, so "Abuja ." and "Abuja." become the same pieces for every reader.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

# XLM-RoBERTa's specials in its order; <mask> comes last in the vocabulary.
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "<mask>"


def train(sentences: Sequence[str], vocabulary: int) -> Tokenizer:
    """Unigram pieces of at most `vocabulary` entries, specials and mask included."""
    openings = vocabulary // 20
    unigram = trainers.UnigramTrainer(
        vocab_size=vocabulary - openings - 1,  # those and the mask are added after
        special_tokens=list(SPECIALS),
        unk_token="<unk>",
        show_progress=True,
    )
    trained = dressed(Tokenizer(models.Unigram()))
    trained.train_from_iterator(sentences, unigram)
    pieces = _pieces(trained)
    pieces += missing_openings(trained, sentences[:: max(1, len(sentences) // 40_000)], openings)
    return _built([*pieces, (MASK, 0.0)])


def missing_openings(
    trained: Tokenizer, sample: Iterable[str], most: int
) -> list[tuple[str, float]]:
    """
    The most frequent pairs of the bare word mark and a piece, as pieces of their own.

    The trainer drops a piece that its parts spell more probably, and the word mark is so probable
    that "▁a" and "▁." go: an eighth of all pieces were then bare marks. Each pair scores just
    above its parts, so it replaces them and disturbs nothing else.
    """
    scores = dict(_pieces(trained))
    pairs: Counter[str] = Counter()
    for sentence in sample:
        tokens = trained.encode(sentence, add_special_tokens=False).tokens
        pairs.update(after for mark, after in pairwise(tokens) if mark == "▁" and after in scores)
    best = [piece for piece, _ in pairs.most_common(most) if f"▁{piece}" not in scores]
    return [(f"▁{piece}", scores["▁"] + scores[piece] + 0.1) for piece in best]


def _pieces(trained: Tokenizer) -> list[tuple[str, float]]:
    return [(piece, score) for piece, score in json.loads(trained.to_str())["model"]["vocab"]]


def _built(pieces: list[tuple[str, float]]) -> Tokenizer:
    return dressed(Tokenizer(models.Unigram(pieces, unk_id=SPECIALS.index("<unk>"))))


def dressed(bare: Tokenizer) -> Tokenizer:
    """The bare model with the normal form, splits and specials every tokenizer made here has."""
    bare.normalizer = normalizers.NFC()
    bare.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation("isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="always", split=False),
        ]
    )
    bare.decoder = decoders.Metaspace(prepend_scheme="always", split=False)
    known = [piece for piece in (*SPECIALS, MASK) if bare.token_to_id(piece) is not None]
    bare.add_special_tokens(known)
    bare.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", SPECIALS.index("<s>")), ("</s>", SPECIALS.index("</s>"))],
    )
    return bare


def save(trained: Tokenizer, folder: Path) -> None:
    """Write `tokenizer.json`, compact, and the file transformers reads beside it."""
    compact = json.dumps(json.loads(trained.to_str()), ensure_ascii=False, separators=(",", ":"))
    (folder / "tokenizer.json").write_text(compact, encoding="utf-8")
    names = {"bos": "<s>", "eos": "</s>", "cls": "<s>", "sep": "</s>", "unk": "<unk>"}
    config: dict[str, str | int] = {
        f"{role}_token": piece for role, piece in {**names, "pad": "<pad>", "mask": MASK}.items()
    }
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))


def balanced(files: dict[str, Iterable[str]], sentences: int, *, seed: int) -> Iterator[str]:
    """
    At most `sentences` sentences, an equal share a language, those with more text filling the rest.

    Equal shares give a language with little text the pieces it needs.
    """
    pools = {language: list(lines) for language, lines in files.items()}
    chance = random.Random(seed)
    left = sentences
    for count, language in enumerate(sorted(pools, key=lambda name: len(pools[name]))):
        share = left // (len(pools) - count)
        lines = pools[language]
        taken = lines if len(lines) <= share else chance.sample(lines, share)
        left -= len(taken)
        yield from taken
