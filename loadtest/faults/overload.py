"""
Three times what the server can do, for a while: what is accepted is answered in time, the rest is
told when to come back, and afterwards all is as before.

    python -m loadtest overload --host http://127.0.0.1:3000 --variant ner-int8
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from loadtest import checker, labelled, record, traffic
from loadtest.faults.client import Answer, Pool, Run, closed, offered
from loadtest.meanwhile import meanwhile
from loadtest.record import Call, Unusable
from loadtest.server import described, resident, workers_of
from loadtest.stolen import Stolen
from loadtest.texts import BadTraffic

CPU = 0.15  # of the machine, above which the client disturbs what it measures
LAG_S = 0.1
DROPPED = 0.01  # of the arrivals
CALLERS = (32, 128)  # one of which fills the server best
IN_TIME = 0.99
GOODPUT = 0.9
RETRY = 2.0
GROWTH = 1.05
RECOVERY_S = 5.0
EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """
    What an overload showed.

    peak, goodput   answers a second in time: of as many callers as suit it, and under overload
    accepted        requests that were not refused, and how many of them were `in_time`
    lost            that got no answer at all; `failed`: one that is none of these
    dropped         arrivals that the client had no connection for
    refused         at the end
    told_s, took_s  when these refusals said to come back, and how long the queue then took
    resident        bytes of the workers, over the run
    recovery_s      after the last arrival, until a request is answered as fast as before
    swapped         answers that were not those of their texts
    quality         of the very answers, name and value: scores, where the texts are labelled, and
                    how many were compared with those of their texts alone
    cpu, lag_s      the client's own
    """

    peak: float
    goodput: float
    offered: int
    accepted: int
    in_time: int
    lost: int
    failed: int
    dropped: int
    swapped: int
    refused: int
    told_s: float | None
    took_s: float
    resident: tuple[int, ...]
    recovery_s: float
    cpu: float
    lag_s: float
    quality: tuple[tuple[str, str], ...] = ()


def invalid(found: Found) -> list[str]:
    """Why the run proves nothing, whatever it found."""
    reasons = []
    if found.cpu > CPU:
        reasons.append(f"the client took {found.cpu:.0%} of the machine, above {CPU:.0%}")
    if found.lag_s > LAG_S:
        reasons.append(f"the client was {found.lag_s * 1000:.0f} ms late with 1 % of its requests")
    if found.dropped > DROPPED * found.offered:
        reasons.append(f"the client had no connection for {found.dropped} of {found.offered}")
    return reasons


def broken(found: Found) -> list[str]:
    """The promises that were not kept, and by how much."""
    kept = found.in_time / found.accepted if found.accepted else 0.0
    thirds = len(found.resident) // 3
    middle = statistics.mean(found.resident[thirds : 2 * thirds] or [0])
    last = statistics.mean(found.resident[2 * thirds :] or [0])
    wrong = []
    if kept < IN_TIME:
        wrong.append(f"{kept:.2%} of accepted requests were answered in time, below {IN_TIME:.0%}")
    if found.goodput < GOODPUT * found.peak:
        share = found.goodput / found.peak
        wrong.append(f"goodput was {share:.2f} of the peak, below {GOODPUT:g}")
    if found.lost:
        wrong.append(f"{found.lost} requests got no answer at all")
    if found.failed:
        wrong.append(f"{found.failed} requests failed with another status than a refusal's")
    if found.swapped:
        wrong.append(f"{found.swapped} answers were not those of their texts")
    if found.told_s is not None:
        ratio = found.told_s / max(found.took_s, 1e-3)
        if not 1 / RETRY <= ratio <= RETRY:
            wrong.append(
                f"refusals said {found.told_s * 1000:.0f} ms, the queue took "
                f"{found.took_s * 1000:.0f}: not within a factor of {RETRY:g}"
            )
    elif found.refused:
        wrong.append(f"{found.refused} refusals at the end did not say when to come back")
    if middle and last > GROWTH * middle:
        wrong.append(f"memory grew by {last / middle - 1:.1%} from the middle to the last third")
    if found.recovery_s > RECOVERY_S:
        wrong.append(f"it took {found.recovery_s:.1f} s to recover, above {RECOVERY_S:g}")
    return wrong


async def overloaded(
    host: str,
    variant: str,
    calls: Sequence[Call],
    *,
    times: float,
    seconds: float,
    deadline_ms: int,
    seed: int,
    labels: Sequence[str] = (),
) -> Found:
    """`labels`: those that the variant has."""
    path, bodies = traffic.path(calls[0]), [traffic.body(call, variant) for call in calls]
    pool = Pool(host, key=os.environ.get("KADOGO_KEY"))
    await closed(pool, path, bodies, callers=32, seconds=min(3.0, seconds))  # warm
    alone = await _alone(pool, variant, calls)
    calm = await _calm(pool, path, bodies)
    peaks = [
        await closed(pool, path, bodies, callers=callers, seconds=min(6.0, seconds))
        for callers in CALLERS
    ]
    rate = max(len(run.in_time) / run.seconds for run in peaks)
    if not rate:
        raise Unusable(f"{variant} gave no right answer to {CALLERS[0]} callers: there is no peak")
    workers = workers_of(host)
    headers = f"X-Request-Timeout-Ms: {deadline_ms}\r\n"
    offer = offered(
        pool, path, bodies, rate=times * rate, seconds=seconds, headers=headers, seed=seed
    )

    async def recovered() -> float:
        # Beside those that are still to be answered: once they are the queue is empty.
        await asyncio.sleep(seconds)
        return await _recovered(pool, path, bodies, calm)

    with meanwhile(lambda: resident(workers), EVERY_S) as memory:
        run, recovery_s = await asyncio.gather(offer, recovered())
    pool.close()
    answered = _answered(run, variant, calls, bodies)
    checked = checker.checked(calls, answered, alone)
    if why := checker.blind(checked):
        raise Unusable(f"{variant}: {why[0]}")
    found = judged(run, rate, deadline_ms / 1000, tuple(memory), recovery_s, len(checked.wrong))
    scores = labelled.told(calls, answered, labels)
    return replace(found, quality=(*scores, ("compared", checker.told(checked))))


def judged(
    run: Run,
    peak: float,
    deadline_s: float,
    resident: tuple[int, ...],
    recovery_s: float,
    swapped: int,
) -> Found:
    accepted = [each for each in run.answers if each.status in (200, 504)]
    in_time = [each for each in accepted if each.status == 200 and each.latency_s <= deadline_s]
    last = max((each.due for each in run.answers), default=0.0)
    within = sum(each.latency_s <= deadline_s for each in run.in_time)
    refused = [e for e in run.answers if e.due > last - 0.2 and e.status in traffic.REFUSED]
    told = [each.retry_after_s for each in refused if each.retry_after_s is not None]
    return Found(
        peak=peak,
        goodput=within / run.seconds,
        offered=len(run.answers) + run.dropped,
        accepted=len(accepted),
        in_time=len(in_time),
        lost=sum(each.status == 0 for each in run.answers),
        failed=sum(each.status not in (0, 200, 504, *traffic.REFUSED) for each in run.answers),
        dropped=run.dropped,
        swapped=swapped,
        refused=len(refused),
        told_s=statistics.median(told) if told else None,
        took_s=max((each.done for each in accepted), default=last) - last,
        resident=resident,
        recovery_s=recovery_s,
        cpu=run.cpu,
        lag_s=run.lag_s,
    )


async def _alone(pool: Pool, variant: str, calls: Sequence[Call]) -> checker.Alone:
    """As `checker.alone`, with a client of another kind."""
    asked = []
    for call in checker.singles(calls):
        answer = await pool.post(traffic.path(call), traffic.body(call, variant))
        if answer and not answer.status and answer.latency_s >= pool.timeout_s:
            raise Unusable(f"no answer within {pool.timeout_s:g} s to a text asked alone")
        if answer:
            asked.append((call, answer.status, answer.body))
    return checker.known(asked)


def _answered(run: Run, variant: str, calls: Sequence[Call], bodies: Sequence[bytes]) -> record.Run:
    """As those read it who know what is right."""
    numbers = {body: number for number, body in enumerate(bodies)}
    requests = []
    for each in run.answers:
        number = numbers[each.asked]
        answer, error = traffic.read_answer(calls[number], each.status, each.body)
        requests.append(
            record.Request(
                call=number,
                due_s=each.due,
                sent_s=each.sent,
                done_s=each.done,
                status=each.status,
                error=error,
                answer=answer,
            )
        )
    return record.Run(
        variant=variant,
        task=calls[0].task,
        arrivals="poisson",
        seconds=run.seconds,
        requests=tuple(requests),
        dropped=run.dropped,
        cores=run.cpu * (os.cpu_count() or 1),
    )


async def _calm(pool: Pool, path: str, bodies: Sequence[bytes]) -> float:
    """The median latency of one request at a time."""
    found = [await pool.post(path, body) for body in bodies[:50]]
    return statistics.median(each.latency_s for each in found if each)


async def _recovered(pool: Pool, path: str, bodies: Sequence[bytes], calm: float) -> float:
    """Seconds until three requests in a row take no more than twice what they did."""
    begun = time.perf_counter()
    quick: list[Answer | None] = []
    for body in itertools.cycle(bodies):
        answer = await pool.post(path, body)
        good = answer and answer.status == 200 and answer.latency_s <= 2 * calm + 0.005
        quick = [*quick, answer] if good else []
        elapsed = time.perf_counter() - begun
        if len(quick) == 3 or elapsed > 4 * RECOVERY_S:
            return elapsed
        await asyncio.sleep(0.01)
    raise AssertionError("bodies never end")


def told(found: Found) -> str:
    share = found.goodput / found.peak if found.peak else 0.0
    kept = found.in_time / found.accepted if found.accepted else 0.0
    memory = (
        f"{found.resident[0] >> 20} to {found.resident[-1] >> 20} MiB" if found.resident else "-"
    )
    said = "nothing" if found.told_s is None else f"{found.told_s * 1000:.0f} ms"
    retry = f"{said} said, {found.took_s * 1000:.0f} ms taken"
    return "\n".join(
        [
            f"peak        {found.peak:.0f} answers/s in time",
            f"offered     {found.offered} requests, {found.accepted} accepted, {found.lost} lost, "
            f"{found.swapped} swapped",
            f"in time     {kept:.2%} of the accepted",
            f"goodput     {found.goodput:.0f}/s, {share:.2f} of the peak",
            f"Retry-After {retry if found.refused else 'nobody refused'}",
            f"memory      {memory}",
            f"recovery    {found.recovery_s:.2f} s",
            f"client      {found.cpu:.1%} of the machine, late by {found.lag_s * 1000:.1f} ms",
            *(f"{name:<11} {value}" for name, value in found.quality),
        ]
    )


def run(args: argparse.Namespace) -> int:
    """0: kept; 1: broken, or answers were swapped; 2: nothing was proved, or could be."""
    stolen = Stolen()
    try:
        asked = traffic.from_arguments(args)
        variant = described(args.host, args.variant)
        calls = traffic.calls(asked, task=variant["task"], count=1000)
        found = asyncio.run(
            overloaded(
                args.host,
                args.variant,
                calls,
                times=args.times,
                seconds=args.seconds,
                deadline_ms=args.deadline_ms,
                seed=args.seed,
                labels=variant["labels"],
            )
        )
    except (BadTraffic, Unusable) as error:
        print(error, file=sys.stderr)
        return 2
    print(told(found))
    print(f"stolen      {stolen}, by the host's other guests")
    reasons, wrong = invalid(found), broken(found)
    for each in (*(f"invalid: {reason}" for reason in reasons), *wrong):
        print(each, file=sys.stderr)
    # An answer that is another's is proof, whoever was in the way.
    return 1 if found.swapped else 2 if reasons else 1 if wrong else 0
