"""The life of a session as a pure table: in which phase which operation is possible."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import Final, Literal

from sandyard.errors import ArgumentError, OpName, SessionClosedError

__all__ = [
    "CloseStep",
    "DeleteStep",
    "Phase",
    "Processes",
    "StartStep",
    "StopStep",
    "check_alive",
    "check_loop",
    "check_phase",
    "check_processes",
    "plan_close",
    "plan_delete",
    "plan_start",
    "plan_stop",
]


class Phase(StrEnum):
    """Where a session is in its life; the values are the words of messages."""

    NEW = "not started yet"
    RUNNING = "running"
    SHUT_DOWN = "shut down"
    CLOSED = "closed"


class StartStep(StrEnum):
    """One step of starting a session whose workspace is open; the first that fails ends the start."""

    RESTORE = "restore what was saved of the workspace"
    ENTRIES = "make the manifest's entries: all at the first start, ephemeral ones at every one"
    SANDBOX = "build the sandbox, and what holds its limits"
    MOUNTS = "mount what the manifest mounts"
    PORTS = "listen on the ports, and let them lead inside"


def plan_start(*, bare: bool, ready: bool, discarded: bool) -> tuple[StartStep, ...]:
    """The steps that start a session, in their order.

    Args:
        bare: whether its workspace has lost what it had: the directory was made anew.
        ready: whether the workspace was made ready once.
        discarded: whether the caller threw away what was changed, so that nothing is to be restored
            over what is there.
    """
    restores = bare or not (ready or discarded)
    return tuple(step for step in StartStep if restores or step is not StartStep.RESTORE)


class StopStep(StrEnum):
    """One step of stopping a session, which goes on; the first that fails ends the stop."""

    TERMINALS = "end the terminals, and what pty_exec_start started"
    PROCESSES = "end background processes, and what commands left running"
    FREEZE = "hold still all that runs, until the stop has ended"
    SAVE = "save the workspace, if it was made ready"


Processes = Literal["keep", "end", "freeze"]
"""What becomes of what runs while a workspace is saved or copied."""


def check_processes(processes: object, op: OpName) -> None:
    """Refuse what is neither "keep" nor "end" nor "freeze".

    Raises:
        ArgumentError: it is not.
    """
    if processes not in ("keep", "end", "freeze"):
        raise ArgumentError(
            "processes is 'keep', 'end' or 'freeze'",
            op=op,
            argument="processes",
            value=processes,
        )


def plan_stop(*, running: bool, processes: Processes) -> tuple[StopStep, ...]:
    """The steps that stop a session, in their order.

    Args:
        running: whether its sandbox stands.
        processes: what becomes of what runs in it: ``keep``, ``end`` or ``freeze``.
    """
    before = _BEFORE_SAVE[processes] if running else ()
    return (*before, StopStep.SAVE)


_BEFORE_SAVE: Final[dict[Processes, tuple[StopStep, ...]]] = {
    "keep": (),
    "end": (StopStep.TERMINALS, StopStep.PROCESSES),
    "freeze": (StopStep.FREEZE,),
}


class DeleteStep(StrEnum):
    """One step of deleting a session; the first that fails ends it. Its companions go in any case."""

    CHECK = "refuse, if the last stop could not save the workspace"
    LET_GO = "end all that runs, and let go of the workspace"
    REMOVE = "remove the workspace, if the library made it, and the lease"


def plan_delete(*, unsaved: bool) -> tuple[DeleteStep, ...]:
    """The steps that delete a session, in their order; with ``unsaved`` also one that is not saved."""
    return tuple(step for step in DeleteStep if not unsaved or step is not DeleteStep.CHECK)


class CloseStep(StrEnum):
    """One step of closing a session; each is taken, whatever becomes of those before."""

    HOOKS = "run the hooks that were registered and have not run yet"
    STOP = "save the workspace, if it was made ready"
    SHUTDOWN = "end all that runs, and let go of the workspace and its lease"
    COMPANIONS = "close the dependencies, and hand over the events that wait"


def plan_close(phase: Phase, *, held: bool, save: bool = True) -> tuple[CloseStep, ...]:
    """The steps that close a session, in their order.

    Args:
        phase: where it is in its life.
        held: whether it holds its lease still: so it does after a close that failed midway, and where
            somebody deletes it.
        save: False leaves out the save.
    """
    if phase is Phase.CLOSED and not held:
        return (CloseStep.COMPANIONS,)
    return tuple(step for step in CloseStep if save or step is not CloseStep.STOP)


_WITH_FILES: Final = frozenset({Phase.RUNNING, Phase.SHUT_DOWN})
_POSSIBLE: Final[dict[OpName, frozenset[Phase]]] = {
    "start": frozenset({Phase.NEW, Phase.RUNNING, Phase.SHUT_DOWN}),
    "stop": frozenset(Phase),
    "shutdown": frozenset(Phase),
    "running": frozenset(Phase),
    "exec": frozenset({Phase.RUNNING}),
    "terminal": frozenset({Phase.RUNNING}),
    # The workspace outlives the sandbox: results can be read after a shutdown.
    "read": _WITH_FILES,
    "write": _WITH_FILES,
    "ls": _WITH_FILES,
    "mkdir": _WITH_FILES,
    "rm": _WITH_FILES,
    "normalize_path": _WITH_FILES,
    "append": _WITH_FILES,
    "chmod": _WITH_FILES,
    "copy": _WITH_FILES,
    "exists": _WITH_FILES,
    "glob": _WITH_FILES,
    "mv": _WITH_FILES,
    "same_file": _WITH_FILES,
    "stat": _WITH_FILES,
    "watch": _WITH_FILES,
    "apply_patch": _WITH_FILES,
    "grep": frozenset({Phase.RUNNING}),
    "extract": _WITH_FILES,
    "pack": _WITH_FILES,
    "persist_workspace": _WITH_FILES,
    "unpack": _WITH_FILES,
    "hydrate_workspace": _WITH_FILES,
    "materialize": _WITH_FILES,
    "upload": _WITH_FILES,
    "download": _WITH_FILES,
    "fork": _WITH_FILES,
    "snapshot_persist": _WITH_FILES,
    "review": _WITH_FILES,
    "why": _WITH_FILES,
    "start_process": frozenset({Phase.RUNNING}),
    "process": _WITH_FILES,
    "logs": _WITH_FILES,
    "mount": frozenset({Phase.RUNNING}),
    "unmount": frozenset({Phase.RUNNING}),
    "diff": _WITH_FILES,
    "apply": _WITH_FILES,
    "discard": _WITH_FILES,
    "resolve_exposed_port": frozenset({Phase.RUNNING}),
    "wait_for_port": frozenset({Phase.RUNNING}),
}


def check_phase(op: OpName, phase: Phase) -> None:
    """Refuses an operation that is not possible in a phase.

    Raises:
        SessionClosedError: if it is not.
    """
    if phase not in _POSSIBLE[op]:
        raise SessionClosedError(op=op, state=phase.value)


def check_loop(op: OpName, phase: Phase, own: asyncio.AbstractEventLoop | None) -> None:
    """Refuses a call from another loop than the one that the running sandbox belongs to.

    Raises:
        SessionClosedError: if it is one.
    """
    if own is not None and own is not asyncio.get_running_loop() and not own.is_closed():
        raise SessionClosedError(
            op=op,
            state=phase.value,
            message="this session belongs to another event loop; use it only on the one that "
            "started it (asyncio.run_coroutine_threadsafe gets there from other threads)",
        )


def check_alive(op: OpName, phase: Phase, own: asyncio.AbstractEventLoop | None) -> None:
    """Refuses what needs the loop that started the sandbox, if that is closed.

    Raises:
        SessionClosedError: if it is.
    """
    if own is not None and own.is_closed():
        raise SessionClosedError(
            op=op,
            state=phase.value,
            message="the event loop that started this session is closed; shut the session down "
            "and start it again",
        )
