"""Owns the words for a start that the kernel refused: which dimension, why, and what to change."""

from __future__ import annotations

import errno
import os

from sandyard.errors import ConfinementUnavailableError, ResourceLimitError, SandboxError
from sandyard.plan import Bind, Device, LaunchPlan
from sandyard.platform.fixes import ID_MAPS, KERNEL, LIMITS
from sandyard.process.wire import Failure, Step

__all__ = ["launch_refusal", "start_refusal"]

_USER_NAMESPACES = (
    "allow unprivileged user namespaces for this program (on Ubuntu 24.04 and later by an AppArmor "
    "profile that grants 'userns'; in a container by its seccomp profile), or run as root"
)
_NODES = (
    "run where root may make device nodes (CAP_MKNOD, and no user namespace around), or as an ordinary "
    "user who may open the device"
)
_PROC = "mount /proc for this program, so that it can write its own id maps"

_REACH = (
    "let everybody pass through the directories that lead there (chmod o+x), or choose another "
    "place (TMPDIR, or the workspace's root)"
)

_BY_STEP: dict[Step, tuple[str, str, str]] = {
    Step.PROTOCOL: ("processes", "understanding the plan", "reinstall sandyard: its parts differ"),
    Step.IDMAP: ("write", "mapping the owner of files", ID_MAPS),
    Step.NAMESPACES: ("processes", "making namespaces", _USER_NAMESPACES),
    Step.USER: ("processes", "mapping users", _USER_NAMESPACES),
    Step.PRIVATE_MOUNTS: ("read", "making mounts private", KERNEL),
    Step.SOURCE: ("read", "opening a path for mounting", "check the path, its symlinks and rights"),
    Step.ROOT: ("read", "making a new root", KERNEL),
    Step.MOUNT: ("read", "mounting", KERNEL),
    Step.PIVOT: ("read", "entering the new root", KERNEL),
    Step.HOSTNAME: ("ipc", "setting the hostname", KERNEL),
    Step.LOOPBACK: ("network", "bringing up the loopback interface", KERNEL),
    Step.LIMITS: ("resources", "setting limits", "raise the hard limits of this process"),
    Step.CAPABILITIES: ("processes", "dropping capabilities", KERNEL),
    Step.IDENTITY: ("processes", "becoming the sandbox's user", _USER_NAMESPACES),
    Step.PRIVILEGES: ("processes", "giving up privileges", KERNEL),
    Step.LANDLOCK: ("write", "applying Landlock", "use a kernel whose Landlock works"),
    Step.SECCOMP: (
        "syscalls",
        "installing the seccomp filter",
        "use a kernel with CONFIG_SECCOMP_FILTER",
    ),
    Step.REFUSALS: ("syscalls", "hearing of refused calls", KERNEL),
    Step.SERVE: ("processes", "beginning to serve", LIMITS),
    Step.COUNTS: ("resources", "bounding what is counted for the caller", LIMITS),
}
_UNKNOWN = ("processes", "an unknown step", "reinstall sandyard: its parts differ")


def _source_of(failure: Failure, plan: LaunchPlan) -> str:
    """What a failed source means to the caller."""
    binds = {step.source: step for step in plan.steps if isinstance(step, Bind)}
    bind = binds.get(failure.text)
    if failure.error == errno.ESTALE:
        return "it is no longer the directory that it was when the session was made"
    if failure.error == errno.ENOENT and bind is not None:
        return "it does not exist (any more)"
    return os.strerror(failure.error)


def launch_refusal(error: OSError) -> SandboxError:
    """The error for a start that failed in the host, before there was anything to talk to."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return ResourceLimitError(
            f"there is no descriptor left for a sandbox ({error.strerror}); close some, or raise "
            "this program's limit on open files",
            limit="open_files",
            value=error.errno,
            unit="errno",
            op="start",
            cause=error,
            retryable=True,
        )
    if error.errno == errno.EAGAIN:
        return ResourceLimitError(
            f"there is no room for a sandbox's processes ({error.strerror}); end some of this "
            "user's, or raise its limit on processes (ulimit -u, or the cgroup's pids.max)",
            limit="processes",
            value=error.errno,
            unit="errno",
            op="start",
            cause=error,
            retryable=True,
        )
    return ConfinementUnavailableError(
        "the sandbox could not be started",
        dimension="processes",
        cause_text=str(error),
        fix="look for a limit on processes or memory, or for a kernel before Linux 5.12",
        cause=error,
    )


_CLONING = (Step.NAMESPACES, Step.IDMAP)
"""Steps that make a process, for which EAGAIN says that there are too many."""


def start_refusal(answer: Failure | None, plan: LaunchPlan) -> SandboxError:
    """The error for a start that failed.

    Args:
        answer: the step that failed, or None if init ended or fell silent without a word.
        plan: what was to be started.
    """
    if answer is None:
        return ConfinementUnavailableError(
            "the sandbox could not be started",
            dimension="processes",
            cause_text="its first process ended or fell silent before its walls were up",
            fix="look for a security module or an out-of-memory kill in the kernel's log",
        )
    short = answer.step in _CLONING and answer.error == errno.EAGAIN
    if short or answer.error in (errno.EMFILE, errno.ENFILE):
        return launch_refusal(OSError(answer.error, os.strerror(answer.error)))
    dimension, doing, fix = _BY_STEP.get(answer.step, _UNKNOWN)
    if answer.step is Step.USER and answer.error in (errno.ENOENT, errno.EROFS):
        fix = _PROC
    if any(isinstance(step, Device) and step.target == answer.text for step in plan.steps):
        fix = _NODES
    if answer.step is Step.LANDLOCK and answer.text.startswith("/"):
        fix = _REACH
    cause = os.strerror(answer.error)
    if answer.step is Step.SOURCE:
        cause = _source_of(answer, plan)
    where = f" ({answer.text})" if answer.text else ""
    error = ConfinementUnavailableError(
        f"the sandbox could not be started: {doing}{where} failed",
        dimension=dimension,
        cause_text=f"{cause} [{answer.step.name.lower()}, errno {answer.error}]",
        fix=fix,
    )
    error.context |= {"step": answer.step.name.lower(), "errno": answer.error, "path": answer.text}
    return error
