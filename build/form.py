"""
The form a network has after each step, and which steps cannot be done on it: pure functions.

Knows nothing of files, of torch, nor of what a network is for.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from build.steps import (
    LINEARS,
    POSITIONS,
    CountEmbeddings,
    Distill,
    Factorize,
    Finetune,
    Pretrain,
    PruneStructure,
    Restore,
    SkipAttention,
    SkipFeedForward,
    Step,
    TrimPositions,
    in_attention,
)

HEADS, COLUMNS = "heads", "columns"
Part = tuple[int, str]  # a layer's number and the name of one of its linear layers


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """
    layers, width, heads, inner
               as the network's config has them
    positions  tokens it reads at once
    vocabulary pieces it knows; None: as many as its tokenizer came to have
    bare       how many of its last layers have no attention
    unfed      its layers without a feed-forward half
    factors    the linear layers that are products of smaller ones
    narrow     whether the word embedding is such a product
    cut        what was taken out of its layers: heads, columns
    """

    layers: int
    width: int
    heads: int
    inner: int
    positions: int
    vocabulary: int | None = None
    bare: int = 0
    unfed: frozenset[int] = frozenset()
    factors: frozenset[Part] = frozenset()
    narrow: bool = False
    cut: frozenset[str] = frozenset()

    @property
    def attentive(self) -> int:
        """How many of its layers, the first ones, have attention."""
        return self.layers - self.bare


# --- what comes of it -------------------------------------------------------------------------


def after(step: Step, form: Form | None, window: int | None) -> Form | None:
    """
    The form after a step that can be done on it; None: not known.

    window  tokens of the windows that the network reads, where that is known
    """
    if isinstance(step, CountEmbeddings):
        return Form(
            layers=step.layers,
            width=step.hidden,
            heads=step.heads,
            inner=step.inner,
            positions=POSITIONS,
        )
    if form and window and isinstance(step, TrimPositions):
        return replace(form, positions=window)
    return form and _changed(step, form)


def _changed(step: Step, form: Form) -> Form:
    match step:
        case Distill():
            return _student(step, form)
        case Factorize():
            factors = form.factors | _chosen(step, form)
            return replace(form, factors=factors, narrow=form.narrow or step.embedding is not None)
        case PruneStructure():
            shares = {HEADS: step.heads, COLUMNS: step.columns}
            return replace(form, cut=form.cut | {what for what, share in shares.items() if share})
        case SkipAttention():
            return _without_lost(replace(form, bare=max(form.bare, step.last)))
        case SkipFeedForward():
            return _without_lost(replace(form, unfed=form.unfed | {*step.layers}))
        case Restore():
            return replace(form, cut=frozenset())
        case _:
            return form


def _student(step: Distill, teacher: Form) -> Form:
    heads = step.heads or teacher.heads
    if _is_fresh(step, teacher):
        return Form(
            layers=len(step.layers),
            width=step.width or teacher.width,
            heads=heads,
            inner=step.inner or teacher.inner,
            positions=teacher.positions,
        )
    return replace(
        teacher,
        layers=len(step.layers),
        heads=heads,
        bare=sum(layer >= teacher.attentive for layer in step.layers),
        unfed=frozenset(new for new, old in enumerate(step.layers) if old in teacher.unfed),
        factors=frozenset(
            (new, part)
            for new, old in enumerate(step.layers)
            for layer, part in teacher.factors
            if layer == old
        ),
    )


def _without_lost(form: Form) -> Form:
    """Without the factors of halves that went."""
    return replace(form, factors=frozenset(each for each in form.factors if _has(form, each)))


def _is_fresh(step: Distill, teacher: Form) -> bool:
    """Whether the student's layers begin anew, instead of as the teacher's."""
    sizes = (step.width or teacher.width, step.inner or teacher.inner)
    return bool(step.fresh) or sizes != (teacher.width, teacher.inner)


def _chosen(step: Factorize, form: Form) -> frozenset[Part]:
    """The linear layers that the step factorizes."""
    if step.bond is None:
        return frozenset()
    layers = range(form.layers) if step.layers is None else step.layers
    parts = ((layer, part) for layer in layers for part in step.parts or LINEARS)
    return frozenset(each for each in parts if _has(form, each))


def _has(form: Form, part: Part) -> bool:
    layer, name = part
    if in_attention(name):
        return layer < form.attentive
    return layer < form.layers and layer not in form.unfed


# --- what cannot be done ----------------------------------------------------------------------


def unfit(step: Step, form: Form) -> Iterator[str]:
    """Why the step cannot be done on a network of this form; nothing where it can."""
    match step:
        case Pretrain() | Finetune() if step.window > form.positions:
            yield (
                f"windows of {step.window} tokens pass what the encoder reads at once: "
                f"{form.positions} at most"
            )
        case Distill():
            yield from _no_student(step, form)
        case Factorize():
            yield from _beyond(step.layers or (), form)
            for layer, part in sorted(form.factors & _chosen(step, form)):
                yield f"{part} of layer {layer} is factorized already: name the others"
            if step.embedding and form.narrow:
                yield "the word embedding is factorized already"
        case PruneStructure() if form.factors:
            yield "heads and columns are taken out before layers are factorized"
        case PruneStructure() if step.heads and not form.attentive:
            yield "heads are taken out before the last attention is skipped"
        case PruneStructure() if step.columns and len(form.unfed) == form.layers:
            yield "columns are taken out before the last feed-forward half is skipped"
        case SkipAttention() if step.last > form.layers:
            yield f"the network before it has {form.layers} layers, not {step.last}"
        case SkipFeedForward():
            yield from _beyond(step.layers, form)
        case Restore() if not _is_plain(form):
            yield (
                "only a plain network comes back from its graph: restore before layers are "
                "factorized, cut, or lose a half"
            )


def _no_student(step: Distill, teacher: Form) -> Iterator[str]:
    yield from _beyond(step.layers, teacher)
    student, fresh = _student(step, teacher), _is_fresh(step, teacher)
    if student.width % student.heads:
        yield f"a width of {student.width} is not a multiple of {student.heads} heads"
    if student.width > teacher.width:
        yield f"a student is no wider than its teacher's {teacher.width}: not {student.width}"
    if fresh and teacher.narrow:
        yield "a fresh student, or one of other sizes, learns before the embedding is factorized"
    if HEADS in teacher.cut and not fresh and student.heads % teacher.heads:
        yield f"where heads were taken out a student keeps its teacher's {teacher.heads}"
    if not step.attention:
        return
    if student.heads != teacher.heads:
        yield f"attention maps need the teacher's {teacher.heads} heads, not {student.heads}"
    if HEADS in teacher.cut and fresh:
        yield "heads were taken out of the teacher: the maps of a fresh student are others"
    if lacking := [layer for layer in step.layers if layer >= teacher.attentive]:
        yield f"the teacher's layer {lacking[0]} has no attention whose maps could be learned"


def _beyond(layers: tuple[int, ...], form: Form) -> Iterator[str]:
    if wrong := [each for each in layers if each >= form.layers]:
        yield f"there is no layer {wrong[0]}: the network before it has 0 to {form.layers - 1}"


def _is_plain(form: Form) -> bool:
    """Layers are read back as all of one size: columns may be fewer where there is one layer."""
    uneven = HEADS in form.cut or (COLUMNS in form.cut and form.layers > 1)
    return not (form.factors or form.narrow or form.bare or form.unfed or uneven)
