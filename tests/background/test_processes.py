"""A background process: started, seen, signalled, waited for, ended."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    BackgroundProcess,
    ExecTimeoutError,
    ExecTransportError,
    Policy,
    ResourceLimitError,
    ResourceLimits,
    SessionClosedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from sandyard.process.budget import descriptor_budget
from tests.background.reading import log_files, read_now, read_until, read_whole, text_of
from tests.session.host import find_survivors, make_token, until

Session = UnixLocalSandboxSession
Client = UnixLocalSandboxClient


async def test_facts_of_a_process(session: Session) -> None:
    before = datetime.now(UTC)
    process = await session.start_process("read line; exit 3", stdin=True, name="reader")
    assert (process.id, process.name, process.command[-1]) == ("p1", "reader", "read line; exit 3")
    assert before <= process.started_at <= datetime.now(UTC)
    assert (process.state, process.exit_code, process.usage) == ("running", None, None)
    inside = await session.exec(f"tr '\\0' ' ' < /proc/{process.pid}/cmdline")
    assert inside.stdout == b"sh -c read line; exit 3 "
    await process.stdin.write(b"go\n")
    result = await process.wait()
    assert (result.exit_code, process.exit_code, process.state) == (3, 3, "ended")
    assert result.usage == process.usage
    assert process.usage is not None
    assert process.usage.max_rss_bytes > 0
    assert result.duration_s > 0
    assert await process.wait() is result
    assert "reader" in repr(process)


async def test_server_is_reached_from_another_exec(session: Session) -> None:
    await session.write("page", b"content")
    server = await session.start_process("python3 -u -m http.server 8123 --bind 127.0.0.1")
    await read_until(server, b"Serving HTTP")
    fetch = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8123/page').read())"
    fetched = await session.exec("python3", "-c", fetch, shell=False, timeout=20)
    assert fetched.stdout == b"b'content'\n"
    assert b"GET /page" in await read_until(server, b"GET /page")
    await server.close()
    assert server.state == "ended"
    refused = await session.exec("python3", "-c", fetch, shell=False, timeout=20)
    assert b"Connection refused" in refused.stderr


async def test_arguments_are_those_of_exec(session: Session) -> None:
    await session.mkdir("below")
    process = await session.start_process(
        "bash-like", "-c", 'echo "$PWD $VALUE"; cat', shell=False, name="absent"
    )
    assert (await process.wait()).exit_code == 127
    process = await session.start_process(
        'echo "${PWD##*/} $VALUE"; cat', cwd="below", env={"VALUE": "given"}, stdin=b"input"
    )
    assert (await process.wait()).exit_code == 0
    assert await read_now(process) == b"below given\ninput"
    process = await session.start_process("echo ${BASH##*/}", shell=["bash", "-c"])
    await process.wait()
    assert await read_now(process) == b"bash\n"


async def test_program_that_cannot_run(session: Session) -> None:
    await session.write("plain", b"no program")
    for word, code in (("missing-program", 127), ("./plain", 126)):
        process = await session.start_process(word, shell=False)
        result = await process.wait()
        assert (result.exit_code, process.exit_code, process.state) == (code, code, "ended")
        assert process.pid is None
        assert word.encode() in await read_now(process)
        assert text_of(await read_whole(process.logs()), "stdout") == b""


async def test_impossible_arguments(session: Session) -> None:
    with pytest.raises(ArgumentError, match="can't be entered"):
        await session.start_process("true", cwd="/missing")
    for name in ("", "a b", "p17", "-x", "n" * 65, "../x"):
        with pytest.raises(ArgumentError, match="letters, digits"):
            await session.start_process("true", name=name)
    with pytest.raises(ArgumentTypeError):
        await session.start_process("true", name=3)  # type: ignore[arg-type]
    for limit in (0, 65_535, 2**41):
        with pytest.raises(ArgumentError, match="log_limit is from"):
            await session.start_process("true", log_limit=limit)
    with pytest.raises(ArgumentTypeError, match="log_limit"):
        await session.start_process("true", log_limit="1M")  # type: ignore[arg-type]
    with pytest.raises(ArgumentTypeError, match="stdin"):
        await session.start_process("true", stdin="text")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="processes is"):
        await session.stop(processes="all")  # type: ignore[arg-type]
    assert session.processes() == ()
    assert log_files() == []
    assert descriptor_budget.used == 0


async def test_list_and_lookup(session: Session) -> None:
    assert session.processes() == ()
    web = await session.start_process("sleep 60", name="web")
    other = await session.start_process("true")
    assert session.processes() == (web, other)
    assert session.process("web") is session.process("p1") is web
    assert session.process(other.id) is other
    with pytest.raises(ArgumentError, match="called web already"):
        await session.start_process("true", name="web")
    with pytest.raises(ArgumentError, match="there are: web, p2"):
        session.process("missing")
    await web.close()
    again = await session.start_process("true", name="web")
    assert session.process("web") is again
    assert session.process("p1") is web
    assert await session.remove_process("p1")
    assert not await session.remove_process(web)
    assert session.processes() == (other, again)
    for nothing in (None, 1):
        with pytest.raises(ArgumentTypeError, match="handle"):
            await session.remove_process(nothing)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(SessionClosedError, match="gone"):
        await read_whole(web.logs())


async def test_wait_does_not_end_it(session: Session) -> None:
    process = await session.start_process("read line", stdin=True)
    with pytest.raises(ExecTimeoutError, match="still runs") as caught:
        await process.wait(timeout=0.01)
    assert caught.value.context["still_running"] is True
    waiting = [asyncio.create_task(process.wait()) for _ in range(5)]
    await asyncio.sleep(0)
    waiting.pop().cancel()
    await process.stdin.close()
    results = await asyncio.gather(*waiting)
    assert {result.exit_code for result in results} == {1}
    for timeout in (0, -1, float("nan")):
        with pytest.raises(ArgumentError, match="timeout"):
            await process.wait(timeout=timeout)


async def test_signals(session: Session) -> None:
    script = "trap 'echo got; exit 7' USR1; echo up; while :; do sleep 0.05; done"
    for number in ("USR1", "SIGUSR1", "usr1", signal.SIGUSR1, int(signal.SIGUSR1)):
        process = await session.start_process(script)
        await read_until(process, b"up\n")
        await process.signal(number)
        assert (await process.wait(20)).exit_code == 7
        assert await read_now(process) == b"up\ngot\n"
        await process.signal("KILL")  # nobody is left to get it
    process = await session.start_process("exec sleep 60")
    await process.signal()
    assert (await process.wait(20)).exit_code == -signal.SIGTERM
    for wrong in ("NOSUCH", 99, "", True, None):
        with pytest.raises(ArgumentError):
            await process.signal(wrong)  # type: ignore[arg-type]


async def test_signal_for_the_tree(session: Session) -> None:
    token = make_token()
    process = await session.start_process(f"setsid sleep {token} & sleep {token} & echo up; exit 0")
    assert (await process.wait(20)).exit_code == 0
    assert process.state == "exited"
    assert len(process.leftovers) == 2
    await until(lambda: len(find_survivors(token)) == 2)
    await process.signal("TERM")  # of which the command alone would hear
    assert process.state == "exited"
    await process.signal("TERM", tree=True)
    await until(lambda: process.state == "ended" and not process.leftovers)
    assert find_survivors(token) == []


async def test_leftovers_go_on_being_logged(session: Session) -> None:
    await session.exec("mkfifo gate")
    process = await session.start_process("(read line < gate; echo late; echo worse >&2) & echo up")
    assert (await process.wait(20)).leftovers
    assert await read_now(process) == b"up\n"
    assert process.state == "exited"
    await session.exec("echo go > gate", timeout=20)
    told = await read_whole(process.logs())
    assert (text_of(told, "stdout"), text_of(told, "stderr")) == (b"up\nlate\n", b"worse\n")
    await until(lambda: process.state == "ended")


async def test_exit_is_told_while_pipes_live(session: Session) -> None:
    process = await session.start_process("sleep 60 & exec >&- 2>&-; exit 5")
    assert (await process.wait(20)).exit_code == 5
    closed = await session.start_process("exec >&- 2>&-; read line", stdin=True)
    assert await read_now(closed) == b""
    assert closed.state == "running"
    await closed.stdin.write(b"end\n")
    assert (await closed.wait(20)).exit_code == 0


DAEMONS = "setsid sleep @ & (trap '' TERM HUP INT; exec sleep @) & nohup sleep @ & "


@pytest.mark.parametrize("how", ["close", "remove", "block", "stop", "shutdown", "timeout"])
async def test_whole_tree_ends(session: Session, how: str) -> None:
    token = make_token()
    command = DAEMONS.replace("@", token) + f"echo up; exec sleep {token}"
    timeout = 1.5 if how == "timeout" else None
    process = await session.start_process(command, timeout=timeout)
    await read_until(process, b"up\n")
    await ENDS[how](session, process)
    assert find_survivors(token) == []
    assert process.state == "ended"
    assert descriptor_budget.used == 0
    if how != "remove":
        assert await read_now(process) == b"up\n"
    with pytest.raises(SessionClosedError) if how == "shutdown" else NoError():
        assert (await session.exec("echo on")).stdout == b"on\n"


class NoError:
    """Expects nothing to be raised."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


async def close_it(session: Session, process: BackgroundProcess) -> None:
    await process.close()
    await process.close()
    assert (await process.wait()).exit_code == -signal.SIGKILL


async def remove_it(session: Session, process: BackgroundProcess) -> None:
    await session.remove_process(process)
    assert log_files() == []


async def leave_block(session: Session, process: BackgroundProcess) -> None:
    async with process:
        pass


async def stop_all(session: Session, process: BackgroundProcess) -> None:
    await session.stop()
    assert process.state == "running"
    token = make_token()
    left = await session.exec(f"setsid sleep {token} & setsid sleep {token} >&- 2>&- & echo")
    assert len(left.leftovers) == 2
    await session.stop(processes="end")
    assert find_survivors(token) == []


async def shut_down(session: Session, process: BackgroundProcess) -> None:
    waiting = asyncio.create_task(process.wait())
    await asyncio.sleep(0)
    await session.shutdown()
    with pytest.raises(ExecTransportError, match="ended while"):
        await waiting


async def await_timeout(session: Session, process: BackgroundProcess) -> None:
    with pytest.raises(ExecTimeoutError, match=r"longer than 1\.5 s and was ended"):
        await process.wait()
    await until(lambda: process.state == "ended")


ENDS: dict[str, Callable[[Session, BackgroundProcess], Awaitable[None]]] = {
    "close": close_it,
    "remove": remove_it,
    "block": leave_block,
    "stop": stop_all,
    "shutdown": shut_down,
    "timeout": await_timeout,
}


async def test_wall_time_holds_here_too(client: Client) -> None:
    session = await client.create(policy=Policy(limits=ResourceLimits(wall_time=0.1)))
    async with session:
        process = await session.start_process("sleep 60")
        with pytest.raises(ExecTimeoutError) as caught:
            await process.wait(timeout=20)
        assert caught.value.result is not None
        assert [hit.limit for hit in caught.value.result.limit_hits] == ["wall_time"]
        longer = await session.start_process("read line", stdin=True, timeout=50)
        await process.close()
        assert longer.state == "running"
    await client.delete(session)


async def test_workspace_size_ends_it(client: Client) -> None:
    limits = ResourceLimits(workspace_size=1_000_000)
    session = await client.create(policy=Policy(limits=limits))
    async with session:
        process = await session.start_process("yes > file & sleep 60")
        with pytest.raises(ResourceLimitError, match="workspace took"):
            await process.wait(timeout=40)
        await until(lambda: process.state == "ended")
    await client.delete(session)


async def test_denials_are_explained(session: Session) -> None:
    process = await session.start_process("echo text > /usr/file")
    result = await process.wait()
    assert [denial.subject for denial in result.denials] == ["/usr/file"]
    assert await process.wait() is result


async def test_stdin_by_hand(session: Session) -> None:
    process = await session.start_process("wc -c", stdin=True)
    large = os.urandom(1_000_000)
    await asyncio.gather(*(process.stdin.write(large) for _ in range(3)))
    await process.stdin.close()
    await process.stdin.close()
    assert (await process.wait(20)).exit_code == 0
    assert await read_now(process) == b"3000000\n"
    with pytest.raises(ExecTransportError) as caught:
        await process.stdin.write(b"more")
    assert caught.value.context["reason"] == "stdin_closed"
    with pytest.raises(ArgumentTypeError, match="encode"):
        await process.stdin.write("text")  # type: ignore[arg-type]


async def test_stdin_is_not_mixed(session: Session) -> None:
    process = await session.start_process("cat", stdin=True, log_limit=2**23)
    await asyncio.gather(*(process.stdin.write(letter * 300_000) for letter in (b"a", b"b", b"c")))
    await process.stdin.close()
    await process.wait(20)
    assert await read_now(process) == b"a" * 300_000 + b"b" * 300_000 + b"c" * 300_000


async def test_stdin_waits_for_the_reader(session: Session) -> None:
    process = await session.start_process("read line; exec sleep 60", stdin=True)
    writing = asyncio.create_task(process.stdin.write(bytes(10_000_000)))
    assert (await session.exec("echo on")).stdout == b"on\n"  # the loop goes on
    assert not writing.done()
    await process.close()
    with pytest.raises(ExecTransportError):
        await asyncio.wait_for(writing, 20)


async def test_stdin_that_was_not_asked_for(session: Session) -> None:
    process = await session.start_process("wc -c")
    await process.wait(20)
    assert await read_now(process) == b"0\n"
    with pytest.raises(ArgumentError, match="stdin=True"):
        _ = process.stdin


async def test_failing_source_is_told(session: Session) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"some"
        raise OSError("no more")

    process = await session.start_process("cat", stdin=failing())
    with pytest.raises(ExecTransportError, match="no more"):
        await process.wait(20)


async def test_other_phases_refuse(client: Client) -> None:
    session = await client.create()
    with pytest.raises(SessionClosedError, match="start_process"):
        await session.start_process("true")
    with pytest.raises(SessionClosedError, match="process"):
        session.processes()
    async with session:
        process = await session.start_process("echo kept")
        await process.wait()
        await session.shutdown()
        assert await read_now(session.process("p1")) == b"kept\n"
        await session.start()
        again = await session.start_process("echo new")
        await again.wait()
        assert session.processes() == (process, again)
        assert log_files()
    assert log_files() == []
    with pytest.raises(SessionClosedError):
        await read_now(process)
    with pytest.raises(SessionClosedError):
        session.processes()
    await client.delete(session)


async def test_ended_ones_are_forgotten(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandyard.process.background_list.PROCESSES_KEPT", 3)
    lasting = await session.start_process("sleep 60")
    first = await session.start_process("true")
    for _ in range(5):
        await first.wait()
        await (await session.start_process("true")).wait()
    last = await session.start_process("echo up; sleep 60")
    await read_until(last, b"up\n")
    listed = session.processes()
    assert (listed[0], listed[-1]) == (lasting, last)
    assert [one.id for one in listed[1:-1]] == ["p6", "p7"]
    assert [name.rpartition("/")[2] for name in log_files()] == ["p8.log"]
    with pytest.raises(SessionClosedError, match="gone"):
        await read_now(first)
