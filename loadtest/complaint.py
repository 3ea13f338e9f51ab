"""What is held against a variant. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Complaint:
    """As text: `ner-int8: the p99 is 31.0 ms, 6.0 ms more than the 25 ms promised`."""

    variant: str
    why: str

    def __str__(self) -> str:
        return f"{self.variant}: {self.why}"
