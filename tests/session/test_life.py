"""Start, stop, shutdown and close, in every order and from several places at once."""

from __future__ import annotations

import asyncio
import tarfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePath

import pytest

from sandyard import (
    ConfinementUnavailableError,
    ExecTransportError,
    File,
    LocalSnapshotSpec,
    Manifest,
    ManifestError,
    Policy,
    SessionClosedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
    User,
)
from tests.session.host import find_survivors, living_processes, make_token, root_of, until

Session = UnixLocalSandboxSession
Client = UnixLocalSandboxClient


async def test_nothing_runs_before_the_start(client: Client) -> None:
    session = await client.create()
    try:
        assert not await session.running()
        for call in (
            lambda: session.exec("true"),
            lambda: session.read("x"),
            lambda: session.write("x", b""),
            lambda: session.ls("."),
            lambda: session.mkdir("x"),
            lambda: session.rm("x"),
            lambda: session.normalize_path("x"),
        ):
            with pytest.raises(SessionClosedError, match="not started"):
                await call()
        with pytest.raises(SessionClosedError):
            async with session.stream("true"):
                pass
    finally:
        await client.delete(session)


async def test_commands_end_and_files_stay_at_shutdown(client: Client) -> None:
    session = await client.create()
    await session.start()
    assert await session.running()
    await session.exec("echo kept > file; echo gone > ~/file; echo gone > /tmp/file")
    await session.shutdown()
    assert not await session.running()
    with pytest.raises(SessionClosedError, match="shut down"):
        await session.exec("true")
    with await session.read("file") as file:
        assert file.read() == b"kept\n"
    await session.write("file", b"written\n")
    await session.start()
    result = await session.exec("cat file; ls ~ /tmp | grep -x file")
    assert result.stdout == b"written\n"
    await client.delete(session)


async def test_restarts_many_times(client: Client) -> None:
    session = await client.create()
    for number in range(8):
        await session.start()
        result = await session.exec("cat count 2>/dev/null; echo x >> count")
        assert result.stdout == b"x\n" * number
        await session.shutdown()
    await client.delete(session)


async def test_doing_it_twice_does_nothing(client: Client) -> None:
    session = await client.create()
    await session.start()
    token = make_token()
    await session.exec(f"setsid sleep {token} & echo")
    await session.start()
    await until(
        lambda: len(find_survivors(token)) == 1
    )  # it has no words while it becomes a program
    await session.stop()
    await session.stop()
    assert await session.running()
    await session.shutdown()
    await session.shutdown()
    await session.stop()
    await session.aclose()
    await session.aclose()
    await session.shutdown()
    await session.stop()
    assert not await session.running()
    for call in (session.start, lambda: session.exec("true"), lambda: session.read("x")):
        with pytest.raises(SessionClosedError, match="closed"):
            await call()
    await client.delete(session)


async def test_manifest_is_applied_once(client: Client) -> None:
    manifest = Manifest(entries={"file": File(content=b"first")})
    session = await client.create(manifest=manifest)
    await session.start()
    await session.exec("printf changed > file")
    await session.shutdown()
    await session.start()
    assert (await session.exec("cat file")).stdout == b"changed"
    await client.delete(session)


async def test_starts_at_once_give_one_sandbox(client: Client) -> None:
    session = await client.create()
    before = len(living_processes())
    await asyncio.gather(*(session.start() for _ in range(5)))
    await session.exec("true")
    assert len(living_processes()) - before == 3  # outer, init, keeper
    await client.delete(session)


async def test_closing_from_several_tasks(client: Client) -> None:
    session = await client.create()
    await session.start()
    token = make_token()
    await session.exec(f"setsid sleep {token} & echo")
    closers: list[Callable[[], Awaitable[object]]] = [
        session.aclose,
        session.shutdown,
        session.aclose,
        lambda: client.delete(session),
        session.aclose,
    ]
    root = root_of(session)
    await asyncio.gather(*(close() for close in closers))
    assert find_survivors(token) == []
    assert not root.exists()


async def test_start_and_close_at_once(client: Client) -> None:
    before = living_processes()
    for _ in range(5):
        session = await client.create()
        started, closed = await asyncio.gather(
            session.start(), session.aclose(), return_exceptions=True
        )
        assert started is None or isinstance(started, SessionClosedError)
        assert closed is None
        assert not await session.running()
        await client.delete(session)
    assert living_processes() <= before


@pytest.mark.parametrize("end", ["shutdown", "aclose"])
async def test_pending_commands_learn_of_the_end(client: Client, end: str) -> None:
    session = await client.create()
    await session.start()
    token = make_token()

    async def read_stream() -> None:
        async with session.stream(f"exec sleep {token}") as stream:
            async for _ in stream:
                pass

    pending = [asyncio.create_task(session.exec(f"sleep {token}")) for _ in range(3)]
    pending.append(asyncio.create_task(session.exec("cat; sleep 1000", stdin=bytes(10**6))))
    pending.append(asyncio.create_task(read_stream()))  # type: ignore[arg-type]  # told alike
    await until(lambda: len(find_survivors(token)) >= 4)
    began = time.monotonic()
    await getattr(session, end)()
    outcomes = await asyncio.gather(*pending, return_exceptions=True)
    assert time.monotonic() - began < 1.5
    assert [type(outcome) for outcome in outcomes] == [ExecTransportError] * 5
    assert find_survivors(token) == []
    await client.delete(session)


async def test_commands_begun_during_shutdown_are_told(client: Client) -> None:
    session = await client.create()
    await session.start()
    calls = [asyncio.create_task(session.exec("sleep 0.01")) for _ in range(20)]
    end = asyncio.create_task(session.shutdown())
    calls += [asyncio.create_task(session.exec("sleep 0.01")) for _ in range(20)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    await end
    assert {type(outcome) for outcome in outcomes} <= {ExecTransportError, SessionClosedError}
    await client.delete(session)


async def test_failing_block_still_closes(client: Client) -> None:
    session = await client.create()
    token = make_token()

    async def fail_inside() -> None:
        async with session:
            await session.exec(f"setsid sleep {token} & echo")
            raise LookupError

    with pytest.raises(LookupError):
        await fail_inside()
    assert find_survivors(token) == []
    assert not await session.running()
    await client.delete(session)


async def test_failed_start_leaves_nothing_running(client: Client) -> None:
    session = await client.create()
    before = living_processes()
    root_of(session).rmdir()
    with pytest.raises(ConfinementUnavailableError, match=str(root_of(session))):
        async with session:
            pytest.fail("the workspace is gone")
    assert living_processes() <= before
    await client.delete(session)


async def test_hooks_work_before_the_last_save(client: Client, tmp_path: Path) -> None:
    spec = LocalSnapshotSpec(base_path=str(tmp_path))
    session = await client.create(
        snapshot=spec, manifest=Manifest(entries={"a": File(content="a")})
    )

    async def leave_note() -> None:
        assert (await session.exec("cat a > note")).exit_code == 0

    async def fail() -> None:
        raise LookupError("the second hook")

    session.register_pre_stop_hook(leave_note)
    session.register_pre_stop_hook(fail)
    await session.start()
    await session.stop()  # a checkpoint is not the end
    with pytest.raises(LookupError, match="second"):
        await asyncio.gather(session.aclose(), session.aclose())
    with pytest.raises(SessionClosedError):
        await session.exec("true")
    await session.aclose()
    with tarfile.open(tmp_path / f"{session.state.session_id}.tar") as saved:
        assert {"a", "note"} <= {PurePath(name).name for name in saved.getnames()}
    await client.delete(session)


async def test_accounts_are_those_of_the_start(client: Client) -> None:
    session = await client.create()
    with pytest.raises(SessionClosedError):
        await session.provision_manifest_accounts()
    async with session:
        await session.provision_manifest_accounts()
        session.state.manifest.users.append(User(name="late"))
        with pytest.raises(ManifestError, match="other users"):
            await session.provision_manifest_accounts()
    await client.delete(session)


class TestLoops:
    async def test_calls_from_another_loop_are_refused(self, session: Session) -> None:
        def call_elsewhere() -> list[object]:
            async def call() -> list[object]:
                calls = (
                    session.exec("true"),
                    session.shutdown(),
                    session.aclose(),
                    session.start(),
                )
                return list(await asyncio.gather(*calls, return_exceptions=True))

            return asyncio.run(call())

        outcomes = await asyncio.to_thread(call_elsewhere)
        assert [type(outcome) for outcome in outcomes] == [SessionClosedError] * 4
        assert "loop" in str(outcomes[0])
        assert (await session.exec("echo on")).stdout == b"on\n"

    def test_sessions_of_loops_in_threads(self) -> None:
        outputs = []

        async def use(number: int) -> None:
            client = UnixLocalSandboxClient()
            session = await client.create()
            async with session:
                calls = (session.exec(f"echo {number}") for _ in range(10))
                outputs.extend([result.stdout for result in await asyncio.gather(*calls)])
            await client.delete(session)

        threads = [threading.Thread(target=lambda n=n: asyncio.run(use(n))) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outputs) == sorted(b"%d\n" % number for number in range(4) for _ in range(10))

    async def test_other_threads_get_there_through_the_loop(self, session: Session) -> None:
        loop = asyncio.get_running_loop()

        def call() -> bytes:
            return asyncio.run_coroutine_threadsafe(session.exec("echo hi"), loop).result(10).stdout

        assert await asyncio.to_thread(call) == b"hi\n"

    def test_made_on_one_loop_used_on_another(self) -> None:
        client = UnixLocalSandboxClient()
        session = asyncio.run(client.create())

        async def use() -> bytes:
            async with session:
                return (await session.exec("echo hi")).stdout

        assert asyncio.run(use()) == b"hi\n"
        asyncio.run(client.delete(session))


async def test_repr_tells_which_and_how_it_stands() -> None:
    client = UnixLocalSandboxClient(policy=Policy(environment=(("KEY", "hush"),)))
    session = await client.create(manifest=Manifest(environment={"value": {"TOKEN": "hush"}}))
    shown = (
        f"<UnixLocalSandboxSession {session.state.session_id.hex} {session.state.manifest.root!r}"
    )
    assert repr(session) == f"{shown}: not started yet>"
    async with session:
        assert repr(session) == f"{shown}: running>"
    assert repr(session) == f"{shown}: closed>"
    await client.delete(session)
