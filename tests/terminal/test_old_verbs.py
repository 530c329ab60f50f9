"""The old API's long-running processes: numbers, yields, what is told, and how they end."""

from __future__ import annotations

import asyncio
import time

import pytest

from sandyard import (
    ArgumentError,
    ArgumentTypeError,
    ExecTransportError,
    PtyExecUpdate,
    PtySessionNotFoundError,
    PtyStdinUnavailableError,
    ResourceLimitError,
    SandboxError,
    SessionClosedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from sandyard.process import slots
from sandyard.process.budget import descriptor_budget
from sandyard.process.slots import choose_victim, poll_yield, start_yield, write_yield
from tests.session.host import find_survivors, make_token, open_descriptors, until

Session = UnixLocalSandboxSession


@pytest.fixture
def quick(session: Session, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session in which the least that a call waits is a hundredth of what it is for others."""
    monkeypatch.setattr(slots, "SLOT_YIELD_MIN_S", 0.0025)
    monkeypatch.setattr(slots, "SLOT_POLL_MIN_S", 0.05)
    monkeypatch.setattr(slots, "SLOT_START_YIELD_S", 0.1)
    monkeypatch.setattr(slots, "SLOT_WRITE_YIELD_S", 0.0025)
    return session


async def ask(session: Session, number: int, chars: str = "") -> PtyExecUpdate:
    return await session.pty_write_stdin(session_id=number, chars=chars, yield_time_s=0.01)


class Talk:
    """A process that is asked until it has told something."""

    def __init__(self, session: Session, begun: PtyExecUpdate) -> None:
        self.session = session
        self.number = number_of(begun)
        self.seen = begun.output

    async def say(self, chars: str) -> None:
        self.seen += (await ask(self.session, self.number, chars)).output

    async def until(self, text: str) -> None:
        async with asyncio.timeout(20):
            while text.encode() not in self.seen:
                update = await ask(self.session, self.number)
                self.seen += update.output
                assert update.exit_code is None, update


def number_of(update: PtyExecUpdate) -> int:
    assert update.process_id is not None, update
    assert update.exit_code is None
    return update.process_id


@pytest.mark.parametrize(
    ("given", "start", "write", "poll"),
    [
        (None, 10.0, 0.25, 5.0),
        (0.0, 0.25, 0.25, 5.0),
        (-5.0, 0.25, 0.25, 5.0),
        (7.0, 7.0, 7.0, 7.0),
        (1e9, 30.0, 30.0, 30.0),
    ],
)
def test_yields(given: float | None, start: float, write: float, poll: float) -> None:
    assert (start_yield(given), write_yield(given), poll_yield(given)) == (start, write, poll)


LAST = [False] * 8
"""Those that were used last."""


@pytest.mark.parametrize(
    ("ended", "chosen"),
    [
        ([], None),
        ([True] * 8, None),
        ([False, *LAST], 0),
        ([None, *LAST], None),
        ([None, False, *LAST], 1),
        ([False, True, True, *LAST], 1),
        ([False, None, False, *[True] * 8], 0),
    ],
)
def test_who_makes_room(ended: list[bool | None], chosen: int | None) -> None:
    assert choose_victim(ended) == chosen


async def test_short_command_is_told_at_once(session: Session) -> None:
    began = time.monotonic()
    update = await session.pty_exec_start("echo out; echo err >&2; exit 3")
    assert update == PtyExecUpdate(None, b"out\nerr\n", 3, None)
    update = await session.pty_exec_start("echo out; echo err >&2; exit 3", tty=True)
    assert update == PtyExecUpdate(None, b"out\r\nerr\r\n", 3, None)
    assert time.monotonic() - began < 10
    assert session.supports_pty()


@pytest.mark.parametrize("tty", [False, True])
async def test_exit_is_told_with_children_left(session: Session, tty: bool) -> None:
    token = make_token()
    update = await session.pty_exec_start(f"trap '' HUP; sleep {token} & echo on; exit 4", tty=tty)
    assert (update.exit_code, update.output.strip()) == (4, b"on")
    await until(lambda: find_survivors(token))


async def test_process_is_typed_to(quick: Session) -> None:
    talk = Talk(quick, await quick.pty_exec_start("cat; echo over; read a", tty=True))
    number = talk.number
    assert 1000 <= number < 100_000
    await talk.say("é漢\n")
    await talk.until("é漢\r\né漢\r\n")
    await talk.say("\x04")
    await talk.until("over")
    update = await quick.pty_write_stdin(session_id=number, chars="\n", yield_time_s=30)
    assert (update.process_id, update.exit_code) == (None, 0)
    with pytest.raises(PtySessionNotFoundError) as caught:
        await ask(quick, number)
    assert caught.value.session_id == number


async def test_interrupt_is_told(session: Session) -> None:
    number = number_of(await session.pty_exec_start("exec sleep 99", tty=True, yield_time_s=0))
    update = await session.pty_write_stdin(session_id=number, chars="\x03", yield_time_s=30)
    assert update.exit_code == -2


async def test_input_without_a_terminal(quick: Session) -> None:
    talk = Talk(quick, await quick.pty_exec_start("wc -c; exec sleep 99"))
    await talk.until("0\n")  # it is empty
    with pytest.raises(PtyStdinUnavailableError) as caught:
        await talk.say("x")
    assert str(caught.value) == "stdin is not available for this process"
    assert isinstance(caught.value, RuntimeError)
    await quick.pty_terminate_all()
    with pytest.raises(PtySessionNotFoundError):
        await talk.say("")


@pytest.mark.parametrize("tty", [False, True])
async def test_timeout_is_kept(session: Session, tty: bool) -> None:
    token = make_token()
    command = f"setsid sleep {token} & echo on; exec sleep {token}"
    update = await session.pty_exec_start(command, tty=tty, timeout=0.3)
    assert update.exit_code == -9
    assert update.output.startswith(b"on")
    assert b"took longer than 0.3 s" in update.output
    assert find_survivors(token) == []


@pytest.mark.parametrize("tty", [False, True])
async def test_birth_that_fails_is_told(session: Session, tty: bool) -> None:
    update = await session.pty_exec_start("nowhere", shell=False, tty=tty)
    assert update.exit_code == 127
    assert b"nowhere: No such file or directory" in update.output
    assert (await session.pty_exec_start("/etc", shell=False, tty=tty)).exit_code == 126
    update = await session.pty_exec_start("echo", "x" * 200_000, shell=False, tty=tty)
    assert update.exit_code == 126
    with pytest.raises(ArgumentError, match="NUL"):
        await session.pty_exec_start("echo", "\0", tty=tty)


async def test_characters_are_whole(quick: Session) -> None:
    script = r"printf '\303'; read a; printf '\251\360\237'; read a; printf '\216\211\377'; read a"
    begin = "stty -echo; echo ready; read a"
    talk = Talk(quick, await quick.pty_exec_start(f"{begin}; {script}", tty=True))
    await talk.until("ready")
    for told in ("ready\r\n", "ready\r\n", "ready\r\né", "ready\r\né🎉\ufffd"):
        await talk.until(told)
        assert talk.seen == told.encode(), "no part of a character is told"
        await talk.say("\n")
    script = r"printf 'x\303'"
    assert (await quick.pty_exec_start(script)).output == "x\ufffd".encode()


async def test_output_is_shortened(session: Session) -> None:
    update = await session.pty_exec_start("seq 10000", max_output_tokens=30)
    assert update.original_token_count == 12_224
    assert update.output.startswith(b"Total output lines: 10000\n\n1\n2\n")
    assert update.output.endswith(b"\n10000\n")
    assert len(update.output) <= 120
    update = await session.pty_exec_start("seq 10", max_output_tokens=30)
    assert (update.output, update.original_token_count) == (
        b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n",
        None,
    )


async def test_unread_output_is_bounded(session: Session) -> None:
    command = "head -c 5000000 /dev/zero | tr '\\0' x; echo end"
    update = await session.pty_exec_start(command, yield_time_s=30)
    assert update.exit_code == 0
    assert len(update.output) < 1_100_000
    assert b"bytes dropped]\n" in update.output
    assert update.output.endswith(b"end\n")


async def test_large_paste_waits(quick: Session) -> None:
    number = number_of(await quick.pty_exec_start("exec sleep 99", tty=True))
    paste = "a line of text\n" * 70_000
    async with asyncio.timeout(20):
        await ask(quick, number, paste)
        assert (await quick.exec("echo on")).stdout == b"on\n"
        for _ in range(14):
            await ask(quick, number, paste)
        with pytest.raises(ResourceLimitError, match="wait to be read"):
            await ask(quick, number, paste * 2)
        await quick.pty_terminate_all()


async def test_oldest_makes_room(quick: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOT_START_YIELD_S", 0.0025)
    command = "echo on; exec sleep 99"
    numbers = [number_of(await quick.pty_exec_start(command)) for _ in range(64)]
    await ask(quick, numbers[0])  # which makes the second one the oldest
    update = await quick.pty_exec_start(command)
    assert f"process {numbers[1]} was ended: at most 64".encode() in update.output
    with pytest.raises(PtySessionNotFoundError, match="made room"):
        await ask(quick, numbers[1])
    for number in (numbers[0], numbers[2]):
        assert (await ask(quick, number)).exit_code is None
    await quick.pty_terminate_all()
    assert descriptor_budget.used == 0


async def test_room_is_for_one(quick: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    # Those that start while another one is put out must put out their own.
    monkeypatch.setattr(slots, "SLOTS", 12)
    monkeypatch.setattr(slots, "SLOT_START_YIELD_S", 0.0025)
    for _ in range(3):
        await asyncio.gather(*(quick.pty_exec_start("exec sleep 99") for _ in range(4)))
    used = descriptor_budget.used
    for _ in range(3):
        await asyncio.gather(*(quick.pty_exec_start("exec sleep 99") for _ in range(4)))
        assert descriptor_budget.used == used
    await quick.pty_terminate_all()
    assert descriptor_budget.used == 0


async def test_cancelled_start_leaves_nothing(session: Session) -> None:
    for tty in (False, True):
        token, before = make_token(), open_descriptors()
        start = asyncio.create_task(session.pty_exec_start(f"exec sleep {token}", tty=tty))
        await until(lambda token=token: find_survivors(token))  # type: ignore[misc]
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        assert find_survivors(token) == []
        assert open_descriptors() == before
    await session.pty_terminate_all()


async def test_ending_all_ends_those_that_begin(session: Session) -> None:
    token = make_token()
    for tty in (False, True):
        start = asyncio.create_task(session.pty_exec_start(f"exec sleep {token}", tty=tty))
        await asyncio.sleep(0)
        await session.pty_terminate_all()
        async with asyncio.timeout(9):  # less than a start waits
            update = await start
        assert update.exit_code == -9
        assert find_survivors(token) == []


async def test_cancelled_asking_loses_nothing(quick: Session) -> None:
    talk = Talk(quick, await quick.pty_exec_start("read a; echo one; exec sleep 99", tty=True))
    asking = asyncio.create_task(
        quick.pty_write_stdin(session_id=talk.number, chars="\n", yield_time_s=30)
    )
    await asyncio.sleep(0.1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await talk.until("one")


async def test_sandbox_that_ends_is_told(quick: Session) -> None:
    numbers = [
        number_of(await quick.pty_exec_start("exec sleep 99", tty=tty)) for tty in (False, True)
    ]
    await quick.shutdown()
    with pytest.raises(SessionClosedError):
        await ask(quick, numbers[0])
    assert descriptor_budget.used == 0


async def test_checkpoint_may_end_them(quick: Session) -> None:
    number = number_of(await quick.pty_exec_start("exec sleep 99"))
    await quick.stop()
    assert (await ask(quick, number)).exit_code is None
    await quick.stop(processes="end")
    with pytest.raises(PtySessionNotFoundError):
        await ask(quick, number)


async def test_checkpoint_during_a_shutdown(quick: Session) -> None:
    await quick.pty_exec_start("trap '' TERM; sleep 99")
    await asyncio.gather(quick.stop(processes="end"), quick.shutdown())
    assert not await quick.running()


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"yield_time_s": "1"}, ArgumentTypeError),
        ({"yield_time_s": float("nan")}, ArgumentTypeError),
        ({"max_output_tokens": 1.5}, ArgumentTypeError),
        ({"timeout": -1}, ArgumentError),
        ({"user": "root"}, ArgumentError),
    ],
)
async def test_impossible_argument(
    session: Session, asked: dict[str, object], error: type[SandboxError]
) -> None:
    with pytest.raises(error):
        await session.pty_exec_start("true", **asked)  # type: ignore[arg-type]


@pytest.mark.parametrize(("chars", "error"), [(b"x", ArgumentTypeError), ("\udcff", ArgumentError)])
async def test_impossible_text(quick: Session, chars: str, error: type[SandboxError]) -> None:
    number = number_of(await quick.pty_exec_start("cat", tty=True))
    with pytest.raises(error):
        await ask(quick, number, chars)


@pytest.mark.parametrize("number", [None, True, "1000", [1000], 1000.0])
async def test_impossible_number(quick: Session, number: int) -> None:
    with pytest.raises(ArgumentTypeError, match="process_id"):
        await ask(quick, number)


async def test_impatience_has_no_bounds(quick: Session) -> None:
    assert (await quick.pty_exec_start("true", yield_time_s=10**400)).exit_code == 0
    number_of(await quick.pty_exec_start("exec sleep 99", yield_time_s=-(10**400)))


async def test_session_must_run(client: UnixLocalSandboxClient) -> None:
    made = await client.create()
    for call in (made.pty_exec_start("true"), made.pty_terminate_all()):
        with pytest.raises(SessionClosedError):
            await call
    await client.delete(made)


async def test_killed_sandbox_is_told(quick: Session) -> None:
    script = "kill -9 -1"
    number = number_of(await quick.pty_exec_start("exec sleep 99", tty=True))
    await quick.exec(script)  # ends all that is inside, but for the first process
    async with asyncio.timeout(20):
        try:
            while (update := await ask(quick, number)).exit_code is None:
                pass
            assert update.exit_code == -9
        except ExecTransportError:
            pass
