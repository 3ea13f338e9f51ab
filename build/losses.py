"""What networks learn from gold and from each other, as functions of tensors."""

from __future__ import annotations

import torch
from torch.nn import functional

IGNORED = -100  # a label that says nothing
TEMPERATURE = 2.0


def gold(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of (..., labels) logits with (...) gold; 0 where there is no gold at all."""
    rows, wanted = logits.float().flatten(0, -2), labels.flatten()
    if not (wanted != IGNORED).any():
        return rows.sum() * 0.0
    return functional.cross_entropy(rows, wanted, ignore_index=IGNORED)


def divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Kullback-Leibler of softened answers, (rows, labels) each; T^2 keeps gradients in scale."""
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student.float() / temperature, dim=-1),
        functional.log_softmax(teacher.float() / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )


def answers(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(rows, labels): of pieces that are no padding, or of texts."""
    return logits[mask] if logits.dim() == 3 else logits
