"""The whole catalogue on one screen: a recipe is a named tuple of steps. Data, no code."""

from __future__ import annotations

import msgspec

from build.steps import (
    Calibrate,
    CountEmbeddings,
    Distill,
    Export,
    Factorize,
    Finetune,
    NarrowWindows,
    Pack,
    PruneStructure,
    Quantize,
    Restore,
    SkipFeedForward,
    Step,
    TrainTokenizer,
    TrimPositions,
)
from models.spec import Task

NER_LANGUAGES = ("amh", "hau", "ibo", "kin", "luo", "pcm", "swa", "wol", "yor")
NEWS_LANGUAGES = ("amh", "hau", "ibo", "orm", "pcm", "run", "som", "swa", "tir", "yor")

# The shape fits two baselines at 16 bits and their int8 variants into 45 MB of git.
ENCODER = (
    TrainTokenizer(vocabulary=20_000),
    CountEmbeddings(layers=4, hidden=384, heads=6, inner=1536),
)
NER = (*ENCODER, Finetune(task=Task.NER, languages=NER_LANGUAGES, epochs=6))
NEWS = (
    *ENCODER,
    Finetune(task=Task.CLASSIFICATION, languages=NEWS_LANGUAGES, epochs=3, overlap=0),
)
# Every other layer of the baseline: half the work, which int8 doubles again.
NER_HALF = Distill(layers=(1, 3), epochs=2)
NEWS_HALF = Distill(layers=(1, 3), epochs=2, transfer=10_000)

# Taught by single sentences: of entities in running text windows of 256 lost 0.05 of F1.
SENTENCES = NarrowWindows(tokens=128, overlap=32)

# Scores that mean what they say, in half the bytes.
HALF_BYTES = (Calibrate(), Export(weights="float16"))
# Products of int8, an embedding of 4 bits: it is most of the bytes and none of the products.
FEWEST_BYTES = (TrimPositions(), *HALF_BYTES, Quantize(embedding=4), Pack())

# A third of the heads and a sixth of the columns of what the half-depth student has. Half and a
# third have 0.003 of F1 more and take a third longer. Healed on gold alone, at half the rate and
# with dropout, those had 0.011 less.
NER_SIXTH = PruneStructure(
    heads=0.67, columns=0.83, epochs=4, peak=8e-4, transfer=50_000, dropout=0.0
)
NEWS_THIRD = PruneStructure(heads=0.5, columns=0.67, epochs=2, peak=4e-4)
# Both layers with one head each, for in one layer, however wide, words meet once; only the second
# has a feed-forward half, with a sixteenth of its columns. So little is left that gold alone
# teaches it too little.
NER_SLIVER = (
    Factorize(embedding=96, epochs=1, peak=3e-4, transfer=50_000, dropout=0.0),
    PruneStructure(heads=0.9, columns=0.94, epochs=4, peak=1e-3, transfer=50_000, dropout=0.0),
    SkipFeedForward(layers=(0,), epochs=4, peak=1e-3, transfer=50_000, dropout=0.0),
)
# One layer, taught by the student of two, with two heads and a tenth of the columns.
NEWS_TENTH = (
    msgspec.structs.replace(NEWS_HALF, layers=(1,), epochs=1),
    Factorize(embedding=96, epochs=1, peak=3e-4),
    PruneStructure(heads=0.67, columns=0.9, epochs=2, peak=4e-4),
)

NER_BASE, NEWS_BASE = (*NER, *HALF_BYTES), (*NEWS, *HALF_BYTES)

RECIPES: dict[str, tuple[Step, ...]] = {
    "ner-base": (*NER_BASE, SENTENCES),
    "ner-int8": (*NER, *HALF_BYTES, Quantize(), SENTENCES),
    "ner-distilled-int8": (*NER_BASE, Restore(), NER_HALF, *FEWEST_BYTES, SENTENCES),
    "ner-small": (*NER_BASE, Restore(), NER_HALF, NER_SIXTH, *FEWEST_BYTES, SENTENCES),
    "ner-tiny": (*NER_BASE, Restore(), NER_HALF, *NER_SLIVER, *FEWEST_BYTES, SENTENCES),
    "news-base": NEWS_BASE,
    "news-int8": (*NEWS, *HALF_BYTES, Quantize()),
    "news-distilled-int8": (*NEWS_BASE, Restore(), NEWS_HALF, *FEWEST_BYTES),
    "news-small": (*NEWS_BASE, Restore(), NEWS_HALF, NEWS_THIRD, *FEWEST_BYTES),
    "news-tiny": (*NEWS_BASE, Restore(), NEWS_HALF, *NEWS_TENTH, *FEWEST_BYTES),
}

# Every other variant of a task is compared with this one.
BASELINES = {Task.NER: "ner-base", Task.CLASSIFICATION: "news-base"}
