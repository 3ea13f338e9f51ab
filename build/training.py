"""
One loop trains everything: batches in, a trained network out, resumable after a kill.

Knows nothing of tasks or corpora. Batches are a pure function of their number, so a run that
continues sees exactly the batches it would have seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

from build import schedule

SAVE_EVERY_S = 300.0
# What multiplies in bfloat16, of those that `torch.cpu.get_capabilities` names.
BFLOAT16_UNITS = ("avx512_bf16", "amx_bf16", "bf16")

Batch = dict[str, torch.Tensor]
Loss = Callable[[torch.nn.Module, Batch], torch.Tensor]


class Pruning(Protocol):
    """What makes more of a network zero while it trains."""

    def __call__(self, number: int) -> None:
        """After each step, with its number."""

    def hold(self) -> None:
        """Keep what is zero now, as a run that continues finds it."""


def fit(
    network: torch.nn.Module,
    batch: Callable[[int], Batch],
    loss: Loss,
    *,
    steps: int,
    peak: float,
    warmup: float,
    device: str,
    resume: Path,
    title: str,
    weight_decay: float = 0.01,
    clip: float = 1.0,
    prune: Pruning | None = None,
) -> None:
    """
    Train `network` in place for `steps` batches; AdamW, linear warm-up and decay, `autocast`.

    batch   step number -> tensors; must hold `attention_mask`, by which tokens are counted
    resume  a file written every few minutes; if it exists the run continues from it
    prune   makes more of it zero; what was zero before training stays so with or without
    """
    network.to(device).train()
    optimizer = torch.optim.AdamW(
        _groups(network, weight_decay), lr=peak, betas=(0.9, 0.98), eps=1e-6, fused=True
    )
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: schedule.linear(step, warmup=int(warmup * steps), total=steps)
    )
    keep = zeros_kept(network)  # of what training began with: what is zero since is `prune`'s
    first = _load(resume, network, optimizer, rate, device)
    if prune and first:
        prune.hold()
    bar = tqdm(
        range(first, steps), initial=first, total=steps, desc=title, unit="step", mininterval=5
    )
    saved = started = time.monotonic()
    tokens = 0
    smooth = None
    for step in bar:
        # Dropout must not depend on how often the run was killed.
        torch.manual_seed(step)
        inputs = {name: tensor.to(device) for name, tensor in batch(step).items()}
        with autocast(device):
            value = loss(network, inputs)
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimizer.step()
        keep()
        if prune:
            prune(step)
        rate.step()
        optimizer.zero_grad(set_to_none=True)
        tokens += int(inputs["attention_mask"].sum())
        smooth = value.item() if smooth is None else 0.98 * smooth + 0.02 * value.item()
        speed = tokens / (time.monotonic() - started)
        bar.set_postfix_str(f"loss {smooth:.3f}, {speed:,.0f} tokens/s", refresh=False)
        if time.monotonic() - saved > SAVE_EVERY_S:
            _save(resume, network, optimizer, rate, step + 1)
            saved = time.monotonic()
    network.to("cpu").eval()


def zeros_kept(network: torch.nn.Module) -> Callable[[], None]:
    """
    Sets back to zero what was exactly zero: pruning holds through all training that follows.

    An embedding's row that is zero as a whole is no pruned one but that of a piece never met.
    """
    masks = [
        (weight, kept)
        for weight in network.parameters()
        if weight.dim() > 1
        and not bool((kept := (weight != 0) | (weight == 0).all(dim=-1, keepdim=True)).all())
    ]

    def keep() -> None:
        with torch.no_grad():
            for weight, kept in masks:
                weight.mul_(kept)

    return keep


def autocast(device: str) -> AbstractContextManager[Any]:
    """bf16 where `device` has it in hardware; emulated it takes three times as long as float32."""
    kind = device.split(":")[0]
    return torch.autocast(kind, dtype=torch.bfloat16, enabled=has_bfloat16(kind))


def has_bfloat16(kind: str) -> bool:
    """Whether devices of that kind, cpu or cuda, multiply in it here."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(torch.cpu.get_capabilities().get(unit) for unit in BFLOAT16_UNITS)


def cut_by_length(lengths: Sequence[int], budget: int, order: Sequence[int]) -> list[list[int]]:
    """
    Groups of indexes whose padded tokens stay within `budget`.

    `order` (a shuffle) is sorted by length in pools of some batches, so that a batch holds texts
    of like length while its company still changes from epoch to epoch.
    """
    pool = max(1, 50 * budget // max(1, max(lengths)))
    groups: list[list[int]] = []
    for begin in range(0, len(order), pool):
        group: list[int] = []
        longest = 0
        for index in sorted(order[begin : begin + pool], key=lambda i: lengths[i]):
            longest = max(longest, lengths[index])
            if group and longest * (len(group) + 1) > budget:
                groups.append(group)
                group, longest = [], lengths[index]
            group.append(index)
        groups.append(group)
    return groups


def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """(rows, longest) int64, filled up with `value`."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])


def _groups(network: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Vectors (biases, layer norms) do not decay; matrices do."""
    decayed = [p for p in network.parameters() if p.requires_grad and p.dim() > 1]
    free = [p for p in network.parameters() if p.requires_grad and p.dim() <= 1]
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def _save(file: Path, network: Any, optimizer: Any, rate: Any, step: int) -> None:
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    draft = file.with_suffix(".writing")
    try:
        with draft.open("wb") as opened:  # torch's own writer does not say that a disk is full
            torch.save({**state, "rate": rate.state_dict(), "step": step}, opened)
        os.replace(draft, file)  # never half a file
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _load(file: Path, network: Any, optimizer: Any, rate: Any, device: str) -> int:
    if not file.exists():
        return 0
    state = torch.load(file, map_location=device, weights_only=True)
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    rate.load_state_dict(state["rate"])
    return int(state["step"])
