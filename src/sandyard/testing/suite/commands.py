"""How commands run: their words, output, input, directory, variables, and results."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from sandyard.errors import ArgumentError, ExecTimeoutError, SandboxError
from sandyard.testing.behaviours import Place, Promise, Suite, check, refused, same

__all__ = ["SUITE"]

SUITE = Suite("commands")
says = SUITE.says

_LIMIT: Final = 1000
"""Bytes that are kept of more."""


@says(Promise.AS_GIVEN)
async def keeps_stdout(place: Place) -> None:
    """Standard output is given byte for byte."""
    result = await place.session.exec("printf 'a\\000\\377\\n b'")
    same(result.stdout, b"a\0\xff\n b")


@says(Promise.AS_GIVEN)
async def keeps_stderr(place: Place) -> None:
    """Standard error is given apart from standard output."""
    result = await place.session.exec("echo out; echo err >&2")
    same((result.stdout, result.stderr), (b"out\n", b"err\n"))


@says(Promise.AS_GIVEN)
async def tells_success(place: Place) -> None:
    """A command that succeeds has exit code 0, and its result is ok."""
    result = await place.session.exec("true")
    same((result.exit_code, result.ok()), (0, True))


@says(Promise.AS_GIVEN)
async def tells_exit_code(place: Place) -> None:
    """The exit code of a command that fails is told, and raises nothing."""
    result = await place.session.exec("exit 37")
    same((result.exit_code, result.ok()), (37, False))


@says(Promise.AS_GIVEN)
async def tells_signal(place: Place) -> None:
    """A command that signal 15 ends has exit code -15."""
    same((await place.session.exec("kill -TERM $$")).exit_code, -15)


@says(Promise.AS_GIVEN)
async def runs_shell_text(place: Place) -> None:
    """One word is the text of a shell: variables, pipes and several lines work."""
    result = await place.session.exec("a=1\nb=2\necho $((a + b)) | tr 3 x")
    same(result.stdout, b"x\n")


@says(Promise.AS_GIVEN)
async def quotes_several_words(place: Place) -> None:
    """Several words are quoted: what a shell would expand stays as it is."""
    result = await place.session.exec("printf", "%s|", "$HOME", "a b", "'", "*", "")
    same(result.stdout, b"$HOME|a b|'|*||")


@says(Promise.AS_GIVEN)
async def runs_plain_words(place: Place) -> None:
    """With shell=False the words are the program and its arguments."""
    result = await place.session.exec("printf", "%s", "$HOME; echo", shell=False)
    same(result.stdout, b"$HOME; echo")


@says(Promise.AS_GIVEN)
async def takes_paths_as_words(place: Place) -> None:
    """A word may be a path object."""
    result = await place.session.exec("echo", Path("a/b"), shell=False)
    same(result.stdout, b"a/b\n")


@says(Promise.AS_GIVEN)
async def takes_own_shell(place: Place) -> None:
    """A list is the shell that is given the text."""
    result = await place.session.exec("echo $0 $-", shell=["/bin/sh", "-ec"])
    check(result.ok() and b"e" in result.stdout.split()[-1], result)


@says(Promise.AS_GIVEN)
async def starts_in_workspace(place: Place) -> None:
    """A command starts in the workspace, by the path that normalize_path gives."""
    root = await place.session.normalize_path(".")
    same((await place.session.exec("pwd", shell=False)).stdout.decode().strip(), str(root))


@says(Promise.AS_GIVEN)
async def keeps_list_operators(place: Place) -> None:
    """The directory is right for each part of a text, also behind '&'."""
    root = await place.session.normalize_path(".")
    result = await place.session.exec("true & wait; true & pwd; wait")
    same(result.stdout.decode().strip(), str(root))


@says(Promise.AS_GIVEN)
async def leaves_absolute_words(place: Place) -> None:
    """A word that is an absolute path in the workspace reaches the program as it is."""
    path = str(await place.session.normalize_path(place.at("x")))
    same((await place.session.exec("echo", path, shell=False)).stdout.decode().strip(), path)


@says(Promise.AS_GIVEN)
async def knows_no_former_directory(place: Place) -> None:
    """A command is not led to the workspace by a 'cd' of the library's: OLDPWD is not set."""
    same((await place.session.exec("echo ${OLDPWD-none}")).stdout, b"none\n")


@says(Promise.AS_GIVEN)
async def runs_empty_text(place: Place) -> None:
    """An empty text is an empty script, which succeeds."""
    same((await place.session.exec("")).exit_code, 0)


@says(Promise.AS_GIVEN)
async def takes_long_text(place: Place) -> None:
    """A text of 100 kB runs."""
    result = await place.session.exec(": " + "x" * 100_000 + "; echo done")
    same(result.stdout, b"done\n")


@says(Promise.SPAWNING)
async def tells_missing_in_shell(place: Place) -> None:
    """A program that does not exist is exit code 127 of the shell."""
    same((await place.session.exec("no-such-program-here")).exit_code, 127)


@says(Promise.SPAWNING)
async def tells_missing_program(place: Place) -> None:
    """With shell=False, too, a program that does not exist is exit code 127."""
    same((await place.session.exec("no-such-program-here", shell=False)).exit_code, 127)


@says(Promise.SPAWNING)
async def tells_unexecutable(place: Place) -> None:
    """With shell=False a file without permission to execute is exit code 126."""
    path = await place.session.normalize_path(await place.put("plain"))
    same((await place.session.exec(str(path), shell=False)).exit_code, 126)


@says(Promise.SPAWNING)
async def tells_giant_argument(place: Place) -> None:
    """An argument longer than the kernel takes is a result with exit code 126."""
    result = await place.session.exec("true", "x" * 200_000, shell=False)
    same(result.exit_code, 126)


@says(Promise.SPAWNING)
async def refuses_nul(place: Place) -> None:
    """A word with a NUL character is refused."""
    with refused(ArgumentError):
        await place.session.exec("echo a\0b")


@says(Promise.ERRORS)
async def refuses_no_words(place: Place) -> None:
    """A command without a word is refused."""
    with refused(ArgumentError):
        await place.session.exec()


@says(Promise.ERRORS)
async def refuses_zero_timeout(place: Place) -> None:
    """A timeout of 0 is refused, and the command does not run."""
    with refused(ArgumentError):
        await place.session.exec(f"touch {place.at('ran')}", timeout=0)
    same(await place.names(), [])


@says(Promise.ERRORS)
async def refuses_negative_timeout(place: Place) -> None:
    """A negative timeout is refused."""
    with refused(ArgumentError):
        await place.session.exec("true", timeout=-1)


@says(Promise.INPUT)
async def has_empty_input(place: Place) -> None:
    """The input is empty, not the program's own."""
    code = (
        "import os,stat,sys; s=os.fstat(0); null=s.st_rdev==os.makedev(1,3); "
        "print(stat.S_ISFIFO(s.st_mode) or null, sys.stdin.buffer.read())"
    )
    result = await place.session.exec("python3", "-c", code, shell=False)
    same(result.stdout, b"True b''\n")


@says(Promise.INPUT)
async def gives_input_bytes(place: Place) -> None:
    """stdin= gives bytes."""
    result = await place.session.exec("cat", stdin=b"a\0b")
    same(result.stdout, b"a\0b")


@says(Promise.INPUT)
async def gives_large_input(place: Place) -> None:
    """Input larger than a pipe is given whole, while output is read."""
    data = bytes(range(256)) * 4096
    result = await place.session.exec("cat", stdin=data)
    check(result.stdout == data, len(result.stdout))


@says(Promise.INPUT)
async def gives_input_file(place: Place) -> None:
    """stdin= reads a binary file."""
    result = await place.session.exec("cat", stdin=io.BytesIO(b"from a file"))
    same(result.stdout, b"from a file")


@says(Promise.INPUT)
async def gives_input_pieces(place: Place) -> None:
    """stdin= takes what an asynchronous iterator gives."""

    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one ", b"two"):
            yield piece
            await asyncio.sleep(0)

    same((await place.session.exec("cat", stdin=pieces())).stdout, b"one two")


@says(Promise.INPUT)
async def ignores_unread_input(place: Place) -> None:
    """A command that does not read its input ends all the same."""
    same((await place.session.exec("exit 4", stdin=b"x" * 1_000_000)).exit_code, 4)


@says(Promise.EACH_CALL)
async def takes_directory(place: Place) -> None:
    """cwd= is relative to the workspace."""
    await place.session.mkdir(place.at("sub"))
    result = await place.session.exec("pwd", cwd=place.at("sub"))
    wanted = await place.session.normalize_path(place.at("sub"))
    same(result.stdout.decode().strip(), str(wanted))


@says(Promise.EACH_CALL)
async def takes_absolute_directory(place: Place) -> None:
    """cwd= may be absolute."""
    same((await place.session.exec("pwd", cwd="/")).stdout, b"/\n")


@says(Promise.EACH_CALL)
async def refuses_missing_directory(place: Place) -> None:
    """A directory that does not exist is refused, and the command does not run."""
    with refused(ArgumentError):
        await place.session.exec("true", cwd=place.at("missing"))


@says(Promise.EACH_CALL)
async def takes_variables(place: Place) -> None:
    """env= adds variables, whatever their values hold."""
    result = await place.session.exec('printf %s "$GIVEN"', env={"GIVEN": "a 'b'\n$c=d"})
    same(result.stdout, b"a 'b'\n$c=d")


@says(Promise.EACH_CALL)
async def forgets_variables(place: Place) -> None:
    """Variables of one call are not there in the next."""
    await place.session.exec("true", env={"GIVEN": "x"})
    same((await place.session.exec("echo ${GIVEN-none}")).stdout, b"none\n")


@says(Promise.EACH_CALL)
async def refuses_odd_variable(place: Place) -> None:
    """A variable whose name holds '=' is refused."""
    with refused(ArgumentError):
        await place.session.exec("true", env={"A=B": "c"})


@says(Promise.EACH_CALL)
async def refuses_unknown_user(place: Place) -> None:
    """A user whom the session does not have is refused."""
    with refused(ArgumentError):
        await place.session.exec("true", user="no-such-user")


@says(Promise.RETURNS)
async def returns_at_exit(place: Place) -> None:
    """``exec`` returns when the command exits, not when its background children close the pipe."""
    waits = "for i in 1 2 3 4 5 6 7 8 9; do [ -e seen ] && exit; sleep 0.5; done; : > tired"
    result = await place.run(f"({waits}) & echo hi")
    same(result.stdout, b"hi\n")
    check("tired" not in await place.names(), "it waited for the child")
    await place.put("seen")


@says(Promise.RETURNS)
async def tells_leftovers(place: Place) -> None:
    """What a command left running is told."""
    result = await place.session.exec("sleep 600 >/dev/null 2>&1 & exit 0")
    try:
        same(len(result.leftovers), 1)
        check(result.leftovers[0].pid > 0, result)
    finally:
        for left in result.leftovers:
            await place.session.exec(f"kill -9 {left.pid}")


@says(Promise.RETURNS)
async def keeps_leftovers(place: Place) -> None:
    """What a command left running lives on in the session."""
    await place.run("sleep 600 >/dev/null 2>&1 & echo $! > pid")
    await place.said("kill -0 $(cat pid) && kill -9 $(cat pid)")


@says(Promise.RETURNS)
async def ends_leftovers(place: Place) -> None:
    """With leftovers="end" what a command left running ends with it."""
    text = f"sleep 600 >/dev/null 2>&1 & echo $! > {place.at('pid')}"
    await place.session.exec(text, leftovers="end")
    check(not (await place.run("kill -0 $(cat pid)")).ok(), "it lives on")


@says(Promise.BOUNDED)
async def bounds_output(place: Place) -> None:
    """output_limit= keeps the head and the tail, and counts what is missing between."""
    result = await place.session.exec(
        "printf head; head -c 100000 /dev/zero; printf tail", output_limit=_LIMIT
    )
    check(result.stdout.startswith(b"head") and result.stdout.endswith(b"tail"), result)
    check(len(result.stdout) <= _LIMIT, len(result.stdout))
    same((result.stdout_total, result.stdout_dropped + len(result.stdout)), (100_008, 100_008))


@says(Promise.BOUNDED)
async def bounds_streams_apart(place: Place) -> None:
    """A flood on one stream takes nothing from the other."""
    result = await place.session.exec("head -c 100000 /dev/zero; echo kept >&2", output_limit=64)
    same((result.stderr, result.stderr_dropped), (b"kept\n", 0))


@says(Promise.BOUNDED)
async def counts_whole_output(place: Place) -> None:
    """Output that is not cut is counted as it is."""
    result = await place.session.exec("echo abc")
    same((result.stdout_total, result.stdout_dropped), (4, 0))


@says(Promise.BOUNDED)
async def takes_large_output(place: Place) -> None:
    """A megabyte on both streams at once arrives whole."""
    result = await place.session.exec(
        "head -c 1000000 /dev/zero & head -c 1000000 /dev/zero >&2; wait"
    )
    same((len(result.stdout), len(result.stderr)), (1_000_000, 1_000_000))


@says(Promise.ENDS)
async def times_out(place: Place) -> None:
    """A timeout is an ExecTimeoutError, which is a TimeoutError."""
    with refused(ExecTimeoutError) as caught:
        await place.session.exec("sleep 600", timeout=0.2)
    check(isinstance(caught[0], TimeoutError), caught[0])


@says(Promise.ENDS)
async def keeps_output_of_timeout(place: Place) -> None:
    """The error of a timeout has what the command wrote until then."""
    with refused(ExecTimeoutError) as caught:
        await place.session.exec("echo so far; echo err >&2; sleep 600", timeout=1)
    error = caught[0]
    same((getattr(error, "stdout", None), getattr(error, "stderr", None)), (b"so far\n", b"err\n"))


@says(Promise.ENDS)
async def ends_tree_at_timeout(place: Place) -> None:
    """A timeout ends all that the command started, what has a session of its own included."""
    text = f"{{ setsid sleep 600 & echo $! > {place.at('pid')}; sleep 600; }}"
    with refused(ExecTimeoutError):
        await place.session.exec(text, timeout=1)
    check(not (await place.run("kill -0 $(cat pid)")).ok(), "it lives on")


@says(Promise.ENDS)
async def ends_tree_at_cancel(place: Place) -> None:
    """Cancelling a call ends the command, and all that it started."""
    new, pid = place.at("new"), place.at("pid")
    text = f"{{ setsid sleep 600 & echo $! > {new}; mv {new} {pid}; sleep 600; }}"
    task = asyncio.ensure_future(place.session.exec(text))
    await place.said("until [ -e pid ]; do sleep 0.01; done")
    task.cancel()
    await asyncio.wait([task])
    check(task.cancelled(), task)
    check(not (await place.run("kill -0 $(cat pid)")).ok(), "it lives on")


@says(Promise.ENDS)
async def works_after_timeout(place: Place) -> None:
    """After a timeout the session runs commands as before."""
    with refused(ExecTimeoutError):
        await place.session.exec("sleep 600", timeout=0.1)
    same((await place.session.exec("echo on")).stdout, b"on\n")


@says(Promise.AS_GIVEN)
async def runs_side_by_side(place: Place) -> None:
    """Many commands run at once, and each has its own result."""
    calls = (place.session.exec(f"echo {n}; exit {n}") for n in range(16))
    results = await asyncio.gather(*calls)
    same([(one.stdout, one.exit_code) for one in results], [(b"%d\n" % n, n) for n in range(16)])


@says(Promise.AS_GIVEN)
async def waits_for_each_other(place: Place) -> None:
    """Commands that run at once can wait for each other: none blocks the others."""
    await place.said("mkfifo pipe")
    told, said = await asyncio.gather(place.run("cat pipe"), place.run("echo word > pipe"))
    same((told.stdout, said.exit_code), (b"word\n", 0))


@says(Promise.ERRORS)
async def errors_have_facts(place: Place) -> None:
    """An error has a message, a stable code, the operation, and facts."""
    with refused(ExecTimeoutError) as caught:
        await place.session.exec("sleep 600", timeout=0.1)
    error = caught[0]
    check(isinstance(error, SandboxError), error)
    told = error if isinstance(error, SandboxError) else None
    check(told and told.message and told.op == "exec", error)
    check(told and told.error_code == "exec_timeout", error)
