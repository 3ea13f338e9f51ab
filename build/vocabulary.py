"""
A vocabulary of the pieces that chosen languages need; the network around it stays as it is.

Most of a multilingual network is the embedding of pieces that one language never uses (Abdaoui et
al. 2020, arXiv 2010.05609); they can go after fine-tuning as well as before (Ushio et al. 2023,
arXiv 2305.15020). Weights are read by their names: knows nothing of what network they make.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tqdm import tqdm

from build import stream
from build.calibrate import dev_texts
from build.checkpoint import TOKENIZER_FILES, Purpose, copy_files, read_purpose, write_purpose
from build.data import DataError
from build.errors import BuildError
from build.graph import MODEL
from build.steps import TrimVocabulary
from models.encode import Encoder

WEIGHTS = "model.safetensors"
TOKENIZER, CONFIG = "tokenizer.json", "tokenizer_config.json"
# How names of weights with a row for each piece end; an encoder may have its pretraining head.
WORDS = ("word_embeddings.weight", "word_embeddings.0.weight")  # the latter is factorized
BY_PIECE = (*WORDS, "lm_head.bias", "lm_head.decoder.weight", "lm_head.decoder.bias")
# These ids must not move: positions are counted from the padding's, readers assume all three.
FIRST = ("bos_token_id", "pad_token_id", "eos_token_id")
MARK = "▁"
BYTE = re.compile("<0x[0-9A-F]{2}>")
SENTENCES = 100_000  # of each language: about a minute for nine
DEV_TEXTS = 3_000

Json = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """
    What another vocabulary does to texts.

    share    of the texts that become other pieces, 0 to 1
    pieces   a text, on average, before and after
    unknown  share of non-space characters in unknown or byte pieces, the mean over texts, likewise
    """

    share: float
    pieces: tuple[float, float]
    unknown: tuple[float, float]


def trim_vocabulary(step: TrimVocabulary, source: Path, target: Path, corpus: Path) -> None:
    """
    Leave `source` in `target` with fewer pieces: fine-tuned, or an encoder without task.json.

    Raises BuildError where there is no such network, its languages are others or its tokenizer is
    no Unigram; DataError where a language has no text.
    """
    _check_source(source)
    content = read_unigram(source / TOKENIZER)
    tokenizer = Tokenizer.from_file(str(source / TOKENIZER))
    _check_rows(source / WEIGHTS, tokenizer.get_vocab_size())
    purpose = read_purpose(source) if (source / "task.json").is_file() else None
    languages = chosen(step.languages, purpose)
    config: Json = json.loads((source / "config.json").read_bytes())
    if purpose:
        purpose = msgspec.structs.replace(purpose, languages=languages)
        dev = [each.text for each in dev_texts(purpose, corpus, DEV_TEXTS, seed=1)]
    shares = counted(tokenizer, sampled(stream.sentences(corpus), languages))
    first = {*tokenizer.encode("").ids, *(config[name] for name in FIRST if config.get(name))}
    kept = needed(content, shares, step.pieces, first)
    _write_tokenizer(content, kept, source, target)
    _check_pieces(tokenizer, Tokenizer.from_file(str(target / TOKENIZER)), kept)
    _write_network(config, kept, source, target)
    tqdm.write(f"{len(kept):,} of {len(shares):,} pieces are kept for {'+'.join(languages)}")
    if purpose:
        write_purpose(target, purpose)
        old, new = (Encoder(each / TOKENIZER, purpose.windows) for each in (source, target))
        tqdm.write(_read_out(changed(old, new, dev), len(dev)))


def chosen(languages: Sequence[str], purpose: Purpose | None) -> tuple[str, ...]:
    """The languages to keep, in the purpose's order; none named: all of the purpose's."""
    if purpose is None:
        if not languages:
            raise BuildError("an encoder is for no task yet: name the languages it is to keep")
        return tuple(dict.fromkeys(languages))
    if strange := sorted(set(languages) - set(purpose.languages)):
        raise BuildError(
            f"the checkpoint is not for {'+'.join(strange)}: keep some of "
            f"{'+'.join(purpose.languages)}"
        )
    return tuple(each for each in purpose.languages if not languages or each in languages)


def changed(old: Encoder, new: Encoder, texts: Sequence[str]) -> Change:
    """What reading the texts with `new` changes; ids may differ, pieces are compared as text."""
    others = 0
    counts, unknown = np.zeros(2), np.zeros(2)
    for text in texts:
        one, other = old.encode(text), new.encode(text)
        others += old.pieces(one.ids) != new.pieces(other.ids)
        counts += len(one.ids), len(other.ids)
        unknown += one.unknown, other.unknown
    before, after = (counts / max(1, len(texts))).tolist()
    unread, still_unread = (unknown / max(1, len(texts))).tolist()
    return Change(
        share=others / max(1, len(texts)),
        pieces=(before, after),
        unknown=(unread, still_unread),
    )


# --- which pieces -----------------------------------------------------------------------------


def sampled(found: Mapping[str, Iterable[str]], languages: Sequence[str]) -> dict[str, list[str]]:
    """At most `SENTENCES` sentences of each language, always the same. Raises DataError."""
    texts = {}
    for language in languages:
        lines = list(found.get(language, ()))
        if not lines:
            raise DataError(f"no text in {language}, so nothing says which pieces it needs")
        texts[language] = random.Random(1).sample(lines, min(len(lines), SENTENCES))
    return texts


def counted(tokenizer: Tokenizer, texts: Mapping[str, Sequence[str]]) -> Floats:
    """
    (vocabulary,): how large a share of a language's pieces each one is, the mean over languages.

    Shares, not counts: a language with little text gets the pieces it needs.
    """
    shares = np.zeros(tokenizer.get_vocab_size())
    tokenizer.encode_special_tokens = True  # as models/encode.py reads: "</s>" is text
    bar = tqdm(total=sum(map(len, texts.values())), desc="count pieces", mininterval=5)
    for lines in texts.values():
        counts = np.zeros(len(shares))
        for begin in range(0, len(lines), 2048):
            block = lines[begin : begin + 2048]
            for encoding in tokenizer.encode_batch_fast(block, add_special_tokens=False):
                counts += np.bincount(encoding.ids, minlength=len(shares))
            bar.update(len(block))
        shares += counts / max(1, counts.sum()) / len(texts)
    bar.close()
    return shares


def needed(content: Json, shares: Floats, most: int, first: Collection[int]) -> list[int]:
    """
    The ids to keep, ascending, so that specials stay in front and the mask behind.

    most   pieces at most, the frequent before the rare; 0 keeps every piece that occurs
    first  ids that must not move: nothing before the last of them goes

    Raises BuildError where more than `most` must be kept.
    """
    occurring = set(np.flatnonzero(shares).tolist())
    always = always_kept(content, occurring) | set(range(max(first) + 1))
    if most and len(always) > most:
        raise BuildError(
            f"specials and single characters alone are {len(always):,} pieces: "
            f"keep as many at least, not {most:,}"
        )
    by_use = sorted(occurring - always, key=lambda each: (-shares[each], each))
    return sorted(always | set(by_use[: most - len(always)] if most else by_use))


def always_kept(content: Json, occurring: Collection[int]) -> set[int]:
    """
    Specials, byte pieces, and what keeps a text of these characters from becoming unknown.

    That is every character by itself, at the start of a word and inside it; where one has no piece
    of its own, every occurring piece that has it. And the least probable piece: a Unigram model
    takes from it what an unknown character costs (10 less), which would otherwise decide anew
    between spellings.

    Byte pieces are not added where there are none: untrained, they could say no more than the
    unknown piece does, and one unknown word would become many of them.
    """
    model = content["model"]
    pieces: list[str] = [piece for piece, _ in model["vocab"]]
    kept = {each["id"] for each in content["added_tokens"]}
    kept |= {each for each in (model.get("unk_id"),) if each is not None}
    kept |= {place for place, piece in enumerate(pieces) if BYTE.fullmatch(piece)}
    least = min(range(len(pieces)), key=lambda place: model["vocab"][place][1])
    spelt = {pieces[place] for place in {*occurring, least} - kept}
    own = set(pieces) & {start + letter for letter in set("".join(spelt)) for start in ("", MARK)}
    homeless = set("".join(spelt)) - own
    own |= {piece for piece in spelt if homeless & set(piece)}
    return kept | {least} | {place for place, piece in enumerate(pieces) if piece in own}


# --- what is rewritten ------------------------------------------------------------------------


def read_unigram(file: Path) -> Json:
    """The content of a tokenizer.json. Raises BuildError where its model is another."""
    content: Json = json.loads(file.read_bytes())
    kind = content["model"].get("type", "of no stated type")
    if kind != "Unigram":
        raise BuildError(f"the tokenizer is {kind}: only a Unigram vocabulary is trimmed")
    return content


def trimmed(content: Json, kept: Sequence[int]) -> Json:
    """tokenizer.json with the pieces of those ids alone, numbered in their order."""
    new = _numbered(kept)
    model = content["model"]
    vocabulary = [model["vocab"][old] for old in kept if old < len(model["vocab"])]
    added = [{**each, "id": new[each["id"]]} for each in content["added_tokens"]]
    unknown = new.get(model.get("unk_id"))
    return {
        **content,
        "added_tokens": added,
        "model": {**model, "vocab": vocabulary, "unk_id": unknown},
    }


def shortened(weights: Mapping[str, torch.Tensor], kept: Sequence[int]) -> dict[str, torch.Tensor]:
    """The weights with the rows of those pieces alone; all others as they are."""
    rows = torch.tensor(kept)
    return {
        name: weight[rows] if name.endswith(BY_PIECE) else weight
        for name, weight in weights.items()
    }


def _write_tokenizer(content: Json, kept: Sequence[int], source: Path, target: Path) -> None:
    copy_files(source, target, TOKENIZER_FILES)
    compact = json.dumps(trimmed(content, kept), ensure_ascii=False, separators=(",", ":"))
    (target / TOKENIZER).write_text(compact, encoding="utf-8")
    if not (target / CONFIG).is_file():
        return
    config: Json = json.loads((target / CONFIG).read_bytes())
    if added := config.get("added_tokens_decoder"):  # id -> token, as transformers saved it
        new = _numbered(kept)
        config["added_tokens_decoder"] = {str(new[int(old)]): each for old, each in added.items()}
        (target / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False))


def _write_network(config: Json, kept: Sequence[int], source: Path, target: Path) -> None:
    new = _numbered(kept)
    moved = {
        name: new.get(value, value) for name, value in config.items() if name.endswith("_token_id")
    }
    config = {**config, **moved, "vocab_size": len(kept)}
    (target / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    with safe_open(source / WEIGHTS, framework="pt") as opened:
        weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        about = opened.metadata()
    save_file(shortened(weights, kept), target / WEIGHTS, metadata=about)


def _numbered(kept: Sequence[int]) -> dict[Any, int]:
    return {old: place for place, old in enumerate(kept)}


# --- checks -----------------------------------------------------------------------------------


def _check_source(source: Path) -> None:
    if (source / MODEL).is_file():
        raise BuildError(f"{MODEL} is made already: trim the vocabulary before Export")
    if not (source / WEIGHTS).is_file():
        raise BuildError(
            f"there is no network in {WEIGHTS} yet: a tokenizer alone is made smaller by "
            "TrainTokenizer's vocabulary"
        )


def _check_rows(file: Path, pieces: int) -> None:
    with safe_open(file, framework="pt") as opened:
        tables = [name for name in opened.keys() if name.endswith(WORDS)]  # noqa: SIM118
        if len(tables) != 1:
            raise BuildError(f"{file.name} holds {len(tables)} word embeddings, not one")
        rows = opened.get_slice(tables[0]).get_shape()[0]
    if pieces > rows:
        raise BuildError(f"the tokenizer has {pieces:,} pieces, the network knows {rows:,}")


def _check_pieces(old: Tokenizer, new: Tokenizer, kept: Sequence[int]) -> None:
    """What was written is read as it was meant: added tokens may be numbered with gaps."""
    meant = [old.id_to_token(each) for each in kept]
    if [new.id_to_token(place) for place in range(new.get_vocab_size())] != meant:
        raise BuildError(f"{TOKENIZER} does not number its pieces one after the other")


def _read_out(change: Change, texts: int) -> str:
    before, after = change.pieces
    unread, still_unread = change.unknown
    return (
        f"of {texts:,} dev texts {change.share:.2%} become other pieces: {before:.2f} -> "
        f"{after:.2f} a text, unknown {unread:.3%} -> {still_unread:.3%}"
    )
