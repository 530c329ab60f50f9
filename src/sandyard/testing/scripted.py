"""ScriptedSession: a session for unit tests, whose commands are answered by a script."""

from __future__ import annotations

import asyncio
import inspect
import os
import posixpath
import shlex
from collections.abc import AsyncIterable, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final, Literal, Self

from sandyard.accounts import accounts_of
from sandyard.calls import find_user
from sandyard.contract import BaseSandboxSession
from sandyard.errors import (
    ArgumentError,
    ArgumentTypeError,
    ExecTimeoutError,
    ExecTransportError,
    OpName,
    SessionClosedError,
    UnscriptedCommandError,
    UnsupportedOperationError,
)
from sandyard.finishing import in_thread
from sandyard.lifecycle import Phase, check_phase
from sandyard.manifest import Dir, File, Manifest
from sandyard.process import OutputChunk
from sandyard.process.argv import (
    checked_environment,
    checked_leftovers,
    checked_limit,
    checked_stdin,
    checked_timeout,
    command_argv,
    command_directory,
)
from sandyard.process.capture import Capture
from sandyard.state import SandboxSessionState
from sandyard.testing.memory import MemoryFiles
from sandyard.testing.memory_verbs import MemoryVerbs
from sandyard.testing.scripting import (
    Answer,
    Command,
    Doing,
    Script,
    ScriptedCall,
    as_bytes,
    as_result,
    is_whole,
)
from sandyard.types import ExecResult, User

if TYPE_CHECKING:
    from sandyard.narrowing import Narrowing
    from sandyard.process import StdinSource

__all__ = ["ScriptedSession", "ScriptedSessionState"]

_Leftovers = Literal["keep", "end"]
_EXIT_CODES: Final = range(-64, 256)


class ScriptedSessionState(SandboxSessionState):
    """The state of a scripted session; nothing resumes it."""

    type: Literal["scripted"] = "scripted"


class ScriptedSession(MemoryVerbs, BaseSandboxSession):
    r"""A session for unit tests of code that is given one: no kernel, no process, no file of the host.

    Commands run nowhere: ``answer`` says what they write and how they end, and a command that has no
    answer raises an ``UnscriptedCommandError``. Files are in memory, and the file verbs behave as those
    of a real session do, but for links, users' permissions and policies, of which there are none.
    Arguments are checked as a real session checks them.

    What it does not have raises ``UnsupportedOperationError``: terminals, background processes, ``grep``,
    ``watch``, mounts, ``extract``, ``pack`` and ``unpack``. Nothing is saved by ``stop``.

    Args:
        files: what is in the workspace before the start, by path; text is written as UTF-8.
        manifest: of its entries, ``File`` and ``Dir`` are made at the start (default: nothing).

    Attributes:
        calls: the commands that it was asked to run, in their order.
        unscripted: those among them that the script had no answer to, also where the code under test
            has caught the error.

    Example:
        >>> session = ScriptedSession(files={"app.py": "print(42)"})
        >>> session.answer("python3 app.py", stdout="42\n")
        >>> async with session:
        ...     result = await session.exec("python3 app.py")
    """

    state: SandboxSessionState

    def __init__(
        self,
        *,
        files: Mapping[str, bytes | str] | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        if manifest is not None and not isinstance(manifest, Manifest):
            raise ArgumentTypeError(
                "manifest is a Manifest, or None", op="create", argument="manifest", value=manifest
            )
        made = Manifest() if manifest is None else manifest.model_copy(deep=True)
        self.state = ScriptedSessionState(manifest=made)
        self.calls: list[ScriptedCall] = []
        self.unscripted: list[ScriptedCall] = []
        self._script = Script()
        self._accounts = accounts_of(made.users, made.groups)
        self._tree = MemoryFiles(made.root)
        self._phase = Phase.NEW
        self._shut = asyncio.Event()
        for path, content in (files or {}).items():
            self._tree.put(path, as_bytes("files", content))

    # --- the script -------------------------------------------------------------------------------

    def answer(
        self,
        command: Command,
        *,
        stdout: str | bytes = b"",
        stderr: str | bytes = b"",
        exit_code: int = 0,
        raises: BaseException | None = None,
        does: Doing | None = None,
        times: int | None = None,
    ) -> Self:
        """Say what comes of a command. Of several answers that fit, the first not used up is given.

        Args:
            command: which ones: a text, such as ``"git status"``, for the words of that text however
                they are given; a list of words, for those; a compiled pattern of the whole text; or a
                function of a ``ScriptedCall`` that says whether.
            stdout: what it writes; text is encoded as UTF-8.
            stderr: likewise.
            exit_code: how it ends (default: 0); -N for signal N.
            raises: an error that is raised instead.
            does: a function of the ``ScriptedCall`` that is called instead, or a coroutine function. It
                may use the session's files, and returns an ``ExecResult``, or what is written.
            times: how often (default: always). ``check_answers`` fails where it was less.

        Returns:
            The session, for the next answer.

        Raises:
            ArgumentError, ArgumentTypeError: an argument is impossible.
        """
        if not is_whole(exit_code) or exit_code not in _EXIT_CODES:
            raise ArgumentError(
                "exit_code is from 0 to 255, or -N for signal N",
                op="exec",
                argument="exit_code",
                value=exit_code,
            )
        result = ExecResult(
            stdout=as_bytes("stdout", stdout),
            stderr=as_bytes("stderr", stderr),
            exit_code=exit_code,
        )
        self._script.add(Answer(command, result, raises, does, times))
        return self

    def check_answers(self) -> None:
        """Fail if a command had no answer, or an answer with ``times`` was given less often.

        Raises:
            UnscriptedCommandError: a command had none; whoever called it may have caught this.
            AssertionError: an answer is left.
        """
        if self.unscripted:
            words = self.unscripted[0].words
            raise UnscriptedCommandError(command=words, answers=self._script.known)
        if self._script.waiting:
            left = "; ".join(self._script.waiting)
            raise AssertionError(f"the script has answers that nobody asked for: {left}")

    # --- life -------------------------------------------------------------------------------------

    async def start(self, *, progress: object = None) -> None:
        """Make the manifest's files, at the first start; from now on commands are answered.

        Raises:
            UnsupportedOperationError: the manifest has another entry than a file or a directory.
            SessionClosedError: it is closed.
        """
        self._check("start")
        if self._phase is Phase.NEW:
            self._tree.at_once(self._make_entries)
            self.state.workspace_root_ready = True
        if self._phase is not Phase.RUNNING:
            self._phase, self._shut = Phase.RUNNING, asyncio.Event()

    def _make_entries(self) -> None:
        for path, entry in self.state.manifest.walk():
            if isinstance(entry, File):
                self._tree.put(path, entry.content)
            elif isinstance(entry, Dir):
                self._tree.make(path, parents=True)
            else:
                raise UnsupportedOperationError(
                    op="start", method="start", session=type(self).__name__, argument=entry.type
                )
            if path != ".":
                self._tree.set_mode(path, entry.permissions)

    async def stop(self) -> None:
        """Nothing: there is nowhere to save to."""

    async def shutdown(self) -> None:
        """End what waits; files can still be read and written."""
        if self._phase is Phase.RUNNING:
            self._phase = Phase.SHUT_DOWN
        self._shut.set()

    async def running(self) -> bool:
        """Tell whether commands are answered now."""
        return self._phase is Phase.RUNNING

    async def aclose(self) -> None:
        """Run the hooks, shut down and close the dependencies; it does not start again."""
        try:
            await super().aclose()
        finally:
            self._phase = Phase.CLOSED

    # --- commands ---------------------------------------------------------------------------------

    async def exec(  # noqa: PLR0913  # as the contract has it
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
        """Answer a command as the script says.

        Raises:
            UnscriptedCommandError: it does not say.
            ExecTimeoutError: a coroutine function of the script's took longer than ``timeout``.
            ExecTransportError: the session was shut down meanwhile.
            SessionClosedError: it is not running.
            ArgumentError, ArgumentTypeError: an argument is impossible.
        """
        self._check("exec")
        if narrow is not None:
            raise self._lacks("narrow")
        checked_leftovers(leftovers)
        limit = None if output_limit is None else checked_limit(output_limit)
        given = checked_stdin(stdin)
        call = ScriptedCall(
            words=(argv := command_argv(command, shell=False)),
            text=argv[0] if len(argv) == 1 else shlex.join(argv),
            argv=command_argv(command, shell),
            timeout=checked_timeout(timeout),
            user=find_user("exec", user, self._accounts).name,
            cwd=self._directory(cwd),
            env={
                os.fsdecode(name): os.fsdecode(value)
                for name, value in checked_environment(env).items()
            },
            stdin=await _read_stdin(given, argv),
        )
        self.calls.append(call)
        return _bounded(await self._answered(call), limit)

    def _directory(self, cwd: str | PurePath | None) -> str:
        """The directory of a command; in the workspace it has to be one."""
        absolute = posixpath.normpath(os.fsdecode(command_directory(cwd, self._tree.inside)))
        if f"{absolute}/".startswith(f"{self._tree.inside}/"):
            node = self._tree.node(absolute, "exec")
            if node is None or not node.is_dir:
                raise ArgumentError(
                    f"cwd {absolute} is no directory of the sandbox",
                    op="exec",
                    argument="cwd",
                    value=cwd,
                )
        return absolute

    async def _answered(self, call: ScriptedCall) -> ExecResult:
        try:
            answer = self._script.find(call)
        except UnscriptedCommandError:
            self.unscripted.append(call)
            raise
        if answer.raises is not None:
            raise answer.raises
        if answer.does is None:
            return answer.result
        told: object = answer.does(call)
        if inspect.isawaitable(told):
            told = await self._waited(call, asyncio.ensure_future(told))
        return as_result(told)

    async def _waited(self, call: ScriptedCall, told: asyncio.Future[object]) -> object:
        """What a coroutine function tells, unless time is up or the session is shut down first."""
        shut = asyncio.ensure_future(self._shut.wait())
        both = (told, shut)
        try:
            await asyncio.wait(both, timeout=call.timeout, return_when=asyncio.FIRST_COMPLETED)
            if told.done():
                return told.result()
        finally:
            for one in both:
                one.cancel()
            await asyncio.gather(*both, return_exceptions=True)
        if not shut.cancelled():
            raise ExecTransportError(command=call.words, message="the session was shut down")
        assert call.timeout is not None  # noqa: S101  # or it would still wait
        raise ExecTimeoutError(command=call.words, timeout_s=call.timeout)

    @asynccontextmanager
    async def stream(
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
    ) -> AsyncIterator[ScriptedStream]:
        """Answer a command as ``exec`` does; its output comes as one piece of each stream."""
        yield ScriptedStream(
            await self.exec(
                *command,
                timeout=timeout,
                shell=shell,
                user=user,
                cwd=cwd,
                env=env,
                stdin=stdin,
                leftovers=leftovers,
                narrow=narrow,
            )
        )

    # --- inside -----------------------------------------------------------------------------------

    def _check(self, op: OpName) -> None:
        if self._closed:
            raise SessionClosedError(op=op, state=Phase.CLOSED.value)
        check_phase(op, self._phase)

    def _files(self, op: OpName, user: object = None) -> MemoryFiles:
        self._check(op)
        find_user(op, user, self._accounts)
        return self._tree

    def _lacks(self, argument: str) -> UnsupportedOperationError:
        return UnsupportedOperationError(
            op="exec", method="exec", session=type(self).__name__, argument=argument
        )


class ScriptedStream:
    """The output of a scripted command, as ``stream`` gives it."""

    def __init__(self, result: ExecResult) -> None:
        streams: tuple[tuple[Literal["stdout", "stderr"], bytes], ...] = (
            ("stdout", result.stdout),
            ("stderr", result.stderr),
        )
        self._left = [OutputChunk(stream, data) for stream, data in streams if data]
        self._result = result
        self._over = False

    @property
    def result(self) -> ExecResult:
        """How the command ended, once all of its output was read.

        Raises:
            ExecTransportError: it was not.
        """
        if not self._over:
            raise ExecTransportError(
                command=(), message="the command has not ended yet; read its output to the end"
            )
        return self._result

    async def signal(self, number: int = 15, *, tree: bool = False) -> None:
        """Nothing is left to be signalled: the script has said already how it ends."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> OutputChunk:
        if not self._left:
            self._over = True
            raise StopAsyncIteration
        return self._left.pop(0)


async def _read_stdin(stdin: StdinSource | None, words: Sequence[str]) -> bytes:
    """All that a command is given to read."""
    if stdin is None:
        return b""
    if isinstance(stdin, bytes | bytearray | memoryview):
        return bytes(stdin)
    try:
        if isinstance(stdin, AsyncIterable):
            pieces: list[object] = [piece async for piece in stdin]
        else:
            pieces = [await in_thread(stdin.read)]
    except OSError as error:
        raise ExecTransportError(
            command=words, message=f"stdin could not be read: {error}", cause=error
        ) from error
    whole = bytearray()
    for piece in pieces:
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise ArgumentTypeError(
                "stdin is bytes, a binary file or an async iterable of bytes",
                op="exec",
                argument="stdin",
                value=stdin,
            )
        whole += piece
    return bytes(whole)


def _bounded(result: ExecResult, limit: int | None) -> ExecResult:
    """A result with no more of its output than was asked for."""
    if limit is None or max(len(result.stdout), len(result.stderr)) <= limit:
        return result
    kept = []
    for data in (result.stdout, result.stderr):
        capture = Capture(limit)
        capture.feed(data)
        kept.append(capture.result())
    out, err = kept
    return ExecResult(
        stdout=out.data,
        stderr=err.data,
        exit_code=result.exit_code,
        stdout_dropped=out.dropped,
        stderr_dropped=err.dropped,
        duration_s=result.duration_s,
        leftovers=result.leftovers,
        denials=result.denials,
        limit_hits=result.limit_hits,
    )
