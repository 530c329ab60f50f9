"""What a command reads: nothing, bytes, a file, or chunks that come one by one."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard import ExecTimeoutError, ExecTransportError, UnixLocalSandboxSession
from tests.session.host import make_dice, root_of, until

Session = UnixLocalSandboxSession


async def test_input_is_empty_unless_given(session: Session) -> None:
    result = await session.exec("cat; readlink /proc/self/fd/0", timeout=10)
    assert result.stdout == b"/dev/null\n"
    assert (await session.exec("cat", stdin=b"", timeout=10)).stdout == b""


async def test_views_may_have_gaps(session: Session) -> None:
    gaps = memoryview(b"h-i-")[::2]
    assert (await session.exec("cat", stdin=gaps, timeout=20)).stdout == b"hi"
    process = await session.start_process("cat", stdin=True)
    await process.stdin.write(gaps)
    await process.stdin.close()
    assert (await process.wait(timeout=20)).stdout_total == len(gaps)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview, io.BytesIO])
async def test_a_megabyte_arrives(session: Session, kind: type) -> None:
    data = make_dice(1).randbytes(1_000_000)
    result = await session.exec("cat", stdin=kind(data), timeout=20)
    assert result.stdout == data


async def test_wide_memoryview_is_bytes(session: Session) -> None:
    view = memoryview(bytes(range(16))).cast("I")
    assert (await session.exec("cat", stdin=view)).stdout == bytes(range(16))


async def test_file_is_pumped_from_where_it_stands(session: Session, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"0123456789" * 100_000)
    with (tmp_path / "data").open("rb") as file:
        file.seek(5)
        result = await session.exec("cat; ls -l /proc/self/fd/0", stdin=file, timeout=20)
    assert result.stdout.startswith(b"56789")
    assert result.stdout_total > 999_995
    assert b"pipe:" in result.stdout[999_995:]  # the file itself never crosses


async def test_chunks_come_one_by_one(session: Session) -> None:
    heard = root_of(session) / "heard"

    async def speak() -> AsyncIterator[bytes]:
        yield b"one\n"
        await asyncio.create_task(until(lambda: heard.exists() and heard.read_text() == "one"))
        yield b""
        yield b"two\n"

    command = "read a; printf $a > heard; read b; echo $a $b; cat"
    result = await session.exec(command, stdin=speak(), timeout=20)
    assert result.stdout == b"one two\n"


async def test_command_that_does_not_read_is_no_error(session: Session) -> None:
    class Endless:
        closed = False

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self.chunks()

        async def chunks(self) -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(100_000)
            finally:
                self.closed = True

    source = Endless()
    result = await session.exec("head -c 4 | wc -c", stdin=source, timeout=20)
    assert (result.stdout.strip(), result.exit_code) == (b"4", 0)
    result = await session.exec("true", stdin=bytes(10_000_000), timeout=20)
    assert result.exit_code == 0
    result = await session.exec("exec <&-; sleep 0.1; echo on", stdin=bytes(10_000_000), timeout=20)
    assert result.stdout == b"on\n"


async def test_source_that_waits_does_not_hold_the_result(session: Session) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b"first\n"
        await asyncio.Event().wait()

    result = await session.exec("head -n 1", stdin=never(), timeout=20)
    assert result.stdout == b"first\n"


async def test_source_that_raises_is_told(session: Session) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first\n"
        raise LookupError("lost")

    with pytest.raises(ExecTransportError, match="lost") as caught:
        await session.exec("cat", stdin=broken(), timeout=20)
    assert isinstance(caught.value.cause, LookupError)
    assert caught.value.context["reason"] == "stdin_failed"


async def test_source_of_text_is_told(session: Session) -> None:
    async def text() -> AsyncIterator[bytes]:
        yield "text"  # type: ignore[misc]  # what a careless caller does

    with pytest.raises(ExecTransportError, match="stdin"):
        await session.exec("cat", stdin=text(), timeout=20)


async def test_source_error_does_not_hide_a_timeout(session: Session) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"first\n"
        raise LookupError("lost")

    with pytest.raises(ExecTimeoutError) as caught:
        await session.exec("cat; sleep 1000", stdin=broken(), timeout=0.4)
    assert caught.value.stdout == b"first\n"


async def test_input_ends_though_others_share_the_pipe(session: Session) -> None:
    # A second command is born while the first one's input is open; it must not hold that open.
    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await session.exec("sleep 30 & echo")
        yield b"y"

    result = await session.exec("cat", stdin=slow(), timeout=10)
    assert result.stdout == b"xy"


async def test_terminal_of_the_host_never_crosses(session: Session) -> None:
    leader, follower = os.openpty()
    try:
        with io.FileIO(follower, "rb", closefd=False) as terminal:
            os.write(leader, b"typed\n\x04")
            result = await session.exec("cat; test -t 0 || echo no terminal", stdin=terminal)
    finally:
        os.close(leader)
        os.close(follower)
    assert result.stdout == b"typed\nno terminal\n"
