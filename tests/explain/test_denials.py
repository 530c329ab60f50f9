"""Denials in results: of commands that failed, true ones, few, in order; and nothing of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard import (
    Denial,
    ExecTimeoutError,
    Policy,
    ResourceLimits,
    SessionClosedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from tests.explain.probing import opened

Session = UnixLocalSandboxSession


@pytest.fixture
async def session() -> AsyncIterator[Session]:
    async with opened(None, Policy()) as made:
        yield made


async def test_denial_says_what_and_how(session: Session) -> None:
    result = await session.exec("cat /srv/data/file")
    assert result.denials == (
        Denial(
            kind="path",
            subject="/srv/data/file",
            error="ENOENT",
            rule="not shown: no rule of the policy names it",
            grant="Policy(reads=('/srv/data/file',))",
        ),
    )
    assert str(result.denials[0]) == (
        "/srv/data/file: not shown: no rule of the policy names it; "
        "to allow it: Policy(reads=('/srv/data/file',))"
    )
    assert "denials=(/srv/data/file)" in repr(result)


QUIET = (
    "true",
    "cat /srv/x || true",  # it went on by itself
    "false",
    "cat missing",
    "cat ./no/such/file",
    "cat ../../../../../../no/such/file",
    "cat /tmp/missing /home/agent/missing",
    "cat /usr/missing /etc/passwd/x",
    "ls /proc/999999",
    "touch shut; chmod 000 shut; cat shut",
    "mkdir d; rmdir d/e; touch d; rm d",
    "exit 3",
    "echo 'cat: /tmp/x: Permission denied' >&2; exit 1",
    "echo 'touch: cannot touch x: Read-only file system' >&2; exit 1",
    "python3 -c 'open(\"missing\")'",
    "python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 1))'",
    "nosuchprogram",
    "sh -c ./missing",
    "touch plain; ./plain",
    "chown 0:0 .",
    "mv . there",
    "kill -TERM $$",
    "echo 'x: read: Operation not permitted' >&2; exit 1",
    "echo 'x: openat: Operation not permitted' >&2; exit 1",
    "echo 'sh: x: Resource temporarily unavailable' >&2; exit 1",
    "echo 'GET /a/b: not found on the server' >&2; exit 1",
)


@pytest.mark.parametrize("command", QUIET)
async def test_nothing_is_guessed(session: Session, command: str) -> None:
    result = await session.exec(command)
    assert result.denials == ()


async def test_few_once_and_in_order(session: Session) -> None:
    names = [f"/srv/{number}" for number in range(12)]
    result = await session.exec(f"cat {' '.join(names)} {' '.join(names)}")
    assert [denial.subject for denial in result.denials] == names[:8]


async def test_both_streams_and_tail_count(session: Session) -> None:
    result = await session.exec("cat /srv/a 2>&1; seq 30000 >&2; cat /srv/b; false")
    assert [denial.subject for denial in result.denials] == ["/srv/b"]
    result = await session.exec("cat /srv/a 2>&1; cat /srv/b; false")
    assert [denial.subject for denial in result.denials] == ["/srv/b", "/srv/a"]


async def test_relative_to_where_it_began(session: Session) -> None:
    await session.exec("mkdir sub; ln -s /srv/data sub/link")
    result = await session.exec("cat link/x", cwd="sub")
    (denial,) = result.denials
    assert denial.rule.startswith("leads to /srv/data/x: not shown")
    assert denial.subject.endswith("/sub/link/x")
    assert denial.grant == "Policy(reads=('/srv/data/x',))"


async def test_program_that_cannot_run(session: Session) -> None:
    result = await session.exec("/srv/tool", shell=False)
    assert [(d.subject, result.exit_code) for d in result.denials] == [("/srv/tool", 127)]


async def test_timeout_tells_too(session: Session) -> None:
    with pytest.raises(ExecTimeoutError) as caught:
        await session.exec("cat /srv/x; sleep 60", timeout=0.5)
    assert caught.value.result is not None
    assert [denial.subject for denial in caught.value.result.denials] == ["/srv/x"]


async def test_stream_tells_at_its_end(session: Session) -> None:
    async with session.stream("seq 100000; cat /srv/x; exit 4") as running:
        async for _ in running:
            pass
    assert [denial.subject for denial in running.result.denials] == ["/srv/x"]
    async with session.stream("cat /srv/x; true") as running:
        async for _ in running:
            pass
    assert running.result.denials == ()
    async with session.stream("/srv/tool", shell=False) as running:
        async for _ in running:
            pass
    assert [denial.subject for denial in running.result.denials] == ["/srv/tool"]


async def test_terminal_is_not_spoken_to(session: Session) -> None:
    said = "printf 'cat: /srv/\\033[31m\\377: No such file or directory\\n' >&2; false"
    result = await session.exec(said)
    assert result.denials
    for denial in result.denials:
        assert str(denial).isprintable()
    assert any("\\udcff" in str(denial) for denial in result.denials)


async def test_network_of_host_denies_nothing() -> None:
    async with opened(None, Policy(network="host")) as session:
        result = await session.exec("echo 'curl: (6) Could not resolve host: x.invalid'; exit 6")
    assert result.denials == ()


async def test_limits_are_told() -> None:
    limits = ResourceLimits(open_files=64, file_size=1 << 20, processes=40, scratch_size=2 << 20)
    commands = {
        "open_files": "python3 -c 'x = [open(\"/dev/null\") for _ in range(99)]'",
        "file_size": 'python3 -c \'open("x", "wb").write(b"x" * (2 << 20))\'',
        "scratch_size": "for i in 1 2 3 4 5; do dd if=/dev/zero of=/tmp/$i bs=512k count=1; done",
    }
    async with opened(None, Policy(limits=limits)) as session:
        for name, command in commands.items():
            result = await session.exec(command)
            assert [(d.kind, d.subject) for d in result.denials] == [("limit", name)], result.stderr
            (denial,) = result.denials
            assert denial.grant == (
                f"Policy(limits=ResourceLimits({name}={2 * getattr(limits, name)}))"
            )


async def test_results_of_many_at_once(session: Session) -> None:
    results = await asyncio.gather(*(session.exec(f"cat /srv/{n}") for n in range(40)))
    assert [r.denials[0].subject for r in results] == [f"/srv/{n}" for n in range(40)]


async def test_hostile_output_is_no_harm(session: Session) -> None:
    text = "import sys; sys.stderr.write(\"'/srv/x': permission denied \" * 90000); sys.exit(1)"
    result = await session.exec("python3", "-c", text)
    assert [denial.subject for denial in result.denials] == ["/srv/x"]


async def test_why_needs_start(tmp_path: Path) -> None:
    client = UnixLocalSandboxClient()
    session = await client.create()
    try:
        with pytest.raises(SessionClosedError):
            await session.why("/etc/passwd")
        async with session:
            await session.shutdown()
            assert (await session.why("/etc/passwd")).access == "read"
        with pytest.raises(SessionClosedError):
            await session.why("/etc/passwd")
    finally:
        await client.delete(session)
