"""
The studies as data: what is varied, and by which steps each row is made.

Knows nothing of how a row is made, scored or drawn. A row is a recipe whose end is what is studied;
where it begins at the published baseline, that is taken from the catalog.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice, product, zip_longest

import msgspec

from build.recipes import BASELINES, ENCODER, NER_BASE, NER_LANGUAGES, RECIPES, SENTENCES
from build.steps import (
    LINEARS,
    Bits,
    Block,
    Calibrate,
    Distill,
    Export,
    Factorize,
    Finetune,
    Prune,
    PruneStructure,
    Quantize,
    QuantizeBlocks,
    QuantizeStatic,
    Restore,
    RunWith,
    SkipAttention,
    Step,
    TrimVocabulary,
)
from models.spec import Input, Task

BASE = "ner-base"
EXPORT, BFLOAT16 = Export(weights="float16"), Export(weights="bfloat16")
DEPTH = 4
HEALED = 1  # epochs
TOY_ROWS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """
    One variant of a study.

    name       of the variant, unique over all studies
    at         column -> where it stands: the table's columns and the picture's axes
    steps      all of them, from nothing
    parent     what it is compared with: the baseline, or a row before it; None: nothing
    languages  it is scored in; none: those it is for
    inputs     how the texts are written that it is scored on
    """

    name: str
    at: Mapping[str, float | str]
    steps: tuple[Step, ...]
    parent: str | None = BASE
    languages: tuple[str, ...] = ()
    # Half the time is scoring, and only raw text is read off.
    inputs: tuple[Input, ...] = (Input.RAW,)


class Shown(StrEnum):
    """What a study shows of its rows."""

    F1 = "f1"
    CONFIDENCE = "confidence"
    STORAGE = "storage"
    LLM_INT8 = "llm-int8"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """
    along  the column that is drawn from left to right
    apart  the column whose values are drawn as lines of their own
    """

    title: str
    along: str
    apart: str
    rows: tuple[Row, ...]
    shown: Shown = Shown.F1

    @property
    def made(self) -> tuple[Row, ...]:
        """The rows, and before them the baseline, where it is compared with or there is no other"""
        if self.rows and all(row.parent != BASE for row in self.rows):
            return self.rows
        return (Row(name=BASE, at={}, steps=RECIPES[BASE], parent=None), *self.rows)


def toy(study: Study) -> Study:
    """The first rows of its lines, in turn: enough to see that it works."""
    lines: dict[float | str, list[Row]] = {}
    for row in study.rows:
        lines.setdefault(row.at[study.apart], []).append(row)
    turns = (row for turn in zip_longest(*lines.values()) for row in turn if row)
    return replace(study, rows=tuple(islice(turns, TOY_ROWS)))


def from_baseline(
    *steps: Step, export: Step = EXPORT, after: tuple[Step, ...] = ()
) -> tuple[Step, ...]:
    """
    The published baseline as it was trained, changed and exported as it was itself.

    Narrowed as it is only at the end, after what is done to the graph: who is taught here learns in
    the windows of its teacher, as in the recipes.
    """
    return (*NER_BASE, Restore(), *steps, export, *after, SENTENCES)


# --- distillation -----------------------------------------------------------------------------

# A fraction of the published student's schooling: depths and widths are compared with each other.
SCHOOL = Distill(layers=(DEPTH - 1,), epochs=1, transfer=10_000)
DEPTHS: dict[int, tuple[int, ...]] = {1: (3,), 2: (1, 3), 3: (0, 1, 3)}
# Heads of 64, as the teacher's.
WIDTHS: dict[int, Mapping[str, int]] = {
    384: {},
    256: {"width": 256, "heads": 4, "inner": 1024},
    128: {"width": 128, "heads": 2, "inner": 512},
}


def _student(depth: int, width: int) -> Row:
    step = msgspec.structs.replace(SCHOOL, layers=DEPTHS[depth], **WIDTHS[width])
    return Row(
        name=f"distilled-{depth}x{width}",
        at={"layers": depth, "width": width},
        steps=from_baseline(step),
    )


DISTILLATION = Study(
    title="Distillation: layers and width",
    along="layers",
    apart="width",
    rows=tuple(_student(depth, width) for width, depth in product(WIDTHS, DEPTHS)),
)

# --- pruning ----------------------------------------------------------------------------------

SPARSITIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
# A third of the baseline's fine-tuning, the dense control's too.
SHORT = Finetune(task=Task.NER, languages=NER_LANGUAGES, epochs=2)


def _pruned(sparsity: float, how: str) -> Row:
    step = Prune(sparsity=sparsity)
    steps = {
        "after, at once": from_baseline(step),
        "after, gradually": from_baseline(msgspec.structs.replace(step, epochs=HEALED)),
        "before": (*ENCODER, step, SHORT, Calibrate(), EXPORT, SENTENCES),
    }[how]
    name = f"pruned-{how.replace(', ', '-').replace(' ', '-')}-{100 * sparsity:.0f}"
    return Row(name=name, at={"sparsity": sparsity, "pruned": how}, steps=steps)


PRUNING = Study(
    title="Unstructured pruning: how many zeros, and when",
    along="sparsity",
    apart="pruned",
    rows=(
        *(_pruned(each, "after, at once") for each in SPARSITIES),
        *(_pruned(each, "after, gradually") for each in (0.7, 0.9)),
        Row(
            name="pruned-before-0",
            at={"sparsity": 0, "pruned": "before"},
            steps=(*ENCODER, SHORT, Calibrate(), EXPORT, SENTENCES),
        ),
        *(_pruned(each, "before") for each in (0.5, 0.9)),
    ),
)


def _cut(heads: float, columns: float, epochs: int) -> Row:
    healed = "healed" if epochs else "at once"
    what = "heads" if heads else "columns"
    share = heads or columns
    return Row(
        name=f"cut-{what}-{100 * share:.0f}-{healed.replace(' ', '-')}",
        at={"share": share, "cut": f"{what}, {healed}"},
        steps=from_baseline(PruneStructure(heads=heads, columns=columns, epochs=epochs)),
    )


STRUCTURE = Study(
    title="Structured pruning: heads and feed-forward columns",
    along="share",
    apart="cut",
    rows=(
        *(_cut(share, 0, 0) for share in (0.25, 0.5, 0.75)),
        *(_cut(share, 0, HEALED) for share in (0.25, 0.5)),
        *(_cut(0, share, 0) for share in (0.25, 0.5, 0.75)),
        *(_cut(0, share, HEALED) for share in (0.5, 0.75)),
    ),
)

# --- factors ----------------------------------------------------------------------------------

# Of matrix products two: scoring one takes a quarter of an hour.
BONDS = {"svd": (192, 128, 96, 64, 32), "mpo": (192, 96)}


def _factored(method: str, bond: int, epochs: int) -> Row:
    step = Factorize(method=method, bond=bond, epochs=epochs)  # type: ignore[arg-type]
    healed = ", healed" if epochs else ""
    return Row(
        name=f"{method}-{bond}{'-healed' if epochs else ''}",
        at={"bond": bond, "factors": f"{method}{healed}"},
        steps=from_baseline(step),
    )


FACTORIZE = Study(
    title="Factored layers: bond dimension",
    along="bond",
    apart="factors",
    rows=(
        *(_factored(method, bond, 0) for method, bonds in BONDS.items() for bond in bonds),
        *(_factored("svd", bond, HEALED) for bond in (128, 64, 32)),
        *(
            Row(
                name=f"embedding-{rank}",
                at={"bond": rank, "factors": "embedding alone"},
                steps=from_baseline(Factorize(embedding=rank)),
            )
            for rank in (192, 128, 96, 64, 32)
        ),
    ),
)

# Low enough to hurt, so that parts differ.
PROBE = 32
SENSITIVITY = Study(
    title="Which layer bears factors: one at a time",
    along="layer",
    apart="part",
    rows=tuple(
        Row(
            name=f"svd-{PROBE}-layer-{layer}-{part.replace('.', '-')}",
            at={"layer": layer, "part": part},
            steps=from_baseline(Factorize(bond=PROBE, layers=(layer,), parts=(part,))),
        )
        for part, layer in product(LINEARS, range(DEPTH))
    ),
)

# --- attention --------------------------------------------------------------------------------

ATTENTION = Study(
    title="Skipping attention in the last layers",
    along="skipped",
    apart="training",
    rows=tuple(
        Row(
            name=f"skipped-{last}{'-healed' if epochs else ''}",
            at={"skipped": last, "training": "healed" if epochs else "none"},
            steps=from_baseline(SkipAttention(last=last, epochs=epochs)),
        )
        for epochs, lasts in ((0, range(1, DEPTH + 1)), (HEALED, (2, DEPTH)))
        for last in lasts
    ),
)

# --- transfer ---------------------------------------------------------------------------------


# Swahili has relatives among the nine: kin is Bantu too, ibo, wol and yor are Niger-Congo. Hausa
# has none but Amharic, in another script. How far does each carry, alone and together? And left
# out itself, is Swahili better served by its relatives alone or by all there is?
TAUGHT: dict[str, tuple[str, ...]] = {
    "all nine": NER_LANGUAGES,
    "hau": ("hau",),
    "swa": ("swa",),
    "hau + swa": ("hau", "swa"),
    "ibo + kin + wol + yor": ("ibo", "kin", "wol", "yor"),
    "all but swa": tuple(each for each in NER_LANGUAGES if each != "swa"),
}


def _taught(trained: str, parent: str | None) -> Row:
    # Not calibrated: a temperature changes no label, and F1 is all that is read off.
    step = msgspec.structs.replace(SHORT, languages=TAUGHT[trained])
    return Row(
        name=_named(trained),
        at={"task": "entities", "trained on": trained},
        steps=(*ENCODER, step, EXPORT),
        parent=parent,
        languages=NER_LANGUAGES,
    )


def _read(trained: str, parent: str | None, *steps: Step) -> Row:
    return Row(
        name=_named(trained),
        at={"task": "topics", "trained on": trained},
        steps=steps,
        parent=parent,
        inputs=(Input.RAW, Input.HEADLINE),
    )


def _named(trained: str) -> str:
    return f"transfer-{trained.replace(' + ', '-').replace(' ', '-')}"


# The published baseline read articles: nothing is trained for it.
ARTICLES = RECIPES[BASELINES[Task.CLASSIFICATION]]
HEADLINES = tuple(
    msgspec.structs.replace(step, headlines=True) if isinstance(step, Finetune) else step
    for step in ARTICLES
)

TRANSFER = Study(
    title="Transfer: languages that were never trained on, and headlines against articles",
    along="trained on",
    apart="task",
    rows=(
        _taught("all nine", None),
        *(_taught(trained, _named("all nine")) for trained in TAUGHT if trained != "all nine"),
        _read("articles", None, *ARTICLES, Restore(), EXPORT),
        _read("headlines", _named("articles"), *HEADLINES),
    ),
    shown=Shown.TRANSFER,
)

# --- quantization -----------------------------------------------------------------------------

BITS: tuple[Bits, ...] = (8, 4)
BLOCKS: tuple[Block, ...] = (32, 128)


def _quantized(name: str, bits: int, how: str, *steps: Step) -> Row:
    return Row(name=name, at={"bits": bits, "how": how}, steps=from_baseline(after=steps))


QUANTIZATION = Study(
    title="Quantization: how many bits, and scaled by what",
    along="bits",
    apart="how",
    rows=(
        Row(
            name="bfloat16",
            at={"bits": 16, "how": "rounded to bfloat16"},
            steps=from_baseline(export=BFLOAT16),
        ),
        _quantized("int8-rows", 8, "dynamic, by row", Quantize()),
        *(
            _quantized(f"int{bits}-blocks-{block}", bits, f"blocks of {block}", step)
            for block in BLOCKS
            for bits in BITS
            for step in (QuantizeBlocks(bits=bits, block=block),)
        ),
        _quantized("int8-static-naive", 8, "static, all of it", QuantizeStatic(exclude=())),
        _quantized("int8-static", 8, "static, linear layers and embedding", QuantizeStatic()),
    ),
)

# --- vocabulary -------------------------------------------------------------------------------


def _trimmed(pieces: int, *languages: str) -> Row:
    kept = "+".join(languages) or "all nine"
    return Row(
        name=f"trimmed-{'-'.join(languages) or 'all'}-{pieces}",
        at={"pieces": pieces, "languages": kept},
        steps=from_baseline(TrimVocabulary(languages=languages, pieces=pieces)),
    )


VOCABULARY = Study(
    title="Trimming the vocabulary: how many pieces, for whom",
    along="pieces",
    apart="languages",
    rows=(
        *(_trimmed(pieces) for pieces in (16_000, 12_000, 8_000, 4_000)),
        *(_trimmed(pieces, "hau", "swa") for pieces in (8_000, 4_000, 2_000)),
        *(_trimmed(pieces, "amh") for pieces in (4_000, 2_000)),
    ),
)

# --- rows of the above, looked at otherwise ---------------------------------------------------


def _again(title: str, shown: Shown, *names: str) -> Study:
    """The named rows of other studies, which need not be made twice."""
    studies = (DISTILLATION, PRUNING, STRUCTURE, FACTORIZE, ATTENTION, QUANTIZATION, VOCABULARY)
    rows = {row.name: row for study in studies for row in study.rows}
    return Study(
        title=title,
        along="variant",
        apart="variant",
        rows=tuple(replace(rows[name], at={"variant": name}) for name in names),
        shown=shown,
    )


CALIBRATION = _again(
    "Confidence: how sure compressed models are, and of what they change their mind",
    Shown.CONFIDENCE,
    "int8-rows",
    "int4-blocks-32",
    "int8-static",
    "int8-static-naive",
    "pruned-after-at-once-50",
    "svd-128",
    "skipped-1",
)

ENTROPY = _again(
    "Entropy: what stored weights are worth",
    Shown.STORAGE,
    "bfloat16",
    "int8-rows",
    "int8-static",
    "int8-blocks-32",
    "int4-blocks-32",
    "int4-blocks-128",
    "pruned-after-at-once-50",
    "pruned-after-at-once-90",
)

OPENVINO = Study(
    title="OpenVINO: another runtime",
    along="bits",
    apart="how",
    rows=(
        Row(
            name="openvino-bfloat16",
            at={"bits": 16, "how": "bfloat16, nothing quantized"},
            steps=from_baseline(export=BFLOAT16, after=(RunWith(),)),
        ),
        _quantized("openvino-static", 8, "static int8", QuantizeStatic(), RunWith()),
    ),
)

LLM_INT8 = Study(
    title="LLM.int8(): outliers in floats, all else in int8",
    along="network",
    apart="network",
    rows=(),  # it is no variant: it answers differently in company
    shown=Shown.LLM_INT8,
)

STUDIES: dict[str, Study] = {
    "distillation": DISTILLATION,
    "pruning": PRUNING,
    "structure": STRUCTURE,
    "factorize": FACTORIZE,
    "sensitivity": SENSITIVITY,
    "attention": ATTENTION,
    "transfer": TRANSFER,
    "quantization": QUANTIZATION,
    "vocabulary": VOCABULARY,
    "calibration": CALIBRATION,
    "entropy": ENTROPY,
    "openvino": OPENVINO,
    "llm-int8": LLM_INT8,
}
