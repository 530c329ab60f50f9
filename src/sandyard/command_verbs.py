"""The command verbs of a session: waiting for the exit, reading on the way, and why one is refused."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from sandyard.calls import CommandRequest, Leftovers, prepare_call
from sandyard.confinement import command_environment
from sandyard.errors import ExecTimeoutError
from sandyard.finishing import in_thread
from sandyard.lifecycle import check_phase
from sandyard.observing import observed, observed_block
from sandyard.platform import host_facts
from sandyard.types import ExecResult, RefusedCall, User
from sandyard.verb_bases import CommandVerbBase

if TYPE_CHECKING:
    from sandyard.accounts import Accounts
    from sandyard.caller import Caller
    from sandyard.confinement.explanation import Explanation
    from sandyard.confinement.footing import ConfinementReport
    from sandyard.narrowing import Narrowing
    from sandyard.process import CommandCall, CommandStream, StdinSource

__all__ = ["CommandVerbs"]


class CommandVerbs(CommandVerbBase):
    """What a session does with commands that somebody waits for, and says of what they may do."""

    _caller: Caller
    _accounts: Accounts
    _host_environment: dict[str, str]
    _environment: tuple[dict[str, str], tuple[tuple[bytes, bytes], ...]] | None
    _with_presets: (
        tuple[
            tuple[tuple[bytes, bytes], ...],
            Mapping[bytes, bytes],
            tuple[tuple[bytes, bytes], ...],
        ]
        | None
    ) = None

    @property
    def refused_calls(self) -> tuple[RefusedCall, ...]:
        """System calls that were refused to processes which had outlived their commands.

        What a command and its processes were refused until it exited is in its result. What those that
        it left running were refused afterwards is here, once the last of them has ended: the first
        32 kinds, counted since the start.

        Raises:
            SessionClosedError: the session was not started, or is closed.

        Example:
            >>> await session.exec("(sleep 1; unshare --user true) & exit 0")
            >>> session.refused_calls  # a second later
            (RefusedCall(times=1, number=272, error=1, program='unshare'),)
        """
        return self._running_commands().init.unowned.calls()

    @observed("exec")
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
        leftovers: Leftovers = "keep",
        narrow: Narrowing | None = None,
    ) -> ExecResult:
        """Run a command and wait for its exit.

        Args:
            command: with a shell, one word is the shell's text and several are quoted and joined;
                without, they are the argv.
            timeout: seconds after which the command and all that it started are ended; None
                (default) for the policy's ``wall_time``, which is no limit unless it is set.
            shell: True (default) for ``sh -c``; a list such as ``["bash", "-c"]`` for another
                shell; False for none.
            user: whom it is done as: ``"agent"`` (default) or another user of the manifest's.
            cwd: directory, relative to the workspace or absolute (default: the workspace).
            env: variables for this command, over those of the session.
            stdin: bytes, a binary file or an async iterable of bytes; None (default) is empty.
            output_limit: bytes kept of each of stdout and stderr (default: the policy's ``output``,
                16 MiB unless it says otherwise): a quarter from
                the beginning, the rest from the end; the result counts what is missing between.
            leftovers: what becomes of processes that the command leaves running: ``"keep"``
                (default) lets them live in the session and lists them in the result, ``"end"``
                ends them when the command exits.
            narrow: what this command may do less than the session; None (default) for nothing less.

        Returns:
            Output and exit code. A signal N that ended the command shows as -N, a program that does
            not exist as 127, one that can't be executed as 126.

        Raises:
            ExecTimeoutError: it took too long; with the output so far.
            ExecTransportError: the sandbox ended meanwhile, or ``stdin`` failed.
            ResourceLimitError: there is no room for a process, or the host has no descriptor left.
            ArgumentError: an argument is impossible, ``cwd`` not being a directory included.
            PolicyError: ``narrow`` names what the session does not have.
            ConfinementUnavailableError: this machine can't hold a command to less.
            SessionClosedError: the session is not running.
        """
        commands = self._running_commands()
        request = CommandRequest(
            command=command,
            timeout=timeout,
            shell=shell,
            user=user,
            cwd=cwd,
            env=env,
            stdin=stdin,
            output_limit=output_limit,
            leftovers=leftovers,
            narrow=narrow,
        )
        call = await self._prepared(request)
        began = time.time()
        try:
            result = await commands.run(call)
        except ExecTimeoutError as error:
            await self._explainer.explain_late(error, call.spawn, narrow, began)
            raise
        if result.exit_code:
            said = result.stderr, result.stdout
            await self._explainer.explain(result, call.spawn, narrow, *said, began=began)
        return result

    @observed_block("exec")
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
        leftovers: Leftovers = "keep",
        narrow: Narrowing | None = None,
    ) -> AsyncIterator[CommandStream]:
        """Run a command and read its output as it comes.

        Takes what ``exec`` takes, and raises what it raises. The command starts when the stream is
        entered, and its tree is ended when the block is left. A slow reader makes the command
        wait.

        Example:
            >>> async with session.stream("make test", timeout=600) as running:
            ...     async for chunk in running:
            ...         print(chunk.stream, chunk.data)
            >>> running.result.exit_code
            0
        """
        request = CommandRequest(
            command=command,
            timeout=timeout,
            shell=shell,
            user=user,
            cwd=cwd,
            env=env,
            stdin=stdin,
            leftovers=leftovers,
            narrow=narrow,
        )
        commands = self._running_commands()
        call = await self._prepared(request)
        from sandyard.explaining.stream import ExplainedStream  # noqa: PLC0415  # not all use them

        async with ExplainedStream(commands, call, self._explainer, narrow) as stream:
            yield stream

    # --- what they may do -----------------------------------------------------------------------

    @property
    def confinement(self) -> ConfinementReport | None:
        """What holds, dimension by dimension, and on which rung; None until the first start."""
        return self._ladder.report

    @observed("why")
    async def why(
        self, subject: str | PurePath | None = None, *, syscall: str | None = None
    ) -> Explanation:
        """Explain what commands of this session may do with something, and by which rule.

        It asks the policy as it was enforced at the start, and runs nothing. A path is followed as
        commands would follow it, through symlinks of shown trees as well. Modes of files decide
        besides: what a rule allows, a file's owner may still forbid.

        Args:
            subject: a path, relative to the workspace or absolute, inside; or an address, as
                ``HOST:PORT``, ``[HOST]:PORT`` or a URL.
            syscall: the name of a system call instead, such as ``"ptrace"``.

        Returns:
            What is allowed, the rule, and the least grant that would allow more. A path that this
            machine does not have, or that can't be granted, has no grant.

        Raises:
            ArgumentError, ArgumentTypeError: it is no path, address or system call.
            SessionClosedError: the session was not started, or is closed.

        Example:
            >>> print(await session.why("/etc/shadow"))
            /etc/shadow: not shown: no rule of the policy names it; to allow it: …
        """
        check_phase("why", self._phase)
        return await self._explainer.why(subject, syscall=syscall)

    # --- inside -----------------------------------------------------------------------------------

    async def _prepared(self, request: CommandRequest) -> CommandCall:
        manifest, limits = self.state.manifest, self.policy.limits
        known = self._environment
        if known is None or known[0] or manifest.environment.value:
            environment = await self._command_environment()
        else:  # made of nothing that changes
            environment = known[1]
        if request.presets is not None and request.env is None:
            environment = self._preset(environment, request.presets)
            request.presets = None
        if request.narrow is None:
            return prepare_call(request, environment, manifest.root, limits, None, self._accounts)
        enforced = self._explainer.enforced
        asked = request, environment, manifest.root, limits, enforced, self._accounts
        return await in_thread(prepare_call, *asked) if request.looks else prepare_call(*asked)

    def _preset(
        self, environment: tuple[tuple[bytes, bytes], ...], presets: Mapping[bytes, bytes]
    ) -> tuple[tuple[bytes, bytes], ...]:
        """A session's environment with variables besides, made anew only when it changed."""
        known = self._with_presets
        if known is None or known[0] is not environment or known[1] is not presets:
            merged = tuple((dict(environment) | dict(presets)).items())
            known = self._with_presets = environment, presets, merged
        return known[2]

    async def _command_environment(self) -> tuple[tuple[bytes, bytes], ...]:
        """The session's environment as the kernel takes it, made anew only when it changed."""
        environment = self.state.manifest.environment
        values = await environment.resolve(self._caller.variables()) if environment.value else {}
        if self._environment is None or self._environment[0] != values:
            facts = self._ladder.facts or host_facts(self._host_environment)  # since the start
            root, host = self.state.manifest.root, self._caller.passed_on(self._host_environment)
            pairs = command_environment(
                self.policy, facts, host, values, root, self._ladder.private
            )
            encoded = tuple((os.fsencode(name), os.fsencode(value)) for name, value in pairs)
            self._environment = (values, encoded)
        return self._environment[1]

    def _running_program(
        self, *words: str, timeout: float | None, user: str | User | None
    ) -> AbstractAsyncContextManager[CommandStream]:
        environment = {"LC_ALL": "C.UTF-8", "GREP_OPTIONS": ""}
        return self.stream(*words, shell=False, timeout=timeout, env=environment, user=user)
