"""
What comes in and what goes out, as values.

Knows nothing of HTTP, lanes or BentoML.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self, TypeAlias

import msgspec
from msgspec import Meta

from models.errors import TooLarge
from models.spec import (
    Aggregation,
    ClassificationAnswer,
    Evidence,
    File,
    Golden,
    Licence,
    NerAnswer,
    OffsetUnit,
    Options,
    Runtime,
    Task,
    Variant,
    Windows,
)
from service.forms import FieldError, FieldsInvalid, Form, decoded
from service.generation import Generation
from service.keys import Scope
from service.policy import Near, Policy, Rejected
from service.rate import Rate

VERSION = "1"  # of the API

# Told in the API's description; `texts_of` checks it, and says better what is wrong.
_TEXT = Meta(
    description="A text with something in it.", extra_json_schema={"minLength": 1, "pattern": r"\S"}
)
_TEXTS = Meta(description="At least one text.", extra_json_schema={"minItems": 1})
_DEFAULTS = Options()
_ONE = "give a variant or a policy, not both"

Inputs: TypeAlias = Annotated[str, _TEXT] | Annotated[list[Annotated[str, _TEXT]], _TEXTS]


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every task knows. `min_score`: leave out what scores less."""

    min_score: Annotated[float, Meta(ge=0, le=1)] = _DEFAULTS.min_score

    def options(self) -> Options:
        return Options(**msgspec.structs.asdict(self))


class NerParameters(Parameters, frozen=True, kw_only=True):
    """How entities are made of pieces, what their offsets count, and how sure they must be."""

    aggregation: Aggregation = _DEFAULTS.aggregation
    offset_unit: OffsetUnit = _DEFAULTS.offset_unit


class ClassificationParameters(Parameters, frozen=True, kw_only=True):
    """`top_k`: the best so many labels. `min_score` may leave none."""

    top_k: Annotated[int, Meta(ge=1)] | None = _DEFAULTS.top_k


class Ask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    The body of a request.

    inputs      one text or several; answers come in the same order
    variant     a variant's name
    policy      what the variant that answers must satisfy, instead of its name; with neither, the
                task's default answers
    parameters  how to answer; left out, as the defaults say
    """

    inputs: Inputs
    variant: str | None = None
    policy: Policy | None = None
    parameters: Parameters | None = None

    @property
    def options(self) -> Options:
        return self.parameters.options() if self.parameters else _DEFAULTS


class NerAsk(Ask, frozen=True):
    __doc__ = Ask.__doc__
    parameters: NerParameters | None = None


class ClassificationAsk(Ask, frozen=True):
    __doc__ = Ask.__doc__
    parameters: ClassificationParameters | None = None


PARAMETERS: dict[Task, type[Parameters]] = {
    Task.NER: NerParameters,
    Task.CLASSIFICATION: ClassificationParameters,
}
ASKS: dict[Task, type[Ask]] = {Task.NER: NerAsk, Task.CLASSIFICATION: ClassificationAsk}


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """
    Milliseconds of one request. `queue`: until the first of its windows was begun; `model`: from
    then until the last was done; `total`: everything, from the first byte read to the answer.
    """

    queue: float
    encode: float
    model: float
    total: float

    @classmethod
    def of_seconds(cls, *, queue: float, encode: float, model: float, total: float) -> Self:
        return cls(queue=_ms(queue), encode=_ms(encode), model=_ms(model), total=_ms(total))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """
    `results` in the order of the inputs; `digest` names the exact weights that answered, `reason`
    says why they did, and `rejected` why the task's other variants did not.
    """

    task: Task
    variant: str
    digest: str
    reason: str
    rejected: tuple[Rejected, ...]
    results: list[Any]
    timing_ms: Timing


class NerReply(Reply, frozen=True, kw_only=True):
    __doc__ = Reply.__doc__

    results: list[NerAnswer]


class ClassificationReply(Reply, frozen=True, kw_only=True):
    __doc__ = Reply.__doc__

    results: list[ClassificationAnswer]


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """
    An error as RFC 9457 has it, with the request's id and, where it helps, when to come back, which
    fields are wrong, or which variants come nearest to an unsatisfied policy.
    """

    type: str
    title: str
    status: int
    detail: str
    request_id: str
    variant: str | None = None
    retry_after_ms: int | None = None
    errors: list[FieldError] | None = None
    nearest: list[Near] | None = None


class Error(msgspec.Struct, frozen=True):
    """What went wrong and what to do, where clients read no problems; the status says the rest."""

    error: str


class State(StrEnum):
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    UNLOADED = "unloaded"


class VariantSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest without its golden answers, and how the variant does on this host."""

    name: str
    task: Task
    runtime: Runtime
    state: State
    reason: str | None
    default: bool
    digest: str
    bytes: int
    parameters: int
    sparsity: float
    labels: tuple[str, ...]
    languages: tuple[str, ...]
    multi_label: bool
    windows: Windows
    parent: str | None
    lineage: tuple[str, ...]
    description: str
    licence: Licence
    files: dict[str, File]
    weights: dict[str, int]
    evidence: Evidence | None

    @classmethod
    def of(cls, variant: Variant, *, state: State, default: bool, reason: str | None) -> Self:
        ours = {"state", "default", "reason"}
        same = {n: getattr(variant, n) for n in cls.__struct_fields__ if n not in ours}
        return cls(state=state, default=default, reason=reason, **same)


class VariantDetail(VariantSummary, frozen=True, kw_only=True):
    """A whole manifest, and how the variant does on this host."""

    format: str
    golden: tuple[Golden, ...]


class VariantList(msgspec.Struct, frozen=True, kw_only=True):
    variants: list[VariantSummary]


class VariantStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    One variant now; counts are of windows.

    run_ms, token_ms  what a run of it costs here, and each token more, as measured
    """

    state: State
    task: Task | None = None
    digest: str | None = None
    reason: str | None = None
    waiting_windows: int = 0
    waiting_tokens: int = 0
    run_ms: float | None = None
    token_ms: float | None = None


class TrialState(StrEnum):
    """Promoted: it answers all callers of its route; rolled back: none of them."""

    GOING = "going"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"


class Range(msgspec.Struct, frozen=True):
    low: float
    high: float


class TrialStatus(msgspec.Struct, frozen=True, kw_only=True):
    """
    How the trial of a canary stands, counted over all workers: what is null is no longer counted.

    disagreement  mean of its answers and the incumbent's, 0 to 1; ends it once all of the range is
                  below `max_disagreement` (promoted, if quick too), or above (rolled back)
    slower        share of comparisons in which it took more than `max_slowdown` times the
                  incumbent's time; ends it once below one half (promoted, if alike too), or above
    why           it ended
    """

    canary: str
    incumbent: str
    state: TrialState
    max_disagreement: float
    max_slowdown: float
    comparisons: int | None = None
    disagreement: Range | None = None
    slower: Range | None = None
    why: str | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """
    This process now.

    backlog_seconds  how long the waiting work takes, as predicted
    generation       of what was changed at run time, 0 where nothing was
    trials           of canaries, by the name of the route
    """

    process: int
    state: State
    reason: str | None
    uptime_seconds: float
    threads: int
    backlog_seconds: float
    generation: int
    variants: dict[str, VariantStatus]
    trials: dict[str, TrialStatus]


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A change at run time that every worker has taken over: what, by whom and when (UTC)."""

    generation: int
    when: str
    who: str
    what: str


class RoutesNow(msgspec.Struct, frozen=True, kw_only=True):
    """The routes in force, as TOML: those that were put, else the file's; null: there are none."""

    generation: int
    routes: str | None


class KeyLimit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key may send; null: as much as it likes."""

    rate: Rate | None


class KeyNow(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it stands now. Its hash is in the server's file alone."""

    name: str
    scopes: tuple[Scope, ...]
    rate: Rate | None
    revoked: bool


class KeysNow(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of the server's file, in its order."""

    generation: int
    keys: list[KeyNow]


class History(msgspec.Struct, frozen=True, kw_only=True):
    """The newest first."""

    generations: list[Generation]


def _elsewhere(task: Task) -> dict[str, str]:
    """What a parameter of another task is told."""
    known = ", ".join(PARAMETERS[task].__struct_fields__)
    return {
        name: f"{name} is a parameter of {other}; {task} knows {known}"
        for other, kind in PARAMETERS.items()
        for name in kind.__struct_fields__
        if name not in PARAMETERS[task].__struct_fields__
    }


_LIMITS = Form(KeyLimit)


def read_limit(body: bytes) -> KeyLimit:
    """Raises `MalformedRequest` for what is not JSON, `FieldsInvalid` for what is not a limit."""
    return _LIMITS.convert(decoded(body, msgspec.json.Decoder()))


LANGUAGE = "a language is its ISO 639 code, such as hau or ha, in lower case"
_SAID = {"/policy/language": LANGUAGE}
_FORMS = {task: Form(kind, _elsewhere(task), _SAID) for task, kind in ASKS.items()}


def read_ask(body: bytes, task: Task) -> Ask:
    """
    Raises `MalformedRequest` for what is not JSON, `FieldsInvalid` for what is not an `Ask`: a
    parameter of another task too, which would be ignored in silence.
    """
    return _of_one(_FORMS[task].read(body))


def convert_ask(value: object, task: Task, *, strict: bool = True) -> Ask:
    """As `read_ask`, from a value already read from JSON. Not `strict`: "0.5" is a number too."""
    return _of_one(_FORMS[task].convert(value, strict=strict))


def _of_one(ask: Ask) -> Ask:
    if ask.variant is not None and ask.policy is not None:
        raise FieldsInvalid(FieldError("/policy", _ONE))
    return ask


def texts_of(ask: Ask, *, max_inputs: int, max_text: int, pointer: str = "/inputs") -> list[str]:
    """
    The texts of a request, every one fit to be read. `pointer`: where in the body they were.

    Raises `TooLarge` beyond either limit, `FieldsInvalid` for no text, an empty text or one with
    a lone surrogate (no UTF-8 can say it, so no tokenizer can read it).
    """
    single = isinstance(ask.inputs, str)
    texts = [ask.inputs] if isinstance(ask.inputs, str) else ask.inputs
    if not texts:
        raise FieldsInvalid(FieldError(pointer, "give at least one text"))
    if len(texts) > max_inputs:
        raise TooLarge(f"{len(texts)} inputs; at most {max_inputs} go in one request")
    for index, text in enumerate(texts):
        at = pointer if single else f"{pointer}/{index}"
        if len(text) > max_text:
            raise TooLarge(
                f"{at} has {len(text)} characters; "
                f"at most {max_text} are taken in one text: split it"
            )
        if not text or text.isspace():
            raise FieldsInvalid(FieldError(at, "the text is empty"))
        if not text.isascii() and _has_surrogate(text):
            raise FieldsInvalid(FieldError(at, "the text has a lone surrogate"))
    return texts


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
