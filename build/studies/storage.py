"""
What stored weights are worth, and what packing makes of them: entropy beside bytes and load time.

Load times are of a fresh process each and want a machine at rest. Knows no gold labels.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from build.chart import COLOURS, picture
from build.entropy import of_folder
from build.measure import LOADS, load_alone
from build.pack import PACKABLE
from build.publish import read
from build.steps import Pack
from build.studies.measured import ALL, Figures, kept
from models import stored

BITS = 8
BARS = {"stored": "as stored", "packed_bits": "packed with zstd", "entropy": "entropy"}


def measure(root: Path, names: Sequence[str], corpus: Path) -> dict[str, dict[str, Figures]]:
    """
    stored, entropy, packed_bits  bits a weight, its share of the scales and zero points counted:
                                  as it lies, in an ideal code, packed with zstd
    megabytes, packed_megabytes   of graph and tokenizer
    load_seconds, packed_ ...     from folder to first answer, the median of a few
    """
    return {
        name: kept(root, variant, "bits", partial(_of, root / name, variant.parameters))
        for name in names
        if (variant := read(root, name))
    }


def _of(folder: Path, weights: int) -> dict[str, Figures]:
    found = of_folder(folder)
    plain = {name: (folder / name).stat().st_size for name in PACKABLE}
    with TemporaryDirectory() as room:
        packed = Path(room) / folder.name
        sizes = _packed(folder, packed)
        slow, fast = (
            float(np.median([load_alone(each)[0] for _ in range(LOADS)]))
            for each in (packed, folder)
        )
    figures = {
        "weights": float(weights),
        "stored": found.stored / weights,
        "entropy": found.ideal / weights,
        "packed_bits": BITS * sizes[PACKABLE[0]] / weights,
        "megabytes": sum(plain.values()) / 1e6,
        "packed_megabytes": sum(sizes.values()) / 1e6,
        "load_seconds": fast,
        "packed_load_seconds": slow,
    }
    return {ALL: figures}


def _packed(folder: Path, target: Path) -> dict[str, int]:
    """The same variant packed, good for loading alone: its manifest still says the plain files."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*PACKABLE))
    sizes = {}
    for name in PACKABLE:
        content = stored.pack((folder / name).read_bytes(), Pack().level)
        (target / f"{name}{stored.PACKED}").write_bytes(content)
        sizes[name] = len(content)
    return sizes


def draw(found: Mapping[str, Mapping[str, Figures]], file: Path) -> None:
    """A bar each for a weight's bits as stored, packed, and in an ideal code."""
    rows = np.arange(len(found))
    with picture(file, (7.5, 0.8 + 0.55 * len(found)), grid="x") as axes:
        for place, (key, label) in enumerate(BARS.items()):
            bits = [each[ALL][key] for each in found.values()]
            axes.barh(rows + (place - 1) * 0.26, bits, 0.24, color=COLOURS[place + 1], label=label)
        axes.set_yticks(rows, list(found))
        axes.invert_yaxis()
        axes.set_xlabel("bits a weight")
