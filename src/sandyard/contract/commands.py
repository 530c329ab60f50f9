"""The contract of commands: waited for, streamed, on a terminal, in the background."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Literal

from sandyard.contract.optional import optional
from sandyard.limits import TERMINAL_COLUMNS, TERMINAL_ROWS, TERMINAL_SCROLLBACK_BYTES
from sandyard.types import ExecResult, User

if TYPE_CHECKING:
    from sandyard.confinement.explanation import Explanation
    from sandyard.contract.handles import RunningCommand, RunningProcess, RunningTerminal
    from sandyard.narrowing import Narrowing
    from sandyard.process import StdinSource
    from sandyard.process.updates import PtyExecUpdate

__all__ = ["CommandContract"]

_Leftovers = Literal["keep", "end"]


class CommandContract(ABC):
    """What a session does with commands.

    All of these take their command as words: with ``shell=True`` one word is the text of ``sh -c``,
    several are quoted and joined; with a list, that is the shell; with False they are the argv. The
    directory is the workspace unless ``cwd`` is given, the variables of ``env`` come over those of the
    session, and ``user`` is ``"agent"`` or a user of the manifest's.
    """

    @abstractmethod
    async def exec(  # noqa: PLR0913  # one for each thing that a caller may say of a command
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        cwd: str | PurePath | None = None,
        env: Mapping[str, str] | None = None,
        stdin: StdinSource | None = None,
        output_limit: int | None = None,
        leftovers: _Leftovers = "keep",
        narrow: Narrowing | None = None,
    ) -> ExecResult:
        """Run a command and wait for its exit.

        It returns when the command has exited, whoever still holds its pipes. Its input is empty
        unless ``stdin`` is given. Timeout and cancellation end the whole tree of the command.

        Args:
            command: words, as the class says.
            timeout: seconds; None (default) for the session's own limit.
            shell: as the class says; ``user``, ``cwd`` and ``env`` likewise.
            stdin: bytes, a binary file or an async iterable of bytes; None (default) is empty.
            output_limit: bytes kept of stdout and of stderr, head and tail (default: 16 MiB).
            leftovers: ``"keep"`` (default) lets processes live on that the command leaves running,
                ``"end"`` ends them.
            narrow: what the command may do less than the session.

        Returns:
            Output and exit code: -N for signal N, 127 for a program that does not exist.

        Raises:
            ExecTimeoutError: it took too long; with the output so far.
            ExecTransportError: the sandbox could not run it, or ended meanwhile.
            ArgumentError, ArgumentTypeError: an argument is impossible.
            SessionClosedError: the session is not running.
        """

    @optional("exec")
    def stream(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        cwd: str | PurePath | None = None,
        env: Mapping[str, str] | None = None,
        stdin: StdinSource | None = None,
        leftovers: _Leftovers = "keep",
        narrow: Narrowing | None = None,
    ) -> AbstractAsyncContextManager[RunningCommand]:
        """Run a command and read its output as it comes; leaving the block ends its tree.

        Takes and raises what ``exec`` does.
        """
        raise NotImplementedError

    @optional("start_process")
    async def start_process(  # noqa: PLR0913  # what exec takes, and a name and a log
        self,
        *command: str | Path,
        name: str | None = None,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        cwd: str | PurePath | None = None,
        env: Mapping[str, str] | None = None,
        stdin: StdinSource | bool | None = None,
        log_limit: int | None = None,
        narrow: Narrowing | None = None,
    ) -> RunningProcess:
        """Start a command that lives until it ends, its handle is closed or the session shut down.

        Args:
            command: as ``exec`` takes it; what is not named here likewise.
            name: what it is called (default: its id).
            stdin: True for an input that is written to later.
            log_limit: bytes kept of its output (default: 16 MiB).

        Raises:
            SandboxError: what ``exec`` raises, but for an ``ExecTimeoutError``.
        """
        raise NotImplementedError

    @optional("terminal")
    async def terminal(  # noqa: PLR0913  # what exec takes, and a window
        self,
        *command: str | Path,
        rows: int = TERMINAL_ROWS,
        columns: int = TERMINAL_COLUMNS,
        shell: bool | Sequence[str] = True,
        timeout: float | None = None,
        user: str | User | None = None,
        cwd: str | PurePath | None = None,
        env: Mapping[str, str] | None = None,
        name: str | None = None,
        scrollback: int = TERMINAL_SCROLLBACK_BYTES,
        leftovers: _Leftovers = "keep",
        narrow: Narrowing | None = None,
    ) -> RunningTerminal:
        """Start a command on a terminal of its own.

        Args:
            command: as ``exec`` takes it; what is not named here likewise.
            rows: lines of its window, ``columns`` the characters of a line.
            name: what it is called (default: its number).
            scrollback: bytes of its output that are kept.

        Raises:
            SandboxError: what ``exec`` raises, but for an ``ExecTimeoutError``.
        """
        raise NotImplementedError

    @optional("pty_exec_start")
    async def pty_exec_start(
        self,
        *command: str | Path,
        timeout: float | None = None,
        shell: bool | Sequence[str] = True,
        user: str | User | None = None,
        tty: bool = False,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Start a command, and tell what it has written after a while, or when it exits.

        Args:
            command: as ``exec`` takes it; what is not named here likewise.
            tty: True for a terminal, to which ``pty_write_stdin`` types.
            yield_time_s: seconds to wait, from 0.25 to 30 (default: 10).
            max_output_tokens: what the output is shortened to.

        Returns:
            The output so far, and either ``process_id`` or ``exit_code``.
        """
        raise NotImplementedError

    @optional("pty_write_stdin")
    async def pty_write_stdin(
        self,
        *,
        session_id: int,
        chars: str,
        yield_time_s: float | None = None,
        max_output_tokens: int | None = None,
    ) -> PtyExecUpdate:
        """Type something into a process, and tell what it has written after a while.

        Args:
            session_id: the ``process_id`` of an earlier update.
            chars: what is typed; empty only asks for output.
            yield_time_s: seconds to wait (default: 0.25, and at least 5 where ``chars`` is empty).
            max_output_tokens: as ``pty_exec_start`` takes it.

        Raises:
            PtySessionNotFoundError: there is no such process, or its exit code was told already.
            PtyStdinUnavailableError: it was started without ``tty``.
        """
        raise NotImplementedError

    async def pty_terminate_all(self) -> None:  # noqa: B027  # a kind without any has none to end
        """End all processes of ``pty_exec_start``, with all that they started."""

    @optional("why")
    async def why(
        self, subject: str | PurePath | None = None, *, syscall: str | None = None
    ) -> Explanation:
        """Explain what commands may do with a path, an address or a system call, and by which rule."""
        raise NotImplementedError
