"""Programs of many habits that live a whole session through: ``python -m tests.faults.lives HABIT``."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from sandyard import (
    ExecTimeoutError,
    ResourceLimitError,
    SandboxError,
    SessionClosedError,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from tests.house.leaks import list_children

Client = UnixLocalSandboxClient
Session = UnixLocalSandboxSession


async def live() -> None:
    """One session with a little of everything; whatever is not so raises."""
    client = Client()
    session = await client.create()
    async with session:
        await use(session)
    await client.delete(session)


async def use(session: Session) -> None:
    result = await session.exec("cat; echo $((6 * 7)); exit 3", stdin=b"in ")
    assert (result.stdout, result.exit_code) == (b"in 42\n", 3), result
    try:
        await session.exec("setsid sleep 1000 & sleep 1000", timeout=0.1)
    except ExecTimeoutError:
        pass
    else:
        raise AssertionError("the timeout did not come")
    total = 0
    async with session.stream("seq 100000") as stream:
        async for chunk in stream:
            total += len(chunk.data)
    assert total == 588_895, total
    results = await asyncio.gather(*(session.exec(f"echo {n}") for n in range(10)))
    assert [int(result.stdout) for result in results] == list(range(10))
    await session.write("file", b"content")
    with await session.read("file") as file:
        assert file.read() == b"content"
    running = asyncio.create_task(session.exec("sleep 1000"))
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


def has_no_children() -> bool:
    return not list(list_children(os.getpid()))


def plain() -> None:
    asyncio.run(live())


def under_uvloop() -> None:
    import uvloop  # noqa: PLC0415  # not every Python has it

    uvloop.run(live())


def with_eager_tasks() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        # Python 3.12 and later; the test asks for it only there.
        loop.set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009
        await live()

    asyncio.run(main())


def with_faulthandler() -> None:
    faulthandler.enable()
    faulthandler.dump_traceback_later(3600, exit=True)
    asyncio.run(live())
    faulthandler.cancel_dump_traceback_later()


def reaping_all() -> None:
    """A handler that waits for every child, as old servers do; it takes our answers too."""

    def reap(_number: int, _frame: FrameType | None) -> None:
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass

    signal.signal(signal.SIGCHLD, reap)
    for _ in range(3):
        asyncio.run(live())
    subprocess.run(["true"], check=False)


def in_a_thread() -> None:
    """The loop has a thread, and the thread that made it ends before the loop does."""
    wrong: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(live())
        except BaseException as error:  # noqa: BLE001  # told to the thread that waits
            wrong.append(error)

    def spawn() -> None:
        threads.append(threading.Thread(target=run))
        threads[0].start()

    threads: list[threading.Thread] = []
    spawner = threading.Thread(target=spawn)
    spawner.start()
    spawner.join()
    threads[0].join()
    assert not wrong, wrong


def two_loops() -> None:
    """A session that was left running by one loop, then used from the next."""
    client = Client()

    async def begin() -> Session:
        session = await client.create()
        await session.start()
        return session

    async def go_on(session: Session) -> None:
        with suppress(SessionClosedError):  # refusing is an answer; silence is none
            async with asyncio.timeout(5):
                await session.exec("true")

    session = asyncio.run(begin())
    asyncio.run(go_on(session))
    asyncio.run(client.delete(session))
    asyncio.run(live())


def with_forked_workers() -> None:
    """Workers hold copies of all our descriptors while their parent goes on and closes."""

    async def main() -> None:
        client = Client()
        session = await client.create()
        await session.start()
        command = asyncio.create_task(session.exec("sleep 1000"))
        await session.exec("setsid sleep 1000 & true")
        forked = os.fork() or wait_for_ever()
        worker = multiprocessing.get_context("fork").Process(target=wait_for_ever)
        worker.start()
        try:
            began = time.monotonic()
            await client.delete(session)
            assert time.monotonic() - began < 4, "it waited for the workers"
            with suppress(SandboxError):
                await command
            left = set(list_children(os.getpid())) - {forked, worker.pid}
            assert not left, left
        finally:
            os.kill(forked, signal.SIGKILL)
            os.waitpid(forked, 0)  # noqa: ASYNC222  # it was killed
            worker.kill()
            worker.join()

    asyncio.run(main())


def wait_for_ever() -> int:
    while True:
        signal.pause()


def with_workers_that_end() -> None:
    """Workers that collect their garbage and run their finalizers do not end the session."""

    async def main() -> None:
        client = Client()
        session = await client.create()
        async with session:
            for _ in range(3):
                worker = multiprocessing.get_context("fork").Process(target=end_tidily)
                worker.start()
                worker.join()
            await use(session)
        await client.delete(session)

    asyncio.run(main())


def end_tidily() -> None:
    gc.collect()
    sys.exit(0)


def with_few_processes() -> None:
    """An ordinary user who may have no process more: refused in words, and later it works."""
    asyncio.run(be_short(resource.RLIMIT_NPROC, 1, has_thread=True))
    asyncio.run(live())


def with_little_memory() -> None:
    """A program whose address space is used up cannot have a thread's stack."""
    with open("/proc/self/statm", encoding="ascii") as file:
        used = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    asyncio.run(be_short(resource.RLIMIT_AS, used + 4 * 1024 * 1024, has_thread=False))
    asyncio.run(live())


async def be_short(kind: int, limit: int, *, has_thread: bool) -> None:
    """Try to start a session under a limit, which is lifted before the loop ends."""
    if has_thread:  # more than one: one that has just answered may not count as idle yet
        await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.05) for _ in range(4)))
    before = resource.getrlimit(kind)
    client = Client()
    session: Session | None = None
    resource.setrlimit(kind, (limit, before[1]))
    try:
        session = await client.create()
        await session.start()
    except SandboxError:
        return
    finally:
        resource.setrlimit(kind, before)
        if session is not None:
            await client.delete(session)
    raise AssertionError("it was not refused")


def under_a_debugger() -> None:
    """Another process traces this one from its start to its end, and passes its signals on."""
    from tests.faults.debugger import allow_debugging, watched  # noqa: PLC0415  # its own libc

    allow_debugging()
    with watched():
        asyncio.run(live())


@contextmanager
def without_streams() -> Iterator[None]:
    """The standard streams are closed in the block, as of a daemon: what is opened gets their numbers."""
    kept = [os.dup(fd) for fd in range(3)]
    for fd in range(3):
        os.close(fd)
    try:
        yield
    finally:
        for fd, copy in enumerate(kept):
            os.dup2(copy, fd)
            os.close(copy)


def as_a_daemon() -> None:
    """A program that gives nobody any right by chance, and has no standard streams."""

    async def main() -> None:
        client = Client()
        session = await client.create()
        with without_streams():
            async with session:
                await use(session)
            await client.delete(session)

    # An ordinary user that gives itself no right to what it makes gets no further than that.
    nothing, little = (0o777, 0o177) if os.geteuid() == 0 else (0o077, 0o077)
    os.umask(nothing)
    client = Client()
    session = asyncio.run(client.create())
    assert os.stat(session.state.manifest.root).st_mode & 0o777 == 0o700
    os.umask(little)
    asyncio.run(client.delete(session))
    asyncio.run(main())


def with_small_files() -> None:
    """A program that may write no file of more than 10 KB: a large request is one, in memory."""

    async def main() -> None:
        client = Client()
        session = await client.create()
        async with session:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
            told = ""
            try:
                await session.exec("echo", "x" * 100_000, shell=False)
            except ResourceLimitError as error:
                told = str(error.context["limit"])
            finally:
                resource.setrlimit(
                    resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
                )
            assert told == "file_size", told
            await use(session)
        await client.delete(session)

    asyncio.run(main())


HABITS: dict[str, Callable[[], None]] = {
    "plain": plain,
    "uvloop": under_uvloop,
    "eager tasks": with_eager_tasks,
    "faulthandler": with_faulthandler,
    "reaping": reaping_all,
    "thread": in_a_thread,
    "two loops": two_loops,
    "forked workers": with_forked_workers,
    "workers that end": with_workers_that_end,
    "few processes": with_few_processes,
    "little memory": with_little_memory,
    "debugger": under_a_debugger,
    "daemon": as_a_daemon,
    "small files": with_small_files,
}


if __name__ == "__main__":
    HABITS[sys.argv[1]]()
    assert has_no_children()
    sys.stdout.write("well")
