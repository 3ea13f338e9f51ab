"""
The tree of everything raised on purpose; each class carries the HTTP status it becomes.

* KadogoError
  x RequestError              the caller can fix it
    - MalformedRequest        400
    - Unauthorized            401
    - Forbidden               403
    - UnknownVariant          404
    - SlowBody                408
    - TooLarge                413
    - UnsupportedContent      415
    - InvalidRequest          422
    - RateLimited             429
  x ServiceError              we must fix it, or the caller waits
    - Overloaded              429
    - BadSetting              500
    - BrokenVariant           500
    - NotReady                503
    - Quarantined             503
    - DeadlineExceeded        504

Knows nothing of HTTP beyond the numbers. Messages never contain a caller's text.
"""

from __future__ import annotations


class KadogoError(Exception):
    """Something went wrong in a way we foresaw; `str(error)` tells the reader what to do."""

    status = 500
    title = "Internal error"


class RequestError(KadogoError):
    """The caller can fix it."""

    status = 400
    title = "Bad request"


class MalformedRequest(RequestError):
    """The body is not what its content type says (broken JSON, wrong encoding)."""

    title = "Malformed request"


class Unauthorized(RequestError):
    """No key came with the request, or none of ours."""

    status = 401
    title = "Unauthorized"


class Forbidden(RequestError):
    """The key is ours and may not do this."""

    status = 403
    title = "Forbidden"


class UnknownVariant(RequestError):
    """No variant of that name serves this task."""

    status = 404
    title = "Unknown variant"


class SlowBody(RequestError):
    """The body was still coming when its time was over."""

    status = 408
    title = "Request timeout"


class TooLarge(RequestError):
    """Too many inputs, too long an input or too large a body."""

    status = 413
    title = "Too large"


class UnsupportedContent(RequestError):
    """The body's content type or encoding is not one we read."""

    status = 415
    title = "Unsupported content type"


class InvalidRequest(RequestError):
    """Well-formed, but a field is missing, empty or of the wrong type."""

    status = 422
    title = "Invalid request"


class RateLimited(RequestError):
    """The key has spent its requests. `retry_after_s`: until it may send the next."""

    status = 429
    title = "Rate limited"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServiceError(KadogoError):
    """We must fix it, or the caller waits."""


class Overloaded(ServiceError):
    """The queue is full. `retry_after_s` is how long the work ahead takes to drain, in seconds."""

    status = 429
    title = "Overloaded"

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BadSetting(ServiceError):
    """A setting asks for what this host does not have; the message names the setting."""

    title = "Bad setting"


class BrokenVariant(ServiceError):
    """A variant folder is not what its manifest says."""

    title = "Broken variant"


class NotReady(ServiceError):
    """Starting up or shutting down."""

    status = 503
    title = "Not ready"


class Quarantined(ServiceError):
    """The variant failed its checks on this host and is not served."""

    status = 503
    title = "Variant quarantined"


class DeadlineExceeded(ServiceError):
    """The answer did not come in time; its work was dropped."""

    status = 504
    title = "Deadline exceeded"
