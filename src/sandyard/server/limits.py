"""Every number about sessions that another process holds, each with its unit and its reason."""

from __future__ import annotations

from typing import Final

# --- the wire and the server ------------------------------------------------------------------

FRAME_DATA_BYTES: Final = 1024 * 1024
"""Most bytes of one frame of output or input: a stream's buffer, and more than one read gives."""

FRAME_CONTROL_BYTES: Final = 16 * 1024 * 1024
"""Most bytes of one message: a command's words and its environment take 6 MiB at most (E2BIG), and
a manifest may bring small files with it. Larger ones are written to the session as files."""

VALUE_DEPTH: Final = 32
"""How deep a value of a method may be nested: those that there are have four levels."""

VALUE_BITS: Final = 128
"""Bits of the largest whole number that is sent: the kernel's have 64."""

ANSWER_BYTES: Final = 256 * 1024 * 1024
"""Most bytes of one answer that is no stream: a listing of a million files. What is larger is refused,
for it is held whole on both sides; streams of files and output have no limit."""

GATHERED_BYTES: Final = 64 * 1024 * 1024
"""Most bytes of input that a server holds whole, for a method that takes no stream."""

INPUT_WINDOW_BYTES: Final = 128 * 1024
"""Bytes of input that travel or wait before a program reads them: twice a pipe, so that a reader is
never kept waiting, and a signal never stands behind more than that."""

HANDSHAKE_TIMEOUT_S: Final = 10.0
"""Seconds in which each side says who it is and what it wants: microseconds, on a stopped or
swapping machine more."""

CONNECT_TRIES: Final = 4
"""Servers that are asked in turn, if one after the other ends in the moment it is reached."""

LEAVE_S: Final = 10.0
"""Seconds that a caller who leaves a call waits to hear that what it began has ended: a tree of
processes is ended in milliseconds, and a server that is stopped must not hold up its callers."""

FAREWELL_S: Final = 10.0
"""Seconds that a caller has to take the last message of a call, and to hang up."""

CONNECTIONS_MAX: Final = 256
"""Calls at once that a server answers: each is a terminal or a script of one user. It keeps a quarter
of the usual 1,024 descriptors."""

SESSIONS_GONE_KEPT: Final = 256
"""Sessions that were removed, and as many that were lost with a killed supervisor, which are told apart
from those that never were: the newest, some hundred bytes each."""

SESSION_NAME_CHARS: Final = 64
"""Longest name of a session: a column of a list."""

# --- the supervisor ---------------------------------------------------------------------------

SUPERVISOR_IDLE_S: Final = 300.0
"""Seconds without a session and without a call after which the supervisor ends: commands of one
sitting find it running, and nobody's machine keeps its 40 MB overnight."""

SUPERVISOR_START_S: Final = 30.0
"""Seconds in which the supervisor must answer, be it that another one still ends its sessions: a
tenth of a second is usual, and a machine in trouble may take a hundred times as long."""

SUPERVISOR_PAUSE_S: Final = 0.02
"""Pause between two attempts to reach a supervisor that is being started by somebody else."""

SUPERVISOR_LOG_BYTES: Final = 1024 * 1024
"""Bytes of the supervisor's log before it begins anew; one older part is kept. A line for each
session makes that months."""

SUPERVISOR_LOG_WAITING: Final = 1024
"""Lines that wait for a slow disk; what comes then is dropped, and the sessions go on."""

SUPERVISOR_COMPLAINT_BYTES: Final = 4096
"""Bytes that are read of what a supervisor says that can't start: its last sentence is in them."""
