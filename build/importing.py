"""
Other people's XLM-RoBERTa-type checkpoints, from a folder or the hub, as checkpoints of ours.

Two ways in: an encoder to fine-tune here (`--base`), or a fine-tuned network to serve as it is.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, normalizers
from transformers import AutoConfig, AutoModel, XLMRobertaTokenizer

from build.checkpoint import (
    TOKENIZER_FILES,
    Checkpoint,
    Purpose,
    copy_files,
    filled,
    write_purpose,
)
from build.errors import BuildError
from build.form import Form
from build.networks import AUTO, longest_window
from models.encode import Encoder
from models.errors import BrokenVariant
from models.spec import Task, Windows

ARCHITECTURE = "xlm-roberta"
SENTENCEPIECE = "sentencepiece.bpe.model"
LONGEST_WINDOW = 512
OVERLAP = {Task.NER: 128, Task.CLASSIFICATION: 0}
UNDETERMINED = "und"  # ISO 639-3 for a language nobody named
HEADS = {Task.NER: "classifier.weight", Task.CLASSIFICATION: "classifier.out_proj.weight"}
SAFE, PICKLED = "model*.safetensors", "pytorch_model*.bin"
SMALL_FILES = ("config.json", SENTENCEPIECE, *TOKENIZER_FILES)
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What the person who imports says of a checkpoint; empty means: as its files say."""

    task: Task
    labels: tuple[str, ...] = ()
    languages: tuple[str, ...] = (UNDETERMINED,)
    multi_label: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """A folder on this disk and what to call it."""

    folder: Path
    name: str


# --- where from -------------------------------------------------------------------------------


def find(source: str, *, hub_cache: Path | None = None) -> Origin:
    """A checkpoint folder, or a hub id, downloaded into the hub's own cache. Raises BuildError."""
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Origin(folder, folder.resolve().name)
    if not HUB_ID.fullmatch(source):
        raise BuildError(f"{source} is neither a folder nor a hub id such as owner/name")
    downloaded = _download(source, [*SMALL_FILES, SAFE], hub_cache)
    if not list(downloaded.glob(SAFE)):
        downloaded = _download(source, [*SMALL_FILES, PICKLED], hub_cache)
    return Origin(downloaded, f"{source}@{downloaded.name[:12]}")


def _download(hub_id: str, patterns: list[str], hub_cache: Path | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns, cache_dir=hub_cache))
    except RepositoryNotFoundError as error:
        raise BuildError(
            f"the hub has no model {hub_id}, or it is private: log in first"
        ) from error
    except Exception as error:  # the client's own classes, its transport's and the system's
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise BuildError(
            f"the hub is not reached and {hub_id} is not in its cache here: download the folder "
            f"elsewhere and give its path instead ({reason})"
        ) from error


# --- what it becomes --------------------------------------------------------------------------


def form(origin: Origin) -> Form:
    """The form of the encoder, as its config has it. Raises BuildError."""
    config = _config(origin)
    return Form(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        inner=config.intermediate_size,
        positions=longest_window(config),
        vocabulary=config.vocab_size,
    )


def adopt_encoder(origin: Origin, cache: Path) -> Checkpoint:
    """An encoder to fine-tune: its own tokenizer, its weights as safetensors, no head."""
    config = _config(origin)
    checkpoint = _named("Base", origin, cache, b"")
    with filled(checkpoint.folder) as draft:
        if draft:
            network = _loaded(AutoModel, origin, config, add_pooling_layer=False)
            network.save_pretrained(draft)
            adopt_tokenizer(origin, draft, config.vocab_size)
    return checkpoint


def adopt_finetuned(origin: Origin, wishes: Wishes, cache: Path) -> Checkpoint:
    """A fine-tuned network to export as it is, with its task.json."""
    config = _config(origin)
    purpose = _purpose(origin, config, wishes)
    asked = msgspec.json.encode(purpose)
    checkpoint = _named(f"Import {wishes.task}", origin, cache, asked)
    with filled(checkpoint.folder) as draft:
        if draft:
            config.id2label = dict(enumerate(purpose.labels))
            config.label2id = {label: index for index, label in enumerate(purpose.labels)}
            network = _loaded(AUTO[wishes.task], origin, config)
            network.save_pretrained(draft)
            adopt_tokenizer(origin, draft, config.vocab_size)
            write_purpose(draft, purpose)
            _check_encoder(draft, purpose)
    return checkpoint


def stored_at_half(origin: Origin) -> bool:
    """Whether every weight is stored as float16: then 16 bits hold the network exactly."""
    kinds = {each.dtype for each in _stored(origin).values()}
    floats = {dtype for dtype in kinds if "f" in dtype.lower()}  # F16, BF16, torch.float16 ...
    return floats <= {"F16", "torch.float16"}


def adopt_tokenizer(origin: Origin, target: Path, vocabulary: int) -> None:
    """Copy tokenizer.json, or make it from the SentencePiece model. Raises BuildError."""
    copy_files(origin.folder, target, TOKENIZER_FILES)
    if not (target / "tokenizer.json").is_file():
        if not (origin.folder / SENTENCEPIECE).is_file():
            raise BuildError(f"{origin.name} has neither tokenizer.json nor {SENTENCEPIECE}")
        convert_sentencepiece(origin.folder).save(str(target / "tokenizer.json"))
    try:
        pieces = Tokenizer.from_file(str(target / "tokenizer.json")).get_vocab_size()
    except Exception as error:  # tokenizers raises Exception itself
        raise BuildError(f"{origin.name}: tokenizer.json does not load: {error}") from error
    if pieces > vocabulary:
        raise BuildError(
            f"{origin.name}: the tokenizer has {pieces} pieces, the network knows {vocabulary}"
        )


def convert_sentencepiece(folder: Path) -> Tokenizer:
    """
    The tokenizer of a folder with only a SentencePiece model, reading as SentencePiece does.

    Composing letters first is ours: without it the converted normaliser drops the second mark of
    a decomposed letter, as in Yoruba "o" with dot and accent; SentencePiece keeps it.
    """
    converted: Tokenizer = XLMRobertaTokenizer.from_pretrained(folder).backend_tokenizer
    if converted.normalizer is not None:
        converted.normalizer = normalizers.Sequence([normalizers.NFC(), converted.normalizer])
    return converted


# --- checks -----------------------------------------------------------------------------------


def _config(origin: Origin) -> Any:
    file = origin.folder / "config.json"
    if not file.is_file():
        raise BuildError(f"{origin.name} has no config.json: give a Hugging Face checkpoint folder")
    try:
        kind = json.loads(file.read_bytes()).get("model_type", "unknown")
    except (ValueError, AttributeError) as error:
        raise BuildError(f"{origin.name}: config.json cannot be read: {error}") from error
    if kind != ARCHITECTURE:
        raise BuildError(
            f"{origin.name} is of type {kind}; accepted is {ARCHITECTURE} "
            "(XLM-R, AfriBERTa, AfroXLMR and what is fine-tuned from them)"
        )
    return AutoConfig.from_pretrained(origin.folder)


def _files(origin: Origin) -> list[Path]:
    """The weights: safetensors where there are any, else pickled ones."""
    for pattern in (SAFE, PICKLED):
        if found := sorted(origin.folder.glob(pattern)):
            return found
    raise BuildError(f"{origin.name} holds no weights: wants {SAFE} or {PICKLED}")


class _Stored(NamedTuple):
    shape: tuple[int, ...]
    dtype: str  # as the file's format writes it


def _stored(origin: Origin) -> dict[str, _Stored]:
    """What the weights' files hold, by name; nothing is loaded. Raises BuildError."""
    found: dict[str, _Stored] = {}
    for file in _files(origin):
        try:
            found |= _safe(file) if file.suffix == ".safetensors" else _pickled(file)
        except Exception as error:  # safetensors, pickle and torch each have their own
            reason = str(error).strip().partition("\n")[0]
            raise BuildError(f"{origin.name}: {file.name} cannot be read: {reason}") from error
    return found


def _safe(file: Path) -> dict[str, _Stored]:
    with safe_open(file, framework="np") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {
            name: _Stored(tuple(each.get_shape()), str(each.get_dtype()))
            for name, each in slices.items()
        }


def _pickled(file: Path) -> dict[str, _Stored]:
    tensors = torch.load(file, map_location="meta", weights_only=True)
    return {name: _Stored(tuple(each.shape), str(each.dtype)) for name, each in tensors.items()}


def _purpose(origin: Origin, config: Any, wishes: Wishes) -> Purpose:
    tokens = min(LONGEST_WINDOW, longest_window(config))
    overlap = min(OVERLAP[wishes.task], tokens // 4)
    many = wishes.multi_label or config.problem_type == "multi_label_classification"
    return Purpose(
        task=wishes.task,
        labels=_labels(origin, config, _outputs(origin, wishes.task), wishes),
        languages=wishes.languages,
        windows=Windows(tokens=tokens, overlap=overlap),
        multi_label=many and wishes.task is Task.CLASSIFICATION,
    )


def _outputs(origin: Origin, task: Task) -> int:
    """How many labels the head tells apart."""
    stored = _stored(origin)
    if HEADS[task] in stored:
        return stored[HEADS[task]].shape[0]
    for other, head in HEADS.items():
        if head in stored:
            raise BuildError(f"{origin.name} has a head for {other}: give --task {other}")
    raise BuildError(
        f"{origin.name} has no trained head: fine-tune it first, here with "
        "python -m build RECIPE --base"
    )


def _labels(origin: Origin, config: Any, outputs: int, wishes: Wishes) -> tuple[str, ...]:
    if wishes.labels:
        if len(wishes.labels) != outputs or len(set(wishes.labels)) != outputs:
            raise BuildError(
                f"{origin.name} tells {outputs} labels apart, --labels names "
                f"{len(set(wishes.labels))}: {', '.join(wishes.labels)}"
            )
        return wishes.labels
    named = config.id2label or {}
    labels = tuple(str(named.get(index, f"LABEL_{index}")) for index in range(outputs))
    if any(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        raise BuildError(
            f"{origin.name} does not name its labels: give --labels with {outputs} names in the "
            "order of its outputs, separated by commas"
        )
    return labels


def _loaded(auto: Any, origin: Origin, config: Any, **options: Any) -> Any:
    """The network in float32 with every weight found in the files. Raises BuildError."""
    try:
        network, report = auto.from_pretrained(
            origin.folder,
            config=config,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            **options,
        )
    except Exception as error:  # transformers, safetensors and torch each have their own
        reason = str(error).strip().partition("\n")[0]
        raise BuildError(f"{origin.name} does not load: {reason}") from error
    if missing := sorted(report["missing_keys"]):
        raise BuildError(f"{origin.name} lacks {len(missing)} weights, {missing[0]} first")
    return network


def _check_encoder(folder: Path, purpose: Purpose) -> None:
    try:
        Encoder(folder / "tokenizer.json", purpose.windows)
    except BrokenVariant as error:
        raise BuildError(str(error)) from error


# --- folders ----------------------------------------------------------------------------------


def _named(what: str, origin: Origin, cache: Path, asked: bytes) -> Checkpoint:
    """Named by what is in the files, so that a changed checkpoint is another one."""
    digest = hashlib.sha256(asked)
    small = (origin.folder / name for name in SMALL_FILES)
    for file in (*_files(origin), *(each for each in small if each.is_file())):
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    short = digest.hexdigest()[:12]
    return Checkpoint(cache / f"adopted-{short}", (f"{what}({origin.name}, sha256={short})",))
