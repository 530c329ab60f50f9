"""The explainer of one session: it knows what is enforced, and answers why something is refused."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    ExecTimeoutError,
    SessionClosedError,
    shown,
)
from sandyard.finishing import in_thread

if TYPE_CHECKING:
    from sandyard.confinement.explanation import Enforced, Explanation
    from sandyard.explaining.audit_records import Refusal
    from sandyard.explaining.listening import AuditEar
    from sandyard.narrowing import Narrowing
    from sandyard.plan import Spawn
    from sandyard.types import Denial, ExecResult, RefusedCall

__all__ = ["Explainer"]


class Explainer:
    """Explains one session's refusals."""

    def __init__(self) -> None:
        self._enforced: Enforced | None = None
        self._ear: AuditEar | None = None

    def learn(self, enforced: Enforced) -> None:
        """Take note of what a start enforces."""
        self._enforced = enforced

    def listen(self, first: int) -> None:
        """Hear from the machine's audit what the sandbox is refused, where its plan says so.

        Args:
            first: the first of its uids outside.
        """
        self.close()
        plan = None if self._enforced is None else self._enforced.plan
        if plan is not None and plan.landlock is not None and plan.landlock.logged:
            from sandyard.explaining.listening import listen  # noqa: PLC0415  # few machines have it on

            self._ear = listen(range(first, first + 1 + plan.identity.further))

    def close(self) -> None:
        """Listen no longer; idempotent."""
        ear, self._ear = self._ear, None
        if ear is not None:
            ear.close()

    @property
    def enforced(self) -> Enforced | None:
        """What the session enforces; None before its first start."""
        return self._enforced

    async def why(
        self, subject: str | PurePath | None = None, *, syscall: str | None = None
    ) -> Explanation:
        """Explain what commands may do with something; ``UnixLocalSandboxSession.why`` says more.

        Raises:
            ArgumentError, ArgumentTypeError: it is no path, address or system call.
            SessionClosedError: the session was never started.
        """
        enforced = self._enforced
        if enforced is None:
            raise SessionClosedError(op="why", state="not started yet")
        if (subject is None) == (syscall is None):
            raise _refusal("give either a path or an address, or syscall=", "subject", subject)
        if enforced.unconfined:
            return await in_thread(_open_to_all, syscall or str(subject))
        if syscall is not None:
            return await in_thread(_explained_call, syscall, enforced)
        if not isinstance(subject, (str, PurePath)):
            raise ArgumentTypeError(
                "subject is a path or HOST:PORT", op="why", argument="subject", value=subject
            )
        address = await in_thread(_address_of, subject) if isinstance(subject, str) else None
        if address is not None:
            return await in_thread(_explained_address, *address, enforced)
        path = os.fspath(subject)
        if not path or "\0" in path:
            raise _refusal("a path is not empty and holds no NUL", "subject", subject)
        return await in_thread(_explained_path, path, enforced)

    async def explain_late(
        self, error: ExecTimeoutError, spawn: Spawn, narrow: Narrowing | None, began: float
    ) -> None:
        """Put the denials of a command that took too long into its result; ``explain`` says more."""
        if error.result is not None:
            said = error.result.stderr, error.result.stdout
            await self.explain(error.result, spawn, narrow, *said, began=began)

    async def explain(
        self,
        result: ExecResult,
        spawn: Spawn,
        narrow: Narrowing | None,
        stderr: bytes,
        stdout: bytes,
        *,
        began: float,
    ) -> None:
        """Put the denials of a command that failed into its result.

        Args:
            result: of the command.
            spawn: the command.
            narrow: what it has less than its session, in words; None for nothing.
            stderr: the end of what it wrote, at least; ``stdout`` likewise.
            began: when it was started, in seconds since the epoch.
        """
        enforced, ear = self._enforced, self._ear
        if enforced is None or enforced.unconfined:
            return
        heard = () if ear is None else await ear.heard(began, result.duration_s)
        if not (stderr or stdout or result.refused_calls or heard):
            return
        if narrow is not None:
            enforced = _lessened(enforced, spawn, narrow)
        refused = result.refused_calls
        result.denials = await in_thread(
            _denials, stderr, stdout, enforced, spawn.cwd, refused, heard
        )


# What explains is loaded where it is needed, in a thread: most sessions never ask.


def _lessened(enforced: Enforced, spawn: Spawn, narrow: Narrowing) -> Enforced:
    from sandyard.confinement.explanation import Less  # noqa: PLC0415  # seldom needed

    layer = None if spawn.narrowed is None else spawn.narrowed.landlock
    return replace(enforced, less=Less(narrow, layer))


def _denials(
    stderr: bytes,
    stdout: bytes,
    enforced: Enforced,
    cwd: bytes,
    refused: tuple[RefusedCall, ...],
    heard: tuple[Refusal, ...],
) -> tuple[Denial, ...]:
    from sandyard.explaining.denials import find_denials  # noqa: PLC0415  # seldom needed

    return find_denials(stderr, stdout, enforced, cwd, refused, heard)


def _open_to_all(subject: str) -> Explanation:
    from sandyard.confinement.explanation import Explanation  # noqa: PLC0415  # seldom needed

    rule = "the session has no wall: whatever the user may whom its commands run as"
    return Explanation(subject, "write", rule, None)


def _explained_path(path: str, enforced: Enforced) -> Explanation:
    from sandyard.confinement.explaining import explain_path  # noqa: PLC0415  # seldom needed
    from sandyard.explaining.looking import find_obstacle, make_look  # noqa: PLC0415  # seldom needed

    return explain_path(path, enforced, look=make_look(), obstacle=find_obstacle)


def _explained_address(host: str, port: int | None, enforced: Enforced) -> Explanation:
    from sandyard.confinement.explaining_calls import explain_address  # noqa: PLC0415  # seldom needed

    return explain_address(host, port, enforced)


def _explained_call(name: str, enforced: Enforced) -> Explanation:
    from sandyard.confinement.explaining_calls import explain_syscall  # noqa: PLC0415  # seldom needed
    from sandyard.confinement.explanation import Explanation  # noqa: PLC0415  # seldom needed

    if not isinstance(name, str):
        raise ArgumentTypeError(
            "syscall is a name, such as 'ptrace'", op="why", argument="syscall", value=name
        )
    if not name.isidentifier() or not name.isascii():
        raise _refusal(f"{shown(name)} is no name of a system call", "syscall", name)
    told = explain_syscall(name, enforced)
    # Only the calls that some rule names are known by name.
    return told or Explanation(name, "write", "no rule refuses a call of this name", None)


def _address_of(text: str) -> tuple[str, int | None] | None:
    from sandyard.explaining.addresses import find_address  # noqa: PLC0415  # seldom needed

    try:
        return find_address(text)
    except ValueError as error:
        raise _refusal(f"{shown(text)} is no URL: {error}", "subject", text) from error


def _refusal(message: str, argument: str, value: object) -> ArgumentError:
    return ArgumentError(message, op="why", argument=argument, value=value)
