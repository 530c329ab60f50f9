"""The doctor: puts together what this machine is, what it allows, and what a real session holds."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from sandyard.client import UnixLocalSandboxClient
from sandyard.confinement import doctor_inside
from sandyard.confinement.doctor import judge
from sandyard.confinement.doctor_canaries import Findings, judge_canaries, parse_findings
from sandyard.confinement.doctor_plans import (
    NAMESPACE_PARTS,
    PARTS,
    known_processor,
    refused_part,
    trial_plan,
)
from sandyard.confinement.doctor_values import DoctorCanary, DoctorReport, DoctorRow
from sandyard.errors import ResourceLimitError, SandboxError
from sandyard.finishing import finished, in_thread, start_thread
from sandyard.limits import OPEN_FILES_DEFAULT
from sandyard.plan import Bind, LaunchPlan
from sandyard.platform import HostFacts, host_facts
from sandyard.platform.host import bare_facts
from sandyard.platform.interpreter import own_interpreter
from sandyard.platform.probes import check_spare, machine_facts, threads_work
from sandyard.platform.probes_facts import MachineFacts, Tried
from sandyard.policy import Policy
from sandyard.process import InitProcess
from sandyard.process.identity import IdentityLease
from sandyard.process.launching import program_path
from sandyard.process.wire import MAGIC
from sandyard.restating import remove_key
from sandyard.session import UnixLocalSandboxSession
from sandyard.subordinate import own_range
from sandyard.workspace.deputy import Deputy

__all__ = ["DoctorCanary", "DoctorReport", "DoctorRow", "doctor"]

T = TypeVar("T")

_CANARY_S: Final = 10.0
"""Seconds for all canaries together; they take a tenth of one."""

_FAILURES: Final = (SandboxError, OSError, RuntimeError, ValueError)
"""What a machine in trouble makes of a call: ours, the kernel's, or "can't start new thread"."""


async def doctor() -> DoctorReport:
    """Find out what this machine can hold, by trying it in throw-away processes.

    It needs no privilege, changes nothing and leaves nothing behind. Where the machine allows it,
    a real session with the default policy is started, and programs in it try to get out. While that
    runs, a variable with a random name is in this program's environment, to see that it stays out.

    Returns:
        What was found. A machine that lacks something is a finding and never an error.

    Example:
        >>> report = await doctor()
        >>> report.holds
        True
    """
    began = time.monotonic()
    threads = threads_work()
    host = await _aside(_known_host, threads=threads)
    facts = await _aside(_look, host, threads, threads=threads)
    trials: dict[str, Tried] = {}
    canaries: tuple[DoctorCanary, ...] = ()
    if threads and facts.system == "linux":
        if host.euid == 0:
            trials["lease"] = await _aside(_try_lease)
        else:
            trials["users"] = await _aside(_try_users)
        await _try_parts(host, trials)
        if host.euid == 0 and trials["base"].ok:
            await _try_owners(host, facts, trials)
        if trials["base"].errno in _NO_DESCRIPTOR:
            # Without one a session can be neither started nor deleted.
            why = "no descriptor was left for a session"
            canaries = judge_canaries({}, {}, root=host.euid == 0, why=why)
            return judge(facts, trials, canaries, time.monotonic() - began)
        made = await _aside(_missing_directories, facts.places["state"])
        try:
            trials["session"], canaries = await _try_session(facts)
        finally:
            await _aside(_remove_directories, made)
    return judge(facts, trials, canaries, time.monotonic() - began)


async def _aside(function: Callable[..., T], *arguments: object, threads: bool = True) -> T:
    """Call something that blocks: in a thread, or on the loop where none can be started.

    A loop whose executor could start no thread can't be closed either, so it is not asked where that
    is known before; a few may have been started when there is room for no other.
    """
    if threads:
        with suppress(ResourceLimitError):
            return await in_thread(function, *arguments)
    return function(*arguments)


def _known_host() -> HostFacts:
    """The host, or what is known of it without a descriptor; the trials then tell what is missing."""
    try:
        return host_facts(os.environ)
    except OSError:
        return bare_facts()


def _look(host: HostFacts, threads: bool) -> MachineFacts:
    version = str(MAGIC >> _MAGIC_LETTERS)
    facts = machine_facts(os.environ, host, program_path(), threads=threads, protocol=version)
    return replace(facts, supported=known_processor(facts.machine))


_MAGIC_LETTERS: Final = 24
"""Bits of the protocol's magic number below its version."""


# --- asking the native program --------------------------------------------------------------------


def _try_lease() -> Tried:
    try:
        with IdentityLease.take() as lease:
            return Tried("ok", value=f"such as {lease.uid}")
    except _FAILURES as error:
        refused = _refusal(error)
        if refused.errno in _NO_DESCRIPTOR:  # which says nothing of the machine's identities
            return Tried("unknown", text="no descriptor was left to try it with")
        return refused


def _try_users() -> Tried:
    """Whether a program of ours can be in a user namespace in which there are others than us."""
    try:
        with Deputy("whole"):
            ids = own_range(1)
            return Tried("ok", value=f"{ids.start} to {ids.stop - 1} on disk")
    except _FAILURES as error:
        refused = _refusal(error)
        if refused.errno in _NO_DESCRIPTOR:
            return Tried("unknown", text="no descriptor was left to try it with")
        return refused


_NO_DESCRIPTOR: Final = (errno.EMFILE, errno.ENFILE)

_BY_LIMIT: Final = {"processes": errno.EAGAIN, "open_files": errno.EMFILE}


async def _ask(plan: LaunchPlan) -> Tried:
    """Start a sandbox and take it down; what came of it."""
    try:
        init = await InitProcess.start(lambda: plan)
    except _FAILURES as error:
        return _refusal(error)
    await init.close()
    return Tried("ok")


def _refusal(error: Exception) -> Tried:
    """What an error says about the machine, with the words of its fix as the value."""
    context: Mapping[str, object] = error.context if isinstance(error, SandboxError) else {}
    number = context.get("errno")
    cause: BaseException | None = error
    while not isinstance(number, int) and cause is not None:
        number = cause.errno if isinstance(cause, OSError) else None
        cause = cause.__cause__
    if isinstance(error, RuntimeError) and "thread" in str(error):
        number = errno.EAGAIN
    elif isinstance(error, ResourceLimitError):
        number = _BY_LIMIT.get(str(context.get("limit")), number)
    return Tried(
        "refused",
        value=str(context.get("fix", "")),
        step=str(context.get("step", "start")),
        errno=number if isinstance(number, int) else None,
        text=str(context.get("path", "") or context.get("cause_text", "") or error),
    )


async def _try_parts(host: HostFacts, trials: dict[str, Tried]) -> None:
    """Ask for everything at once, then for what is left without what was refused."""
    wanted = [part for part in PARTS if part != "landlock" or host.landlock_abi > 0]
    while True:
        answer = await _ask(trial_plan(host, wanted))
        if answer.ok:
            trials.update(dict.fromkeys(("base", *wanted), answer))
            return
        part = refused_part(answer.step, answer.text)
        suspects = [name for name in wanted if name in NAMESPACE_PARTS]
        if part in wanted:
            trials[part] = answer
            wanted.remove(part)
        elif answer.step == "namespaces" and suspects:
            wanted = [name for name in wanted if name not in suspects]
            if (await _ask(trial_plan(host, ()))).step != "namespaces":
                for name in suspects:
                    trials[name] = await _ask(trial_plan(host, (name,)))
        else:
            trials["base"] = answer
            return


async def _try_owners(host: HostFacts, facts: MachineFacts, trials: dict[str, Tried]) -> None:
    """Whether root's sandboxes can be given files without giving them away."""
    kept = ExitStack()
    try:
        # As a private workspace would be: nobody has mounted anything beneath it.
        own = await _aside(_throw_away, facts.places["temporary"], kept)
        for name, path in (("temporary", own), ("current", os.curdir)):
            source = await _aside(_real_path, path)
            bind = Bind(source, "/workspace", writable=True, as_owner=True)
            trials[f"owners_{name}"] = await _ask(trial_plan(host, (), bind))
    finally:
        await finished(_aside(kept.close))


def _throw_away(place: str, kept: ExitStack) -> str:
    """A directory of ours in another one, for as long as ``kept`` is open; or that one (blocking)."""
    path = os.path.join(place, f"sandyard-doctor-{secrets.token_hex(8)}")
    try:
        os.mkdir(path, 0o700)
    except OSError:  # told where workspaces are
        return place
    kept.callback(shutil.rmtree, path, ignore_errors=True)
    return path


def _real_path(path: str) -> str:
    try:
        return os.path.realpath(path)
    except OSError:  # the current directory is gone
        return "/nonexistent"


def _missing_directories(state: str) -> list[str]:
    """The directories that the first session of a user would leave, the deepest first."""
    missing, path = [], f"{state}/sessions"
    while state and path != "/" and not os.path.lexists(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


def _remove_directories(paths: list[str]) -> None:
    with suppress(OSError):  # somebody else has put something there meanwhile: all the rest stays
        for path in paths:
            with suppress(FileNotFoundError):
                remove_key(path)  # made with the first session; nobody has another one now
            os.rmdir(path)


# --- the real session -----------------------------------------------------------------------------


@dataclass(slots=True)
class _Bait:
    """What the canaries try to reach: made on the host.

    Attributes:
        spec: what they are told.
        directory: a private directory.
    """

    spec: dict[str, str]
    directory: str

    def script(self, side: str) -> bytes:
        """The canaries as a program for one side of the wall."""
        with open(doctor_inside.__file__, encoding="utf-8") as file:
            source = file.read()
        said = json.dumps(self.spec | {"write": f"{self.directory}/written-{side}"})
        return f"{source}\n\nattempt_all({said!r})\n".encode()

    def written(self, side: str) -> bool:
        """Whether a side's file has appeared outside."""
        return os.path.lexists(f"{self.directory}/written-{side}")


def _lay_bait(kept: ExitStack) -> _Bait:
    """Make what the canaries try to reach, for as long as ``kept`` is open (blocking)."""
    token = secrets.token_hex(16)
    with ExitStack() as stack:
        directory = tempfile.mkdtemp(prefix="sandyard-doctor-")
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        spec = {
            "token": token,
            "secret": f"{directory}/secret",
            "abstract": f"sandyard-doctor-{token}",
            "socket": f"{directory}/socket",
            "variable": f"SANDYARD_DOCTOR_{token[:8].upper()}",
            "port": "0",
            "open_files": str(OPEN_FILES_DEFAULT),
        }
        with open(spec["secret"], "x", encoding="utf-8") as file:
            file.write(token)
        for family, address in (
            (socket.AF_INET, ("127.0.0.1", 0)),
            (socket.AF_UNIX, "\0" + spec["abstract"]),
            (socket.AF_UNIX, spec["socket"]),
        ):
            listener = stack.enter_context(socket.socket(family))
            listener.bind(address)
            listener.listen()
            if family == socket.AF_INET:
                spec["port"] = str(listener.getsockname()[1])
        os.environ[spec["variable"]] = token
        stack.callback(os.environ.pop, spec["variable"], None)
        check_spare()
        # It ends when its input does, so also when this program is killed.
        witness = stack.enter_context(
            subprocess.Popen(
                ["/bin/sh", "-c", "read -r _", token],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        stack.callback(witness.kill)
        kept.push(stack.pop_all())
        return _Bait(spec, directory)


def _run_outside(script: bytes) -> Findings:
    """Make the same attempts without a sandbox (blocking)."""
    try:
        check_spare()
        done = subprocess.run(
            [own_interpreter(), "-I", "-S", "-"],
            input=script,
            capture_output=True,
            timeout=_CANARY_S,
            check=False,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}
    return parse_findings(done.stdout)


async def _try_session(facts: MachineFacts) -> tuple[Tried, tuple[DoctorCanary, ...]]:
    """Start a session as anybody would, and let the canaries loose in it."""
    root = facts.euid == 0
    kept = ExitStack()
    try:
        bait = await _aside(_lay_bait, kept)
    except asyncio.CancelledError:
        await finished(_aside(kept.close))
        raise
    except _FAILURES as error:
        why = f"nothing to reach could be made outside: {error}"
        started, _ = await _in_session(_run_true)
        return started, judge_canaries({}, {}, root=root, why=why)
    try:
        outside_script = await _aside(bait.script, "outside")
        inside_script = await _aside(bait.script, "inside")
        outside: asyncio.Task[Findings] = asyncio.ensure_future(
            _aside(_run_outside, outside_script)
        )
        try:
            started, said = await _in_session(lambda session: _run_inside(session, inside_script))
        finally:
            await asyncio.wait([outside])
        inside = dict(parse_findings(said))
        if inside:  # what counts is what is seen outside
            appeared = await _aside(bait.written, "inside")
            words = "the file is there" if appeared else inside["write_file"][1]
            inside["write_file"] = (appeared, words)
        why = "no session could be started" if not started.ok else "no Python was found inside"
        return started, judge_canaries(inside, outside.result(), root=root, why=why)
    finally:
        await _aside(kept.close)


_RESERVE: Final = 8
"""Descriptors held back while a session runs, so that it can be deleted whatever it found."""

_THREADS: Final = 4
"""Threads that wait for work before there is a session, so that it can be deleted where no other starts."""


async def _start_threads() -> None:
    """Has the loop's pool start threads that are idle from then on.

    Raises:
        ResourceLimitError: no more can be started.
    """
    gate = threading.Event()
    waiting: list[asyncio.Future[bool]] = []
    try:
        waiting.extend(start_thread(gate.wait) for _ in range(_THREADS))
    finally:
        gate.set()
        if waiting:
            await finished(asyncio.wait(waiting))


async def _in_session(
    work: Callable[[UnixLocalSandboxSession], Awaitable[bytes]],
) -> tuple[Tried, bytes]:
    """Do something in a session with the default policy; whether it held, and what was said."""
    client = UnixLocalSandboxClient(policy=Policy())
    try:
        with ExitStack() as reserve:
            for _ in range(_RESERVE):
                reserve.callback(os.close, os.eventfd(0))
            await _start_threads()
            session = await client.create()
            try:
                async with session:
                    said = await work(session)
                    report = session.confinement
            finally:
                reserve.close()
                await client.delete(session)
    except _FAILURES as error:
        refused = _refusal(error)
        words = error.message if isinstance(error, SandboxError) else str(error)
        return replace(refused, text=words.partition(". To fix it: ")[0]), b""
    return Tried("ok", value="" if report is None else report.rung), said


async def _run_true(session: UnixLocalSandboxSession) -> bytes:
    done = await session.exec("true", timeout=_CANARY_S, shell=False)
    if done.exit_code != 0:
        raise ValueError(f"'true' exited with code {done.exit_code} in a session")
    return b""


async def _run_inside(session: UnixLocalSandboxSession, script: bytes) -> bytes:
    await _run_true(session)
    for python in dict.fromkeys((sys.executable, "python3")):
        done = await session.exec(
            python, "-I", "-S", "-", shell=False, stdin=script, timeout=_CANARY_S
        )
        if done.exit_code == 0:
            return done.stdout
    return b""
