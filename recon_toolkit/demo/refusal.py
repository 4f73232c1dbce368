"""Why a request gets no reconstruction."""

from __future__ import annotations


class Refusal(Exception):
    """An answer other than a reconstruction, for people.

    Args:
        status: of HTTP.
        message: one sentence without its full stop.
        remedy: another: what to do about it.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, message: str, remedy: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.remedy = remedy
        self.headers = headers or {}


def busy(message: str, seconds: int) -> Refusal:
    """503: it may work in ``seconds``."""
    return Refusal(503, message, "Try again in a moment", {"Retry-After": str(seconds)})
