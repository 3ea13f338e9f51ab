"""
Graph and tokenizer packed with zstd: the last thing that can be done to a variant's bytes.

Quantized weights are not evenly spread over their codes, so that an entropy coder shortens them
without loss (Mao et al. 2024, arXiv 2403.01384); build/entropy.py says by how much. Zeros that
pruning leaves take next to nothing. Knows nothing of weights: how a packed file is written and read
is in models/stored.py.

One plain zstd frame a file, so that `zstd -d` gives the file back. Storing the two bytes of 16-bit
weights apart would shorten float16 files further, and int8 files not at all.
"""

from __future__ import annotations

from pathlib import Path

from build.checkpoint import copy_files
from build.errors import BuildError
from build.graph import CARRIED, MODEL, PARITY
from build.steps import Pack
from models import stored
from models.pipeline import TOKENIZER

PACKABLE = (MODEL, TOKENIZER)


def pack(step: Pack, source: Path, target: Path) -> None:
    """
    Fill `target` with model.onnx.zst, tokenizer.json.zst and what a graph's checkpoint carries.

    Raises BuildError where there is no graph, it is packed already, or its weights lie beside it.
    """
    if stored.is_packed(source / MODEL):
        raise BuildError(f"{MODEL} is packed already: Pack is once, and last")
    if not (source / MODEL).is_file():
        raise BuildError(f"there is no {MODEL} to pack: Export comes before Pack")
    if (source / f"{MODEL}.data").exists():
        raise BuildError(
            f"{MODEL}.data is not packed: a graph over 2 GB is served as it is, without Pack"
        )
    copy_files(source, target, tuple(name for name in (*CARRIED, PARITY) if name not in PACKABLE))
    for name in PACKABLE:
        content = (source / name).read_bytes()
        (target / f"{name}{stored.PACKED}").write_bytes(stored.pack(content, step.level))
        if stored.read(target / name) != content:
            raise BuildError(f"{name} did not come back as it was: check the disk")
