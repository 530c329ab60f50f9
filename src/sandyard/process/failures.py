"""Owns the errors of commands that the host program itself fails to carry out."""

from __future__ import annotations

import errno
from typing import Final

from sandyard.errors import ExecTransportError, ResourceLimitError

__all__ = [
    "channel_full",
    "full_of_processes",
    "no_descriptor",
    "no_input_end",
    "no_memory",
    "no_pipe",
    "no_terminal",
    "no_turn",
    "not_begun",
    "not_sent",
    "stdin_failed",
    "untold_signal",
    "unwatched_input",
    "unwatched_output",
]


def stdin_failed(words: tuple[str, ...], error: BaseException) -> ExecTransportError:
    """The error for a stdin source that raised while a command read it."""
    return ExecTransportError(
        command=words,
        message=f"the source given as stdin failed: {type(error).__name__}: {error}",
        context={"reason": "stdin_failed"},
        cause=error,
        retryable=False,
    )


def no_descriptor(error: OSError) -> ResourceLimitError:
    """The host program has no descriptor for a command."""
    way = "close some, or raise its limit on open files"
    if error.errno == errno.ETOOMANYREFS:
        way = (
            "those that this user's programs are sending through Unix sockets count as well: if a session's "
            "commands do that, give it ResourceLimits(open_files=…) below half of this program's own limit"
        )
    return ResourceLimitError(
        f"the host program has no descriptor left for a command ({error.strerror}); {way}",
        limit="open_files",
        value=error.errno or 0,
        unit="errno",
        cause=error,
        retryable=True,
    )


_DESCRIPTORLESS: Final = (errno.EMFILE, errno.ENFILE, errno.ETOOMANYREFS)
_MEMORYLESS: Final = (errno.ENOMEM, errno.ENOBUFS)


def not_sent(words: tuple[str, ...], error: OSError) -> ResourceLimitError | ExecTransportError:
    """The sandbox could not be asked for a command."""
    if error.errno in _DESCRIPTORLESS:
        return no_descriptor(error)
    if error.errno == errno.EFBIG or error.errno in _MEMORYLESS:
        too_large = error.errno == errno.EFBIG
        return ResourceLimitError(
            "a command with so many words and variables is handed over in a file in memory, and the "
            "host program's limit on file sizes refuses that; raise it (ulimit -f)"
            if too_large
            else f"the kernel has no memory to ask for a command ({error.strerror})",
            limit="file_size" if too_large else "memory",
            value=error.errno or 0,
            unit="errno",
            cause=error,
            retryable=not too_large,
        )
    return ExecTransportError(
        command=words,
        message=f"the sandbox can't be asked for a command: {error.strerror}",
        context={"reason": "not_sent", "errno": error.errno},
        cause=error,
        retryable=False,
    )


def no_pipe(words: tuple[str, ...], error: OSError) -> ExecTransportError:
    """A command's pipes can't be made, for another reason than descriptors."""
    return ExecTransportError(
        command=words,
        message=f"the command's pipes can't be made: {error.strerror}; a host program that runs as "
        "root needs CAP_CHOWN for them",
        context={"reason": "no_pipe", "errno": error.errno},
        cause=error,
        retryable=False,
    )


def no_terminal(words: tuple[str, ...]) -> ExecTransportError:
    """No terminal came in its time, or its command ended before it came."""
    return ExecTransportError(
        command=words,
        message="the sandbox gave no terminal for the command: its first process does not answer, or "
        "a process inside has stopped or ended its helper",
        context={"reason": "no_terminal"},
        retryable=True,
    )


def no_input_end(words: tuple[str, ...]) -> ExecTransportError:
    """A program has switched off the character that would end its input."""
    return ExecTransportError(
        command=words,
        message="the program has switched off the character that ends the input (stty eof undef); "
        "write what it expects instead, or send it a signal",
        context={"reason": "no_end_character"},
        retryable=False,
    )


def unwatched_output(words: tuple[str, ...], error: OSError) -> ResourceLimitError:
    """The loop can't watch a pipe, so that its command was ended."""
    return ResourceLimitError(
        f"the output of a command can't be watched ({error.strerror}), so it was ended; close some "
        "descriptors, or raise fs.epoll.max_user_watches",
        limit="epoll_watches",
        value=error.errno or 0,
        unit="errno",
        context={"command": words},
        cause=error,
        retryable=True,
    )


def unwatched_input(words: tuple[str, ...], error: OSError) -> ResourceLimitError:
    """The loop can't watch a terminal that takes nothing for now; its command lives on."""
    return ResourceLimitError(
        f"the input of a command can't be watched ({error.strerror}); close some descriptors, or "
        "raise fs.epoll.max_user_watches",
        limit="epoll_watches",
        value=error.errno or 0,
        unit="errno",
        context={"command": words},
        cause=error,
        retryable=True,
    )


def untold_signal(error: OSError) -> ResourceLimitError:
    """The machine has no room for a message that asks for a signal."""
    return ResourceLimitError(
        f"the signal could not be sent to the sandbox ({error.strerror}); try again when the machine "
        "has memory to spare",
        limit="memory",
        value=error.errno or 0,
        unit="errno",
        cause=error,
        retryable=True,
    )


def no_memory(words: tuple[str, ...], limit: int, error: MemoryError) -> ResourceLimitError:
    """The host program has no memory for what a command wrote."""
    return ResourceLimitError(
        "the host program has no memory left for what the command wrote; give exec a smaller "
        "output_limit, or use stream",
        limit="memory",
        value=limit,
        unit="bytes",
        context={"command": words},
        cause=error,
        retryable=True,
    )


def channel_full(
    words: tuple[str, ...], timeout_s: float | None, error: TimeoutError
) -> ExecTransportError:
    """A command found no room on the channel in its time."""
    return ExecTransportError(
        command=words,
        message="the sandbox took no more commands within this one's timeout, so it was not begun; "
        "its first process does not run, or very many commands are being sent",
        context={"reason": "channel_full", "timeout_s": timeout_s},
        cause=error,
        retryable=True,
    )


def not_begun(words: tuple[str, ...], waited_s: float) -> ExecTransportError:
    """A command of which nothing was heard after it had been sent off."""
    return ExecTransportError(
        command=words,
        message=f"nothing was heard of the command for {waited_s:g} s after it had been sent to the "
        "sandbox, so it was ended; the machine is in trouble, or the sandbox's first process is",
        context={"reason": "not_begun", "timeout_s": waited_s},
        retryable=True,
    )


def no_turn(limit: int, error: TimeoutError) -> ResourceLimitError:
    """A command waited for descriptors until its time was over."""
    return ResourceLimitError(
        "other commands of this program, or processes that they left running, hold all descriptors "
        "that there are for commands; end some, or raise the program's limit on open files",
        limit="open_files",
        value=limit,
        unit="descriptors",
        cause=error,
        retryable=True,
    )


def full_of_processes(words: tuple[str, ...], limit: int) -> ResourceLimitError:
    """Background processes hold all descriptors that there are for them."""
    return ResourceLimitError(
        "background processes of this program hold all descriptors that there are for them; close "
        "some, or raise the program's limit on open files (ulimit -n)",
        limit="open_files",
        value=limit,
        unit="descriptors",
        op="start_process",
        context={"command": words},
        retryable=True,
    )
