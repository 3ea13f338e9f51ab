"""
LLM.int8() beside the floats it is made of: scored through the pipeline that serves, run by torch.

On the CPU and, where one is there, on the GPU: bitsandbytes has kernels of its own for each. Not a
variant, since a stranger's text moves an answer there (build/llm_int8.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from build.chart import COLOURS, picture
from build.checkpoint import Checkpoint, read_purpose
from build.evaluate import Answers, ask_all, gold, judged
from build.figures import interleave, ratios
from build.golden import golden_texts
from build.llm_int8 import stored_bytes, to_llm_int8
from build.networks import load
from build.publish import read
from build.restore import fetch, restore
from build.steps import Restore
from build.studies.measured import ALL, Figures
from build.studies.plan import BASE
from models.encode import Encoder
from models.pipeline import TOKENIZER, Pipeline
from models.session import Halt
from models.spec import Input, Interval, Variant

ROUNDS = 5
FLOATS = "float32"


def measure(root: Path, names: Sequence[str], corpus: Path) -> dict[str, dict[str, Figures]]:
    """
    f1, minus   macro F1 on raw test text, and minus the float network's, paired, with intervals
    megabytes   of weights and scales
    faster      tokens/s against the float network on the same hardware, a text at a time

    A line for each hardware and for the float network there. Raises BuildError where bitsandbytes
    is missing.
    """
    variant = read(root, BASE)
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return {
        name: figures
        for device in devices
        for name, figures in _on(root / BASE, variant, corpus, device).items()
    }


def _on(folder: Path, variant: Variant, corpus: Path, device: str) -> dict[str, dict[str, Figures]]:
    hardware = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    floats, int8 = _network(folder, variant), to_llm_int8(_network(folder, variant).to(device))
    opened = {
        FLOATS: Pipeline(variant, _encoder(folder, variant), _Torch(floats.to(device), device)),
        "LLM.int8()": Pipeline(variant, _encoder(folder, variant), _Torch(int8, device)),
    }
    said = {
        name: ask_all(variant, pipe.answer, corpus, "test", (Input.RAW,))
        for name, pipe in opened.items()
    }
    rates = interleave({name: partial(_rate, pipe) for name, pipe in opened.items()}, ROUNDS)
    found = {}
    for name, answers in said.items():
        lines = _scores(variant, corpus, answers, said[FLOATS])
        faster = float(np.mean(ratios(rates[name], rates[FLOATS])))
        size = stored_bytes(floats if name == FLOATS else int8) / 1e6
        found[f"{name}, {hardware}"] = {
            language: {**figures, "megabytes": size, "faster": faster}
            for language, figures in lines.items()
        }
    return found


def _network(folder: Path, variant: Variant) -> Any:
    """The published graph as the torch network it was traced from."""
    with TemporaryDirectory() as room:
        graph = Checkpoint(Path(room) / "graph", variant.lineage)
        fetch(graph, folder.parent)
        (Path(room) / "network").mkdir()
        restore(Restore(), graph.folder, Path(room) / "network")
        return load(Path(room) / "network", read_purpose(Path(room) / "network"))


def _encoder(folder: Path, variant: Variant) -> Encoder:
    return Encoder(folder / TOKENIZER, variant.windows)


class _Torch:
    """A session that runs a network on a device."""

    multiple = 1

    def __init__(self, network: Any, device: str) -> None:
        self._network = network
        self._device = device

    def run(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], halt: Halt | None = None
    ) -> NDArray[np.float32]:
        inputs = {
            name: torch.from_numpy(array).to(self._device)
            for name, array in (("input_ids", ids), ("attention_mask", mask))
        }
        with torch.inference_mode():
            logits: NDArray[np.float32] = self._network(**inputs).logits.float().cpu().numpy()
        return logits


def _rate(pipeline: Pipeline) -> float:
    """Tokens a second over the project's own texts, one at a time."""
    encoded = [pipeline.encode(each.text) for each in golden_texts(pipeline.variant)]
    begun = perf_counter()
    for each in encoded:
        pipeline.run(each.windows)
    return sum(len(each.ids) for each in encoded) / (perf_counter() - begun)


def _scores(
    variant: Variant,
    corpus: Path,
    mine: Mapping[Input, Answers],
    base: Mapping[Input, Answers],
) -> dict[str, Figures]:
    assert variant.evidence
    wanted = gold(variant, corpus, "test", (Input.RAW,))
    evidence = judged(variant.evidence, variant, wanted, mine, base)
    scores, apart = evidence.quality["f1"][Input.RAW], evidence.difference["f1"][Input.RAW]
    pairs = {ALL: (scores.macro, apart.macro)} | {
        language: (f1, apart.languages[language]) for language, f1 in scores.languages.items()
    }
    return {name: _flat("f1", f1) | _flat("minus", minus) for name, (f1, minus) in pairs.items()}


def _flat(name: str, of: Interval) -> Figures:
    return {name: of.mean, f"{name}_low": of.low, f"{name}_high": of.high}


def draw(found: Mapping[str, Mapping[str, Figures]], file: Path) -> None:
    """F1 minus the float network's, a row a language."""
    rows = {name: of for name, of in found.items() if not name.startswith(FLOATS)}
    languages = list(next(iter(rows.values())))
    with picture(file, (7.5, 0.9 + 0.3 * len(languages)), grid="x") as axes:
        axes.axvline(0, color="#000000", linewidth=0.8, label=FLOATS)
        for place, (name, of) in enumerate(rows.items()):
            mean, low, high = (
                np.array([of[each][key] for each in languages])
                for key in ("minus", "minus_low", "minus_high")
            )
            axes.errorbar(
                mean,
                np.arange(len(languages)) + 0.2 * place,
                xerr=(np.maximum(mean - low, 0), np.maximum(high - mean, 0)),
                fmt="o",
                color=COLOURS[place + 1],
                markersize=4,
                linewidth=1.2,
                label=name,
            )
        axes.set_yticks(range(len(languages)), languages)
        axes.invert_yaxis()
        axes.set_xlabel("F1 minus the float network's, with 95 % interval")
