"""A first process that lies while commands run: each call ends soon, with a result or a typed error."""

from __future__ import annotations

import asyncio
import struct

import pytest

from sandyard import (
    ExecResult,
    ExecTimeoutError,
    ExecTransportError,
    SandboxError,
    UnixLocalSandboxSession,
)
from tests.fuzz.conftest import Scene, bounded
from tests.fuzz.hostile import (
    EXITED,
    GONE,
    PIPES,
    SPAWN_FAILED,
    SPAWNED,
    START_FAILED,
    STARTED,
    exited,
    failure,
    gone,
    message,
    written,
)
from tests.session.host import open_descriptors

Session = UnixLocalSandboxSession

LARGEST = 2**64 - 1


async def outcome(session: Session, timeout: float | None = None) -> ExecResult | SandboxError:
    """What the first command of a session ends with."""
    assert await bounded(session.start()) is None
    return await bounded(session.exec("true", timeout=timeout))


def assert_over(told: object) -> None:
    """The caller is told that the sandbox has ended."""
    assert isinstance(told, ExecTransportError), told
    assert told.context["reason"] == "sandbox_ended"


@pytest.mark.parametrize(
    "answers",
    [
        [exited(0), exited(0), exited(0, 256)],
        [exited(0, left=3), exited(0), gone(0)],
        [exited(0), failure(SPAWN_FAILED, 0, 35, 2)],
        [exited(0), message(STARTED), failure(START_FAILED, 0, 8, 1)],
        [message(SPAWNED, 0, bytes(8))] * 500 + [exited(0)],
        [exited(9), exited(2**32 - 1), gone(77), exited(0)],
        [exited(0, usage=(LARGEST,) * 9, left=2**32 - 1)],
        [exited(0, flags=2**32 - 1)],
        [
            message(
                EXITED,
                0,
                struct.pack("=iI9QIIQIIII", 0, 0, *[0] * 9, 0, 64, 9, 8, 0, 0, 0)
                + b"\xff" * (64 * 20 + 8 * 32),
            )
        ],
    ],
)
async def test_exit_however_it_is_told(
    play: Scene, deceived: Session, answers: list[bytes]
) -> None:
    play("serving", answers=answers)
    told = await outcome(deceived, timeout=5)
    assert isinstance(told, ExecResult)
    assert told.exit_code == 0
    again = await bounded(deceived.exec("true", timeout=5))
    assert isinstance(again, ExecResult), again


async def test_any_birth_may_fail(play: Scene, deceived: Session) -> None:
    failures = [(step, error) for step in (1, 8, 18, *range(32, 37)) for error in (0, 11, -(2**31))]
    answers = [failure(SPAWN_FAILED, 0, step, error, b"\xff" * 30) for step, error in failures]
    play("serving_each", answers=answers)
    await deceived.start()
    for step, _ in failures:
        told = await bounded(deceived.exec("true"))
        assert isinstance(told, SandboxError) == (step != 35)
        assert not isinstance(told, ExecResult) or told.exit_code in (126, 127)


@pytest.mark.parametrize(
    "answer",
    [
        exited(0, 0x7F),
        exited(0, 0xFFFF),
        exited(0, -1),
        message(EXITED, 0, bytes(7)),
        message(99),
        exited(0)[:-1],
        exited(0) + b"x",
        exited(0) + bytes(90_000),
        message(GONE),
        exited(0, output=(b"o" * 16_000, b"e" * 16_000)),
        written(0, 2, b"no such stream"),
        written(0, 0, b""),
        message(PIPES),
        message(
            GONE, 0, struct.pack("=QII", 9, 9, 0) + bytes(9 * 32)
        ),  # more kinds than there may be
    ],
)
async def test_garbage_ends_the_sandbox(play: Scene, deceived: Session, answer: bytes) -> None:
    play("serving", answers=[answer])
    assert_over(await outcome(deceived))
    assert not await deceived.running()
    assert_over(await bounded(deceived.exec("true")))


async def test_command_that_never_ends(play: Scene, deceived: Session) -> None:
    play("never_exiting")
    told = await outcome(deceived, timeout=0.1)
    assert isinstance(told, ExecTimeoutError)
    assert told.context["still_running"]
    async with deceived.stream("true", timeout=0.1) as stream:
        with pytest.raises(ExecTimeoutError):
            await anext(stream)


async def test_cancelled_call_ends(play: Scene, deceived: Session) -> None:
    play("never_exiting")
    await deceived.start()
    call = asyncio.create_task(deceived.exec("true"))
    await asyncio.sleep(0.05)
    call.cancel()
    done, _ = await asyncio.wait([call], timeout=5)
    assert done
    assert call.cancelled()


async def test_close_ends_pending_calls(play: Scene, deceived: Session) -> None:
    play("never_exiting")
    await deceived.start()
    calls = [asyncio.create_task(bounded(deceived.exec("true"))) for _ in range(20)]
    await asyncio.sleep(0.05)
    await bounded(deceived.aclose())
    for told in await asyncio.gather(*calls):
        assert_over(told)


async def test_host_takes_no_descriptors(play: Scene, deceived: Session) -> None:
    play("giving")
    await deceived.start()
    before = open_descriptors()
    for _ in range(20):
        async with deceived.stream("true", timeout=5) as running:
            assert not [chunk async for chunk in running]
        assert running.result.exit_code == 0
    assert open_descriptors() == before


async def test_host_takes_none_beside_pipes(play: Scene, deceived: Session) -> None:
    play("giving_beside")
    await deceived.start()
    before = open_descriptors()
    assert_over(await bounded(deceived.exec("true", timeout=5)))
    assert open_descriptors() < before


async def test_output_after_the_end(play: Scene, deceived: Session) -> None:
    play("writing_on")
    await deceived.start()
    async with deceived.stream("true", timeout=5) as running:
        told = sum([len(chunk.data) async for chunk in running])
    # What came before the end was heard of, and what a pipe holds then; the writer never ends.
    assert told <= 16 * 1024**2
    assert running.result.exit_code == 0


async def test_told_output_is_bounded(play: Scene, deceived: Session) -> None:
    size, count = 32_000, 400
    play("telling", size=size, count=count)
    await deceived.start()
    told = await bounded(deceived.exec("true", timeout=10, output_limit=1000))
    assert isinstance(told, ExecResult)
    assert (len(told.stdout), told.stdout_total) == (1000, count * size + 3)
    assert (told.stdout[-3:], told.stderr) == (b"end", b"err")


@pytest.mark.parametrize(
    "what", ["nothing", "null", "directory", "memfd", "master", "pipe", "writing", "eight", "file"]
)
async def test_only_pipes_are_read(play: Scene, deceived: Session, what: str) -> None:
    play("handing", what=what)
    await deceived.start()
    before = open_descriptors()
    assert_over(await bounded(deceived.exec("true", timeout=5)))
    assert open_descriptors() < before  # the channel is closed, and nothing was kept


async def test_pipes_come_late(play: Scene, deceived: Session) -> None:
    play("handing_late")
    await deceived.start()
    before = open_descriptors()
    told = await bounded(deceived.exec("true", timeout=0.1))
    assert isinstance(told, ExecTimeoutError)
    assert told.stdout == b"late"
    assert open_descriptors() == before


async def test_pipes_never_hold_up(play: Scene, deceived: Session) -> None:
    play("handing_stuck")
    await deceived.start()
    told = await bounded(deceived.exec("true", timeout=0.3))
    assert isinstance(told, ExecTimeoutError)
    assert told.stdout == b"one"


async def test_flood_leaves_the_loop_its_turns(play: Scene, deceived: Session) -> None:
    play("flooding")
    assert isinstance(await outcome(deceived, timeout=0.2), ExecTimeoutError)


async def test_half_of_the_channel_closes(play: Scene, deceived: Session) -> None:
    play("turning_mute")
    assert_over(await outcome(deceived))


async def test_first_process_stays(play: Scene, deceived: Session) -> None:
    play("staying")
    assert isinstance(await outcome(deceived, timeout=5), ExecResult)
    await bounded(deceived.aclose())
    assert not await deceived.running()
