"""The end of a command as a caller is told of it: codes, usage, and errors that say whose fault."""

from __future__ import annotations

import errno
import os
import signal

import pytest

from sandyard.errors import ArgumentError, ExecTransportError, ResourceLimitError
from sandyard.process.capture import Captured
from sandyard.process.results import exec_result, exit_code, gone_error, unborn_result
from sandyard.process.wire import Exited, Failure, LeftRunning, Step, Usage
from sandyard.types import Leftover, ResourceUsage

OUT, ERR = Captured(b"head tail", 7, 16), Captured(b"oops", 0, 4)
USAGE = Usage(1_500_000, 250_000, 1024, 3, 4, 5, 6, 7, 8)
CORE = 0x80


def ended(status: int, *, lost: bool = False, listed: tuple[LeftRunning, ...] = ()) -> Exited:
    return Exited(9, status, False, lost, USAGE, len(listed), listed)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (0, 0),
        (1 << 8, 1),
        (127 << 8, 127),
        (255 << 8, 255),
        (signal.SIGHUP, -1),
        (signal.SIGKILL, -9),
        (signal.SIGTERM, -15),
        (64, -64),
        (signal.SIGSEGV | CORE, -11),
        (signal.SIGABRT | CORE, -6),
        (signal.SIGSYS | CORE, -31),
    ],
)
def test_code_of_a_status(status: int, expected: int) -> None:
    assert exit_code(status) == expected
    assert exec_result(ended(status), OUT, ERR, 1.0).exit_code == expected


def test_everything_is_told() -> None:
    result = exec_result(ended(0, listed=(LeftRunning(3, "sleep"),)), OUT, ERR, 2.5)
    assert (result.stdout, result.stdout_dropped, result.stdout_total) == (b"head tail", 7, 16)
    assert (result.stderr, result.stderr_dropped, result.stderr_total) == (b"oops", 0, 4)
    assert (result.exit_code, result.duration_s) == (0, 2.5)
    assert result.leftovers == (Leftover(pid=3, name="sleep"),)
    assert result.usage == ResourceUsage(
        user_s=1.5,
        system_s=0.25,
        max_rss_bytes=1024 * 1024,
        minor_faults=3,
        major_faults=4,
        blocks_in=5,
        blocks_out=6,
        voluntary_switches=7,
        involuntary_switches=8,
    )


def test_no_account_reads_as_a_kill() -> None:
    result = exec_result(None, OUT, ERR, 1.0)
    assert (result.exit_code, result.usage, result.leftovers) == (-9, None, ())
    assert (result.stdout, result.stderr_total) == (b"head tail", 4)


@pytest.mark.parametrize(
    ("status", "expected"), [(signal.SIGKILL, -9), (signal.SIGSTOP, -19), (1 << 8, 1)]
)
def test_lost_keeper_knows_no_usage(status: int, expected: int) -> None:
    result = exec_result(ended(status, lost=True), OUT, ERR, 1.0)
    assert (result.exit_code, result.usage) == (expected, None)


# --- commands that were not born ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errno.ENOENT, 127),
        (errno.ENOTDIR, 127),
        (errno.EACCES, 126),
        (errno.EPERM, 126),
        (errno.E2BIG, 126),
        (errno.ENOEXEC, 126),
        (errno.ELOOP, 126),
        (errno.ENAMETOOLONG, 126),
        (errno.ETXTBSY, 126),
        (99999, 126),
    ],
)
def test_program_that_can_not_be_run(error: int, code: int) -> None:
    failure = Failure(Step.SPAWN_EXEC, None, error, "")
    result = unborn_result(failure, ("prog", "argument"), "/w")
    assert result.exit_code == code
    assert result.stderr == f"sandyard: prog: {os.strerror(error)}\n".encode()
    assert result.stderr_total == len(result.stderr)
    assert (result.stdout, result.usage, result.leftovers) == (b"", None, ())


def test_name_keeps_its_bytes() -> None:
    failure = Failure(Step.SPAWN_EXEC, None, errno.ENOENT, "")
    result = unborn_result(failure, ("caf\udce9 ü",), "/w")
    assert result.stderr == b"sandyard: caf\xe9 \xc3\xbc: No such file or directory\n"


@pytest.mark.parametrize("error", [errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.ELOOP])
def test_directory_that_can_not_be_entered(error: int) -> None:
    with pytest.raises(ArgumentError) as caught:
        unborn_result(Failure(Step.SPAWN_CWD, None, error, ""), ("true",), "/w/sub")
    assert (caught.value.op, caught.value.context["argument"]) == ("exec", "cwd")
    assert caught.value.context["value"] == "'/w/sub'"
    assert caught.value.message.endswith(os.strerror(error))
    assert "'/w/sub'" in caught.value.message


@pytest.mark.parametrize("error", [errno.EAGAIN, errno.ENOMEM])
def test_no_room_for_a_process(error: int) -> None:
    with pytest.raises(ResourceLimitError) as caught:
        unborn_result(Failure(Step.SPAWN_FORK, None, error, ""), ("make", "-j9"), "/w")
    assert caught.value.retryable
    assert caught.value.context == {
        "limit": "processes",
        "value": error,
        "unit": "errno",
        "command": ("make", "-j9"),
    }
    assert os.strerror(error) in caught.value.message


@pytest.mark.parametrize(
    ("step", "error"),
    [
        (Step.SPAWN_FORK, errno.EPERM),
        (Step.SPAWN_FORK, errno.EMFILE),
        (Step.SPAWN_STDIO, errno.EBADF),
        (Step.PROTOCOL, errno.EPROTO),
        (Step.MOUNT, errno.EINVAL),
    ],
)
def test_sandbox_at_fault(step: Step, error: int) -> None:
    with pytest.raises(ExecTransportError) as caught:
        unborn_result(Failure(step, None, error, ""), ("ls", "-l"), "/w")
    assert caught.value.command == ("ls", "-l")
    assert (caught.value.context["step"], caught.value.context["errno"]) == (
        step.name.lower(),
        error,
    )
    assert caught.value.message.endswith(f"{step.name.lower()}: {os.strerror(error)}")
    assert caught.value.retryable is False


@pytest.mark.parametrize(
    ("born", "when"), [(True, "while the command ran"), (False, "before the command could run")]
)
def test_sandbox_that_ended(born: bool, when: str) -> None:
    error = gone_error(("ls", "-l"), born=born)
    assert (error.command, error.context["reason"]) == (("ls", "-l"), "sandbox_ended")
    assert f"the sandbox ended {when}" in error.message
    assert error.retryable is False
