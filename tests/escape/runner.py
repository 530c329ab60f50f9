"""Runs an attack twice: as an unconfined control, where it must succeed, then confined."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from sandyard import ExecResult, Manifest, Policy, UnixLocalSandboxClient, UnixLocalSandboxSession
from tests.escape.attacks import ESCAPED, STARTED, Attack, source_of
from tests.escape.bait import SECRET, Bait

__all__ = ["Outcome", "argv_of", "confine", "exec_attack", "run_attack", "run_control"]

Session = UnixLocalSandboxSession
PATIENCE_S = 15.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attack said and did.

    Attributes:
        status: its exit code.
        said: its output, errors included.
        escapes: what it got, and what it damaged.
    """

    status: int
    said: str
    escapes: tuple[str, ...]


def argv_of(attack: Attack) -> tuple[str, ...]:
    """The words that run an attack."""
    start = ("sh", "-c") if attack.language == "sh" else (sys.executable, "-I", "-c")
    return (*start, source_of(attack))


def make_outcome(bait: Bait, status: int, stdout: bytes, stderr: bytes) -> Outcome:
    said = [text.decode(errors="replace") for text in (stdout, stderr)]
    told = [line for line in said[0].splitlines() if ESCAPED in line or SECRET in line]
    return Outcome(status, "".join(said), (*told, *bait.damage()))


def run_control(bait: Bait, attack: Attack) -> Outcome:
    """Run an attack on this machine as this user, with no wall."""
    bait.reset()
    with subprocess.Popen(
        argv_of(attack),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=bait.workspace,
        env={**os.environ, **bait.variables},
        start_new_session=True,
    ) as process:
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE_S)
        finally:
            end_group(process.pid)
    return make_outcome(bait, process.returncode, stdout, stderr)


def end_group(leader: int) -> None:
    """End what a control has left running."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        return


@asynccontextmanager
async def confine(bait: Bait, reads: tuple[str, ...] = ()) -> AsyncIterator[Session]:
    """A session in the bait's workspace, which is laid anew."""
    bait.reset()
    client = UnixLocalSandboxClient()
    session = await client.create(
        manifest=Manifest(root=str(bait.workspace)),
        policy=Policy(reads=tuple(str(bait.base / name) for name in reads)),
    )
    async with session:
        yield session


async def exec_attack(session: Session, bait: Bait, attack: Attack) -> ExecResult:
    """Run an attack in a session, and check that it really ran."""
    result = await session.exec(
        *argv_of(attack),
        shell=False,
        timeout=PATIENCE_S,
        env=dict(bait.variables),
        leftovers="end",
    )
    assert result.stdout.startswith(STARTED.encode()), f"the attack did not run: {result}"
    return result


async def try_confined(bait: Bait, attack: Attack) -> Outcome:
    """Run an attack in a session of its own, which has to outlive it."""
    async with confine(bait, attack.reads) as session:
        result = await exec_attack(session, bait, attack)
        outcome = make_outcome(bait, result.exit_code, result.stdout, result.stderr)
        alive = await session.exec("echo still here")
        assert alive.stdout == b"still here\n", alive
    return outcome


def run_attack(bait: Bait, attack: Attack) -> None:
    """Fail if an attack gets out; skip if it proves nothing because nothing could."""
    control = run_control(bait, attack)
    # Not an async test: the watch over blocking calls makes each of the control's dear.
    confined = asyncio.run(try_confined(bait, attack))
    assert not confined.escapes, f"{confined.escapes} {confined.said}"
    assert not bait.damage(), "after the session's end"
    if not control.escapes:
        words = f"{control.said.strip()[-200:]!r}, exit code {control.status}"
        if not attack.needs:
            pytest.fail(f"the control fails, so the attack shows nothing: {words}")
        pytest.skip(f"its control needs {attack.needs}; uid {os.geteuid()} has {words}")
