"""A terminal: its birth, what is typed and shown, its size, its signals, its end."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    ExecTransportError,
    Manifest,
    Policy,
    ResourceLimitError,
    ResourceLimits,
    SessionClosedError,
    Terminal,
    TerminalEndedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from tests.process.test_pipes import refuse_watch
from tests.session.host import find_init, find_survivors, make_token, open_descriptors, until
from tests.terminal.screen import shows, watching

Session = UnixLocalSandboxSession


async def is_running(terminal: Terminal) -> bool:
    return terminal.exit_code is None


# --- birth ----------------------------------------------------------------------------------------


async def test_command_leads_its_terminal(session: Session) -> None:
    script = "tty; stty size; echo $TERM; test -t 0 && test -t 1 && test -t 2 && echo streams"
    terminal = await session.terminal(
        f"{script}; ps -o pid=,sid=,tpgid= -p $$", rows=30, columns=99
    )
    lines = (await shows(terminal)).decode().split("\r\n")
    assert re.fullmatch(r"/dev/pts/\d+", lines[0])
    assert lines[1:4] == ["30 99", "xterm-256color", "streams"]
    assert len(set(lines[4].split())) == 1, "leader of its session, and in the foreground"
    assert await terminal.wait() == 0


async def test_nothing_is_inherited(session: Session) -> None:
    terminal = await session.terminal("ls /proc/self/fd; grep -E 'Sig(Ign|Blk)' /proc/self/status")
    shown = (await shows(terminal)).decode().split()
    assert shown == ["0", "1", "2", "3", "SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


@pytest.mark.parametrize("home", ["call", "policy", "manifest"])
async def test_terminal_type_may_be_given(client: UnixLocalSandboxClient, home: str) -> None:
    policy = Policy(environment=(("TERM", "vt52"),)) if home == "policy" else Policy()
    given = {"environment": {"value": {"TERM": "vt52"}}} if home == "manifest" else {}
    made = await client.create(manifest=Manifest.model_validate(given), policy=policy)
    try:
        async with made:
            env = {"TERM": "vt52"} if home == "call" else None
            assert await shows(await made.terminal("echo $TERM", env=env)) == b"vt52\r\n"
            assert await shows(await made.terminal("echo $HOME", env={"HOME": "/x"})) == b"/x\r\n"
    finally:
        await client.delete(made)


async def test_variables_are_those_of_each_terminal(session: Session) -> None:
    variables = session.state.manifest.environment.value
    for value, others in (("one", "x"), (None, "x"), ("two", "y"), (None, "y"), (None, "x")):
        env = None if value is None else {"OF_ONE": value}
        variables["OF_ALL"] = others
        terminal = await session.terminal("echo $TERM ${OF_ONE-none} $OF_ALL", env=env)
        told = f"xterm-256color {value or 'none'} {others}\r\n"
        assert (await shows(terminal)).decode() == told
        assert (await session.exec("echo ${TERM-none} $OF_ALL")).stdout.decode().split()[
            1
        ] == others
    assert await shows(await session.terminal("echo $TERM", env={})) == b"xterm-256color\r\n"


async def test_directory_and_shell(session: Session) -> None:
    await session.mkdir("below")
    assert (await shows(await session.terminal("basename $PWD", cwd="below"))) == b"below\r\n"
    terminal = await session.terminal("echo", "a b", "$HOME", shell=False)
    assert await shows(terminal) == b"a b $HOME\r\n"
    assert terminal.command == ("echo", "a b", "$HOME")
    terminal = await session.terminal("echo $0", shell=["bash", "-c"])
    assert await shows(terminal) == b"bash\r\n"


async def test_missing_program_is_told(session: Session) -> None:
    terminal = await session.terminal("nowhere", shell=False)
    assert (terminal.exit_code, await terminal.wait()) == (127, 127)
    told = b"sandyard: nowhere: No such file or directory\r\n"
    assert await shows(terminal) == told
    terminal = await session.terminal("/etc/passwd", shell=False)
    assert terminal.exit_code == 126
    with pytest.raises(TerminalEndedError, match="126") as caught:
        await terminal.write(b"x")
    assert (caught.value.exit_code, caught.value.written) == (126, 0)


async def test_too_long_argument_is_told(session: Session) -> None:
    terminal = await session.terminal("echo", "x" * 200_000, shell=False)
    assert await terminal.wait() == 126
    assert b"Argument list too long" in terminal.scrollback().data


async def test_impossible_directory(session: Session) -> None:
    before = open_descriptors()
    with pytest.raises(ArgumentError, match="can't be entered"):
        await session.terminal("true", cwd="nowhere")
    assert session.terminals() == ()
    assert open_descriptors() == before


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"rows": 0}, ArgumentError),
        ({"columns": 65_536}, ArgumentError),
        ({"rows": "24"}, ArgumentTypeError),
        ({"columns": True}, ArgumentTypeError),
        ({"scrollback": -1}, ArgumentError),
        ({"scrollback": 1.5}, ArgumentTypeError),
        ({"name": ""}, ArgumentError),
        ({"name": "7"}, ArgumentError),
        ({"name": "a\nb"}, ArgumentError),
        ({"name": b"a"}, ArgumentTypeError),
        ({"timeout": 0}, ArgumentError),
        ({"leftovers": "maybe"}, ArgumentError),
        ({"env": {"A": 1}}, ArgumentTypeError),
        ({"env": 5}, ArgumentTypeError),
        ({"user": "root"}, ArgumentError),
    ],
)
async def test_impossible_argument(
    session: Session, asked: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await session.terminal("true", **asked)  # type: ignore[arg-type]
    assert session.terminals() == ()


async def test_session_must_run(client: UnixLocalSandboxClient) -> None:
    made = await client.create()
    with pytest.raises(SessionClosedError):
        await made.terminal("true")
    with pytest.raises(SessionClosedError):
        made.terminals()
    await client.delete(made)


# --- what is shown --------------------------------------------------------------------------------


async def test_nothing_is_lost_at_the_end(session: Session) -> None:
    expected = b"".join(b"%d\r\n" % number for number in range(1, 20_001))
    for _ in range(5):  # the end comes before the first read, or amid a thousand of them
        assert await shows(await session.terminal("seq 20000")) == expected
        assert await shows(await session.terminal("echo once")) == b"once\r\n"


async def test_end_is_told_with_children_left(session: Session) -> None:
    token = make_token()
    script = f"trap '' HUP; sleep {token} & echo shown; exit 6"
    terminal = await session.terminal(script)
    async with asyncio.timeout(10):
        assert await terminal.wait() == 6
    assert b"shown\r\n" in terminal.scrollback().data
    await until(lambda: find_survivors(token))  # it lives on in the session


async def test_leftovers_may_be_ended(session: Session) -> None:
    token = make_token()
    script = f"trap '' HUP; sleep {token} & echo shown"
    terminal = await session.terminal(script, leftovers="end")
    assert await terminal.wait() == 0
    await until(lambda: not find_survivors(token))


async def test_streams_may_be_closed(session: Session) -> None:
    """The program lives on without them, and opens its terminal again when it likes."""
    script = "exec 0<&- 1>&- 2>&-; sleep 0.2; echo again > /dev/tty; read a < /dev/tty; exit 4"
    async with watching(await session.terminal(script)) as screen:
        await screen.until("again")
        await screen.type("\n")
        assert await screen.terminal.wait() == 4


async def test_bytes_come_as_they_are(session: Session) -> None:
    script = "stty raw -echo; python3 -c 'import os; os.write(1, bytes(range(256)) * 64)'"
    assert await shows(await session.terminal(script)) == bytes(range(256)) * 64


# --- what is typed --------------------------------------------------------------------------------


async def test_large_input_arrives_whole(session: Session) -> None:
    data = bytes(range(256)) * 8192
    script = f"stty raw -echo; echo ready; head -c {len(data)} | sha256sum"
    async with watching(await session.terminal(script)) as screen:
        await screen.until("ready")
        await screen.terminal.write(data)
        await screen.until(hashlib.sha256(data).hexdigest())


async def test_writers_take_turns(session: Session) -> None:
    script = "stty raw -echo; echo ready; head -c 400000 | tr -s a-d"
    async with watching(await session.terminal(script)) as screen:
        await screen.until("ready\n")
        parts = [letter.encode() * 100_000 for letter in "abcd"]
        await asyncio.gather(*map(screen.terminal.write, parts))
        assert (await screen.rest()).endswith(b"ready\nabcd")


async def test_write_waits_for_the_reader(session: Session) -> None:
    token = make_token()
    terminal = await session.terminal(f"exec sleep {token}")
    typing = asyncio.create_task(terminal.write(b"a line\n" * 150_000))
    result = await session.exec("echo meanwhile")
    assert (result.stdout, typing.done()) == (b"meanwhile\n", False)
    typing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await typing
    await terminal.signal("KILL")
    assert await terminal.wait() == -9


async def test_end_is_told_to_writers(session: Session) -> None:
    terminal = await session.terminal("read line; sleep 0.1; exit 5")
    with pytest.raises(TerminalEndedError, match="exited with 5") as caught:
        await terminal.write(b"a line\n" * 150_000)
    assert 0 < caught.value.written < 1_050_000
    for attempt in (terminal.write(b""), terminal.send_eof()):
        with pytest.raises(TerminalEndedError):
            await attempt


async def test_watch_that_is_refused(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, loop = await session.terminal("exec sleep 99"), asyncio.get_running_loop()
    with monkeypatch.context() as shortage:
        shortage.setattr(loop, "add_writer", refuse_watch)
        with pytest.raises(ResourceLimitError, match="can't be watched"):
            await terminal.write(b"a line\n" * 150_000)
    assert terminal.exit_code is None


async def test_text_must_be_encoded(session: Session) -> None:
    terminal = await session.terminal("cat")
    with pytest.raises(ArgumentTypeError, match="encode"):
        await terminal.write("text")  # type: ignore[arg-type]


async def test_views_may_have_gaps(session: Session) -> None:
    terminal = await session.terminal("cat")
    await terminal.write(memoryview(b"h-i-\n-\x04-")[::2])
    assert await terminal.wait() == 0
    assert terminal.scrollback().data.endswith(b"hi\r\n")


async def test_end_of_input(session: Session) -> None:
    async with watching(await session.terminal("cat; echo over")) as screen:
        await screen.type("line\n")
        await screen.until("line\r\nline\r\n")
        await screen.terminal.send_eof()
        await screen.until("over")


async def test_end_amid_a_line(session: Session) -> None:
    async with watching(await session.terminal("cat; echo over")) as screen:
        await screen.type("part")
        await screen.terminal.send_eof()
        await screen.until("partpart")  # as typed, and from cat, which goes on
        await screen.terminal.send_eof()
        await screen.until("over")


async def test_end_character_of_its_own(session: Session) -> None:
    async with watching(await session.terminal("stty eof q; echo ready; cat; echo over")) as screen:
        await screen.until("ready")
        await screen.terminal.send_eof()
        await screen.until("over")
    async with watching(await session.terminal("stty eof undef; echo ready; cat")) as screen:
        await screen.until("ready")
        with pytest.raises(ExecTransportError, match="switched off"):
            await screen.terminal.send_eof()


# --- size and signals -----------------------------------------------------------------------------


async def test_resize_is_told(session: Session) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done"
    async with watching(await session.terminal(script)) as screen:
        await screen.until("ready")
        screen.terminal.resize(7, 65_535)
        await screen.until("7 65535")
        assert screen.terminal.size == (7, 65_535)
        with pytest.raises(ArgumentError):
            screen.terminal.resize(0, 80)
    screen.terminal.resize(8, 8)  # it has ended: nothing happens


CATCHER = "trap 'echo $0 caught' USR1; echo $0 ready; while :; do sleep 0.01; done"


async def test_signal_reaches_whom_it_should(session: Session) -> None:
    await session.write("catch", CATCHER.replace("$0", "$1").encode())
    script = "set -m; trap 'echo shell caught' USR1; sh ./catch back & sh ./catch front; exit 3"
    async with watching(await session.terminal(script, shell=["bash", "-c"])) as screen:
        await screen.until("ready.*ready")
        await screen.terminal.signal("USR1", to="foreground")
        await screen.until("front caught")
        assert b"back caught" not in screen.seen
        await screen.terminal.signal(signal.SIGUSR1, to="tree")
        await screen.until("(?=.*back caught)(?=.*front caught)")
        await screen.terminal.signal("SIGKILL")
        assert await screen.terminal.wait() == -9
    await screen.terminal.signal("TERM")  # it has ended: nothing happens


@pytest.mark.parametrize(
    ("number", "to", "error"),
    [
        (0, "command", ArgumentError),
        (65, "command", ArgumentError),
        ("NOSUCH", "command", ArgumentError),
        (1.5, "command", ArgumentTypeError),
        ("INT", "everybody", ArgumentError),
        ("INT", None, ArgumentError),
    ],
)
async def test_impossible_signal(
    session: Session, number: object, to: object, error: type[Exception]
) -> None:
    terminal = await session.terminal("cat")
    with pytest.raises(error):
        await terminal.signal(number, to=to)  # type: ignore[arg-type]


# --- the end --------------------------------------------------------------------------------------


async def test_timeout_ends_the_tree(session: Session) -> None:
    token = make_token()
    script = f"setsid sleep {token} & echo begun; exec sleep {token}"
    terminal = await session.terminal(script, timeout=0.3)
    assert await terminal.wait() == -9
    shown = b"begun\r\n\r\nsandyard: the command took longer than 0.3 s, and was ended\r\n"
    assert terminal.scrollback().data == shown
    assert find_survivors(token) == []


async def test_wall_time_is_a_timeout(client: UnixLocalSandboxClient) -> None:
    made = await client.create(policy=Policy(limits=ResourceLimits(wall_time=0.3)))
    try:
        async with made:
            terminal = await made.terminal("cat")
            assert await terminal.wait() == -9
    finally:
        await client.delete(made)


async def test_full_workspace_ends_it(client: UnixLocalSandboxClient) -> None:
    made = await client.create(policy=Policy(limits=ResourceLimits(workspace_size=1_000_000)))
    try:
        async with made:
            script = "head -c 900000 /dev/zero > a; head -c 900000 /dev/zero > b; exec sleep 99"
            terminal = await made.terminal(script)
            assert await terminal.wait() == -9
            assert b"the workspace took" in terminal.scrollback().data
            with pytest.raises(ResourceLimitError, match="workspace"):
                await made.terminal("true")
    finally:
        await client.delete(made)


async def test_close_ends_the_tree(session: Session) -> None:
    token = make_token()
    script = f"setsid sleep {token} & (trap '' HUP TERM; exec sleep {token}) & echo on; exec cat"
    async with watching(await session.terminal(script)) as screen:
        await screen.until("on")
        await asyncio.gather(screen.terminal.close(), screen.terminal.close())
    assert screen.terminal.exit_code == await screen.terminal.wait() == -9
    assert find_survivors(token) == []
    await screen.terminal.close()


async def test_waiting_may_be_given_up(session: Session) -> None:
    terminal = await session.terminal("read line; exit 2")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await terminal.wait()
    waiting = [asyncio.create_task(terminal.wait()) for _ in range(3)]
    await terminal.write(b"\n")
    assert await asyncio.gather(*waiting) == [2, 2, 2]


async def test_shutdown_ends_all(client: UnixLocalSandboxClient) -> None:
    made = await client.create()
    async with made:
        one = await made.terminal("cat")
        waiting = asyncio.create_task(one.wait())
        typing = asyncio.create_task(one.write(bytes(1_000_000)))
        await asyncio.sleep(0)
        await made.shutdown()
        assert await waiting == one.exit_code == -9
        with pytest.raises(TerminalEndedError):
            await typing
        assert b"the session has ended" in one.scrollback().data
        await one.close()
    await client.delete(made)


async def test_checkpoint_leaves_them_alone(session: Session) -> None:
    terminal = await session.terminal("cat")
    await session.stop()
    assert await is_running(terminal)
    await session.stop(processes="end")
    assert await terminal.wait() == -9
    with pytest.raises(ArgumentError, match="'keep', 'end' or 'freeze'"):
        await session.stop(processes="some")  # type: ignore[arg-type]


async def test_killed_sandbox_is_told(session: Session) -> None:
    async with watching(await session.terminal("echo on; exec cat")) as screen:
        await screen.until("on")
        os.kill(find_init(), signal.SIGKILL)
        with pytest.raises(ExecTransportError, match="ended"):
            await screen.terminal.wait()
        assert screen.terminal.exit_code == -9
        assert await screen.rest() == b"on\r\n"
    with pytest.raises(ExecTransportError):
        await session.terminal("true")


# --- names ----------------------------------------------------------------------------------------


async def test_names_and_numbers(session: Session) -> None:
    one = await session.terminal("cat")
    two = await session.terminal("cat", name="build")
    assert [(t.id, t.name) for t in session.terminals()] == [(1, "1"), (2, "build")]
    with pytest.raises(ArgumentError, match="runs already"):
        await session.terminal("cat", name="build")
    await two.close()
    calls = [session.terminal("cat", name="same") for _ in range(3)]
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert [*map(type, told)].count(ArgumentError) == 2
    for each in told:
        if isinstance(each, Terminal):
            await each.close()
    again = await session.terminal("cat", name="build")
    assert [t.name for t in session.terminals()] == ["1", "same", "build"]
    assert session.terminals()[::2] == (one, again)
    assert "build" in repr(again)
    assert "running" in repr(again)


async def test_ended_are_listed_for_a_while(session: Session) -> None:
    first = await session.terminal("cat")
    await (await session.terminal("true", name="again")).wait()
    ended = [await session.terminal("true", name="again")]  # which takes the other's place
    ended += [await session.terminal("true") for _ in range(69)]
    for terminal in ended:
        await terminal.wait()
    assert session.terminals() == (first, *ended[-64:])
