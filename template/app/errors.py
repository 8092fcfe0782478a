"""One tree of errors, one class per reaction.

ServiceError                    what the caller is told; each class is one HTTP answer
├── BadRequest                  400  mend the request (`param` names the place)
├── Unauthenticated             401  send a valid key
├── NotFound                    404  `model_not_found`, or no such route
├── MethodNotAllowed            405
├── RequestInFlight             409  the same request is still running: wait
├── ReplyNotStored              409  it ran, but its reply was too large to keep
├── BodyTooLarge                413  send fewer bytes
├── ContextTooLong              413  send fewer tokens
├── IdempotencyKeyReused        422  another body came under this key
├── InvalidBody                 422  the owner's own endpoints: the body does not fit
├── RateLimited                 429  wait for `retry_after_seconds`
├── CallerBudgetExhausted       429  nothing more today for this caller
├── InternalError               500  our fault
└── Unavailable                 503  wait and try again
    ├── BudgetExhausted              nothing more today for anyone
    ├── DeadlineExceeded             no answer in time
    ├── ProvidersUnavailable         every provider of the chain failed
    ├── StoreUnavailable             admission fails closed
    └── ShuttingDown                 another instance will answer

ProviderError                   what a provider did; `availability` decides what follows
├── ProviderUnavailable         the same provider may answer a later attempt
├── ProviderTimeout             silent or too slow: it may have billed, ask another
├── ProviderRefusesAccount      bad key, quota gone: a retry is pointless, alert
└── ProviderRejectsRequest      the request itself is at fault: nobody else is asked
"""

from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Literal


@dataclass(frozen=True, slots=True)
class Shortage:
    """The limit that a request has met, what was left of it, and what was asked of it: requests,
    tokens, bytes or dollars. `None` where nobody knows."""

    limit: float
    asked: float | None
    left: float | None = None


class ServiceError(Exception):
    """An answer to the caller. `detail` says the limit, the observed value and the remedy."""

    status: int = 500
    code: str = "internal_error"
    title: str = "Internal error"
    error_type: str = "api_error"
    """The `type` member of OpenAI's error object."""

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: int | None = None,
        headers: dict[str, str] | None = None,
        shortage: Shortage | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        self.headers = headers or {}
        self.shortage = shortage
        """In numbers what `detail` says in words, for the log."""


class BadRequest(ServiceError):
    status = 400
    code = "invalid_request"
    title = "Bad request"
    error_type = "invalid_request_error"


class Unauthenticated(ServiceError):
    status = 401
    code = "invalid_api_key"
    title = "Unauthenticated"
    error_type = "authentication_error"


class NotFound(ServiceError):
    status = 404
    code = "not_found"
    title = "Not found"
    error_type = "invalid_request_error"


class MethodNotAllowed(ServiceError):
    status = 405
    code = "method_not_allowed"
    title = "Method not allowed"
    error_type = "invalid_request_error"


class RequestInFlight(ServiceError):
    status = 409
    code = "request_in_flight"
    title = "The same request is still running"
    error_type = "invalid_request_error"


class ReplyNotStored(ServiceError):
    status = 409
    code = "reply_not_stored"
    title = "The reply was not kept"
    error_type = "invalid_request_error"


class BodyTooLarge(ServiceError):
    status = 413
    code = "request_too_large"
    title = "Request body too large"
    error_type = "invalid_request_error"


class ContextTooLong(ServiceError):
    status = 413
    code = "context_length_exceeded"
    title = "Input too long"
    error_type = "invalid_request_error"


class IdempotencyKeyReused(ServiceError):
    status = 422
    code = "idempotency_key_reused"
    title = "Idempotency key used for another request"
    error_type = "invalid_request_error"


class InvalidBody(ServiceError):
    status = 422
    code = "invalid_body"
    title = "Request body is not as expected"
    error_type = "invalid_request_error"


class RateLimited(ServiceError):
    status = 429
    code = "rate_limit_exceeded"
    title = "Too many requests"
    error_type = "requests"


class CallerBudgetExhausted(ServiceError):
    status = 429
    code = "insufficient_quota"
    title = "Daily budget of this caller is spent"
    error_type = "insufficient_quota"


class InternalError(ServiceError):
    pass


class EndpointError(ServiceError):
    """An owner's endpoint has raised its framework's own HTTP error."""

    def __init__(self, detail: str, *, status: int, headers: dict[str, str]) -> None:
        super().__init__(detail, headers=headers)
        self.status = status
        self.title = HTTPStatus(status).phrase
        self.code = self.title.lower().replace(" ", "_")
        if status < 500:
            self.error_type = "invalid_request_error"


class Unavailable(ServiceError):
    status = 503
    code = "service_unavailable"
    title = "Service unavailable"
    error_type = "api_error"


class BudgetExhausted(Unavailable):
    code = "daily_budget_exhausted"
    title = "Daily budget is spent"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"
    title = "No answer in time"


class ProvidersUnavailable(Unavailable):
    code = "providers_unavailable"
    title = "No provider answers"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"
    title = "The service's store does not answer"
    outcome_unknown = False
    """Whether the step may have been carried out, or may yet be, although no answer came."""
    reason = ""
    """What the store's driver said, for the owner; it holds no secret."""


class ShuttingDown(Unavailable):
    code = "shutting_down"
    title = "The service is shutting down"


class Billing(Enum):
    """What a failed attempt may have cost (GUARDRAIL: unknown usage is never refunded)."""

    NOTHING = "nothing"
    """Provably never processed: not sent, or refused by the vendor in so many words (4xx, 529)."""
    AMBIGUOUS = "ambiguous"
    """Bytes were sent and no usage came back: the attempt's whole reservation stays charged."""


class ProviderError(Exception):
    """A failed attempt. The message never holds a key, a prompt, or a URL with a query.

    `status` is the vendor's HTTP status where there was one.
    """

    def __init__(
        self,
        message: str,
        *,
        billing: Billing,
        status: int | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.billing = billing
        self.status = status
        self.retry_after_seconds = retry_after_seconds


class ProviderUnavailable(ProviderError):
    """Connection failed or broke, 408, 409, 429, 5xx, 529, or a reply that is not one."""


class ProviderTimeout(ProviderError):
    """The provider has crossed `limit`."""

    def __init__(
        self,
        message: str,
        *,
        billing: Billing,
        limit: Literal["connect", "first_byte", "idle"] = "first_byte",
    ) -> None:
        super().__init__(message, billing=billing)
        self.limit = limit


class ProviderRefusesAccount(ProviderError):
    """Credentials or quota: 401, 403, 402, `insufficient_quota`."""


class ProviderRejectsRequest(ProviderError):
    """The vendor blames the request: 400, 404, 413, 422, context too long, content policy.

    `code` and `param` are passed on to the caller where the vendor gave them. So are the vendor's
    own words, in `detail_for_caller`: they may quote the prompt and belong in no log, so the
    message holds no part of them.
    """

    def __init__(
        self,
        message: str,
        *,
        billing: Billing = Billing.NOTHING,
        status: int | None = None,
        code: str | None = None,
        param: str | None = None,
        detail_for_caller: str | None = None,
    ) -> None:
        super().__init__(message, billing=billing, status=status)
        self.code = code
        self.param = param
        self.detail_for_caller = detail_for_caller
