"""What a frame of the control channel may say: JSON objects, as models that accept nothing else."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
)

from sandyard.errors import ArgumentError, ArgumentTypeError, SandboxError, shown
from sandyard.lifecycle import Processes
from sandyard.limits import PORT_WAIT_TIMEOUT_S, TERMINAL_SCROLLBACK_BYTES
from sandyard.narrowing import Narrowing
from sandyard.policy import Policy
from sandyard.server.framing import FrameError
from sandyard.server.wording import Message, Text, Variables

__all__ = [
    "PROTOCOL",
    "CallVerb",
    "Create",
    "Credit",
    "Delete",
    "Exec",
    "Fork",
    "FromCaller",
    "Hello",
    "InputEnd",
    "Leave",
    "ListProcesses",
    "ListSessions",
    "Logs",
    "Missed",
    "OpenTerminal",
    "ReadTerminal",
    "RemoveProcess",
    "Request",
    "Resize",
    "SaveSnapshot",
    "Shut",
    "Signal",
    "SignalProcess",
    "StartProcess",
    "Started",
    "Status",
    "WaitForPort",
    "WaitProcess",
    "WriteProcess",
    "made",
    "parse_from_caller",
    "parse_hello",
    "parse_request",
]

PROTOCOL: Final = 1
"""The version of the wire; it changes with the first release that says something else."""

_Model = TypeVar("_Model")


class Hello(Message):
    """The first message of each side.

    Attributes:
        protocol: version of the wire.
        version: version of the package.
        pid: the process that says it, for messages.
    """

    # What a later version says besides must not hide which version it is.
    model_config = ConfigDict(extra="ignore")

    type: Literal["hello"] = "hello"
    protocol: int
    version: str
    pid: int = 0


# --- requests: the caller's second message ----------------------------------------------------


class Create(Message):
    """Make a session and start it; the result is a ``SessionInfo``.

    Attributes:
        name: what it is called, or None for its id.
        policy: what its commands may touch.
        manifest: what its workspace is made of, as ``Manifest.model_dump(mode="json")`` has it with
            its secrets.
        environ: the caller's variables.
        directory: the caller's working directory.
        snapshot: what it begins with: a snapshot of this user's store, by its id, its label or the
            name of its history; None for nothing.
        exposed_ports: ports on which its servers are reached on the server's machine.
        overlay: the directory that its workspace is an overlay over; None for no overlay.
        layered: whether it lies upon layers, so that its forks copy only what was changed.
        start: whether it is started, too.
    """

    type: Literal["create"] = "create"
    name: str | None = None
    policy: Policy = Policy()
    manifest: dict[str, JsonValue] = Field(default_factory=dict)
    environ: Variables = Field(default_factory=dict)
    directory: Text = "/"
    snapshot: Text | None = None
    exposed_ports: tuple[int, ...] = ()
    overlay: Text | None = None
    layered: bool = False
    start: bool = True


class ListSessions(Message):
    """List the sessions; the result has a ``SessionInfo`` for each.

    Attributes:
        gone: True lists those that are no more as well, as far as the server remembers them.
    """

    type: Literal["list"] = "list"
    gone: bool = False


class Status(Message):
    """Ask how the server is; the result is a ``ServerInfo``."""

    type: Literal["status"] = "status"


class Shut(Message):
    """End all sessions, and the server."""

    type: Literal["shut"] = "shut"


class _OfSession(Message):
    """A request about one session.

    Attributes:
        session: its name, its id, or the beginning of its id.
    """

    session: str


class Fork(_OfSession):
    """Make another session from the same point and start it; the result is a ``SessionInfo``.

    Attributes:
        name: what it is called, or None for its id.
        processes: what becomes of what runs in the session meanwhile.
    """

    type: Literal["fork"] = "fork"
    name: str | None = None
    processes: Processes = "keep"


class SaveSnapshot(_OfSession):
    """Save a session's files in this user's store; the result is a ``SnapshotInfo``.

    Attributes:
        label: what the snapshot is called.
        tags: further words.
        processes: what becomes of what runs in the session meanwhile.
    """

    type: Literal["save_snapshot"] = "save_snapshot"
    label: str = ""
    tags: tuple[str, ...] = ()
    processes: Processes = "keep"


class Delete(_OfSession):
    """End a session, and delete its workspace if it is private."""

    type: Literal["delete"] = "delete"


class _Command(_OfSession):
    """A command: what ``session.exec`` takes."""

    command: tuple[Text, ...]
    shell: bool | tuple[Text, ...] = True
    timeout: float | None = None
    user: str | None = None
    cwd: Text | None = None
    env: Variables | None = None


class Exec(_Command):
    """Run a command; it ends with the call. Output comes on its channels, the result at the end.

    Attributes:
        input: True if bytes for its stdin come on the input channel.
    """

    type: Literal["exec"] = "exec"
    input: bool = False
    leftovers: Literal["keep", "end"] = "keep"
    narrow: Narrowing | None = None


class StartProcess(_Command):
    """Start a command in the background; the result is a ``ProcessInfo``.

    Attributes:
        input: True for an input that ``WriteProcess`` writes to.
    """

    type: Literal["start_process"] = "start_process"
    name: str | None = None
    input: bool = False
    log_limit: int | None = None
    narrow: Narrowing | None = None


class ListProcesses(_OfSession):
    """List what runs in the background and on terminals."""

    type: Literal["processes"] = "processes"


class _OfProcess(_OfSession):
    """A request about one background process.

    Attributes:
        process: its id or name.
    """

    process: str


class Logs(_OfProcess):
    """Read what a process wrote: what ``process.logs`` takes."""

    type: Literal["logs"] = "logs"
    start: Literal["beginning", "now"] = "beginning"
    last_bytes: int | None = None
    last_lines: int | None = None
    stream: Literal["both", "stdout", "stderr"] = "both"
    follow: bool = True


class WaitProcess(_OfProcess):
    """Wait for the exit of a process, or of a terminal's command; the result is a ``Result``."""

    type: Literal["wait"] = "wait"
    timeout: float | None = None


class WaitForPort(_OfProcess):
    """Wait until a server takes connections, or the process ends; the result is an ``Endpoint``."""

    type: Literal["wait_for_port"] = "wait_for_port"
    port: int
    timeout: float = PORT_WAIT_TIMEOUT_S


class SignalProcess(_OfProcess):
    """Send a signal to a process, or to the command of a terminal."""

    type: Literal["signal_process"] = "signal_process"
    signal: str | int = "TERM"
    tree: bool = False


class WriteProcess(_OfProcess):
    """Write what comes on the input channel to a terminal, or a process that was started with an input.

    Attributes:
        close: True closes its input afterwards.
    """

    type: Literal["write_process"] = "write_process"
    close: bool = False


class RemoveProcess(_OfProcess):
    """End a process; with ``forget`` its log goes, too."""

    type: Literal["remove_process"] = "remove_process"
    forget: bool = True


class OpenTerminal(_Command):
    """Start a command on a terminal; the result is a ``ProcessInfo``."""

    type: Literal["terminal"] = "terminal"
    name: str | None = None
    rows: int = 24
    columns: int = 80
    scrollback: int = TERMINAL_SCROLLBACK_BYTES
    leftovers: Literal["keep", "end"] = "keep"
    narrow: Narrowing | None = None


class ReadTerminal(_OfProcess):
    """Be at a terminal until its command exits or the caller hangs up, which leaves it running.

    The result is a ``ProcessInfo``. An empty name is the newest terminal whose command runs.

    Attributes:
        rows: size of the caller's window; None leaves the terminal's as it is.
        replay: True begins with what it has shown.
        input: True if what is typed comes on the input channel.
    """

    type: Literal["attach"] = "attach"
    rows: int | None = None
    columns: int | None = None
    replay: bool = True
    input: bool = True


class CallVerb(_OfSession):
    """Call a method of the session that ``verbs`` carries; the result is a ``Returned``.

    Attributes:
        verb: its name.
        arguments: by their names, as ``values`` packs them. Contents come on the input channel.
    """

    type: Literal["verb"] = "verb"
    verb: str
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


Request = (
    Create | Fork | SaveSnapshot | ListSessions | Status | Shut | Delete | Exec | StartProcess
    | ListProcesses | Logs | WaitProcess | WaitForPort | SignalProcess | WriteProcess
    | RemoveProcess | OpenTerminal | ReadTerminal | CallVerb
)  # fmt: skip
"""What a caller may want."""


# --- during a call ----------------------------------------------------------------------------


class Signal(Message):
    """From the caller: send the command a signal."""

    type: Literal["signal"] = "signal"
    number: int
    tree: bool = False


class Resize(Message):
    """From the caller: the window has another size."""

    type: Literal["resize"] = "resize"
    rows: int
    columns: int


class InputEnd(Message):
    """From the caller: nothing more comes on the input channel."""

    type: Literal["input_end"] = "input_end"


class Leave(Message):
    """From the caller: it wants no more of the call, and to hear when what it began has ended."""

    type: Literal["leave"] = "leave"


FromCaller = Signal | Resize | InputEnd | Leave
"""What a caller may say after its request."""


class Started(Message):
    """From the server: it runs, and signals reach it.

    Attributes:
        confinement: what holds for a command: ``ConfinementReport.document()``.
        output_limit: bytes of each stream that the policy has kept; None where it says nothing.
    """

    type: Literal["started"] = "started"
    confinement: dict[str, str] | None = None
    output_limit: int | None = None


class Credit(Message):
    """From the server: so many more bytes of input may be sent."""

    type: Literal["credit"] = "credit"
    bytes: int = Field(gt=0)


class Missed(Message):
    """From the server: bytes of a stream that are missing at this place."""

    type: Literal["missed"] = "missed"
    stream: Literal["stdout", "stderr"]
    bytes: int = Field(gt=0)


# --- making and reading ----------------------------------------------------------------------------------

_HELLO: Final = TypeAdapter[Hello](Hello)
_REQUEST: Final = TypeAdapter[Request](Annotated[Request, Field(discriminator="type")])
_FROM_CALLER: Final = TypeAdapter[FromCaller](Annotated[FromCaller, Field(discriminator="type")])


def made(kind: type[_Model], **fields: object) -> _Model:
    """A message with some fields, that a caller has given.

    Raises:
        ArgumentTypeError: one of them is of another type.
    """
    try:
        return kind(**fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ArgumentTypeError(
            f"{place}: {first['msg']}", op="connect", argument=place, value=first["input"]
        ) from None


def parse_hello(payload: bytes) -> Hello:
    """Read the first message of the other side.

    Raises:
        FrameError: it is something else.
    """
    return _parsed(_HELLO, payload)


def parse_from_caller(payload: bytes) -> FromCaller:
    """Read what a caller says during a call.

    Raises:
        FrameError: it is something else.
    """
    return _parsed(_FROM_CALLER, payload)


def parse_request(payload: bytes) -> Request:
    """Read a caller's request.

    Raises:
        FrameError: it is none.
        ArgumentError: it is one, and one of its fields makes no sense.
        SandboxError: a value in it refuses itself, as a policy does.
    """
    try:
        return _REQUEST.validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        own = first.get("ctx", {}).get("error")
        if isinstance(own, SandboxError):
            raise own from None
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] in _SHAPELESS or not place:
            raise FrameError(first["msg"]) from None
        raise ArgumentError(
            f"the request can't be read: {shown(place)}: {first['msg']}",
            op="connect",
            argument=place,
            value=None,
        ) from None


def _parsed(adapter: TypeAdapter[_Model], payload: bytes) -> _Model:
    try:
        return adapter.validate_json(payload)
    except ValidationError as error:
        raise FrameError(error.errors(include_url=False, include_input=False)[0]["msg"]) from None


_SHAPELESS: Final = frozenset({"json_invalid", "union_tag_invalid", "union_tag_not_found"})
"""Errors of a message that is none, rather than of one field of it."""
