"""A host program: uses each feature of a session on the rung its machine allows; a child of a test.

It prints as JSON what came of each: nothing where it works, else the refusal's code and its words.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tarfile
from collections.abc import Awaitable, Callable
from typing import Any, Final

from sandyard import (
    Narrowing,
    Policy,
    SandboxError,
    TmpfsMount,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)
from tests.network.host import ECHO, converse, free_port

Feature = Callable[[UnixLocalSandboxSession], Awaitable[None]]

PATIENCE_S: Final = 60
DIFFERS: Final = "it does something else: "
TREE: Final = (
    "trap 'echo got it' USR1; sleep 900 & setsid sleep 900 & echo ready; while :; do wait; done"
)


def check(condition: bool, *seen: object) -> None:
    if not condition:
        raise AssertionError(repr(seen))


async def narrow_writes(session: UnixLocalSandboxSession) -> None:
    await session.exec("mkdir -p build; echo old > kept")
    less = Narrowing(writes=("build",))
    done = await session.exec(
        "echo new > kept; echo $TMPDIR; echo x > $TMPDIR/x && echo made > build/it && cat kept",
        narrow=less,
    )
    check(done.stdout.endswith(b"old\n") and b"denied" in done.stderr, done)


async def narrow_reads(session: UnixLocalSandboxSession) -> None:
    await session.exec("mkdir -p src; echo source > src/a; echo secret > key")
    done = await session.exec("cat src/a key; ls .", narrow=Narrowing(reads=("src",)))
    check(done.stdout == b"source\n", done)
    done = await session.exec("cat src/a key; ls src", narrow=Narrowing(deny=("key",)))
    check(done.stdout == b"source\na\n", done)


async def narrow_sockets(session: UnixLocalSandboxSession) -> None:
    code = "import socket; socket.socketpair(); socket.socket(socket.AF_UNIX)"
    less = Narrowing(network=False, unix_sockets=False, ptrace=False)
    done = await session.exec("/usr/bin/python3", "-c", code, shell=False, narrow=less)
    check(b"AF_UNIX" not in done.stdout and b"PermissionError" in done.stderr, done)


async def narrow_limits(session: UnixLocalSandboxSession) -> None:
    less = Narrowing(memory=64 * 1024**2, cpu_time=5, file_size=4096, open_files=32, processes=40)
    done = await session.exec("ulimit -n; ulimit -t; head -c 8192 /dev/zero > big", narrow=less)
    check(done.stdout == b"32\n5\n" and not done.ok(), done)


async def terminal(session: UnixLocalSandboxSession) -> None:
    shell = await session.terminal("test -t 0 && test -t 1 && stty size && read x && echo got $x")
    seen = b""
    async with shell, shell.attach() as output:
        await shell.write(b"word\n")
        async for chunk in output:
            seen += chunk
        check(await shell.wait() == 0 and b"24 80" in seen and b"got word" in seen, seen)


async def terminal_ends(session: UnixLocalSandboxSession) -> None:
    async with await session.terminal("sleep 900 & sleep 900", rows=10) as one:
        one.resize(50, 100)
        await one.signal("INT", to="foreground")
        await one.close()
        check(one.exit_code is not None)


async def pty_pipes(session: UnixLocalSandboxSession) -> None:
    done = await session.pty_exec_start("echo piped; exit 3")
    check((done.output, done.exit_code) == (b"piped\n", 3), done)


async def pty_tty(session: UnixLocalSandboxSession) -> None:
    begun = await session.pty_exec_start("read x; echo got $x; exit 4", tty=True, yield_time_s=0.25)
    check(begun.process_id is not None, begun)
    assert begun.process_id is not None
    done = await session.pty_write_stdin(
        session_id=begun.process_id, chars="word\n", yield_time_s=30
    )
    check(b"got word" in done.output and done.exit_code == 4, done)


async def process_logs(session: UnixLocalSandboxSession) -> None:
    async with await session.start_process("echo out; echo err >&2; cat", stdin=True) as process:
        await process.stdin.write(b"typed\n")
        await process.stdin.close()
        said = b"".join([chunk.data async for chunk in process.logs()])
        done = await process.wait()
        check(done.exit_code == 0 and sorted(said.split()) == [b"err", b"out", b"typed"], said)


async def process_signals(session: UnixLocalSandboxSession) -> None:
    process = await session.start_process(TREE, name="tree")
    async with process:
        async for chunk in process.logs():
            if b"ready" in chunk.data:
                await process.signal("USR1")
            if b"got it" in chunk.data:
                break
    check(process.state == "ended", process)
    check(session.process("tree") is process)
    check(await session.remove_process(process))


async def process_tree(session: UnixLocalSandboxSession) -> None:
    async with await session.start_process("sleep 900 & sleep 900") as process:
        await process.signal("KILL", tree=True)
        done = await process.wait()
        check(done.exit_code == -9, done)


async def process_timeout(session: UnixLocalSandboxSession) -> None:
    async with await session.start_process(TREE, timeout=0.2) as process:
        async for _ in process.logs():
            pass
        check(process.state == "ended", process)


async def process_narrow(session: UnixLocalSandboxSession) -> None:
    less = Narrowing(writes=(), open_files=32)
    code = "ulimit -n; echo > taken && echo ESCAPE"
    async with await session.start_process(code, narrow=less) as process:
        said = b"".join([chunk.data async for chunk in process.logs(stream="stdout")])
        check(said == b"32\n", said)


async def terminal_narrow(session: UnixLocalSandboxSession) -> None:
    less = Narrowing(writes=(), open_files=32)
    code = "test -t 0 && ulimit -n; echo > taken && echo ESCAPE"
    async with await session.terminal(code, narrow=less) as shell:
        await shell.wait()
        said = shell.scrollback().data
        check(said.startswith(b"32\r\n") and b"ESCAPE" not in said, said)


async def stop_ends(session: UnixLocalSandboxSession) -> None:
    process = await session.start_process(TREE)
    await session.exec("sleep 900 &")
    await session.stop(processes="end")
    check(process.state == "ended", process)
    check((await session.exec("echo on")).stdout == b"on\n")


async def stop_freezes(session: UnixLocalSandboxSession) -> None:
    process = await session.start_process("while read line; do echo $line; done", stdin=True)
    await session.stop(processes="freeze")  # only when it was seen to be stopped
    await process.stdin.write(b"on\n")
    async for chunk in process.logs():
        check(chunk.data == b"on\n", chunk)
        break
    await process.close()


def packed() -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        member = tarfile.TarInfo("unpacked/file")
        member.size, member.mode = 5, 0o640
        archive.addfile(member, io.BytesIO(b"text\n"))
    return made.getvalue()


async def extract(session: UnixLocalSandboxSession) -> None:
    report = await session.extract("vendor/made.tar.gz", packed())
    check(report.files == 1, report)
    done = await session.exec("cat vendor/unpacked/file && echo more >> vendor/unpacked/file")
    check(done.stdout == b"text\n" and done.ok(), done)


async def persist(session: UnixLocalSandboxSession) -> None:
    await session.exec("mkdir -p saved; umask 077; echo mine > saved/file; ln -s file saved/link")
    async with await session.persist_workspace() as archive:
        data = b"".join([chunk async for chunk in archive])
    await session.exec("rm -r saved")
    await session.hydrate_workspace(data)
    done = await session.exec("cat saved/link && echo more >> saved/file && stat -c %a saved/file")
    check(done.stdout == b"mine\n600\n", done)


async def grep(session: UnixLocalSandboxSession) -> None:
    await session.write("searched/a.txt", b"one\ntwo\n")
    await session.exec("umask 077; echo two > searched/b.txt")
    found = await session.grep("two", "searched")
    check({match.line for match in found.matches} == {1, 2}, found)


async def watch(session: UnixLocalSandboxSession) -> None:
    await session.exec("mkdir -p -m 700 watched")
    async with session.watch("watched") as changes:
        done = asyncio.create_task(session.exec("mkdir -m 700 watched/in; echo x > watched/it"))
        seen = set[str]()
        async for batch in changes:
            seen |= {change.path.rpartition("/")[2] for change in batch}
            if {"in", "it"} <= seen:
                break
        await done


async def apply_patch(session: UnixLocalSandboxSession) -> None:
    await session.exec("umask 077; echo old > patched")
    change: Any = {"type": "update_file", "path": "patched", "diff": "@@\n-old\n+new\n"}
    added: Any = {"type": "create_file", "path": "added/file", "diff": "+b"}
    await session.apply_patch([change, added])
    done = await session.exec("cat patched && echo more >> patched && echo more >> added/file")
    check(done.ok() and done.stdout == b"new\n", done)


async def files(session: UnixLocalSandboxSession) -> None:
    await session.exec("umask 077; mkdir tree; echo one > tree/a; ln -s a tree/l")
    await session.copy("tree", "again", recursive=True)
    await session.mv("again", "moved")
    await session.append("moved/a", b"two\n")
    await session.mkdir("moved/new/deep", parents=True)
    check((await session.stat("moved/a")).size == len(b"one\ntwo\n"))
    check(len(await session.ls("moved")) == 3)
    done = await session.exec("cat moved/a && echo x >> moved/a && rmdir moved/new/deep")
    check(done.ok() and done.stdout == b"one\ntwo\n", done)
    await session.chmod("tree/a", 0o444)
    await session.rm("moved", recursive=True)
    await session.rm("tree", recursive=True)
    check(not await session.exists("tree"))


async def review(session: UnixLocalSandboxSession) -> None:
    await session.exec("mkdir -p .vscode; echo '{}' > .vscode/tasks.json")
    found = await session.review()
    check(any("tasks.json" in str(finding) for finding in found.findings), found)


async def why(session: UnixLocalSandboxSession) -> None:
    for subject in ("made", "/etc/shadow", "/proc/self", "/tmp", "/usr/bin", "example.org:80"):
        check(bool(str(await session.why(subject))), subject)
    check(bool(str(await session.why(syscall="unshare"))))


async def stream(session: UnixLocalSandboxSession) -> None:
    async with session.stream("echo out; sleep 900") as running:
        async for chunk in running:
            check(chunk.data == b"out\n", chunk)
            break


async def mounts(session: UnixLocalSandboxSession) -> None:
    where = await session.mount("mounted", TmpfsMount(size=1024**2))
    done = await session.exec("echo here > mounted/file; cat mounted/file")
    check(done.stdout == b"here\n" and list(session.mounts()) == [where], done)
    await session.unmount("mounted")
    check(not await session.exists("mounted"))


async def ports(_: UnixLocalSandboxSession) -> None:
    client, port = UnixLocalSandboxClient(policy=Policy(accept=("write",))), free_port()
    session = await client.create(options={"exposed_ports": port})
    try:
        async with session:
            await session.start_process("python3", "-c", ECHO, str(port), shell=False)
            await session.wait_for_port(port)
            said = await converse(port, b"hello")
            check(said == b"hello", said)
    finally:
        await client.delete(session)


FEATURES: Final[dict[str, tuple[Feature, ...]]] = {
    "`exec` and `stream` with `narrow=`": (
        narrow_writes, narrow_reads, narrow_sockets, narrow_limits, stream,
    ),
    "`start_process`: logs, input, signals, `narrow=`, `close`": (
        process_logs, process_signals, process_tree, process_timeout, process_narrow,
    ),
    "`pty_exec_start` on pipes": (pty_pipes,),
    "`terminal`, `pty_exec_start` with `tty=True`": (
        terminal, terminal_ends, terminal_narrow, pty_tty,
    ),
    '`stop(processes="end")`, `stop(processes="freeze")`': (stop_ends, stop_freezes),
    "`read`, `write` and the other file verbs": (files,),
    "`grep`": (grep,),
    "`watch`": (watch,),
    "`apply_patch`": (apply_patch,),
    "`extract`": (extract,),
    "`persist_workspace`, `hydrate_workspace`": (persist,),
    "`mount`, `unmount`, mounts of a manifest": (mounts,),
    "`exposed_ports`, `wait_for_port`": (ports,),
    "`review`": (review,),
    "`why`": (why,),
}  # fmt: skip
"""What is tried for each row of the guide's table."""


async def attempt(session: UnixLocalSandboxSession, feature: Feature) -> str:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await feature(session)
    except SandboxError as error:
        return f"{error.error_code}: {error.message}"
    except Exception as error:  # noqa: BLE001  # the parent says which feature it was
        return f"{DIFFERS}{type(error).__name__}: {error}"
    return ""


async def use_all() -> dict[str, Any]:
    client = UnixLocalSandboxClient(policy=Policy(accept=("write",)))
    session = await client.create()
    try:
        async with session:
            report = session.confinement
            assert report is not None
            came = {
                row: {feature.__name__: await attempt(session, feature) for feature in features}
                for row, features in FEATURES.items()
            }
            return {"rung": report.rung, "terminals": session.supports_pty(), "came": came}
    finally:
        await client.delete(session)


def main() -> None:
    json.dump(asyncio.run(use_all()), sys.stdout)


if __name__ == "__main__":
    main()
