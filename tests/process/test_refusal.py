"""A start that fails has words for each step: what failed, on what, why, and what to change."""

from __future__ import annotations

import errno
import os

import pytest

from sandyard.errors import (
    ConfinementUnavailableError,
    ErrorCode,
    ResourceLimitError,
    SandboxError,
)
from sandyard.plan import Bind, HostIdentity, Identity, LaunchPlan, Namespaces, Scratch
from sandyard.process.refusal import start_refusal
from sandyard.process.wire import Failure, Step

PLAN = LaunchPlan(
    identity=Identity(1000, 1000, HostIdentity.CALLER),
    namespaces=Namespaces(0),
    hostname="h",
    loopback=False,
    scratch=Scratch(1, 1),
    steps=(Bind("/gone", "/inside"), Bind("/caf\udcff", "/odd")),
    limits=(),
    landlock=None,
    seccomp=b"",
)
DIMENSIONS = {"read", "write", "network", "processes", "ipc", "syscalls", "resources"}
START = [step for step in Step if step < Step.SPAWN_FORK]
COMMANDS = [step for step in Step if step >= Step.SPAWN_FORK]


def refused(step: Step, error: int = errno.EPERM, text: str = "") -> SandboxError:
    return start_refusal(Failure(step, None, error, text), PLAN)


@pytest.mark.parametrize("step", START)
@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE])
def test_missing_descriptors_are_a_limit(step: Step, error: int) -> None:
    told = refused(step, error, "/etc/ssl/certs")
    assert isinstance(told, ResourceLimitError)
    assert told.context["limit"] == "open_files"
    assert told.retryable


@pytest.mark.parametrize("error", [errno.ENOENT, errno.EROFS])
def test_missing_proc_is_named(error: int) -> None:
    assert "mount /proc" in str(refused(Step.USER, error).context["fix"])
    assert "mount /proc" not in str(refused(Step.USER, errno.EPERM).context["fix"])


@pytest.mark.parametrize("step", START)
def test_step_has_words(step: Step) -> None:
    error = refused(step, errno.EPERM, "/some/path")
    name = step.name.lower()
    assert isinstance(error, ConfinementUnavailableError)
    assert error.error_code is ErrorCode.CONFINEMENT_UNAVAILABLE
    assert error.context.keys() == {"dimension", "cause_text", "fix", "step", "errno", "path"}
    assert error.context["dimension"] in DIMENSIONS
    assert (error.context["step"], error.context["errno"]) == (name, errno.EPERM)
    assert error.context["path"] == "/some/path"
    assert error.context["cause_text"] == f"Operation not permitted [{name}, errno 1]"
    assert "unknown step" not in error.message
    assert error.message == (
        f"{error.message.partition(' (/some/path) failed: ')[0]} (/some/path) failed: "
        f"{error.context['cause_text']}. To fix it: {error.context['fix']}"
    )
    assert error.message.startswith("the sandbox could not be started: ")
    assert error.context["fix"]
    assert (error.op, error.retryable) == ("start", False)


def test_each_step_has_words_of_its_own() -> None:
    doings = {refused(step).message.partition(" failed: ")[0] for step in START}
    assert len(doings) == len(START)


@pytest.mark.parametrize("step", COMMANDS)
def test_step_of_a_command_is_unknown(step: Step) -> None:
    assert "an unknown step failed" in refused(step).message


def test_nothing_is_named_where_nothing_is() -> None:
    assert "()" not in refused(Step.NAMESPACES).message


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSPC, errno.EUSERS, 0, 99999, -1, -(2**31)])
def test_error_is_named(error: int) -> None:
    assert refused(Step.NAMESPACES, error).context["cause_text"] == (
        f"{os.strerror(error)} [namespaces, errno {error}]"
    )


@pytest.mark.parametrize(
    ("step", "error", "text", "expected"),
    [
        (Step.SOURCE, errno.ENOENT, "/gone", "it does not exist (any more)"),
        (Step.SOURCE, errno.ESTALE, "/gone", "it is no longer the directory that it was"),
        (Step.SOURCE, errno.ESTALE, "/other", "it is no longer the directory that it was"),
        (Step.SOURCE, errno.EACCES, "/gone", "Permission denied [source"),
        (Step.SOURCE, errno.ELOOP, "/gone", "Too many levels of symbolic links [source"),
        (Step.SOURCE, errno.ENOENT, "/other", "No such file or directory [source"),
        (Step.MOUNT, errno.ENOENT, "/gone", "No such file or directory [mount"),
        (Step.MOUNT, errno.ESTALE, "/gone", os.strerror(errno.ESTALE) + " [mount"),
    ],
)
def test_source_is_told_apart(step: Step, error: int, text: str, expected: str) -> None:
    assert str(refused(step, error, text).context["cause_text"]).startswith(expected)


def test_silence_has_words() -> None:
    error = start_refusal(None, PLAN)
    assert error.context.keys() == {"dimension", "cause_text", "fix"}
    assert error.context["dimension"] == "processes"
    assert "fell silent" in error.message
    assert error.message.endswith("To fix it: " + str(error.context["fix"]))
