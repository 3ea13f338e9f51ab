"""
Triton's statistics of a variant, from what the metrics have counted: of every process, and
whichever way the requests came.

Knows nothing of lanes or HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from prometheus_client.samples import Sample


class Duration(msgspec.Struct, frozen=True):
    """How often, and how many nanoseconds in all."""

    count: int = 0
    ns: int = 0


class InferenceStats(msgspec.Struct, frozen=True, kw_only=True):
    """
    success        requests answered, from the first byte read to the last byte sent
    fail           requests refused, late or left by their caller once the variant was chosen
    queue          requests answered: until the first of their windows was begun
    compute_input  requests answered: their texts' way to tokens
    compute_infer  runs of the model, each with the windows of one or more requests
    """

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    # Not measured apart, and there is no cache: never counted.
    compute_output: Duration = Duration()
    cache_hit: Duration = Duration()
    cache_miss: Duration = Duration()


class ModelStats(msgspec.Struct, frozen=True, kw_only=True):
    """
    last_inference   when a text was last answered, in milliseconds since 1970; 0: never
    inference_count  texts answered
    execution_count  runs of the model
    batch_stats      none: sizes of batches are in /metrics, without their times
    """

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStats
    batch_stats: list[Any] = []


class ModelStatsList(msgspec.Struct, frozen=True, kw_only=True):
    model_stats: list[ModelStats]


def statistics(name: str, digest: str, samples: Sequence[Sample]) -> ModelStats:
    """Of the variant `name`; `samples`: what `metrics.counted` gives."""
    mine = [sample for sample in samples if sample.labels.get("variant") == name]

    def counted(metric: str, status_classes: Sequence[str] = ()) -> float:
        return sum(
            sample.value
            for sample in mine
            if sample.name == metric
            and (not status_classes or sample.labels["status_class"] in status_classes)
        )

    def duration(metric: str, *status_classes: str) -> Duration:
        return Duration(
            int(counted(f"{metric}_count", status_classes)),
            int(counted(f"{metric}_sum", status_classes) * 1e9),
        )

    runs = duration("kadogo_model_seconds")
    return ModelStats(
        name=name,
        version=digest,
        last_inference=int(counted("kadogo_last_answer_timestamp_seconds") * 1000),
        inference_count=int(counted("kadogo_texts_total")),
        execution_count=runs.count,
        inference_stats=InferenceStats(
            success=duration("kadogo_request_seconds", "2xx"),
            fail=duration("kadogo_request_seconds", "4xx", "5xx"),
            queue=duration("kadogo_queue_seconds"),
            compute_input=duration("kadogo_encode_seconds"),
            compute_infer=runs,
        ),
    )
