"""
How log lines look: one JSON object each, or words for people; ours, BentoML's and uvicorn's alike.

No line has a caller's text: where an error comes up in a request its message is left out. Knows
nothing of what is logged.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any

import msgspec

from service.seen import SEEN


class Words(logging.Formatter):
    """A line as BentoML writes it, and what a request's errors may say."""

    def formatException(self, ei: Any) -> str:
        """Where it happened and what kind it is; its message only where nobody's text is in it."""
        if SEEN.get() is None:
            return super().formatException(ei)
        kind, _, where = ei
        return "".join([*traceback.format_tb(where), kind.__name__])

    def formatMessage(self, record: logging.LogRecord) -> str:
        seen = SEEN.get()
        line = super().formatMessage(record)
        return line if seen is None else f"{line} ({seen.request_id}, trace {seen.trace_id})"


class Lines(Words):
    """
    A line as one JSON object: time (UTC), level, event, logger, process; the ids of the request
    that is at hand; `error` with the place where it came up; and what the record adds in `fields`.
    """

    def format(self, record: logging.LogRecord) -> str:
        seen = SEEN.get()
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", None) or record.getMessage(),
            "logger": record.name,
            "process": record.process,
        }
        if seen is not None:
            line |= {"request_id": seen.request_id, "trace_id": seen.trace_id}
        line |= getattr(record, "fields", {})
        if record.exc_info and record.exc_info[0]:
            line["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def begin(form: str | None) -> None:
    """
    Write lines so, "json" or "text", in this process, where BentoML has set up its logging.

    None: words where a person reads along, JSON elsewhere.
    """
    chosen = form or ("text" if sys.stdout.isatty() else "json")
    with contextlib.suppress(ImportError, AttributeError):
        from bentoml._internal import log

        words = Words(log.TRACED_LOG_FORMAT, log.DATE_FORMAT)
        for handler in logging.getLogger().handlers:  # BentoML's loggers share one
            if any(isinstance(each, log.TraceRecordFilter) for each in handler.filters):
                handler.setFormatter(Lines() if chosen == "json" else words)
                logging.captureWarnings(chosen == "json")
                for name in ("uvicorn.error", "circus"):  # the root would say it once more
                    logging.getLogger(name).propagate = False
