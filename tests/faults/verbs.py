"""The verbs of the library, each as one act on a place that was made ready for it."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from pathlib import Path

from sandyard import (
    Dir,
    ExecTimeoutError,
    File,
    LocalDir,
    Manifest,
    SandboxPathGrant,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)

__all__ = ["VERBS", "Place", "Ready", "Verb"]

LARGE = 3_000_000
"""Bytes that no pipe holds."""


class Ready(IntEnum):
    """How far a place must be before a verb."""

    NOTHING = 0
    MADE = 1
    RUNNING = 2


@dataclass(slots=True)
class Place:
    """A client, and a session once there is one.

    Attributes:
        source: a directory of the host with a few files, for manifests.
        token: a number of seconds that our commands, and no others, sleep for.
        others: sessions that were made of that one.
    """

    source: Path
    token: str
    client: UnixLocalSandboxClient = field(default_factory=UnixLocalSandboxClient)
    made: UnixLocalSandboxSession | None = None
    others: list[UnixLocalSandboxSession] = field(default_factory=list)

    @property
    def session(self) -> UnixLocalSandboxSession:
        """The session; there must be one."""
        assert self.made is not None
        return self.made

    async def prepare(self, verb: Verb) -> None:
        """Brings the place to where a verb begins."""
        if verb.before is not None:
            await verb.before(self)
            return
        if verb.ready >= Ready.MADE:
            self.made = await self.client.create(manifest=self.manifest())
        if verb.ready >= Ready.RUNNING:
            await self.session.start()

    async def clear(self) -> None:
        """Deletes the sessions that there are."""
        made, self.made = [*self.others, self.made], None
        self.others.clear()
        for session in made:
            if session is not None:
                await self.client.delete(session, unsaved=True)

    def manifest(self) -> Manifest:
        """Something of each kind that a manifest copies or makes."""
        return Manifest(
            entries={
                "file": File(content=b"content"),
                "empty": Dir(),
                "copied": LocalDir(src=self.source),
            },
            extra_path_grants=(SandboxPathGrant(path=str(self.source), read_only=True),),
        )

    def fill_source(self) -> None:
        """Makes what manifests copy."""
        (self.source / "below").mkdir(parents=True)
        (self.source / "below" / "text").write_bytes(b"text")
        (self.source / "large").write_bytes(bytes(300_000))  # the kernel copies it
        (self.source / "link").symlink_to("below/text")
        packed()


Act = Callable[[Place], Coroutine[object, object, None]]


@dataclass(frozen=True, slots=True)
class Verb:
    """One thing that a caller asks.

    Attributes:
        act: does it.
        ready: what must be there before.
        before: brings it there, where that takes more.
        after: looks whether what must hold does, however the act has ended.
        keeps: whether the session runs on, also where the act is cancelled or fails.
        leaves: whether what it started may live on in the session.
    """

    act: Act
    ready: Ready = Ready.RUNNING
    before: Act | None = None
    after: Act | None = None
    keeps: bool = True
    leaves: bool = False


# --- life -----------------------------------------------------------------------------------------


async def create(place: Place) -> None:
    place.made = await place.client.create(manifest=place.manifest())


async def start(place: Place) -> None:
    await place.session.start()  # which applies the manifest as well


async def start_at_home(place: Place) -> None:
    """In a directory of the caller's, which is made and opened at the start."""
    root = str(place.source.parent / "own")
    place.made = await place.client.create(manifest=Manifest(root=root))
    await place.session.start()


async def enter(place: Place) -> None:
    async with place.session:
        pass


async def restart(place: Place) -> None:
    await place.session.shutdown()
    await place.session.start()


async def shutdown(place: Place) -> None:
    await place.session.shutdown()


async def aclose(place: Place) -> None:
    await place.session.aclose()


async def delete(place: Place) -> None:
    await place.client.delete(place.session)


# --- commands -------------------------------------------------------------------------------------


async def run_plain(place: Place) -> None:
    result = await place.session.exec(f"echo out; sleep 0.01; : {place.token}")
    assert result.stdout == b"out\n"


async def run_longer(place: Place) -> None:
    result = await place.session.exec(f"echo out; sleep 0.05; echo on; : {place.token}")
    assert result.stdout == b"out\non\n"


async def chunks(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield bytes(LARGE // count)
        await asyncio.sleep(0)


async def run_with_input(place: Place) -> None:
    result = await place.session.exec("wc -c", stdin=chunks(3))
    assert int(result.stdout) == LARGE


async def run_with_file(place: Place) -> None:
    result = await place.session.exec("wc -c", stdin=io.BytesIO(bytes(LARGE)))
    assert int(result.stdout) == LARGE


async def endless() -> AsyncIterator[bytes]:
    yield b"some"
    await asyncio.get_running_loop().create_future()  # what nobody ever sets


async def run_too_long(place: Place) -> None:
    with suppress(ExecTimeoutError):
        await place.session.exec(f"exec sleep {place.token}", timeout=0.02, stdin=endless())


async def run_large_output(place: Place) -> None:
    result = await place.session.exec(f"head -c {LARGE} /dev/zero; : {place.token}")
    assert result.stdout_total == LARGE


async def run_large_request(place: Place) -> None:
    result = await place.session.exec("echo", "x" * 100_000, shell=False)
    assert result.stdout_total == 100_001


async def run_leaving_some(place: Place) -> None:
    result = await place.session.exec("(sleep 0.3; echo lost) & echo out")
    assert result.stdout == b"out\n"


async def run_ending_some(place: Place) -> None:
    await place.session.exec(f"setsid sleep {place.token} & echo out", leftovers="end")


async def stream_whole(place: Place) -> None:
    total = 0
    async with place.session.stream(f"head -c {LARGE} /dev/zero; : {place.token}") as stream:
        async for chunk in stream:
            total += len(chunk.data)
            await asyncio.sleep(0)  # a reader that takes its time
    assert total == LARGE
    assert stream.result.exit_code == 0


async def stream_part(place: Place) -> None:
    command = f"echo out; exec sleep {place.token}"
    async with place.session.stream(command, stdin=endless()) as stream:
        async for chunk in stream:
            assert chunk.data == b"out\n"
            break


async def stream_too_long(place: Place) -> None:
    command = f"setsid sleep {place.token} & exec sleep {place.token}"
    with suppress(ExecTimeoutError):
        async with place.session.stream(command, timeout=0.02, stdin=endless()) as stream:
            async for _ in stream:
                pass


# --- background -----------------------------------------------------------------------------------


async def background_whole(place: Place) -> None:
    """From its start to its removal, with its input and its log."""
    command = f"head -c {LARGE}; : {place.token}"
    process = await place.session.start_process(command, stdin=True)
    try:
        await process.stdin.write(bytes(LARGE))
        assert (await process.wait()).exit_code == 0
        told = [chunk async for chunk in process.logs()]
        lost = process.log_status.lost
        assert sum(len(chunk.data) for chunk in told) + lost == LARGE
        assert lost or [chunk async for chunk in process.logs(last_lines=1, follow=False)]
    finally:
        await place.session.remove_process(process)


async def background_closed(place: Place) -> None:
    """Ended amid its input, with daemons."""
    command = f"setsid sleep {place.token} & exec sleep {place.token}"
    process = await place.session.start_process(command, stdin=endless())
    async with process:
        with suppress(ExecTimeoutError):
            await process.wait(0.01)


async def background_missing(place: Place) -> None:
    process = await place.session.start_process("missing", shell=False)
    assert (await process.wait()).exit_code == 127
    await place.session.remove_process(process)


async def background_stopped(place: Place) -> None:
    """Whatever runs in the background ends."""
    await place.session.exec("setsid sleep 60 &")
    await place.session.start_process("yes | head -c 300000; sleep 60")
    await place.session.stop(processes="end")
    for process in place.session.processes():
        await place.session.remove_process(process)


async def background_to_the_end(place: Place) -> None:
    """The session is closed while one writes, and another reads and is followed."""
    await place.session.start_process("yes")
    process = await place.session.start_process("cat; sleep 60", stdin=endless())
    async for _ in process.logs():
        break
    await place.session.aclose()


# --- terminals ------------------------------------------------------------------------------------


async def terminal_whole(place: Place) -> None:
    command = f"read line; head -c {LARGE // 10} /dev/zero; : {place.token}"
    terminal = await place.session.terminal(command)
    total = 0
    async with terminal, terminal.attach() as view:
        await terminal.write(b"\n")
        async for chunk in view:
            total += len(chunk)
            await asyncio.sleep(0)  # a reader that takes its time
    assert await terminal.wait() == 0  # and raises where nobody could read it any more
    assert total == LARGE // 10 + 2


async def terminal_unread(place: Place) -> None:
    """Ends with more typed than is read."""
    async with await place.session.terminal(f"exec sleep {place.token}") as terminal:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.02):
                await terminal.write(b"line\n" * LARGE)
        await terminal.signal("INT", to="foreground")
        await terminal.wait()


async def terminal_too_long(place: Place) -> None:
    command = f"setsid sleep {place.token} & exec sleep {place.token}"
    async with await place.session.terminal(command, timeout=0.02) as terminal:
        assert await terminal.wait() == -9


async def pty_whole(place: Place) -> None:
    for tty, expected in ((True, b"out\r\n"), (False, b"out\n")):
        update = await place.session.pty_exec_start(f"echo out; : {place.token}", tty=tty)
        output = update.output
        while update.process_id is not None:  # what failed is told after what was written
            number = update.process_id
            update = await place.session.pty_write_stdin(session_id=number, chars="")
            output += update.output
        assert (output, update.exit_code) == (expected, 0)


async def pty_ended(place: Place) -> None:
    command = f"exec sleep {place.token}"
    try:
        for tty in (False, True):
            update = await place.session.pty_exec_start(command, tty=tty, yield_time_s=0)
            assert update.process_id is not None
            if tty:
                await place.session.pty_write_stdin(session_id=update.process_id, chars="x\n")
    finally:
        await place.session.pty_terminate_all()


# --- files ----------------------------------------------------------------------------------------


async def write(place: Place) -> None:
    await place.session.write("deep/down/file", b"content")


async def write_from_stream(place: Place) -> None:
    await place.session.write("file", io.BytesIO(bytes(LARGE)))


async def read(place: Place) -> None:
    (await place.session.read("file")).close()


async def ls(place: Place) -> None:
    assert len(await place.session.ls("copied")) == 3


async def mkdir(place: Place) -> None:
    await place.session.mkdir("copied/several/levels", parents=True)


async def rm(place: Place) -> None:
    await place.session.rm("copied", recursive=True)


async def ls_tree(place: Place) -> None:
    assert len(await place.session.ls("copied", recursive=True)) == 4


async def append(place: Place) -> None:
    await place.session.append("file", b"more")
    await place.session.append("deep/down/new", b"more")


async def read_chunks(place: Place) -> None:
    total = 0
    async for chunk in place.session.read_chunks("copied/large", chunk_bytes=100_000):
        total += len(chunk)
    assert total == 300_000


async def look(place: Place) -> None:
    session = place.session
    assert (await session.stat("copied/link")).size == 4
    assert await session.exists("file")
    assert await session.same_file("copied/link", "copied/below/text")
    assert await session.read_range("file", offset=1, size=3) == b"ont"
    assert await session.read_bounded("file", max_bytes=3) == b"con"
    assert await session.glob("**/text") == ["copied/below/text"]


async def mv(place: Place) -> None:
    await place.session.mv("copied", "moved")


async def copy(place: Place) -> None:
    await place.session.copy("copied", "twin", recursive=True)
    await place.session.chmod("twin", 0o711)


async def grep(place: Place) -> None:
    found = await place.session.grep("text", "copied")
    assert len(found.matches) == 1


async def apply_patch(place: Place) -> None:
    await place.session.apply_patch(
        [
            {"type": "update_file", "path": "file", "diff": "-content\n+new", "move_to": "a/b"},
            {"type": "create_file", "path": "new/file", "diff": "+new"},
            {"type": "delete_file", "path": "copied/below/text"},
        ]
    )


async def watch(place: Place) -> None:
    async with place.session.watch() as changes:
        await place.session.write("seen", b"x")
        async for batch in changes:
            assert batch
            break


@cache
def packed() -> bytes:
    """An archive; made before a verb begins, since a fault in this is none of the library's."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name in ("copied/new", "deep/down/file"):
            info = tarfile.TarInfo(name)
            info.size = 100_000
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return out.getvalue()


async def extract(place: Place) -> None:
    report = await place.session.extract("a.tar", packed())
    assert report.files == 2


async def extract_at_home(place: Place) -> None:
    """Into a directory of the caller's, where what is unpacked is noted for a sweep."""
    await start_at_home(place)
    await extract(place)


async def pack_and_unpack(place: Place) -> None:
    async with await place.session.pack("copied") as archive:
        report = await place.session.unpack("empty", archive)
    assert report.files


async def packed_pieces() -> AsyncIterator[bytes]:
    data = packed()
    yield data[:100]
    await asyncio.sleep(0)
    yield data[100:]


async def extract_pieces(place: Place) -> None:
    await place.session.extract("a.tar", packed_pieces())


async def persist(place: Place) -> None:
    async with await place.session.persist_workspace() as archive:
        async for _ in archive:
            pass
        assert archive.report is not None


async def persist_part(place: Place) -> None:
    async with await place.session.persist_workspace() as archive:
        await archive.__anext__()


async def hydrate(place: Place) -> None:
    await place.session.hydrate_workspace(io.BytesIO(packed()))


def listed(directory: Path) -> set[str]:
    return set(os.listdir(directory)) if directory.exists() else set()


async def upload(place: Place) -> None:
    done = await place.session.upload(place.source, "copied")
    assert done.files == 3


async def download(place: Place) -> None:
    done = await place.session.download("copied", place.source.parent / "target")
    assert done.files == 3


async def look_for_litter(place: Place) -> None:
    assert listed(place.source.parent / "target") <= listed(place.source)


async def normalize_path(place: Place) -> None:
    await place.session.normalize_path("copied/link")


VERBS: dict[str, Verb] = {
    "create": Verb(create, Ready.NOTHING, keeps=False),
    "start": Verb(start, Ready.MADE, keeps=False),
    "start_at_home": Verb(start_at_home, Ready.NOTHING, keeps=False),
    "enter": Verb(enter, Ready.MADE, keeps=False),
    "restart": Verb(restart, keeps=False),
    "shutdown": Verb(shutdown, keeps=False),
    "aclose": Verb(aclose, keeps=False),
    "delete": Verb(delete, keeps=False),
    "run_plain": Verb(run_plain),
    "run_longer": Verb(run_longer),
    "run_with_input": Verb(run_with_input),
    "run_with_file": Verb(run_with_file),
    "run_too_long": Verb(run_too_long),
    "run_large_output": Verb(run_large_output),
    "run_large_request": Verb(run_large_request),
    "run_leaving_some": Verb(run_leaving_some, leaves=True),
    "run_ending_some": Verb(run_ending_some),
    "stream_whole": Verb(stream_whole),
    "stream_part": Verb(stream_part),
    "stream_too_long": Verb(stream_too_long),
    "background_whole": Verb(background_whole, leaves=True),
    "background_closed": Verb(background_closed),
    "background_missing": Verb(background_missing),
    "background_stopped": Verb(background_stopped, leaves=True),
    "background_to_the_end": Verb(background_to_the_end, keeps=False),
    "terminal_whole": Verb(terminal_whole),
    "terminal_unread": Verb(terminal_unread),
    "terminal_too_long": Verb(terminal_too_long),
    "pty_whole": Verb(pty_whole),
    "pty_ended": Verb(pty_ended),
    "write": Verb(write),
    "write_from_stream": Verb(write_from_stream),
    "read": Verb(read),
    "ls": Verb(ls),
    "mkdir": Verb(mkdir),
    "rm": Verb(rm),
    "extract": Verb(extract),
    "extract_at_home": Verb(extract_at_home, Ready.NOTHING, keeps=False),
    "extract_pieces": Verb(extract_pieces),
    "pack_and_unpack": Verb(pack_and_unpack),
    "persist": Verb(persist),
    "persist_part": Verb(persist_part),
    "hydrate": Verb(hydrate),
    "upload": Verb(upload),
    "download": Verb(download, after=look_for_litter),
    "normalize_path": Verb(normalize_path),
    "ls_tree": Verb(ls_tree),
    "append": Verb(append),
    "read_chunks": Verb(read_chunks),
    "look": Verb(look),
    "mv": Verb(mv),
    "copy": Verb(copy),
    "grep": Verb(grep),
    "apply_patch": Verb(apply_patch),
    "watch": Verb(watch),
}
