"""CPU time that the host of a virtual machine gave to its other guests: nobody here had it."""

from __future__ import annotations

import psutil

TITLE = "stolen by the host's other guests"


class Stolen:
    """Since it was made."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    @property
    def share(self) -> float:
        """Of the CPU time of all cores; 0 too where the system does not tell."""
        now = psutil.cpu_times()
        steal = getattr(now, "steal", 0.0) - getattr(self._before, "steal", 0.0)
        return float(steal / max(sum(now) - sum(self._before), 1e-9))

    def __str__(self) -> str:
        return f"{self.share:.1%} of the CPU time"
