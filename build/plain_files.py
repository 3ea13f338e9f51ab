"""
A published variant as the files that other software reads, as `make peers` hands to other servers.

Knows nothing of those servers.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np

from build.checkpoint import Purpose, copy_files, filled, write_purpose
from build.errors import BuildError
from build.graph import MODEL
from build.steps import Restore
from models import catalog, stored
from models.encode import Encoder
from models.pipeline import TOKENIZER
from models.spec import Runtime

LABELS = "labels.json"


def write_plain_files(variant: Path, target: Path, *, network: bool = False) -> None:
    """
    Fill `target` with model.onnx and tokenizer.json unpacked, and labels.json: the labels and how
    many tokens the model reads. `network`: also config.json, model.safetensors and
    tokenizer_config.json, a folder that transformers opens.

    Nothing is done where `target` holds these very weights. Raises BuildError.
    """
    manifest = catalog.read(variant)
    if manifest.runtime is not Runtime.ONNX:
        raise BuildError(f"{manifest.name} has no {MODEL}: {manifest.runtime} runs it")
    told = {
        "labels": list(manifest.labels),
        "tokens": manifest.windows.tokens,
        "digest": manifest.digest,
        "network": network,
    }
    if target.exists():
        known = target / LABELS
        if known.is_file() and known.read_text() == json.dumps(told):
            return
        raise BuildError(f"{target} holds something else: remove it")
    with filled(target) as draft:
        if draft is None:
            return
        for name in (MODEL, TOKENIZER):
            (draft / name).write_bytes(stored.read(variant / name))
        if network:
            _write_network(draft, Purpose.of(manifest))
        (draft / LABELS).write_text(json.dumps(told))


def _write_network(draft: Path, purpose: Purpose) -> None:
    from build.restore import restore

    with tempfile.TemporaryDirectory() as graph:
        copy_files(draft, Path(graph), (MODEL, TOKENIZER))
        write_purpose(Path(graph), purpose)
        restore(Restore(), Path(graph), draft)
    encoder = Encoder(draft / TOKENIZER, purpose.windows)
    opening, closing = encoder.pieces(encoder.encode("").windows[0].ids)
    (padding,) = encoder.pieces(np.array([encoder.pad_id]))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": purpose.windows.tokens,
        "bos_token": opening,
        "eos_token": closing,
        "pad_token": padding,
        "clean_up_tokenization_spaces": False,
    }
    (draft / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False))
