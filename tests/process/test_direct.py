"""Commands as children of this program: what macOS would have, as far as Linux can show it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from sandyard import ConfinementUnavailableError, Policy
from sandyard.confinement.seatbelt import SeatbeltFacts, confined_command, plan_seatbelt
from sandyard.errors import ArgumentError, ExecTimeoutError, ExecTransportError
from sandyard.plan import Narrowed, Spawn
from sandyard.process.commands import CommandCall, Commands
from sandyard.process.direct import DirectSpawner
from sandyard.process.wire import Exited, SignalTarget
from tests.house.sources import ROOT
from tests.session.host import until

STAND_IN = str(Path(__file__).with_name("stand_in.py"))
PATH = (b"PATH", b"/usr/bin:/bin")


def unwrapped(words: Sequence[str]) -> Sequence[str]:
    return words


@pytest.fixture
async def spawner() -> AsyncIterator[DirectSpawner]:
    async with DirectSpawner(unwrapped) as spawner:
        yield spawner


def call(place: Path, *words: str, **options: object) -> CommandCall:
    """A command in a directory; one word is a text of the shell's."""
    argv = words if len(words) > 1 else ("sh", "-c", *words)
    spawn = Spawn(
        argv=tuple(map(os.fsencode, argv)), environment=(PATH,), cwd=os.fsencode(str(place))
    )
    return CommandCall(words=argv, spawn=spawn, **options)  # type: ignore[arg-type]  # passed on


def text_of(path: Path) -> str:
    """What a file holds; nothing where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def has_ended(number: int) -> bool:
    """Whether a process has ended: it is a descendant's, and somebody else waits for it."""
    return text_of(Path(f"/proc/{number}/stat")).rpartition(") ")[2][:1] in {"", "Z", "X"}


async def is_gone(number: int) -> bool:
    """Wait until a process has ended."""
    await until(lambda: has_ended(number), within=20)
    return True


async def told(path: Path) -> int:
    """Wait until a command has written a number to a file, with the end of its line."""
    await until(lambda: text_of(path).endswith("\n"), within=20)
    return int(text_of(path))


async def test_result_is_whole(spawner: DirectSpawner, tmp_path: Path) -> None:
    text = (
        "cat; pwd; env | sort; echo oops >&2; ls /proc/self/fd | wc -l; (: < /dev/tty) 2>&1; exit 3"
    )
    result = await Commands(spawner).run(call(tmp_path, text, stdin=b"fed\n"))
    lines = result.stdout.decode().splitlines()
    assert lines[:2] == ["fed", str(tmp_path)]
    assert {line.partition("=")[0] for line in lines[2:-2]} <= {
        "PATH",
        "PWD",
        "SHLVL",
        "_",
        "OLDPWD",
    }
    assert lines[-2] == "4"  # the three streams, and the directory that ls reads
    assert "/dev/tty" in lines[-1]  # there is no terminal to type on
    assert (result.stderr, result.exit_code, result.leftovers) == (b"oops\n", 3, ())
    assert result.usage is not None
    assert result.usage.max_rss_bytes > 0


async def test_nothing_to_read(spawner: DirectSpawner, tmp_path: Path) -> None:
    result = await Commands(spawner).run(call(tmp_path, "cat; echo $?"))
    assert result.stdout == b"0\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("no-such-program", "x"), 127),
        (("/etc", "x"), 126),
        (("-c", "x"), 127),
        (("echo", "x" * 200_000), 126),
        (("sh", "-c", "kill -9 $$"), -9),
        (("printf", "%s|", "-n", "a b", "$x"), 0),
    ],
)
async def test_codes_are_a_shells(
    spawner: DirectSpawner, tmp_path: Path, words: tuple[str, ...], code: int
) -> None:
    result = await Commands(spawner).run(call(tmp_path, *words))
    assert result.exit_code == code
    if code == 0:
        assert result.stdout == b"-n|a b|$x|"
    elif code > 0:
        assert result.stderr


async def test_directory_is_missing(spawner: DirectSpawner, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="nowhere"):
        await Commands(spawner).run(call(tmp_path / "nowhere", "true"))


async def test_group_ends_with_command(spawner: DirectSpawner, tmp_path: Path) -> None:
    """It returns when the command exits, whoever holds its output; what it left in its group ends."""
    text = "sleep 1000 & echo $! > child; echo hi"
    result = await Commands(spawner).run(call(tmp_path, text, timeout_s=60))
    assert result.stdout == b"hi\n"
    assert await is_gone(await told(tmp_path / "child"))


async def test_timeout_ends_group(spawner: DirectSpawner, tmp_path: Path) -> None:
    text = "echo before; sleep 1000 & echo $! > child; wait"
    with pytest.raises(ExecTimeoutError) as caught:
        await Commands(spawner).run(call(tmp_path, text, timeout_s=1))
    assert caught.value.stdout == b"before\n"
    assert await is_gone(await told(tmp_path / "child"))


async def test_cancelling_ends_group(spawner: DirectSpawner, tmp_path: Path) -> None:
    commands = Commands(spawner)
    running = asyncio.create_task(commands.run(call(tmp_path, "echo $$ > own; sleep 1000")))
    number = await told(tmp_path / "own")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert await is_gone(number)
    early = [asyncio.create_task(commands.run(call(tmp_path, "sleep 1000"))) for _ in range(8)]
    for turn, task in enumerate(early):  # before its thread, within it, after it
        for _ in range(turn):
            await asyncio.sleep(0)
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError)
        for end in await asyncio.gather(*early, return_exceptions=True)
    )


async def test_many_are_kept_apart(spawner: DirectSpawner, tmp_path: Path) -> None:
    commands = Commands(spawner)
    results = await asyncio.gather(
        *(commands.run(call(tmp_path, f"echo {number}; exit {number}")) for number in range(24))
    )
    assert [(each.stdout, each.exit_code) for each in results] == [
        (b"%d\n" % number, number) for number in range(24)
    ]


@pytest.mark.parametrize("target", [SignalTarget.COMMAND, SignalTarget.TREE])
async def test_signals_arrive(spawner: DirectSpawner, tmp_path: Path, target: SignalTarget) -> None:
    text = "trap 'echo got; exit 5' USR1; echo 1 > ready; while :; do sleep 0.01; done"
    job = await spawner.spawn(call(tmp_path, text).spawn, [], 0, report=True)
    await told(tmp_path / "ready")
    await spawner.signal(job, signal.SIGUSR1, target)
    assert await job.gone.wait(20)
    outcome = job.exited.get()
    assert isinstance(outcome, Exited)
    assert os.waitstatus_to_exitcode(outcome.status) == 5
    assert job.pid is not None
    assert job.pid.get() is not None
    await spawner.signal(job, signal.SIGUSR1, target)  # it has ended: nobody else is meant


async def test_end_of_all(tmp_path: Path) -> None:
    async with DirectSpawner(unwrapped) as spawner:
        commands = Commands(spawner)
        running = asyncio.create_task(commands.run(call(tmp_path, "echo $$ > own; sleep 1000")))
        number = await told(tmp_path / "own")
    assert (await running).exit_code == -signal.SIGKILL
    assert await is_gone(number)
    with pytest.raises(ExecTransportError):
        await commands.run(call(tmp_path, "true"))


async def test_refuses_what_is_not_there(spawner: DirectSpawner, tmp_path: Path) -> None:
    asked = call(tmp_path, "true")
    asked.spawn = Spawn(
        argv=asked.spawn.argv,
        environment=(PATH,),
        cwd=asked.spawn.cwd,
        narrowed=Narrowed(),
    )
    with pytest.raises(ExecTransportError, match="spawn_narrow"):
        await Commands(spawner).run(asked)


async def test_python_that_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "waitid")
    with pytest.raises(ConfinementUnavailableError, match=r"3\.13"):
        DirectSpawner(unwrapped)


async def test_words_reach_the_wrapper(tmp_path: Path) -> None:
    """The profile and its parameters come through a real exec, whatever the paths are called."""
    odd = 'a "b") (allow default) ; é\n\udcff'
    facts = SeatbeltFacts(workspace=f"/w/{odd}", home="/h", temporary="/t", denied=("/w=x",))
    profile = plan_seatbelt(Policy(), facts)
    account = tmp_path / "account"

    def wrap(words: Sequence[str]) -> Sequence[str]:
        program, *rest = confined_command(profile, words)
        assert program == "/usr/bin/sandbox-exec"
        return ("/usr/bin/env", f"TOLD={account}", sys.executable, STAND_IN, *rest)

    async with DirectSpawner(wrap) as spawner:
        result = await Commands(spawner).run(call(tmp_path, "printf", "%s", "-- x"))
        missing = await Commands(spawner).run(call(tmp_path, "no-such-program", "x"))
    assert (result.stdout, result.exit_code) == (b"-- x", 0)
    assert missing.exit_code == 127
    said = json.loads(os.fsencode(text_of(account)))
    assert said["profile"] == profile.text
    assert said["parameters"] == dict(profile.parameters)


MAC = """
import asyncio, os, sys
from tests.elsewhere.pretending import pretend, selecting_loop
pretend("darwin")
from sandyard.plan import Spawn
from sandyard.process.commands import CommandCall, Commands
from sandyard.process.direct import DirectSpawner
from sandyard.process.wire import Exited, SignalTarget

async def main():
    async with DirectSpawner(lambda words: words) as spawner:
        text = b"cat; head -c 300000 /dev/zero; sleep 1000 & exit 4"
        spawn = Spawn(argv=(b"sh", b"-c", text), environment=((b"PATH", b"/usr/bin:/bin"),), cwd=b"/")
        result = await Commands(spawner).run(CommandCall(words=("sh",), spawn=spawn, stdin=b"hi"))
        print(result.exit_code, result.stdout[:2].decode(), len(result.stdout))

with asyncio.Runner(loop_factory=selecting_loop) as runner:
    runner.run(main())
"""


def test_asks_for_no_linux() -> None:
    """Without what only Linux has, all of it works."""
    done = subprocess.run(
        [sys.executable, "-c", MAC], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.returncode) == ("4 hi 300002\n", 0), done.stderr
