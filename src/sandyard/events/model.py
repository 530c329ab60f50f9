"""Events as values: what is told, in which words, and how they are read back."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Final, Literal, TypeVar
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import to_json

from sandyard.errors import ArgumentError, ArgumentTypeError, shown
from sandyard.events.limits import OUTPUT_CHARS

__all__ = [
    "EventPayloadPolicy",
    "SandboxSessionEvent",
    "SandboxSessionFinishEvent",
    "SandboxSessionStartEvent",
    "Unmade",
    "event_to_json_line",
    "made_event",
    "validate_sandbox_session_event",
]


class SandboxSessionEvent(BaseModel):
    """What both kinds of events have; ``validate_sandbox_session_event`` reads either.

    Unknown fields are ignored: a later version may have written them.

    Attributes:
        version: of this form, 1.
        event_id: of this event alone; a receiver that gets it twice may drop one.
        ts: when, in UTC.
        session_id: of the session.
        seq: place of the event among those of its session, from 1, without gaps.
        op: the operation, as in ``SandboxError.op``.
        phase: ``"start"`` or ``"finish"``.
        span_id: of the operation; its finish event has the same.
        parent_span_id: of the operation within which it was called, if any.
        trace_id: of the caller's trace, if any.
        data: facts, cut to a readable length. Contents of files, standard input and variables are
            never among them.
    """

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    event_id: UUID = Field(default_factory=uuid4)
    ts: datetime = Field(default_factory=lambda: datetime.now(UTC))
    session_id: UUID
    seq: int = Field(ge=1)
    op: str
    phase: Literal["start", "finish"]
    span_id: str
    parent_span_id: str | None = None
    trace_id: str | None = None
    data: dict[str, JsonValue] = Field(default_factory=dict)


class SandboxSessionStartEvent(SandboxSessionEvent):
    """An operation began; ``data`` has its arguments."""

    phase: Literal["start"] = "start"


class SandboxSessionFinishEvent(SandboxSessionEvent):
    """An operation ended: well, with an error, or because it was cancelled.

    Attributes:
        ok: True if it did what was asked; a command that exits with another code than 0 did not.
        duration_ms: how long it took, in milliseconds.
        error_code: ``SandboxError.error_code``, or None.
        error_type: class of the error, ``"CancelledError"`` for a cancellation, or None.
        error_message: what it said, or None.
        error_retryable: whether the same call may succeed later; None where that can't be told.
        stdout: output of a command as text, cut; None unless the payload policy includes it.
        stderr: likewise.
        stdout_bytes: output as bytes, for a sink within this program; never in JSON.
        stderr_bytes: likewise.
    """

    phase: Literal["finish"] = "finish"
    ok: bool
    duration_ms: float
    error_code: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    error_retryable: bool | None = None
    stdout: str | None = None
    stderr: str | None = None
    stdout_bytes: bytes | None = Field(default=None, exclude=True, repr=False)
    stderr_bytes: bytes | None = Field(default=None, exclude=True, repr=False)


_Either = SandboxSessionStartEvent | SandboxSessionFinishEvent
_EITHER: Final[TypeAdapter[_Either]] = TypeAdapter(Annotated[_Either, Field(discriminator="phase")])


class EventPayloadPolicy(BaseModel):
    """How much of an operation's contents an event tells.

    A policy is laid over a more general one: only what was given to it counts.

    Attributes:
        include_exec_output: whether commands' output is told (default: no).
        max_stdout_chars: characters of standard output, if it is (default: 8,000).
        max_stderr_chars: characters of standard error, if it is (default: 8,000).
        include_write_len: whether the size of what is written is told (default: yes).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    include_exec_output: bool = False
    max_stdout_chars: int = Field(default=OUTPUT_CHARS, ge=0)
    max_stderr_chars: int = Field(default=OUTPUT_CHARS, ge=0)
    include_write_len: bool = True

    def over(self, general: EventPayloadPolicy) -> EventPayloadPolicy:
        """This policy where it says something, the general one elsewhere."""
        own = {name: getattr(self, name) for name in self.model_fields_set}
        return general.model_copy(update=own)


def validate_sandbox_session_event(payload: object) -> SandboxSessionEvent:
    """Read an event back.

    Args:
        payload: an event, what ``model_dump`` gave, or its JSON as text or bytes.

    Raises:
        ArgumentTypeError: it is none of these.
        ArgumentError: it is no event.
    """
    if isinstance(payload, SandboxSessionEvent):
        return payload
    if not isinstance(payload, Mapping | str | bytes):
        raise ArgumentTypeError(
            f"an event is a mapping or JSON, not {shown(payload)}",
            op="events",
            argument="payload",
            value=payload,
        )
    try:
        if isinstance(payload, Mapping):
            return _EITHER.validate_python(dict(payload))
        return _EITHER.validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ArgumentError(
            f"no event can be read from this: {field}: {first['msg']}",
            op="events",
            argument=field or "payload",
            value=first["input"],
            cause=error,
        ) from error


def event_to_json_line(event: SandboxSessionEvent) -> str:
    """An event as one line of JSON: compact, keys sorted, with a newline at its end."""
    names = _TOLD.get(type(event))
    if names is None:  # one of a caller's own, with fields of any kind
        document: dict[str, object] = _sorted(event.model_dump(mode="json"))
    else:
        fields = event.__dict__
        document = {name: fields[name] for name in names}
        document["data"] = _sorted(event.data)
    return to_json(document).decode() + "\n"


def _sorted(value: Mapping[str, JsonValue]) -> dict[str, object]:
    return {name: _in_order(value[name]) for name in sorted(value)}


def _in_order(value: JsonValue) -> object:
    if type(value) is str:  # most of them
        return value
    if isinstance(value, dict):
        return _sorted(value)
    return [_in_order(part) for part in value] if isinstance(value, list) else value


class Unmade(ABC):
    """An event that is made when a sink takes it: an operation does not wait for that.

    Attributes:
        op: the operation.
    """

    __slots__ = ("_event", "_ts", "op")

    def __init__(self, op: str) -> None:
        self.op = op
        self._ts = time.time()
        self._event: SandboxSessionEvent | None = None

    def made(self) -> SandboxSessionEvent:
        """The event, the same for all who ask."""
        if self._event is None:
            self._event = self._make(datetime.fromtimestamp(self._ts, UTC))
        return self._event

    @abstractmethod
    def _make(self, ts: datetime) -> SandboxSessionEvent:
        """Makes it, of what was known at that time."""


E = TypeVar("E", SandboxSessionStartEvent, SandboxSessionFinishEvent)


def made_event(kind: type[E], fields: dict[str, object]) -> E:
    """An event of what this library knows to be right.

    It does what ``model_construct`` does, which takes as long as some commands.

    Args:
        kind: which.
        fields: those without a default, the time, and what else is told; the event keeps them.
    """
    event = kind.__new__(kind)
    kept = {**_DEFAULTS[kind], "event_id": uuid4(), **fields}
    for name, value in (
        ("__dict__", kept),
        ("__pydantic_fields_set__", set(kept)),
        ("__pydantic_extra__", None),
        ("__pydantic_private__", None),
    ):
        object.__setattr__(event, name, value)
    return event


_KINDS: Final = (SandboxSessionStartEvent, SandboxSessionFinishEvent)
_TOLD: Final[dict[type[SandboxSessionEvent], list[str]]] = {
    kind: sorted(name for name, field in kind.model_fields.items() if not field.exclude)
    for kind in _KINDS
}
"""The fields of our own events, all of which can be told at once: dumping them first costs as much again."""

_DEFAULTS: Final = {
    kind: {
        name: field.default
        for name, field in kind.model_fields.items()
        if not field.is_required() and field.default_factory is None
    }
    for kind in _KINDS
}
