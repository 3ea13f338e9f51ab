"""
FastAPI and the transformers pipeline, torch eager: what most people do.

Knows nothing of batches: the pipeline's documentation advises against them on a CPU.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

from loadtest.peers.settings import told

TOLD = told()
torch.set_num_threads(TOLD.settings.intra)
NER = pipeline(
    "token-classification",
    model=str(TOLD.model),
    dtype=torch.float32,
    aggregation_strategy="simple",
    device="cpu",
)
POOL = ThreadPoolExecutor(TOLD.settings.threads)


class Ask(BaseModel):
    inputs: str


class Entity(BaseModel):
    label: str
    start: int
    end: int
    score: float


class Answer(BaseModel):
    entities: list[Entity]


app = FastAPI()


def answered(text: str) -> Answer:
    with torch.inference_mode():
        found = NER(text)
    return Answer(
        entities=[
            Entity(
                label=each["entity_group"],
                start=each["start"],
                end=each["end"],
                score=each["score"],
            )
            for each in found
        ]
    )


@app.post("/ner")
async def ner(ask: Ask) -> Answer:
    return await asyncio.get_running_loop().run_in_executor(POOL, answered, ask.inputs)
