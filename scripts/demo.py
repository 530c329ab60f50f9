#!/usr/bin/env python3
"""A short tour on this machine: real work in a sandbox, the wall, a runaway's end, and the price.

Exits with 0 only if every line held. What each line claims is tried, and what is refused inside is
tried outside as well, where it succeeds. Nothing of yours is changed.
"""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo_telling import Tour, last_line, ms, shorten

from sandyard import (
    ConfinementUnavailableError,
    ExecResult,
    ExecTimeoutError,
    LocalDir,
    Manifest,
    Policy,
    UnixLocalSandboxClient,
    UnixLocalSandboxSession,
)

CHECKOUT = Path(__file__).resolve().parents[1]
TESTS = ("tests/manifest", "tests/test_policy.py", "tests/confinement/test_placement.py")
NOT_SOURCES = {".git", ".venv", "build", "dist", "_bin", "__pycache__"}

WORK_TIMEOUT_S = 120
TRY_TIMEOUT_S = 10
RUNAWAY_TIMEOUT_S = 1.5
RUNAWAY_PROCESSES = 4
SPAWNS = 150
STARTS = 15

client = UnixLocalSandboxClient()


# --- chapter 1: work --------------------------------------------------------------------------


def stage_checkout(target: Path) -> tuple[int, str]:
    """Make a copy of this checkout as it stands; returns files and what kind of history."""
    git = ("git", "-c", "safe.directory=*", "-C", str(CHECKOUT))
    bundle = target.with_suffix(".bundle")
    own = (CHECKOUT / ".git").exists()  # an sdist has none, and may lie in another repository
    cloned = (
        own
        and succeeds(*git, "bundle", "create", "--quiet", str(bundle), "HEAD")
        and succeeds("git", "clone", "--quiet", str(bundle), str(target))
    )
    if not cloned:
        subprocess.run(["git", "init", "--quiet", str(target)], check=True)
    if own:
        listing = (*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        listed = subprocess.run(listing, check=True, capture_output=True).stdout
        names = [Path(os.fsdecode(name)) for name in listed.split(b"\0") if name]
    else:
        names = [path.relative_to(CHECKOUT) for path in CHECKOUT.rglob("*")]
        names = [name for name in names if not NOT_SOURCES & set(name.parts)]
    present = [name for name in names if (CHECKOUT / name).is_file()]
    for name in present:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(CHECKOUT / name, target / name)
    return len(present), "with its history" if cloned else "in a new repository"


def succeeds(*words: str) -> bool:
    """Whether a program of the host succeeds; what it says is of no interest."""
    return subprocess.run(words, check=False, capture_output=True).returncode == 0


@asynccontextmanager
async def sandbox(
    manifest: Manifest | None = None, policy: Policy | None = None
) -> AsyncIterator[UnixLocalSandboxSession]:
    """A session that is deleted at the end."""
    session = await client.create(manifest=manifest, policy=policy)
    try:
        async with session:
            yield session
    finally:
        await client.delete(session)


async def show_work(tour: Tour, scratch: Path) -> None:
    """Copy, compile, test, commit."""
    tour.head("1  Work, confined")
    staged = scratch / "project"
    files, history = await asyncio.to_thread(stage_checkout, staged)
    os.chdir(scratch)  # where a manifest's sources may lie
    began = time.perf_counter()
    async with sandbox(Manifest(entries={"project": LocalDir(src=staged)})) as session:
        spent = time.perf_counter() - began
        found = await session.exec("git -C project ls-files --others --cached | wc -l")
        held = int(found.stdout) >= files
        tour.line(
            held, f"a sandbox with a copy of this checkout, {files} files, {history}: {ms(spent)}"
        )
        built = await work(
            session, "cc -O2 -Wall -o /tmp/primes examples/demo/primes.c && /tmp/primes 5000000"
        )
        tour.line(built.ok(), f"cc compiles a program, and it runs: {said(built)}")
        await show_tests(tour, session)
        text = (
            "echo 'was here' > NOTE && git add -A && "
            "git -c user.name=Agent -c user.email=agent@sandbox.invalid "
            "commit -qm 'Leave a note' && git log -1 --format='%h %an: %s'"
        )
        committed = await work(session, text)
        tour.line(committed.ok(), f"git commits: {said(committed)}")
        tour.line(not (CHECKOUT / "NOTE").exists(), "and the checkout outside has no such note")


async def show_tests(tour: Tour, session: UnixLocalSandboxSession) -> None:
    """Run a part of the project's own tests with the interpreter that runs this."""
    try:
        import pytest  # noqa: F401, PLC0415  # only whether it is there
    except ModuleNotFoundError:
        tour.note("pytest is not installed beside this interpreter, so no tests are run")
        return
    chosen = " ".join(path for path in TESTS if (CHECKOUT / path).exists())
    tested = await work(
        session, f"'{sys.executable}' -m pytest -q -p no:cacheprovider {chosen}", PYTHONPATH="src"
    )
    passed = tested.ok() and b" passed" in tested.stdout
    tour.line(passed, f"its own tests run with {shorten(sys.executable, 34)}: {said(tested)}")
    for line in tested.stdout.decode(errors="replace").splitlines():
        if line.startswith(("FAILED ", "ERROR ")):
            tour.note(line)


async def work(session: UnixLocalSandboxSession, text: str, **env: str) -> ExecResult:
    """Run a line of shell in the copy."""
    return await session.exec(text, cwd="project", env=env, timeout=WORK_TIMEOUT_S)


def said(result: ExecResult) -> str:
    """What a command said last, and how long it took."""
    words = last_line(result.stdout or result.stderr).partition(" in ")[0]
    return f"{shorten(words.partition(' in ')[0], 40)} ({ms(result.duration_s)})"


# --- chapter 2: the wall ----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Something that a command tries, inside and outside.

    Attributes:
        what: in words.
        argv: the very same command for both.
        wall: what holds inside, by the kernel's word for the refusal; "" is the word for silence.
        outside: what happens outside in words, or None to really try it.
        policy: the policy of the sandbox, or None for the default.
    """

    what: str
    argv: Sequence[str]
    wall: dict[str, str]
    outside: str | None = None
    policy: Policy | None = None


GONE = "No such file or directory"
AWAY = "Connection refused"
FIXED = "Read-only file system"
DENIED = "Permission denied"
FORBIDDEN = "Operation not permitted"


def python(text: str, *words: str) -> list[str]:
    """A Python program for both sides."""
    return [sys.executable, "-c", text, *words]


def etc_attempt() -> Attempt:
    """Writing to /etc; outside it is only asked for, with access(2)."""
    may = os.access("/etc", os.W_OK)
    return Attempt(
        what="create a file in /etc",
        argv=["touch", "/etc/sandyard-demo"],
        wall={FIXED: "read-only root", DENIED: "Landlock"},
        outside="could (not tried)" if may else "refused as well",
    )


def home_attempts(bait: Path) -> list[Attempt]:
    """Reading keys: a bait that stands for a home, and the real place."""
    place = {GONE: "mount namespace"}
    attempts = [Attempt(what="read a key in .ssh (a bait)", argv=["cat", str(bait)], wall=place)]
    real = Path.home() / ".ssh"
    argv = ["ls", str(real)]
    outside = None if real.is_dir() else "there is none"
    attempts.append(Attempt(what="list the real ~/.ssh", argv=argv, wall=place, outside=outside))
    return attempts


def network_attempts(port: int, name: str) -> list[Attempt]:
    """Reaching a server of the host's, on its loopback and on an abstract Unix socket."""
    tcp = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 3)"
    unix = "import socket, sys; socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[1])"
    return [
        Attempt(
            what="connect to the host's 127.0.0.1",
            argv=python(tcp, str(port)),
            wall={AWAY: "network namespace"},
        ),
        Attempt(
            what="abstract socket, host's network",
            argv=python(unix, name),
            wall={FORBIDDEN: "Landlock", DENIED: "seccomp", "": "seccomp"},
            policy=Policy(network="host"),
        ),
    ]


def process_attempts(token: str) -> list[Attempt]:
    """Seeing a process and a variable of the host's."""
    # The brackets keep grep from finding itself, and -q from minding processes that end meanwhile.
    search = f"grep -q '[{token[0]}]{token[1:]}' /proc/[0-9]*/cmdline"
    return [
        Attempt(
            what="find a process of the host's",
            argv=["sh", "-c", f"{search} 2>/dev/null"],
            wall={"": "PID namespace"},
        ),
        Attempt(
            what="read a variable of the host's",
            argv=["printenv", "SANDYARD_DEMO_KEY"],
            wall={"": "clean environment"},
        ),
    ]


@contextmanager
def listening(family: int, address: str | tuple[str, int]) -> Iterator[socket.socket]:
    """A server of the host's: whoever may reach it is accepted by the kernel."""
    with socket.socket(family) as server:
        server.bind(address)
        server.listen()
        yield server


async def try_outside(attempt: Attempt) -> tuple[bool, str]:
    """Do it on the host, as the control: whether it is as it should be, and in words."""
    if attempt.outside is not None:
        return True, attempt.outside
    process = await asyncio.create_subprocess_exec(
        *attempt.argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    code = await asyncio.wait_for(process.wait(), TRY_TIMEOUT_S)
    return code == 0, "works" if code == 0 else f"fails ({code})"


async def try_inside(attempt: Attempt, session: UnixLocalSandboxSession) -> tuple[bool, str, str]:
    """Do it in a sandbox: whether the wall held, the kernel's words, and what held."""
    result = await session.exec(*attempt.argv, shell=False, timeout=TRY_TIMEOUT_S)
    words = last_line(result.stderr).rpartition(": ")[2].rpartition("] ")[2]
    if result.ok() or words not in attempt.wall:
        return False, words or f"exit {result.exit_code}", "nothing"
    return True, words or "nothing there", attempt.wall[words]


async def show_wall(tour: Tour, scratch: Path) -> None:
    """Try what must not work, inside and outside."""
    tour.head("2  The wall", "each command is tried outside too, without a sandbox")
    tour.note(f"{'what a command tries':<33}{'outside':<18}{'inside':<26}held by")
    bait = scratch / "home" / ".ssh" / "id_ed25519"
    bait.parent.mkdir(parents=True, mode=0o700)
    bait.write_text("not a key, only bait\n")
    token = make_token()
    os.environ["SANDYARD_DEMO_KEY"] = token
    sleeper = await asyncio.create_subprocess_exec(*python("import time; time.sleep(600)", token))
    try:
        with (
            listening(socket.AF_INET, ("127.0.0.1", 0)) as tcp,
            listening(socket.AF_UNIX, f"\0{token}"),
        ):
            async with sandbox() as neighbour, sandbox() as session:
                await neighbour.write("notes.txt", b"of another session\n")
                theirs = str(await neighbour.normalize_path("notes.txt"))
                attempts = [
                    *home_attempts(bait),
                    Attempt(
                        what="read a file of another session",
                        argv=["cat", theirs],
                        wall={GONE: "mount namespace"},
                    ),
                    etc_attempt(),
                    *network_attempts(tcp.getsockname()[1], token),
                    *process_attempts(token),
                ]
                for attempt in attempts:
                    await show_attempt(tour, attempt, session)
    finally:
        sleeper.kill()
        await sleeper.wait()


async def show_attempt(tour: Tour, attempt: Attempt, session: UnixLocalSandboxSession) -> None:
    """One line: outside, inside, and by what."""
    able, outside = await try_outside(attempt)
    if attempt.policy is None:
        held, inside, wall = await try_inside(attempt, session)
    else:
        async with sandbox(policy=attempt.policy) as other:
            held, inside, wall = await try_inside(attempt, other)
    tour.line(able and held, f"{attempt.what:<33}{outside:<18}{shorten(inside, 25):<26}{wall}")


# --- chapter 3: a runaway ---------------------------------------------------------------------


def make_token() -> str:
    """A word that no other process has among its arguments."""
    return f"demo-{secrets.token_hex(8)}"


def count_processes(token: str) -> int:
    """The processes of the whole machine that have a word among their arguments."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += token.encode() in path.read_bytes()
        except OSError:
            continue  # it has just ended
    return found


async def show_runaway(tour: Tour) -> None:
    """Start a tree that does not want to end, and end it."""
    tour.head("3  A runaway", "daemons, forked twice, in sessions of their own, deaf to SIGTERM")
    token = make_token()
    async with sandbox() as session:
        await session.write("runaway.sh", (CHECKOUT / "examples/demo/runaway.sh").read_bytes())
        began = time.perf_counter()
        command = session.exec("sh", "runaway.sh", token, shell=False, timeout=RUNAWAY_TIMEOUT_S)
        running = asyncio.create_task(command)
        # There is nobody to tell when all have begun, so it is looked for.
        while (before := count_processes(token)) < RUNAWAY_PROCESSES:
            if running.done():
                break
            await asyncio.sleep(0.02)
        shown = f"while it runs, the host's /proc shows {before} processes of it"
        tour.line(before >= RUNAWAY_PROCESSES, shown)
        try:
            await running
            tour.line(False, "the command was not ended")
        except ExecTimeoutError:
            spent = time.perf_counter() - began
            in_time = spent < RUNAWAY_TIMEOUT_S + 1
            tour.line(
                in_time, f"its timeout of {ms(RUNAWAY_TIMEOUT_S)} ended the call after {ms(spent)}"
            )
        after = count_processes(token)
        tour.line(after == 0, f"and then /proc shows {after}")
        alive = await session.exec("echo the session works on")
        tour.line(alive.ok(), last_line(alive.stdout))


# --- chapter 4: the price ---------------------------------------------------------------------


async def spawn_unconfined() -> None:
    """What exec does, without a sandbox."""
    process = await asyncio.create_subprocess_exec(
        "/bin/true", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    await process.communicate()


async def start_session() -> None:
    """A session from its creation to its deletion."""
    async with sandbox():
        pass


async def measure(*works: Callable[[], Awaitable[object]], rounds: int) -> list[float]:
    """The median time of each work, in seconds; they take turns, so that a busy machine is fair."""
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for times, act in zip(spent, works, strict=True):
            began = time.perf_counter()
            await act()
            times.append(time.perf_counter() - began)
    return [statistics.median(times) for times in spent]


async def show_price(tour: Tour) -> None:
    """Measure a confined command beside a bare one."""
    tour.head("4  The price", f"medians of {SPAWNS} commands taking turns, on this machine, now")
    async with sandbox() as session:
        bare, confined = await measure(
            spawn_unconfined,
            lambda: session.exec("/bin/true", shell=False),
            rounds=SPAWNS,
        )
    (start,) = await measure(start_session, rounds=STARTS)
    tour.tell(
        f"{ms(bare):>8}  /bin/true by asyncio.create_subprocess_exec, output captured, unconfined"
    )
    tour.tell(f"{ms(confined):>8}  /bin/true by session.exec, output captured, confined")
    tour.tell(f"{ms(start):>8}  a whole session: create, start, close, delete ({STARTS} times)")


# --- the tour ---------------------------------------------------------------------------------


async def show_all(tour: Tour, scratch: Path) -> None:
    """Every chapter; one that fails does not hide the next."""
    chapters: list[Callable[[], Awaitable[None]]] = [
        lambda: show_work(tour, scratch),
        lambda: show_wall(tour, scratch),
        lambda: show_runaway(tour),
        lambda: show_price(tour),
    ]
    for chapter in chapters:
        try:
            await chapter()
        except (ConfinementUnavailableError, BrokenPipeError):
            raise
        except Exception as error:  # noqa: BLE001  # told, and counted as broken
            tour.line(False, f"{type(error).__name__}: {error}")


def main() -> int:
    """Show everything; 0 if every line held."""
    tour = Tour()
    who = "root" if os.geteuid() == 0 else f"an ordinary user (uid {os.geteuid()})"
    print(f"Sandyard on Linux {platform.release()}, as {who}, {os.cpu_count()} processors")
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="sandyard-demo-") as scratch:
        try:
            asyncio.run(show_all(tour, Path(scratch)))
        except ConfinementUnavailableError as error:
            tour.line(False, f"this machine can't confine: {error.message}")
        finally:
            os.chdir(before)
    tour.head("Every line held." if not tour.broken else f"{tour.broken} lines did not hold.")
    return 1 if tour.broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
