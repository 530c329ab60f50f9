"""What runs beside a call: streams, processes in the background, terminals."""

from __future__ import annotations

from typing import Final

from sandyard.errors import (
    ArgumentError,
    ExecTimeoutError,
    PtySessionNotFoundError,
    PtyStdinUnavailableError,
)
from sandyard.testing.behaviours import Place, Promise, Suite, check, refused, same

__all__ = ["SUITE"]

SUITE = Suite("handles")
says = SUITE.says

_SHORT: Final = 400
"""Bytes of an output of 100 tokens."""


@says(Promise.BOUNDED)
async def streams_output(place: Place) -> None:
    """A stream gives both streams of output, each in order, and then the result."""
    seen = {"stdout": b"", "stderr": b""}
    async with place.session.stream("echo 1; echo e >&2; echo 2; exit 3") as running:
        async for chunk in running:
            seen[chunk.stream] += chunk.data
        same(running.result.exit_code, 3)
    same(seen, {"stdout": b"1\n2\n", "stderr": b"e\n"})


@says(Promise.BOUNDED)
async def streams_as_it_comes(place: Place) -> None:
    """A stream gives output while the command runs."""
    text = f"echo ready; until [ -e {place.at('go')} ]; do sleep 0.01; done; echo gone"
    seen = b""
    async with place.session.stream(text) as running:
        async for chunk in running:
            seen += chunk.data
            if seen == b"ready\n":
                await place.put("go")
    same(seen, b"ready\ngone\n")


@says(Promise.ENDS)
async def stream_ends_tree(place: Place) -> None:
    """Leaving the block of a stream ends the command, and all that it started."""
    seen = b""
    async with place.session.stream("setsid sleep 600 & echo $!; sleep 600") as running:
        async for chunk in running:
            seen += chunk.data
            if seen.endswith(b"\n"):
                break
    # A session of another process may be told of the end of the block a moment later.
    gone = f"for i in $(seq 200); do kill -0 {int(seen)} || exit 0; sleep 0.05; done; exit 1"
    check((await place.session.exec(gone)).ok(), "it lives on")


@says(Promise.ENDS)
async def stream_times_out(place: Place) -> None:
    """A stream takes a timeout as exec does."""
    with refused(ExecTimeoutError):
        async with place.session.stream("sleep 600", timeout=0.2) as running:
            async for _ in running:
                pass


@says(Promise.INPUT)
async def stream_takes_input(place: Place) -> None:
    """A stream's command is given its input."""
    seen = b""
    async with place.session.stream("cat", stdin=b"word") as running:
        async for chunk in running:
            seen += chunk.data
    same(seen, b"word")


@says(Promise.BACKGROUND)
async def stream_takes_signals(place: Place) -> None:
    """A signal reaches the command of a stream."""
    seen = b""
    text = "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.01; done"
    async with place.session.stream(text) as running:
        async for chunk in running:
            seen += chunk.data
            if seen == b"ready\n":
                await running.signal(10)
        same((seen, running.result.exit_code), (b"ready\ngot\n", 5))


@says(Promise.BACKGROUND)
async def process_is_waited_for(place: Place) -> None:
    """A process in the background is waited for, and has an exit code."""
    process = await place.session.start_process("exit 6")
    try:
        same((await process.wait()).exit_code, 6)
    finally:
        await process.close()


@says(Promise.BACKGROUND)
async def process_has_logs(place: Place) -> None:
    """What a process in the background wrote is read from its log."""
    process = await place.session.start_process("echo one; echo two >&2")
    try:
        await process.wait()
        chunks = [chunk async for chunk in process.logs()]
        written = {"stdout": b"", "stderr": b""}
        for chunk in chunks:
            written[str(chunk.stream)] += chunk.data
        same(written, {"stdout": b"one\n", "stderr": b"two\n"})
    finally:
        await process.close()


@says(Promise.BACKGROUND)
async def process_log_follows(place: Place) -> None:
    """A log is followed while its process writes, and ends with it."""
    text = f"echo ready; until [ -e {place.at('go')} ]; do sleep 0.01; done; echo gone"
    process = await place.session.start_process(text)
    seen = b""
    try:
        async for chunk in process.logs(follow=True):
            seen += chunk.data
            if seen == b"ready\n":
                await place.put("go")
    finally:
        await process.close()
    same(seen, b"ready\ngone\n")


@says(Promise.BACKGROUND)
async def process_takes_signals(place: Place) -> None:
    """A signal reaches a process in the background."""
    process = await place.session.start_process("sleep 600")
    try:
        await process.signal("TERM")
        same((await process.wait()).exit_code, -15)
    finally:
        await process.close()


@says(Promise.ENDS)
async def process_close_ends_tree(place: Place) -> None:
    """Closing a process in the background ends all that it started."""
    text = f"setsid sleep 600 & echo $! > {place.at('pid')}; echo ready; sleep 600"
    process = await place.session.start_process(text)
    try:
        async for chunk in process.logs(follow=True):
            if b"ready" in chunk.data:
                break
    finally:
        await process.close()
    check(not (await place.run("kill -0 $(cat pid)")).ok(), "it lives on")


@says(Promise.BACKGROUND)
async def process_outlives_calls(place: Place) -> None:
    """A process in the background lives while other commands come and go."""
    process = await place.session.start_process(f"echo $$ > {place.at('pid')}; echo up; sleep 600")
    try:
        async for chunk in process.logs(follow=True):
            if b"up" in chunk.data:
                break
        await place.said("kill -0 $(cat pid)")
    finally:
        await process.close()


@says(Promise.BACKGROUND)
async def process_tells_its_name(place: Place) -> None:
    """A process may be given a name, and an odd one is refused."""
    with refused(ArgumentError):
        process = await place.session.start_process("sleep 600", name="no spaces/here")
        await process.close()


@says(Promise.TERMINALS)
async def terminal_is_one(place: Place) -> None:
    """A terminal's command has a terminal, and its exit code is told."""
    terminal = await place.session.terminal("test -t 0 && test -t 1 && test -t 2 && exit 7")
    try:
        same(await terminal.wait(), 7)
    finally:
        await terminal.close()


@says(Promise.TERMINALS)
async def terminal_has_window(place: Place) -> None:
    """A terminal has the window that was asked for."""
    text = f"stty size > {place.at('size')}"
    terminal = await place.session.terminal(text, rows=40, columns=100)
    try:
        same(await terminal.wait(), 0)
    finally:
        await terminal.close()
    same(await place.content("size"), b"40 100\n")


@says(Promise.TERMINALS)
async def terminal_takes_typing(place: Place) -> None:
    """What is typed on a terminal reaches its command."""
    terminal = await place.session.terminal(f"read word; echo $word > {place.at('word')}")
    try:
        await terminal.write(b"typed\n")
        same(await terminal.wait(), 0)
    finally:
        await terminal.close()
    same(await place.content("word"), b"typed\n")


@says(Promise.TERMINALS)
async def terminal_close_ends_tree(place: Place) -> None:
    """Closing a terminal ends all that ran on it."""
    new, pid = place.at("new"), place.at("pid")
    text = f"trap '' HUP; setsid sleep 600 & echo $! > {new}; mv {new} {pid}; sleep 600"
    terminal = await place.session.terminal(text)
    try:
        await place.said("until [ -e pid ]; do sleep 0.01; done")
    finally:
        await terminal.close()
    check(not (await place.run("kill -0 $(cat pid)")).ok(), "it lives on")


@says(Promise.TERMINALS)
async def pty_tells_exit(place: Place) -> None:
    """pty_exec_start tells output and exit code of what ends soon, and then no id."""
    update = await place.session.pty_exec_start("echo out; exit 3")
    same((update.output, update.exit_code, update.process_id), (b"out\n", 3, None))


@says(Promise.TERMINALS)
async def pty_tells_id(place: Place) -> None:
    """What runs on has an id instead of an exit code, and tells the rest when it is asked."""
    session = place.session
    text = f"echo a; until [ -e {place.at('go')} ]; do sleep 0.01; done; echo b"
    update = await session.pty_exec_start(text, yield_time_s=0.25)
    check(update.exit_code is None and update.process_id is not None, update)
    await place.put("go")
    output = update.output
    while update.process_id is not None:
        update = await session.pty_write_stdin(session_id=update.process_id, chars="")
        output += update.output
    same((output, update.exit_code), (b"a\nb\n", 0))


@says(Promise.TERMINALS)
async def pty_takes_typing(place: Place) -> None:
    """pty_write_stdin types on the terminal of a process that has one."""
    session = place.session
    update = await session.pty_exec_start(
        "stty -echo; echo on; read word; echo got $word", tty=True, yield_time_s=0.25
    )
    output = update.output
    check(update.process_id is not None, update)
    while b"on" not in output and update.process_id is not None:
        update = await session.pty_write_stdin(session_id=update.process_id, chars="")
        output += update.output
    chars = "typed\n"
    while update.process_id is not None:
        update = await session.pty_write_stdin(session_id=update.process_id, chars=chars)
        output, chars = output + update.output, ""
    check(b"got typed" in output and update.exit_code == 0, output, update)


@says(Promise.TERMINALS)
async def pty_refuses_unknown_id(place: Place) -> None:
    """An id that no process has is refused."""
    with refused(PtySessionNotFoundError):
        await place.session.pty_write_stdin(session_id=7, chars="")


@says(Promise.TERMINALS)
async def pty_refuses_no_tty(place: Place) -> None:
    """Typing into a process without a terminal is refused."""
    session = place.session
    update = await session.pty_exec_start("sleep 600", yield_time_s=0.25)
    try:
        check(update.process_id is not None, update)
        with refused(PtyStdinUnavailableError):
            await session.pty_write_stdin(session_id=update.process_id or 0, chars="x")
    finally:
        await session.pty_terminate_all()


@says(Promise.TERMINALS)
async def pty_ends_all(place: Place) -> None:
    """pty_terminate_all ends the processes and all that they started, and frees their ids."""
    session = place.session
    new, pid = place.at("new"), place.at("pid")
    text = f"{{ setsid sleep 600 & echo $! > {new}; mv {new} {pid}; sleep 600; }}"
    update = await session.pty_exec_start(text, yield_time_s=0.25)
    await place.said("until [ -e pid ]; do sleep 0.01; done")
    await session.pty_terminate_all()
    check(not (await place.run("kill -0 $(cat pid)")).ok(), "it lives on")
    with refused(PtySessionNotFoundError):
        await session.pty_write_stdin(session_id=update.process_id or 0, chars="")


@says(Promise.TERMINALS)
async def pty_shortens_output(place: Place) -> None:
    """max_output_tokens shortens an update's output and tells what it was."""
    update = await place.session.pty_exec_start(
        "head -c 4000 /dev/zero | tr '\\0' x", max_output_tokens=100
    )
    check(len(update.output) <= _SHORT and b"truncated" in update.output, update)
    same(update.original_token_count, 1000)


@says(Promise.TERMINALS)
async def pty_returns_at_exit(place: Place) -> None:
    """A process has ended when its command has, whoever still holds its output."""
    text = f"{{ sleep 600 & echo $! > {place.at('pid')}; echo hi; }}"
    update = await place.session.pty_exec_start(text, yield_time_s=1)
    await place.session.exec(f"kill -9 $(cat {place.at('pid')})")
    same((update.exit_code, update.process_id), (0, None))
