"""A narrowed command has less than its session, by whichever way it tries."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sandyard import (
    ArgumentTypeError,
    ExecResult,
    Narrowing,
    Policy,
    PolicyError,
    UnixLocalSandboxSession,
    presets,
)
from tests.escape.attacks import read_prelude
from tests.escape.inside import sandbox

LAYOUT = (
    "mkdir src build && echo kept > src/data && echo secret > key && echo old > build/made && "
    "ln -s src way && ln -s ../key src/way"
)

# Every way to change something; what succeeds where it may not is told.
CHANGES = """
def attempt_change(name, change):
    try: change()
    except OSError as error: tell(name, error.errno)
    else: tell("ESCAPE", name)
import mmap, shutil, socket
def write(path, flags): os.write(os.open(path, flags | os.O_WRONLY, 0o644), b"x")
def map_shared(path):
    with open(path, "r+b") as file, mmap.mmap(file.fileno(), 0) as memory: memory[0] = 120
def bind(path):
    socket.socket(socket.AF_UNIX).bind(path)
root = os.getcwd()
for data in ("src/data", f"{root}/src/data", "way/data", f"/proc/self/root{root}/src/data",
             "/proc/self/cwd/src/data", "build/../src/data"):
    attempt_change(f"write {data}", lambda: write(data, 0))
    attempt_change(f"append {data}", lambda: write(data, os.O_APPEND))
    attempt_change(f"truncating {data}", lambda: os.open(data, os.O_RDONLY | os.O_TRUNC))
    attempt_change(f"truncate {data}", lambda: os.truncate(data, 0))
    attempt_change(f"map {data}", lambda: map_shared(data))
held = os.open("src/data", os.O_RDONLY)
attempt_change("reopen", lambda: os.open(f"/proc/self/fd/{held}", os.O_WRONLY))
attempt_change("ftruncate", lambda: os.ftruncate(held, 0))
attempt_change("make", lambda: write("made", os.O_CREAT))
attempt_change("make below", lambda: write("src/made", os.O_CREAT))
attempt_change("unnamed", lambda: os.open("src", os.O_TMPFILE | os.O_WRONLY))
attempt_change("directory", lambda: os.mkdir("src/sub"))
attempt_change("symlink", lambda: os.symlink("x", "src/link"))
attempt_change("link in", lambda: os.link("key", "src/key"))
attempt_change("link out", lambda: os.link("src/data", "/var/tmp/data"))
attempt_change("fifo", lambda: os.mkfifo("src/fifo"))
attempt_change("socket", lambda: bind("src/socket"))
attempt_change("remove", lambda: os.remove("src/data"))
attempt_change("rename", lambda: os.rename("src/data", "src/other"))
attempt_change("rename away", lambda: os.rename("src/data", "/var/tmp/data"))
attempt_change("rename the tree", lambda: os.rename("src", "other"))
attempt_change("exchange", lambda: os.replace("key", "src/data"))
attempt_change("remove directory", lambda: shutil.rmtree("build" if WHOLE else "src"))
"""

READS = """
def attempt_read(name, read):
    try: got = read()
    except OSError as error: tell(name, error.errno)
    else: tell("ESCAPE", name, got)
root = os.getcwd()
for key in ("key", f"{root}/key", "src/../key", "src/way", "way/../key", f"/proc/self/root{root}/key",
            "/proc/self/cwd/key"):
    attempt_read(key, lambda: open(key).read())
attempt_read("list", lambda: os.listdir("."))
attempt_read("list by root", lambda: os.listdir(f"/proc/self/root{root}"))
attempt_read("execute", lambda: os.execv("tool", ["tool"]))
held = os.open("key", os.O_PATH)
attempt_read("reopen", lambda: os.open(f"/proc/self/fd/{held}", os.O_RDONLY))
for name, move in {"rename": os.rename, "link": os.link}.items():
    attempt_read(name, lambda: (move("key", "src/moved"), open("src/moved").read()))
attempt_read("symlink", lambda: (os.symlink("../key", "src/fresh"), open("src/fresh").read()))
"""

# What a process of the session that is not narrowed could be made to do.
NEIGHBOUR = """
import signal
pid = int(sys.argv[1])
def attempt_reach(name, reach):
    try: reach()
    except OSError as error: tell(name, error.errno)
    else: tell("ESCAPE", name)
attempt_reach("memory", lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR))
attempt_reach("files", lambda: os.open(f"/proc/{pid}/fd/0", os.O_RDONLY))
attempt_reach("root", lambda: os.listdir(f"/proc/{pid}/root"))
attempt_reach("directory", lambda: os.listdir(f"/proc/{pid}/cwd"))
attempt("ptrace", 16, pid, 0, 0)
space = ctypes.create_string_buffer(8)
vector = ctypes.addressof(space).to_bytes(8, "little") + (8).to_bytes(8, "little")
reach("process_vm_readv", pid, vector, 1, vector, 1, 0)
"""


async def run_narrowed(
    session: UnixLocalSandboxSession, narrowing: Narrowing, code: str, *arguments: str
) -> ExecResult:
    source = f"{read_prelude()}\n{code}\ntell('to its end')"
    words = (sys.executable, "-I", "-c", source, *arguments)
    result = await session.exec(*words, shell=False, timeout=20, narrow=narrowing)
    assert b"to its end" in result.stdout, result
    return result


@pytest.fixture(params=["in /tmp", "in the policy"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    """None for a workspace that the library makes, in /tmp; or one of the caller's."""
    return None if request.param == "in /tmp" else tmp_path


@pytest.mark.parametrize("writes", [(), ("build",), ("build", "way", "nowhere")])
async def test_nothing_else_is_written(place: Path | None, writes: tuple[str, ...]) -> None:
    async with sandbox(root=place) as session:
        assert (await session.exec(LAYOUT)).ok()
        code = f"WHOLE = {not writes}\n{CHANGES}"
        result = await run_narrowed(session, Narrowing(writes=writes), code)
        assert b"ESCAPE" not in result.stdout, result.stdout.decode()
        left = await session.exec("cat src/data key build/made; ls -A . src build")
        assert left.stdout.split() == (
            b"kept secret old .: build key src way build: made src: data way".split()
        )


async def test_named_part_is_writable(place: Path | None) -> None:
    work = "cp src/data build/copy && mv build/copy build/moved && rm build/made && mkdir build/sub"
    async with sandbox(root=place) as session:
        assert (await session.exec(LAYOUT)).ok()
        narrowing = Narrowing(writes=("build",))
        assert (await session.exec(work, narrow=narrowing)).ok()
        scratch = 'f=$(mktemp) && echo x > "$f" && cat "$f" && echo y > "$HOME/f" && : > /dev/null'
        assert (await session.exec(scratch, narrow=narrowing)).ok()
        assert (await session.exec("touch src/data key anew")).ok()  # the next one has it all


async def test_nothing_else_is_read(place: Path | None) -> None:
    async with sandbox(root=place) as session:
        assert (await session.exec(f"{LAYOUT} && cp /bin/true tool")).ok()
        for writes in (None, (), ("src",)):
            narrowing = Narrowing(reads=("src",), writes=writes)
            result = await run_narrowed(session, narrowing, READS)
            assert b"ESCAPE" not in result.stdout, (writes, result.stdout.decode())
            shown = await session.exec("cat src/data; mktemp; git --version", narrow=narrowing)
            assert shown.stdout.startswith(b"kept\n"), shown
            assert shown.ok(), shown
            await session.exec("rm -f src/fresh")
        assert (await session.exec("cat key")).stdout == b"secret\n"


# Every way to what is denied; what else may be done is said by DENIED's caller.
DENIED = """
import mmap, shutil
def attempt_it(name, action):
    try: got = action()
    except OSError as error: tell(name, error.errno)
    else: tell("ESCAPE", name, got)
root = os.getcwd()
for path in ("key", "src/data", "lib/deep/secret"):
    for way in (path, f"{root}/{path}", f"src/../{path}", f"/proc/self/root{root}/{path}", f"/proc/self/cwd/{path}"):
        attempt_it(f"read {way}", lambda: open(way).read())
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_APPEND):
            attempt_it(f"open {way} {flags}", lambda: os.open(way, flags))
        attempt_it(f"truncate {way}", lambda: os.truncate(way, 0))
    held = os.open(path, os.O_PATH)
    attempt_it("reopen", lambda: os.open(f"/proc/self/fd/{held}", os.O_RDONLY))
    for name, move in {"rename": os.rename, "link": os.link, "exchange": lambda a, b: os.replace(b, a)}.items():
        attempt_it(f"{name} {path}", lambda: move(path, "free/moved"))
    attempt_it(f"remove {path}", lambda: os.remove(path))
attempt_it("by a link", lambda: open("way/data").read())
attempt_it("by another link", lambda: (os.symlink("../key", "free/link"), open("free/link").read()))
for tree in ("src", "lib", "lib/deep"):
    attempt_it(f"move {tree}", lambda: os.rename(tree, "free/tree"))
    attempt_it(f"move {tree} here", lambda: os.rename(tree, "other"))
attempt_it("make", lambda: os.open("made", os.O_CREAT | os.O_WRONLY))
attempt_it("replace", lambda: os.replace("free/x", "key"))
attempt_it("execute", lambda: os.execv("lib/tool", ["tool"]))
attempt_it("come", lambda: open("later").read())
"""


async def test_denied_paths_are_closed(place: Path | None) -> None:
    more = "mkdir -p lib/deep free && echo x > free/x && echo s > lib/deep/secret && cp /bin/true lib/tool"
    usual = "cat free/x build/made lib/deep/plain && ls && cp free/x free/y && rm free/y && mktemp"
    deny = ("key", "src", "lib/deep/secret", "lib/tool", "later")
    async with sandbox(root=place) as session:
        assert (await session.exec(f"{LAYOUT}; {more}; echo p > lib/deep/plain")).ok()
        denying = Narrowing(deny=deny)
        result = await run_narrowed(session, denying, DENIED)
        assert b"ESCAPE" not in result.stdout, result.stdout.decode()
        result = await session.exec(usual, narrow=denying)
        assert result.ok(), result
        assert result.stdout.startswith(b"x\nold\np\n")
        # What is made meanwhile in a directory that leads to it was not there to be allowed.
        waiting = "echo go; read line; cat later; cat anew; cat free/anew"
        async with session.stream(waiting, narrow=denying, stdin=_when_made(session)) as running:
            told = b"".join([chunk.data async for chunk in running if chunk.stream == "stdout"])
        assert told == b"go\nnew\n"
        reading = Narrowing(reads=("src", "lib"), writes=(), deny=("src/data", "lib/deep"))
        result = await session.exec(
            "cat lib/tool >/dev/null && cat src/data; cat lib/deep/plain", narrow=reading
        )
        assert (result.stdout, result.exit_code) == (b"", 1)
        left = await session.exec("cat key src/data lib/deep/secret; lib/tool")
        assert (left.stdout, left.exit_code) == (b"secret\nkept\ns\n", 0)


async def _when_made(session: UnixLocalSandboxSession) -> AsyncIterator[bytes]:
    """Input that comes when another command has made files."""
    assert (await session.exec("for f in later anew free/anew; do echo new > $f; done")).ok()
    yield b"\n"


async def test_denying_too_much_is_refused() -> None:
    more = "for n in $(seq 1100); do : > much/$n; done; for n in $(seq 1000); do : > many/$n; done"
    async with sandbox() as session:
        assert (await session.exec(f"mkdir much many src; ln -s src way; {more}")).ok()
        for path, words in (("much/7", "entries"), ("way", "symlink"), ("/srv", "shows")):
            with pytest.raises(PolicyError, match=words):
                await session.exec("true", narrow=Narrowing(deny=(path,)))
        result = await session.exec("cat many/7; cat many/8", narrow=Narrowing(deny=("many/7",)))
        assert (result.exit_code, b"many/7" in result.stderr) == (0, True)


async def test_grants_are_narrowed_too(tmp_path: Path) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_text("here")
    policy = Policy(reads=(f"{tmp_path}/in",), writes=(f"{tmp_path}/out",))
    async with sandbox(policy) as session:
        code = f"cat {tmp_path}/in/data; echo x > {tmp_path}/out/data; cat {tmp_path}/out/data"
        result = await session.exec(code, narrow=Narrowing(reads=(), writes=()))
        assert result.stdout == b""
        result = await session.exec(code, narrow=Narrowing(writes=(f"{tmp_path}/out",)))
        assert result.stdout == b"herex\n"


async def test_sockets_are_taken() -> None:
    code = """
import socket
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK, socket.AF_UNIX):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try: socket.socket(family, kind); tell(family.name)
        except OSError as error: escape_if(error.errno not in (13, 94, 1, 93, 97), family, error)
socket.socketpair()
try: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM); tell("AF_UNIX")  # connect() leads on
except OSError: pass
"""
    async with sandbox() as session:
        result = await run_narrowed(session, Narrowing(network=False), code)
        assert set(result.stdout.split()) - {b"to", b"its", b"end"} == {b"AF_UNIX"}, result
        result = await run_narrowed(session, Narrowing(unix_sockets=False), code)
        assert b"AF_UNIX" not in result.stdout
        assert b"AF_INET\n" in result.stdout
        both = Narrowing(unix_sockets=False, network=False)
        assert b"AF_" not in (await run_narrowed(session, both, code)).stdout


@pytest.mark.parametrize(
    "narrowing",
    [
        Narrowing(network=False),
        Narrowing(writes=()),
        Narrowing(reads=()),
        Narrowing(ptrace=False),
        Narrowing(open_files=64),
    ],
    ids=["network", "writes", "reads", "ptrace", "limits"],
)
async def test_neighbours_are_out_of_reach(narrowing: Narrowing) -> None:
    """What a command may not do, it can't have another command of the session do."""
    async with sandbox(Policy(syscalls=("ptrace",))) as session:
        await session.exec("sleep 100 & echo $! > pid; cp pid /var/tmp/pid")
        pid = (await session.exec("cat pid")).stdout.decode().strip()
        result = await run_narrowed(session, narrowing, NEIGHBOUR, pid)
        assert b"ESCAPE" not in result.stdout, result.stdout.decode()


async def test_tracing_is_taken() -> None:
    code = "import ctypes\ntell('ESCAPE' if LIBC.ptrace(0, 0, 0, 0) == 0 else 'refused')"
    async with sandbox(Policy(syscalls=("ptrace",))) as session:
        assert b"ESCAPE" in (await run_narrowed(session, Narrowing(), code)).stdout
        result = await run_narrowed(session, Narrowing(ptrace=False), code)
        assert b"ESCAPE" not in result.stdout


async def test_limits_are_lower() -> None:
    limits = """
import resource
for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_DATA):
    soft, hard = resource.getrlimit(which)
    tell(hard)
    try: resource.setrlimit(which, (soft, hard + 1)); tell("ESCAPE")
    except (OSError, ValueError): pass
"""
    async with sandbox() as session:
        narrowing = Narrowing(open_files=32, file_size=5000, memory=2**27)
        result = await run_narrowed(session, narrowing, limits)
        assert result.stdout.split()[:3] == [b"32", b"5000", b"134217728"], result
        assert b"ESCAPE" not in result.stdout
        assert int((await session.exec("ulimit -Hn")).stdout) > 32

        spun = await session.exec("while :; do :; done", narrow=Narrowing(cpu_time=1), timeout=60)
        assert [(hit.limit, hit.value) for hit in spun.limit_hits] == [("cpu_time", 1)]
        large = await session.exec("head -c 9000 /dev/zero > f", narrow=narrowing)
        assert [(hit.limit, hit.value) for hit in large.limit_hits] == [("file_size", 5000)]
        forks = "import os\nfor _ in range(40):\n if not os.fork(): os.read(0, 1)"
        few = await session.exec(
            sys.executable,
            "-c",
            forks,
            shell=False,
            narrow=Narrowing(processes=20),
            leftovers="end",
        )
        assert b"BlockingIOError" in few.stderr, few


async def test_background_and_children_stay_narrowed() -> None:
    async with sandbox() as session:
        left = "(setsid sh -c 'while ! test -e go; do sleep 0.01; done; touch out; echo $? > $TMPDIR/x' &)"
        result = await session.exec(left, narrow=Narrowing(writes=()))
        assert result.ok()
        await session.exec("touch go")
        async with asyncio.timeout(20):
            while not (await session.exec("cat /var/tmp/x")).stdout:  # noqa: ASYNC110  # it is inside
                await asyncio.sleep(0.01)
        assert (await session.exec("cat /var/tmp/x; ls")).stdout == b"1\ngo\n"


async def test_wider_is_refused() -> None:
    async with sandbox() as session:
        for narrowing in (
            Narrowing(writes=("/srv/x",)),
            Narrowing(reads=("/root/x",)),
            Narrowing(processes=2**20),
        ):
            with pytest.raises(PolicyError):
                await session.exec("true", narrow=narrowing)
        async with session.stream("touch x", narrow=Narrowing(writes=())) as running:
            said = b"".join([chunk.data async for chunk in running])
        assert b"Permission denied" in said


async def test_lasting_commands_are_narrowed() -> None:
    less = Narrowing(writes=("build",), open_files=32)
    code = "ulimit -n; echo x > build/it; echo x > kept && echo ESCAPE; :"
    async with sandbox() as session:
        await session.exec("mkdir build")
        async with await session.start_process(code, narrow=less) as process:
            said = b"".join([chunk.data async for chunk in process.logs(stream="stdout")])
            assert said == b"32\n"
        async with await session.terminal(code, narrow=less) as terminal:
            assert await terminal.wait() == 0
            shown = terminal.scrollback().data
            assert shown.startswith(b"32\r\n")
            assert b"Permission denied" in shown
        assert (await session.exec("ls; cat build/it")).stdout == b"build\nx\n"
        for start in (session.start_process, session.terminal):
            with pytest.raises(PolicyError):
                await start("true", narrow=Narrowing(writes=("/srv/x",)))
            with pytest.raises(ArgumentTypeError):
                await start("true", narrow="build")  # type: ignore[arg-type]
        assert session.processes()[1:] == ()
        assert session.terminals()[1:] == ()


async def test_lower_limit_is_told() -> None:
    async with sandbox() as session:
        code = "while :; do :; done"
        async with await session.start_process(code, narrow=Narrowing(cpu_time=1)) as process:
            result = await process.wait()
        assert [(hit.limit, hit.value) for hit in result.limit_hits] == [("cpu_time", 1)]


async def test_presets_work() -> None:
    async with sandbox(presets.UNTRUSTED_BUILD) as session:
        assert (await session.exec("echo x > f && cat f")).ok()
        result = await session.exec("cat f; echo y > f", narrow=presets.INSPECTION)
        assert (result.stdout, result.ok()) == (b"x\n", False)
