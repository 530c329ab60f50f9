"""Real programs on a terminal: shells with job control, pagers, editors, prompts, multiplexers."""

from __future__ import annotations

import shutil

import pytest

from sandyard import UnixLocalSandboxSession
from tests.session.host import living_processes, name_of, until
from tests.terminal.screen import Screen, watching

Session = UnixLocalSandboxSession


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where the host, whose programs a session runs, lacks one of them."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


BASH = ("bash", "--norc", "--noprofile", "+o", "history")


async def begin(screen: Screen) -> None:
    await screen.type("PS1='PROM''PT> '; bind 'set enable-bracketed-paste off'\n")
    await screen.until(r"PROMPT> ")


@needs("bash")
async def test_job_control(session: Session) -> None:
    async with watching(await session.terminal(*BASH, shell=False)) as screen:
        await begin(screen)
        await screen.type("echo st''arted; cat\n")
        await screen.until("started")
        await screen.type("a line\n")
        await screen.until("a line\r\na line\r\n")
        await screen.type("\x1a")  # Ctrl-Z
        await screen.until(r"\[1\]\+ +Stopped +cat")
        await screen.type("jobs -p | wc -l; fg\n")
        await screen.until(r"\n1\r\n")
        await screen.type("more\n")
        await screen.until(r"more.*more\r\n")  # fg names the command amid them
        await screen.type("\x03")  # Ctrl-C
        await screen.until(r"\^C.*PROMPT> ")
        await screen.type("echo code $?; sleep 77 & jobs -r\n")
        await screen.until(r"code 130\r\n")
        await screen.until(r"\[1\].*Running +sleep 77")
        await screen.type("echo st''arted; cat\n")
        await screen.until("started")
        await screen.type("line\n")
        await screen.until("line\r\nline\r\n")
        await screen.type("\x1c")  # Ctrl-\
        await screen.until(r"Quit")
        await screen.type("kill %1; wait; exit 9\n")
        assert await screen.terminal.wait() == 9


@needs("bash")
async def test_interrupt_reaches_the_foreground(session: Session) -> None:
    async with watching(await session.terminal(*BASH, shell=False)) as screen:
        await begin(screen)
        await screen.type("echo st''arted; sleep 77; echo ov''er\n")
        await screen.until("started")
        await until(lambda: "sleep" in {name_of(pid) for pid in living_processes()})
        await screen.terminal.signal("INT", to="foreground")
        await screen.until("PROMPT> ")
        await screen.type("exit\n")
        assert await screen.terminal.wait() == 130
        assert b"over" not in screen.seen.replace(b"''", b"").partition(b"started\r\n")[2]


@needs("bash")
async def test_erasing_takes_whole_characters(session: Session) -> None:
    async with watching(await session.terminal("read line; echo got:$line:")) as screen:
        await screen.type("aé漢\x7f\x7fb\n")
        await screen.until("got:ab:")


@needs("less")
async def test_less(session: Session) -> None:
    await session.write("long", b"".join(b"line %d\n" % n for n in range(1, 501)))
    terminal = await session.terminal("less long", rows=10, columns=40, env={"LESS": ""})
    async with watching(terminal) as screen:
        await screen.until("line 9.*long")
        await screen.type("G")
        await screen.until(r"line 500.*END")
        await screen.type("1G")
        await screen.until("line 9")
        await screen.type("/line 25$\n")
        await screen.until("line 25")
        await screen.type("q")
        assert await terminal.wait() == 0


@needs("vi")
async def test_editor_writes_a_file(session: Session) -> None:
    terminal = await session.terminal("vi", "-u", "NONE", "new", shell=False)
    async with watching(terminal) as screen:
        await screen.until("new")
        await screen.type("ifirst line\rsecond é\x1b")
        await screen.type(":wq\r")
        assert await terminal.wait() == 0
    with await session.read("new") as file:
        assert file.read() == "first line\nsecond é\n".encode()


@needs("top")
async def test_top(session: Session) -> None:
    async with watching(await session.terminal("top", rows=24, columns=80)) as screen:
        await screen.until("PID.*COMMAND")
        await screen.until("top")
        await screen.type("q")
        assert await screen.terminal.wait() == 0


@needs("python3")
async def test_python(session: Session) -> None:
    terminal = await session.terminal("python3", "-iq", shell=False, env={"PYTHON_BASIC_REPL": "1"})
    async with watching(terminal) as screen:
        await screen.until(">>> ")
        await screen.type("import os; print(os.isatty(0), 6 * 7)\n")
        await screen.until("True 42")
        await screen.type("while True: pass\n\n")
        await screen.until(r"\.\.\.")
        await screen.until("\n")
        await screen.terminal.signal("INT", to="foreground")
        await screen.until("KeyboardInterrupt.*>>> ")
        await screen.terminal.send_eof()
        assert await terminal.wait() in {0, -2}  # Python remembers the interrupt at its end


@needs("tmux")
async def test_tmux(session: Session) -> None:
    script = "tmux -f /dev/null new-session 'PS1=ready$ sh'"
    async with watching(await session.terminal(script, env={"LC_ALL": "C.UTF-8"})) as screen:
        await screen.until("ready")
        await screen.type("tty; stty size\n")
        await screen.until(r"/dev/pts/\d.*23 80")
        await screen.type("exit\n")
        await screen.until("exited")
        assert await screen.terminal.wait() == 0


@needs("python3")
async def test_password_prompt(session: Session) -> None:
    script = "import getpass; print('got', len(getpass.getpass()))"
    async with watching(await session.terminal("python3", "-c", script, shell=False)) as screen:
        await screen.until("Password: ")
        await screen.type("secret word\n")
        await screen.until("got 11")
        assert b"secret" not in screen.seen
