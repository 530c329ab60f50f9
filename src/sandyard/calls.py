"""What a caller asks of exec and stream: arguments, checked, become a CommandCall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Literal

from sandyard.accounts import AGENT, ONLY_AGENT, Account, Accounts
from sandyard.errors import ArgumentError, ArgumentTypeError, OpName, SessionClosedError
from sandyard.plan import Narrowed, Spawn, SpawnUser
from sandyard.process import CommandCall, StdinSource
from sandyard.process.argv import (
    checked_environment,
    checked_leftovers,
    checked_limit,
    checked_stdin,
    checked_timeout,
    command_argv,
    command_directory,
    encoded_words,
)
from sandyard.resources import EnforcedLimit, ResourceLimits
from sandyard.types import User

if TYPE_CHECKING:
    from sandyard.confinement.explanation import Enforced
    from sandyard.narrowing import Narrowing
    from sandyard.process.terminal import TerminalCall
    from sandyard.process.terminal_result import Teller

__all__ = ["CommandRequest", "Leftovers", "find_user", "prepare_call", "prepare_terminal"]

Leftovers = Literal["keep", "end"]


@dataclass(slots=True, kw_only=True)
class CommandRequest:
    """The arguments of one ``exec`` or ``stream``, as the caller gave them."""

    command: Sequence[str | PurePath]
    timeout: float | None
    shell: bool | Sequence[str]
    user: str | User | None
    cwd: str | PurePath | None
    env: Mapping[str, str] | None
    stdin: StdinSource | None
    leftovers: Leftovers
    output_limit: int | None = None
    narrow: Narrowing | None = None
    window: tuple[int, int] | None = None
    presets: Mapping[bytes, bytes] | None = None  # variables, unless ``env`` says otherwise

    @property
    def looks(self) -> bool:
        """Whether preparing it looks at the disk: at what lies beside what it is denied."""
        return bool(getattr(self.narrow, "deny", ()))  # what it is, is checked later


def prepare_call(
    request: CommandRequest,
    environment: tuple[tuple[bytes, bytes], ...],
    root: str,
    limits: ResourceLimits,
    enforced: Enforced | None = None,
    accounts: Accounts = ONLY_AGENT,
) -> CommandCall:
    """The call that the process room carries out.

    Args:
        request: what the caller asks.
        environment: the session's variables.
        root: where the workspace is inside.
        limits: the session's limits; what the request leaves open is as they say.
        enforced: what the session enforces, of which a narrowing takes something away.
        accounts: its users and groups.

    Raises:
        ArgumentError, ArgumentTypeError: an argument is impossible.
        PolicyError: the request narrows what the session does not have.
        ConfinementUnavailableError: this machine can't hold a command to less.
    """
    # What is not given is not looked at any closer: most commands give little.
    argv = command_argv(request.command, request.shell)
    account = (
        accounts.users[0] if request.user is None else find_user("exec", request.user, accounts)
    )
    timeout = limits.wall_time if request.timeout is None else checked_timeout(request.timeout)
    own = {} if request.env is None else checked_environment(request.env)
    if request.presets is not None:
        own = {**request.presets, **own}
    narrowed: Narrowed | None = None
    held: tuple[EnforcedLimit, ...] = ()
    if request.narrow is not None:
        narrowed, held, temporary = _narrowed(request.narrow, enforced)
        own = temporary | own
    if account.number:
        from sandyard.confinement.several import user_variables  # noqa: PLC0415  # few sessions do

        own = user_variables(account.name, account.home) | own
    if own:
        environment = tuple((dict(environment) | own).items())
    return CommandCall(
        words=argv,
        spawn=Spawn(
            argv=encoded_words(argv),
            environment=environment,
            cwd=command_directory(request.cwd, root),
            end_leftovers=request.leftovers != "keep" and checked_leftovers(request.leftovers),
            window=request.window,
            narrowed=narrowed,
            user=SpawnUser(account.number, account.groups)
            if account.number or account.groups
            else None,
        ),
        stdin=None if request.stdin is None else checked_stdin(request.stdin),
        timeout_s=timeout,
        limit=limits.output
        if request.output_limit is None
        else checked_limit(request.output_limit),
        wall_time=request.timeout is None and limits.wall_time is not None,
        held=held,
    )


def _narrowed(
    narrowing: Narrowing, enforced: Enforced | None
) -> tuple[Narrowed | None, tuple[EnforcedLimit, ...], dict[bytes, bytes]]:
    """What is taken away, the limits among it, and the variables that go with it."""
    from sandyard.confinement.narrowing import plan_narrowing  # noqa: PLC0415  # seldom needed
    from sandyard.narrowing import Narrowing  # noqa: PLC0415  # likewise

    if not isinstance(narrowing, Narrowing):
        raise ArgumentTypeError(
            "narrow is a Narrowing, such as Narrowing(writes=())",
            op="exec",
            argument="narrow",
            value=narrowing,
        )
    if enforced is None:  # whatever the reason: never with all that the session has
        raise SessionClosedError(op="exec", state="not started yet")
    from sandyard.workspace.siblings import list_siblings  # noqa: PLC0415  # seldom needed

    planned = plan_narrowing(narrowing, enforced, list_siblings)
    place = planned.temporary
    return planned.narrowed, planned.held, {b"TMPDIR": place.encode()} if place else {}


def prepare_terminal(
    call: CommandCall,
    name: str | None,
    scrollback: int,
    teller: Teller | None = None,
) -> TerminalCall:
    """A prepared command that has a window, on a terminal instead of pipes."""
    from sandyard.process.terminal import TerminalCall  # noqa: PLC0415  # not all use them

    return TerminalCall(
        words=call.words,
        spawn=call.spawn,
        timeout_s=call.timeout_s,
        name=name,
        scrollback=scrollback,
        held=call.held,
        wall_time=call.wall_time,
        teller=teller,
    )


def find_user(op: OpName, user: object, accounts: Accounts) -> Account:
    """The user that something is done as; None stands for ``agent``.

    Raises:
        ArgumentError: if there is no such user inside.
        ArgumentTypeError: if it is no name and no ``User``.
    """
    if user is None:
        return accounts.users[0]
    name = user.name if isinstance(user, User) else user
    if not isinstance(name, str):
        raise ArgumentTypeError("user is a name or a User", op=op, argument="user", value=user)
    found = accounts.user(name)
    if found is None:
        known = ", ".join(repr(account.name) for account in accounts.users)
        raise ArgumentError(
            f"there is no user {name!r} in the sandbox, which has {known}; others than {AGENT!r} "
            "are those that the manifest's users and groups name",
            op=op,
            argument="user",
            value=user,
        )
    return found
