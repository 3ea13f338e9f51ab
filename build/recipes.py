"""The whole catalogue on one screen: a recipe is a named tuple of steps. Data, no code."""

from __future__ import annotations

from build.steps import (
    Calibrate,
    CountEmbeddings,
    Distill,
    Export,
    Finetune,
    Quantize,
    Step,
    TrainTokenizer,
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

# Scores that mean what they say, in half the bytes.
HALF_BYTES = (Calibrate(), Export(weights="float16"))

RECIPES: dict[str, tuple[Step, ...]] = {
    "ner-base": (*NER, *HALF_BYTES),
    "ner-int8": (*NER, *HALF_BYTES, Quantize()),
    "ner-distilled-int8": (*NER, NER_HALF, *HALF_BYTES, Quantize()),
    "news-base": (*NEWS, *HALF_BYTES),
    "news-int8": (*NEWS, *HALF_BYTES, Quantize()),
    "news-distilled-int8": (*NEWS, NEWS_HALF, *HALF_BYTES, Quantize()),
}

# Every other variant of a task is compared with this one.
BASELINES = {Task.NER: "ner-base", Task.CLASSIFICATION: "news-base"}
