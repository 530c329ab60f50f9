"""Sessions without a wall: only where the policy says so, told as such, and ended like all others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sandyard import (
    ConfinementUnavailableError,
    Instrumentation,
    Manifest,
    Narrowing,
    Policy,
    PolicyError,
    ResourceLimits,
    SandboxPathGrant,
    UnixLocalSandboxClient,
    presets,
)
from sandyard.policy import RUNGS
from tests.escape.inside import find_outers, list_tree, sandbox
from tests.events.telling import Told, finished, keep
from tests.supervisor.living import end_supervisor, remote, wait_until

SECRET = "what only this machine knows"
UNTIL_ENDED = "echo up; while :; do sleep 0.05; done"


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    """A file of the host's that anybody may read, whoever runs the commands."""
    path = Path(f"/var/tmp/sandyard-test-{os.getpid()}")  # everybody's way leads there
    path.write_text(SECRET)
    path.chmod(0o644)
    yield path
    path.unlink()


def is_there(path: str) -> bool:
    return os.path.lexists(path)


async def test_reads_what_a_wall_withholds(secret: Path) -> None:
    async with sandbox() as confined:
        assert not (await confined.exec(f"cat {secret}")).ok()
    async with sandbox(presets.UNCONFINED) as session:
        result = await session.exec(f"cat {secret}")
        assert result.stdout.decode() == SECRET
        assert str(os.getpid()) in (await session.exec("ls /proc")).stdout.decode().split()


async def test_is_told_as_such() -> None:
    told: Told = []
    client = UnixLocalSandboxClient(
        policy=presets.UNCONFINED, instrumentation=Instrumentation(sinks=[keep(told)])
    )
    session = await client.create()
    async with session:
        report = session.confinement
        assert report is not None
        assert report.rung == "unconfined"
        assert "Policy(unconfined=True)" in report.cause
        for name, held in report.dimensions().items():
            assert (held.state, held.chosen) == ("absent", True), name
            assert held.why, name
        assert session.state.confinement == report.document()
        assert {limit.strength for limit in session.limits.report if "rlimit" in limit.by} == {
            "partial"
        }
        why = await session.why("/etc/shadow")
        assert "no wall" in str(why)
        assert (await session.exec("cat /nowhere")).denials == ()
    await client.delete(session)
    assert finished(told, "start").data["confinement"] == report.document()


async def test_keeps_no_new_rights() -> None:
    async with sandbox(presets.UNCONFINED) as session:
        said = await session.exec("id -u; grep -E 'CapEff|CapPrm|NoNewPrivs' /proc/self/status")
        user, *rest = said.stdout.decode().split()
        assert user != "0"
        zero = "0" * 16
        assert rest == ["CapPrm:", zero, "CapEff:", zero, "NoNewPrivs:", "1"]


async def test_environment_is_an_allowlist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDYARD_TEST_SECRET", SECRET)
    async with sandbox(presets.UNCONFINED) as session:
        said = (await session.exec("env; echo $HOME $TMPDIR")).stdout.decode()
        assert "SANDYARD_TEST_SECRET" not in said
        assert os.environ.get("HOME", "/root") not in said.splitlines()[-1].split()


async def test_limits_are_rlimits() -> None:
    limits = ResourceLimits(memory=256 * 1024**2, open_files=123, file_size=4096)
    async with sandbox(replace(presets.UNCONFINED, limits=limits)) as session:
        said = await session.exec("ulimit -n; head -c 5000 /dev/zero > big; ls -s big; ulimit -d")
        assert said.stdout.decode().split()[0] == "123"
        assert (await session.stat("big")).size == 4096
        (memory,) = [limit for limit in session.limits.report if limit.limit == "memory"]
        assert memory.strength == "partial"
        assert "unconfined" in memory.why


async def test_end_leaves_nothing() -> None:
    async with sandbox(presets.UNCONFINED) as session:
        await session.exec(f"setsid -f sh -c '{UNTIL_ENDED}' >daemon; echo $HOME > home")
        await session.start_process(UNTIL_ENDED)
        (outer,) = find_outers()
        inside = list_tree(outer)[2:]
        assert len(inside) >= 2, inside
        places = (await session.exec("dirname $HOME")).stdout.decode().strip()
        assert is_there(places)
    assert not any(is_there(f"/proc/{pid}") for pid in inside)
    assert not is_there(places)


async def test_end_of_first_process_ends_all() -> None:
    """An ordinary user's commands can end it: nothing but the session is lost."""
    async with sandbox(presets.UNCONFINED) as session:
        await session.exec(f"setsid -f sh -c '{UNTIL_ENDED}' >daemon")
        (outer,) = find_outers()
        inside = list_tree(outer)[1:]
        os.kill(inside[0], signal.SIGKILL)
        gone = partial(wait_until, lambda: not any(is_there(f"/proc/{pid}") for pid in inside))
        await asyncio.to_thread(gone)
        assert not await session.running()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"network": "none"}, "network"),
        ({"protect": (".git",)}, "protect"),
        ({"reads": ("/srv",)}, "reads"),
        ({"writes": ("/srv",)}, "writes"),
        ({"deny": ("/srv",)}, "deny"),
        ({"toolchains": False}, "toolchains"),
        ({"syscalls": ("no-unix-sockets",)}, "syscalls"),
        ({"devices": ("kvm",)}, "devices"),
        ({"require": ("strict",)}, "require"),
        ({"require": ("landlock_seccomp",)}, "require"),
        ({"limits": ResourceLimits(cpus=1)}, "limits"),
        ({"limits": ResourceLimits(scratch_size=2**24)}, "limits"),
        ({"unconfined": 1}, "unconfined"),
        ({"unconfined": "yes"}, "unconfined"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(PolicyError) as caught:
        replace(presets.UNCONFINED, **changes)
    assert caught.value.context["field"] == field


def test_one_word_is_not_enough() -> None:
    with pytest.raises(PolicyError, match="network"):
        Policy(unconfined=True)
    with pytest.raises(PolicyError, match="protect"):
        Policy(unconfined=True, network="host")
    with pytest.raises(PolicyError, match="require"):
        Policy(require=("unconfined",))  # type: ignore[arg-type]
    assert "unconfined" not in RUNGS


async def test_manifest_grants_are_refused(tmp_path: Path) -> None:
    client = UnixLocalSandboxClient(policy=presets.UNCONFINED)
    manifest = Manifest(extra_path_grants=(SandboxPathGrant(path=str(tmp_path), read_only=True),))
    with pytest.raises(PolicyError, match="without a wall reads"):
        await client.create(manifest=manifest)


async def test_less_for_one_command_is_refused() -> None:
    async with sandbox(presets.UNCONFINED) as session:
        with pytest.raises(ConfinementUnavailableError, match="no wall"):
            await session.exec("true", narrow=Narrowing(writes=()))
        with pytest.raises(ConfinementUnavailableError, match="no wall"):
            await session.exec("true", narrow=Narrowing(open_files=64))


async def test_no_payload_takes_the_wall_away(secret: Path) -> None:
    client = UnixLocalSandboxClient(policy=presets.UNCONFINED)
    session = await client.create()
    async with session:
        await session.write("kept", b"kept")
    payload = client.serialize_session_state(session.state)
    confinement = payload["confinement"]
    assert isinstance(confinement, dict)
    assert confinement["rung"] == "unconfined"
    again = UnixLocalSandboxClient()
    resumed = await again.resume(again.deserialize_session_state({**payload, "unconfined": True}))
    try:
        async with resumed:
            assert resumed.confinement is not None
            assert resumed.confinement.rung in RUNGS
            assert resumed.confinement.read.state == "enforced"
            assert not (await resumed.exec(f"cat {secret}")).ok()
            assert (await resumed.exec("cat kept")).stdout == b"kept"
    finally:
        await again.delete(resumed)


async def test_fork_gets_no_more() -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    async with session:
        with pytest.raises(PolicyError) as caught:
            await client.fork(session, policy=presets.UNCONFINED)
    assert caught.value.context["field"] in {"network", "protect", "unconfined"}
    await client.delete(session)


async def test_fork_may_have_less(secret: Path) -> None:
    client = UnixLocalSandboxClient(policy=presets.UNCONFINED)
    session = await client.create()
    async with session:
        await session.write("kept", b"kept")
        fork = await client.fork(session, policy=Policy())
        try:
            async with fork:
                assert fork.confinement is not None
                assert fork.confinement.rung in RUNGS
                assert not (await fork.exec(f"cat {secret}")).ok()
                assert (await fork.exec("cat kept")).stdout == b"kept"
        finally:
            await client.delete(fork)
    await client.delete(session)


async def test_servers_hold_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, name in (("XDG_RUNTIME_DIR", "run"), ("XDG_STATE_HOME", "state")):
        (tmp_path / name).mkdir(mode=0o700)
        monkeypatch.setenv(variable, str(tmp_path / name))
    try:
        with pytest.raises(PolicyError, match="server"):
            await remote().create(policy=presets.UNCONFINED)
    finally:
        await asyncio.to_thread(end_supervisor)
