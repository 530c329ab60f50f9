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
RUNAWAY_TIMEOUT_S = 1.0
SPAWNS = 150
STARTS = 15

client = UnixLocalSandboxClient()


# --- telling ----------------------------------------------------------------------------------


class Tour:
    """Prints the lines, and remembers whether one did not hold."""

    def __init__(self) -> None:
        self.broken = 0
        plain = (
            not sys.stdout.isatty()
            or os.environ.get("NO_COLOR")
            or os.environ.get("TERM") == "dumb"
        )
        self._colours = {} if plain else {"ok": "32", "no": "31;1", "bold": "1", "dim": "2"}

    def paint(self, text: str, colour: str) -> str:
        """Colour a text where the terminal can show it."""
        code = self._colours.get(colour)
        return f"\033[{code}m{text}\033[0m" if code else text

    def head(self, text: str, note: str = "") -> None:
        """Begin a chapter."""
        print(f"\n{self.paint(text, 'bold')}{'  ' if note else ''}{self.paint(note, 'dim')}")

    def line(self, held: bool, text: str) -> None:
        """Say something, and whether it holds."""
        self.broken += not held
        mark = self.paint("  ok", "ok") if held else self.paint("FAIL", "no")
        print(f"{mark}  {text}", flush=True)

    def note(self, text: str) -> None:
        """Say something that is neither right nor wrong."""
        print(f"      {self.paint(text, 'dim')}", flush=True)


def shorten(text: str, width: int) -> str:
    """Cut a text to a width."""
    return text if len(text) <= width else text[: width - 1] + "…"


def last_line(output: bytes) -> str:
    """The last line of an output that is not empty."""
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


# --- chapter 1: work --------------------------------------------------------------------------


def stage_checkout(target: Path) -> tuple[int, str]:
    """Make a copy of this checkout with its history; returns files and what kind of history."""
    git = ["git", "-c", "safe.directory=*", "-C", str(CHECKOUT)]
    bundle = target.with_suffix(".bundle")
    history = "a new repository"
    listed = subprocess.run(
        [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], capture_output=True
    )
    own = (CHECKOUT / ".git").exists() and listed.returncode == 0
    if (
        own
        and not subprocess.run(
            [*git, "bundle", "create", "--quiet", str(bundle), "HEAD"], capture_output=True
        ).returncode
    ):
        subprocess.run(["git", "clone", "--quiet", str(bundle), str(target)], check=True)
        history = "with its history"
    else:
        subprocess.run(["git", "init", "--quiet", str(target)], check=True)
    names = (
        [Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name]
        if own
        else [
            path.relative_to(CHECKOUT)
            for path in CHECKOUT.rglob("*")
            if path.is_file() and not NOT_SOURCES & set(path.relative_to(CHECKOUT).parts)
        ]
    )
    copied = 0
    for name in names:
        if (CHECKOUT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, target / name)
            copied += 1
    return copied, history


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


async def work(session: UnixLocalSandboxSession, text: str, **env: str) -> ExecResult:
    """Run a line of shell in the copy."""
    return await session.exec(text, cwd="project", env=env, timeout=WORK_TIMEOUT_S)


def said(result: ExecResult) -> str:
    """What a command said last, and how long it took."""
    return f"{shorten(last_line(result.stdout or result.stderr), 40)} ({ms(result.duration_s)})"


def ms(seconds: float) -> str:
    """A duration for people."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


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
    attempts = [
        Attempt(what="read a key in a home's .ssh (a bait)", argv=["cat", str(bait)], wall=place)
    ]
    real = Path.home() / ".ssh"
    argv = ["ls", str(real)]
    outside = None if real.is_dir() else "there is none"
    attempts.append(Attempt(what=f"list {real}", argv=argv, wall=place, outside=outside))
    return attempts


def network_attempts(port: int, name: str) -> list[Attempt]:
    """Reaching a server of the host's, on its loopback and on an abstract Unix socket."""
    tcp = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 3)"
    unix = "import socket, sys; socket.socket(socket.AF_UNIX).connect('\\0' + sys.argv[1])"
    return [
        Attempt(
            what=f"connect to the host's 127.0.0.1:{port}",
            argv=python(tcp, str(port)),
            wall={AWAY: "network namespace"},
        ),
        Attempt(
            what="an abstract socket, on the host's network",
            argv=python(unix, name),
            wall={FORBIDDEN: "Landlock", DENIED: "seccomp", "": "seccomp"},
            policy=Policy(network="host"),
        ),
    ]


def process_attempts(token: str) -> list[Attempt]:
    """Seeing a process and a variable of the host's."""
    # The brackets keep grep from finding itself.
    search = f"grep -l '[{token[0]}]{token[1:]}' /proc/[0-9]*/cmdline"
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
def listening(family: int, address: object) -> Iterator[socket.socket]:
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
    tour.note(f"{'what a command tries':<43}{'outside':<18}{'inside':<27}held by")
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
    what = shorten(attempt.what, 42)
    tour.line(able and held, f"{what:<43}{outside:<18}{shorten(inside, 26):<27}{wall}")


# --- chapter 3: a runaway ---------------------------------------------------------------------

RUNAWAY = """
stubborn='trap "" TERM INT HUP; while :; do sleep 1; done'
(setsid sh -c "$stubborn" "$0" &)                # forked twice, a session of its own
(setsid setsid sh -c "$stubborn" "$0" & exit) &  # and once more
sh -c "$stubborn" "$0"                           # and one that stays
"""


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
        began = time.perf_counter()
        running = asyncio.create_task(
            session.exec("sh", "-c", RUNAWAY, token, shell=False, timeout=RUNAWAY_TIMEOUT_S)
        )
        await asyncio.sleep(RUNAWAY_TIMEOUT_S / 2)
        before = count_processes(token)
        tour.line(
            before >= 4,
            f"after {ms(RUNAWAY_TIMEOUT_S / 2)} the host's /proc shows {before} processes of it",
        )
        try:
            await running
            tour.line(False, "the command was not ended")
        except ExecTimeoutError:
            spent = time.perf_counter() - began
            tour.line(
                spent < RUNAWAY_TIMEOUT_S + 1,
                f"its timeout of 1 s ended the call after {ms(spent)}",
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
    tour.line(
        True,
        f"{ms(bare):>8}  /bin/true by asyncio.create_subprocess_exec, output captured, unconfined",
    )
    tour.line(True, f"{ms(confined):>8}  /bin/true by session.exec, output captured, confined")
    tour.line(
        True, f"{ms(start):>8}  a whole session: create, start, close, delete ({STARTS} times)"
    )


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
        except ConfinementUnavailableError:
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
    sys.exit(main())
