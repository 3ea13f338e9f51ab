"""
What serves now: one frozen value that is swapped as a whole, and all that can be told of it.

Knows nothing of how a variant is loaded, nor of HTTP.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from models.errors import Quarantined, UnknownVariant
from models.spec import Input, Variant
from service import metrics, route
from service.generation import Content, Verdict
from service.lane import Lane
from service.routes import Canary, Routes
from service.schemas import (
    Range,
    State,
    TrialState,
    TrialStatus,
    VariantDetail,
    VariantStatus,
    VariantSummary,
)
from service.trial import Trial

Told = TypeVar("Told", bound=VariantSummary)


def known(
    quarantined: Collection[str], manifests: Mapping[str, Variant]
) -> dict[str, Variant | None]:
    """All that a route may name; None where the manifest could not be read."""
    return {**dict.fromkeys(quarantined), **manifests}


@dataclass(frozen=True, kw_only=True)
class Served:
    """
    All of one generation.

    lanes        by name
    quarantined  name -> what is wrong with it
    manifests    of every variant of the catalog that could be read, serving or not
    text         of the routes in force, as TOML; None: there are none
    verdicts     of trials of these routes that ended, by the name of the route
    table        who answers, by the routes
    """

    generation: int = 0
    content: Content = field(default_factory=Content)
    lanes: Mapping[str, Lane] = field(default_factory=dict)
    quarantined: Mapping[str, str] = field(default_factory=dict)
    manifests: Mapping[str, Variant] = field(default_factory=dict)
    text: str | None = None
    routes: Routes = field(default_factory=Routes)
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    table: route.Table = field(default_factory=lambda: route.Table({}, {}))

    @property
    def known(self) -> Mapping[str, Variant | None]:
        return known(self.quarantined, self.manifests)

    def state_of(self, name: str) -> State:
        if name in self.lanes:
            return State.READY
        return State.QUARANTINED if name in self.quarantined else State.UNLOADED

    def named(self, name: str) -> Lane:
        """
        The lane of that name, whatever its task.

        Raises `Quarantined`, and `UnknownVariant` naming the known ones.
        """
        if name in self.lanes:
            return self.lanes[name]
        if name in self.quarantined:
            raise Quarantined(f"variant {name} is quarantined: {self.quarantined[name]}")
        wrong = f"{name} is unloaded" if name in self.manifests else route.unknown(name)
        raise UnknownVariant(f"{wrong}; known are {', '.join(self.lanes)}")

    def summaries(self) -> list[VariantSummary]:
        """Every variant whose manifest could be read, by name."""
        return [self._told(VariantSummary, each) for _, each in sorted(self.manifests.items())]

    def detail(self, name: str) -> VariantDetail:
        """Raises `UnknownVariant` naming the known ones."""
        variant = self.manifests.get(name)
        if variant is None:
            reason = self.quarantined.get(name)
            wrong = route.unknown(name) if reason is None else f"{name} is quarantined: {reason}"
            known = ", ".join(sorted(self.manifests)) or "none yet"
            raise UnknownVariant(f"{wrong}; known are {known}")
        return self._told(VariantDetail, variant)

    def _told(self, kind: type[Told], variant: Variant) -> Told:
        default = self.table.default(variant.task)
        return kind.of(
            variant,
            state=self.state_of(variant.name),
            default=default is not None and default.name == variant.name,
            reason=self.quarantined.get(variant.name),
        )

    def statuses(self) -> dict[str, VariantStatus]:
        """Of every variant of the catalog, by name."""
        return {name: self._status(name) for name in sorted(self.known)}

    def _status(self, name: str) -> VariantStatus:
        lane, manifest = self.lanes.get(name), self.manifests.get(name)
        return VariantStatus(
            state=self.state_of(name),
            task=manifest.task if manifest else None,
            digest=manifest.digest if manifest else None,
            reason=self.quarantined.get(name),
            waiting_windows=lane.batcher.waitlist.items if lane else 0,
            waiting_tokens=lane.batcher.waitlist.tokens if lane else 0,
            run_ms=round(1000 * lane.batcher.line.fixed, 4) if lane else None,
            token_ms=round(1000 * lane.batcher.line.each, 5) if lane else None,
        )

    def trials(self, going: Mapping[str, Trial]) -> dict[str, TrialStatus]:
        """Of every canary, by the name of its route; `going`: those that have not ended."""
        return {
            each.name: self._trial(each.name, each.canary, each.incumbent, going.get(each.name))
            for each in self.routes.route
            if each.canary and each.incumbent
        }

    def _trial(
        self, route: str, canary: Canary, incumbent: str, going: Trial | None
    ) -> TrialStatus:
        verdict = self.verdicts.get(route)
        progress = going.progress() if going else None
        return TrialStatus(
            canary=canary.variant,
            incumbent=incumbent,
            state=_state(verdict),
            max_disagreement=canary.max_disagreement,
            max_slowdown=canary.max_slowdown,
            comparisons=progress.comparisons if progress else None,
            disagreement=Range(*progress.disagreement) if progress else None,
            slower=Range(*progress.slower) if progress else None,
            why=verdict.why if verdict else None,
        )

    def show(self, *, here: bool) -> None:
        """Every variant's state in the metrics, or that it is no longer so."""
        for name in self.known:
            self._show(name, here=here)
        for name, verdict in self.verdicts.items():
            metrics.tried(route=name, variant=verdict.variant, promoted=verdict.promoted, here=here)

    def _show(self, name: str, *, here: bool) -> None:
        variant = self.manifests.get(name)
        metrics.shown(
            variant=name,
            task=variant.task if variant else "",
            runtime=variant.runtime if variant else "",
            digest=variant.digest if variant else "",
            state=self.state_of(name),
            reason=self.quarantined.get(name, ""),
            here=here,
        )
        if here and variant and variant.parent and variant.evidence:
            measured = variant.evidence.disagreement.get(Input.RAW)
            if measured:
                metrics.promised(
                    variant=name, baseline=variant.parent, disagreement=measured.macro.high
                )


def _state(verdict: Verdict | None) -> TrialState:
    if verdict is None:
        return TrialState.GOING
    return TrialState.PROMOTED if verdict.promoted else TrialState.ROLLED_BACK
