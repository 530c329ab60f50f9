"""Every number of the library, each with its unit and its reason."""

from __future__ import annotations

from typing import Final

# --- output of one command --------------------------------------------------------------------

OUTPUT_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Bytes kept of each of stdout and stderr. Enough for the logs of large builds, and little enough
that a hundred commands at once can't exhaust a small machine."""

OUTPUT_HEAD_SHARE: Final = 0.25
"""The part of the limit that keeps the beginning; the rest keeps the end. How a command began is
seen in a few lines, why it failed is nearly always at the end."""

# --- what errors and reprs show ---------------------------------------------------------------

SHOWN_VALUE_CHARS: Final = 160
"""Characters of a caller's value that a message quotes: two terminal lines."""

SHOWN_OUTPUT_CHARS: Final = 8_000
"""Characters of output that an error's message quotes (the bytes are in its attributes); about
2,000 tokens, so that a message can be handed to a model as it is."""

SHOWN_STREAM_BYTES: Final = 60
"""Bytes of each stream that the repr of a result shows: both fit on one line."""

UNOWNED_KINDS: Final = 32
"""Kinds of refused calls that a session lists of processes whose commands have exited: four times as
many as of one command, and no more however many commands there were."""

# --- paths ------------------------------------------------------------------------------------

PATH_COMPONENT_BYTES: Final = 255
"""Longest name of a directory entry (NAME_MAX in linux/limits.h; the same on every common file
system)."""

PATH_TOTAL_BYTES: Final = 4_095
"""Longest path that one system call takes (PATH_MAX in linux/limits.h, less its NUL)."""

SYMLINK_HOPS: Final = 40
"""Symlinks followed while one path is resolved (MAXSYMLINKS in linux/namei.h)."""

OPEN_RETRIES: Final = 64
"""Attempts of one openat2(2) that reports EAGAIN: somebody renamed or mounted something anywhere
on the machine while ".." was resolved. Each attempt takes microseconds; a machine that renames
without a pause fails one in two at worst."""

DESCENT_LEVELS: Final = 32_768
"""Nesting at which looking through a tree gives up: a command may nest faster than we descend. Real
trees are a thousand times flatter."""

LIST_ENTRIES: Final = 250_000
"""Entries of one recursive listing or search for names: some 200 MB of Python objects, and far more
than anybody reads."""

GLOB_CHARS: Final = 4_096
GLOB_BRACES: Final = 64
"""Length of a pattern, and ways through its braces: people write a line, with a handful."""

PATCH_BYTES: Final = 64 * 1024 * 1024
"""Bytes of all files that one patch changes, which are held in memory: text that somebody edits is a
thousand times smaller."""

PATCH_TEXT_CHARS: Final = 64 * 1024 * 1024
PATCH_LINES: Final = 1024 * 1024
PATCH_PARTS: Final = 64 * 1024
PATCH_STEPS: Final = 32 * 1024 * 1024
"""The text of a patch, the lines of one file, its operations and hunks, and lines that are compared to
find where they belong: what people and models write is a thousand times smaller, and the worst
that fits takes a thread some seconds and half a gigabyte."""

GREP_MATCHES: Final = 1_000
GREP_MATCHES_MAX: Final = 100_000
"""Lines that a search returns unless told otherwise, and at most: nobody reads more, and 100,000 of
the longest are 200 MB."""

GREP_LINE_BYTES: Final = 2_000
"""Bytes of a line that a search returns: generated files have lines of megabytes."""

GREP_PATTERN_BYTES: Final = 32 * 1024
"""Longest pattern: a quarter of what one argument of a command can hold (MAX_ARG_STRLEN)."""

GREP_ERROR_BYTES: Final = 4_096
"""Bytes of what grep says about a pattern that are quoted."""

WATCH_READ_BYTES: Final = 64 * 1024
"""Bytes of events taken from the kernel at a time: some 2,000 of them. What waits longer waits in the
kernel's queue, which is bounded (fs.inotify.max_queued_events) and says when it overflows."""

WARD_STEPS: Final = 4_096
"""Directories on the way from a file up to its tree: deeper than a path that one call can name. More
are seen only where somebody nests them on and on meanwhile."""

PARENT_RETRIES: Final = 16
"""Attempts to make the parents of a file while somebody else removes them."""

TEMPORARY_NAME_TRIES: Final = 16
"""Attempts to find a free name for a temporary file; each has 64 random bits, so that a second
attempt means that somebody watches and takes them."""

# --- work ------------------------------------------------------------------------------------

COPY_CHUNK_BYTES: Final = 256 * 1024
"""Bytes moved per system call while a stream is copied: past this size the call's own cost no
longer shows, and memory stays far below 1 MB."""

READ_PIECE_MAX: Final = 64 * 1024 * 1024
"""Most bytes of one piece that a file is read in: its memory is taken before it is known to be needed."""

KERNEL_COPY_BYTES: Final = 64 * 1024 * 1024
"""Bytes asked of one copy_file_range(2): it runs in the kernel, uninterrupted, at about 1 GB/s."""

WORKSPACE_THREADS: Final = 4
"""Threads that do file work for one workspace. File calls mostly hold the interpreter's lock or
wait for one disk; four keep a slow one from delaying the others."""

COPY_DEPTH: Final = 200
"""Nesting of directories in a copied tree. Each level holds two descriptors, and the usual soft
limit is 1,024; real trees, node_modules included, stay below 40."""

# --- manifests -------------------------------------------------------------------------------

DESCRIPTION_CHARS: Final = 5_000
"""Characters of a manifest's description: it stands in a model's instructions, where a longer one
costs more than it tells."""

MANIFEST_DEPTH: Final = 64
"""Nesting of directories in a manifest. pydantic's JSON gives up at about 100 levels; real manifests
have a handful, and a key such as ``a/b/c`` nests nothing."""

MANIFEST_WORKERS: Final = 4
"""Threads that make the entries of one manifest: they mostly wait for the kernel, which has other
locks for other directories."""

MANIFEST_MOST_WORKERS: Final = 64
"""The same where a caller sets no limit: more threads wait for each other, and cost memory."""

MANIFEST_PARALLEL: Final = 16
"""Entries from which on threads are started for them: fewer are made sooner than a thread starts."""

MANIFEST_GROUP: Final = 64
"""Files of one directory that one thread writes while it has the directory open."""

GIT_CLONE_S: Final = 600.0
"""Seconds that a clone may take unless the entry says otherwise: a large history over a slow line
ends in it, and a server that says nothing more does not hold a start for ever."""

GIT_STALLED_S: Final = 60
"""Seconds after which Git gives up on a server that sends next to nothing."""

GIT_CLONES: Final = 4
"""Repositories that are cloned at the same time, each in a sandbox of its own."""

GIT_STDERR_CHARS: Final = 4_000
"""Characters kept of what Git said of a clone that failed."""

IGNORE_FILE_BYTES: Final = 1024 * 1024
"""Bytes read of one .gitignore; real ones have a few thousand."""

IGNORE_LINES: Final = 20_000
"""Lines of the .gitignore files that hold in one place. Each pattern takes about 0.1 ms to compile and
some hundred bytes, and is asked about each file; a tree nests 200 of these files."""

# --- processes -------------------------------------------------------------------------------

DESCRIPTORS_RESERVED: Final = 128
"""Descriptors of the process that commands leave to the host program: its sockets, files and loop."""

DESCRIPTORS_SHARE: Final = 0.6
"""Part of the soft limit on open files that commands may hold. Each command's descriptors also
count while they travel to init and on to its keeper, twice at most."""

DESCRIPTORS_FLOOR: Final = 16
"""Budget where the limit leaves less: a few commands at once, rather than none."""

DESCRIPTORS_PER_COMMAND: Final = 6
"""Both ends of three pipes, at the moment of the start."""

DESCRIPTORS_PER_LEFTOVER: Final = 2
"""The read ends of stdout and stderr that a command's leftovers still write to."""

DESCRIPTORS_RETRY_S: Final = 0.01
DESCRIPTORS_RETRIES: Final = 200
"""Pause and count of the attempts to make a pipe when the process has no descriptor left: two
seconds in all, in which other commands may end."""

PIPE_READ_BYTES: Final = 64 * 1024
"""Bytes of one read from a pipe: the size of a pipe (pipe(7))."""

READ_DELAY_S: Final = 0.004
"""Seconds before the output of a command is read, where it is wanted only at the end: most commands
end sooner, and then their pipes are never watched. A command that fills a pipe waits this once."""

TERMINAL_READ_DELAY_S: Final = 0.002
"""The same of a terminal that nobody has attached to: most commands that are given one by a program, and
not by a person, end sooner. Shorter, since a terminal holds less than a pipe."""

PIPE_LARGE_BYTES: Final = 1024 * 1024
"""Size that a pipe grows to once a whole one was read at a time: fewer wake-ups for bulk output.
The most that an unprivileged process may ask for (/proc/sys/fs/pipe-max-size)."""

PIPE_BULK_BYTES: Final = 256 * 1024
"""Bytes of one read from a large pipe: past this, rates no longer rise, and memory stays small."""

PIPE_TURN_BYTES: Final = 2 * 1024 * 1024
"""Bytes read from one pipe before the loop gets its turn: below a millisecond."""

PIPE_FLOOD_AFTER: Final = 4 * 1024 * 1024
"""Bytes that a command writes without a pause, after which a thread reads what nobody wants to see before
its end: most commands write less, and pay for no thread."""

PIPE_FLOODS: Final = 2
"""Threads that read so at once, in the whole program: more would wait for a processor, and the loop reads
the other pipes as ever."""

PIPE_FLOOD_NAP_S: Final = 0.0001
"""Seconds in which a pipe that is nearly empty fills: a third of one, at the rate of a busy writer."""

PIPE_FLOOD_SILENCE: Final = 20
"""Naps in which nothing came that end such a thread: longer than a busy command is away from a processor."""

STREAM_BUFFER_BYTES: Final = 1024 * 1024
"""Bytes of a stream that wait for a slow consumer; then the command waits in its write."""

# --- background processes and their logs ------------------------------------------------------

LOG_LIMIT_BYTES: Final = 16 * 1024 * 1024
"""Bytes of the file that keeps what a background process writes. A day of a chatty server fits, and a
hundred of them are no more than a large build leaves on a disk."""

LOG_LIMIT_MIN_BYTES: Final = 64 * 1024
"""Least size of a log: below that its parts would hold a few lines each."""

LOG_LIMIT_MAX_BYTES: Final = 2**40
"""Most that may be asked for: a tebibyte, above what a log is good for."""

LOG_SEGMENTS: Final = 16
"""Least number of parts of a log. When it is full, the oldest part behind the head goes at a time, so
at least seven eighths of the log are kept."""

LOG_SEGMENT_MAX_BYTES: Final = 4 * 1024 * 1024
"""Most of a log that is looked through at once, for its last lines."""

LOG_HEAD_SHARE: Final = 0.25
"""The part of a log that keeps the beginning, as of captured output."""

LOG_BUFFER_BYTES: Final = 2 * 1024 * 1024
"""Bytes that wait to be written to a log; then the process waits in its write."""

LOG_CHUNK_BYTES: Final = 256
"""What a chunk that waits to be written counts beside its bytes: its objects take about that, and
the bytes of two streams in turn are a chunk each."""

LOG_JOIN_BYTES: Final = 64 * 1024
"""Small chunks of one stream are joined up to this size, so that a record's header costs little."""

LOG_BULK_BYTES: Final = 256 * 1024
"""Bytes that come to a log without a pause, after which a thread reads on from the pipe itself; and what
passes through its buffer at a time."""

LOG_STINT_S: Final = 0.02
"""Seconds after which such a thread lets readers see what it has written, if the pipe is nearly empty, and
after which it gets no more room: while the pipe is not, a part of the log is full, and seen, in about a
millisecond."""

LOG_STINT_NAP_S: Final = 0.0001
"""Seconds in which a pipe that is nearly empty fills: a tenth of one, at the rate of a busy writer."""

LOG_STINT_SILENCE: Final = 10
"""Naps in which nothing came that end it: longer than a busy writer is away from a processor."""

LOG_READ_BYTES: Final = 1024 * 1024
"""Bytes of a log that are read at a time for one reader: a thread's turn costs more than they do."""

LOG_CHUNK_MAX_BYTES: Final = 256 * 1024
"""Most that a reader is told at a time."""

DESCRIPTORS_SPARED: Final = 48
"""Descriptors for commands that background processes leave over, for the whole host program: room
for eight commands at once."""

DESCRIPTORS_PER_PROCESS: Final = 3
"""What a background process holds for as long as it lives: one end of three pipes."""

PROCESSES_KEPT: Final = 256
"""Background processes that have ended and are still listed, with their logs; the oldest go first."""

PROCESS_NAME_CHARS: Final = 64
"""Longest name of a background process: a column of a list."""

# --- terminals ---------------------------------------------------------------------------------

TERMINAL_READ_BYTES: Final = 16 * 1024
"""Bytes of one read from a terminal: the kernel hands out 4,095 at most (N_TTY_BUF_SIZE in
linux/tty.h), or a few times that where more is on its way."""

TERMINAL_BULK_BYTES: Final = 2 * 1024
"""A read that gives so much is followed by others at once: a program prints, nobody types."""

TERMINAL_BATCH_BYTES: Final = 64 * 1024
"""Bytes of such reads that are handed on together: what is done with a chunk takes longer than the
kernel's next four kilobytes do."""

TERMINAL_TURN_BYTES: Final = 256 * 1024
"""Bytes read from one terminal before the loop gets its turn: two or three milliseconds, since a
terminal is forty times slower than a pipe."""

TERMINAL_FLOOD_AFTER: Final = 128 * 1024
"""Bytes of such reads, one after the other, from which on a thread reads: the kernel holds four kilobytes,
and the program stands still until they are read, which by a turn of a loop for each takes twice as long."""

TERMINAL_FLOOD_BYTES: Final = 256 * 1024
"""Bytes that such a thread reads before the loop has taken them."""

TERMINAL_FLOOD_BATCH_BYTES: Final = 192 * 1024
"""Bytes of those that are handed on together: a turn of the loop holds up the thread, and so the program,
and there is room to read on until it comes."""

TERMINAL_FLOODS: Final = 2
"""Threads that read from terminals at once, in the whole program: more would wait for a processor, and
the loop reads the other terminals as ever."""

TERMINAL_FLOOD_DELAY_S: Final = 0.004
"""Seconds after which what it has read is shown, where it is less than a batch."""

TERMINAL_FLOOD_SILENCE_MS: Final = 2
"""Milliseconds without a byte that end such a thread: longer than a busy program is away from a
processor."""

TERMINAL_FLOOD_LOOK_S: Final = 1.0
"""Seconds after which a thread that waits for its loop looks whether that is closed."""

READING_LOOK_S: Final = 1.0
"""Seconds after which a loop looks whether a thread that reads in its place still does."""

TERMINAL_WRITE_BYTES: Final = 64 * 1024
"""Bytes written to one terminal before the loop gets its turn."""

TERMINAL_DRAIN_BYTES: Final = 1024 * 1024
"""Most that is read from a terminal after its command's exit. The kernel holds some 70 KB; whoever
goes on writing must not keep us."""

TERMINAL_SCROLLBACK_BYTES: Final = 1024 * 1024
"""Bytes of a terminal's output that are kept to be replayed: some 10,000 lines, as terminal programs
keep by default. Memory is taken as output comes: an idle terminal has next to none."""

TERMINAL_SCROLLBACK_MAX: Final = 1024**3
"""Most that a caller may ask to be kept: a gibibyte."""

TERMINAL_STREAM_BYTES: Final = 256 * 1024
"""Bytes that wait for an attached reader before the terminal's program is made to wait: more than any
screen, less than shows in memory with a thousand terminals."""

TERMINAL_SIDE_MAX: Final = 65_535
"""Most rows or columns: the kernel counts them in 16 bits (struct winsize in termios.h)."""

TERMINAL_ROWS: Final = 24
TERMINAL_COLUMNS: Final = 80
"""The size of a terminal unless it is given: that of the VT100, which programs expect."""

TERMINAL_TYPE: Final = "xterm-256color"
"""TERM of a command on a terminal: what nearly every terminal program and web terminal speaks."""

SLOTS: Final = 64
SLOTS_PROTECTED: Final = 8
"""Processes that the old API keeps at once, and how many of those that were used last are never
ended to make room: as its callers know it."""

SLOT_ID_FIRST: Final = 1_000
SLOT_ID_LIMIT: Final = 100_000
"""Numbers of such processes, likewise."""

SLOT_YIELD_MIN_S: Final = 0.25
SLOT_YIELD_MAX_S: Final = 30.0
SLOT_START_YIELD_S: Final = 10.0
SLOT_WRITE_YIELD_S: Final = 0.25
SLOT_POLL_MIN_S: Final = 5.0
"""Seconds for which output is collected: bounds, defaults of a start and a write, and the least where
nothing is typed; likewise."""

SLOT_OUTPUT_BYTES: Final = 1024 * 1024
"""Bytes that such a process may write between two askings before its middle is dropped: several times
what a model can be shown."""

SLOT_TYPED_BYTES: Final = 16 * 1024 * 1024
"""Bytes that may wait for such a process to read them: far above any paste."""

TERMINAL_NAME_CHARS: Final = 128
"""Longest name of a terminal: one line of a list."""

TERMINALS_ENDED_KEPT: Final = 64
"""Terminals that have ended and are still listed, with what they wrote: the newest. A reader that was
away for a moment finds its terminal; a program that closes none does not fill its memory."""

BIRTH_TIMEOUT_S: Final = 30.0
"""Seconds in which a terminal must have come: it takes a millisecond, on a machine in trouble a
thousand times as long."""

# --- starts and ends --------------------------------------------------------------------------

START_TIMEOUT_S: Final = 30.0
"""Seconds in which a sandbox must be up: a start takes milliseconds, and a machine in trouble may
take a thousand times as long."""

ID_MAP_TIMEOUT_S: Final = 10.0
"""Seconds for newuidmap or newgidmap, which take milliseconds and may ask a slow directory service."""

DEPUTY_DESCRIPTORS: Final = 253
"""Descriptors with one message to a deputy: what the kernel takes (SCM_MAX_FD)."""

DEPUTY_STOP_S: Final = 0.05
"""Seconds after which a cancelled caller's deputy hears of it."""

END_FORCE_AFTER_S: Final = 0.3
"""Seconds that a tree has to end before its keeper, which may have been stopped from inside, is
ended too."""

END_GIVE_UP_AFTER_S: Final = 0.8
"""Seconds after which a call returns without the tree's end: a process that hangs in the kernel (a
dead network file system) can't be killed, and the caller was promised an answer within a second."""

ENDS_AT_ONCE: Final = 16
"""Trees that are ended at the same time where many are to end: each takes a look at all processes of
the sandbox, and a thousand looks at once would keep its first process from answering."""

MOUNT_TIMEOUT_S: Final = 30.0
"""Seconds that one late mount may take: it is milliseconds, but a source may be on a network."""

MOUNT_END_TIMEOUT_S: Final = 2.0
"""Seconds that the program which makes a late mount has to end when it is killed: it does at once,
unless it waits for a file server that has gone silent."""

CLOSE_TIMEOUT_S: Final = 5.0
"""Seconds that the outer process has to end when its channel is closed, before it is killed."""

FREEZE_TIMEOUT_S: Final = 5.0
"""Seconds in which all of a sandbox has to stop for a save: what runs stops within microseconds, what the
kernel is at work for when that is done."""

FREEZE_SINGLY_S: Final = 0.5
"""Seconds of them in which processes are stopped one by one, before all are stopped by one signal."""

FREEZE_CROWD: Final = 32
"""Processes that want one processor, from which on that is done at once: each of them has it for a few
milliseconds in its turn, and so do we."""

FREEZE_PAUSE_S: Final = 0.002
"""Seconds between two looks at whether it has."""

SEND_TIMEOUT_S: Final = 5.0
"""Seconds without room on the channel after which init counts as lost: it reads within microseconds,
unless it is stopped or no longer ours."""

EVENTS_PER_TURN: Final = 256
"""Events of one sandbox that are handled before the loop gets its turn: below a millisecond or two."""

TRAVEL_RETRY_S: Final = 0.005
TRAVEL_RETRIES: Final = 400
"""Pause and count of the attempts to send descriptors when too many are in flight (ETOOMANYREFS):
two seconds in all."""

# --- identities of root's sandboxes ----------------------------------------------------------

IDENTITIES_FIRST: Final = 1_900_000_000
"""First id that may be leased: above the ids that systemd gives to containers (up to 1,879,048,191,
see UIDS-GIDS of systemd), below the 2**31 that some programs take for a negative number."""

IDENTITIES_LEASED: Final = 16_384
"""Sandboxes of root's at once on one machine: far more than its processes allow."""

IDENTITIES_STEP: Final = 1_000_000
"""Distance to the next range to try, where somebody has an id in the first."""

TIMEOUT_MAX_S: Final = 365 * 24 * 3600.0
"""Longest timeout: a year. What is longer was meant in another unit."""

OUTPUT_LIMIT_MAX_BYTES: Final = 1024**3
"""Most that a caller may ask to be kept of a stream: a gibibyte in memory, twice."""

# --- resource limits of a session -------------------------------------------------------------

PROCESSES_DEFAULT: Final = 4_096
"""Processes and threads of a session: parallel builds fit, a fork bomb does not. It is a fraction of
what a small machine has room for (a thread costs the kernel some 20 KiB)."""

PROCESSES_MIN: Final = 8
"""The first process, the helper of a command, and a shell that starts something."""

PROCESSES_MAX: Final = 4_194_304
"""As many as Linux can number (PID_MAX_LIMIT in linux/threads.h)."""

OPEN_FILES_DEFAULT: Final = 4_096
"""Four times the usual soft limit. A million, as some hosts have, makes programs that close all
descriptors before exec take seconds."""

OPEN_FILES_MIN: Final = 16
"""Three streams, a program's libraries, and some files."""

OPEN_FILES_MAX: Final = 1_048_576
"""The most that Linux gives a process unless its owner changed that (fs.nr_open)."""

MEMORY_MIN_BYTES: Final = 16 * 1024 * 1024
"""Below this a shell and its libraries do not fit beside what the sandbox itself needs."""

MEMORY_SHARE: Final = 2
"""Where the calling program's control group is limited, a session may use half of it by default. The
other half is the calling program's: it survives whatever one session does. More sessions at
once share their half by the kernel's choice of whom to end, so give each a limit of its own."""

SCRATCH_MIN_BYTES: Final = 1024 * 1024
"""Below this the files that every root has do not fit."""

SIZE_MAX_BYTES: Final = 2**60
"""Largest size that may be asked for: above any disk, below what overflows in the kernel."""

MOUNT_SIZE_BYTES: Final = 64 * 2**20
MOUNT_SIZE_MIN_BYTES: Final = 2**20
"""What a file system in memory holds unless its entry says otherwise, and at least."""

MOUNT_BYTES_PER_INODE: Final = 4096
"""It may have a file for so many of its bytes: each takes a page at least."""

CPUS_MIN: Final = 0.01
"""Least share of a processor: the kernel's least quota is a millisecond in a tenth of a second."""

CPUS_MAX: Final = 8_192
"""More processors than Linux can have (NR_CPUS)."""

CPU_PERIOD_US: Final = 100_000
"""Microseconds in which a share of the processors is counted: the kernel's own default."""

CGROUP_NAME_TRIES: Final = 16
"""Attempts to make a control group: another program's sweep may look at one just then."""

CGROUP_PROBE_S: Final = 60.0
"""Age in seconds at which a group that was made to try something was left by a program that died."""

CGROUP_REMOVE_S: Final = 2.0
CGROUP_RETRY_S: Final = 0.002
"""How long, and how often, the removal of a control group is tried: a process that was ended leaves
it within milliseconds, one that hangs in the kernel may never."""

CPU_TIME_SLACK_S: Final = 0.25
"""How much less than its limit a process that the kernel ended may have used, as its usage tells: the
limit is counted in ticks, usage exactly. 0.06 were seen on a busy machine; a limit is 1 at least."""

SCAN_PAUSE_S: Final = 0.1
SCAN_SHARE: Final = 10
"""Least pause between two looks at the size of a workspace, and how many times longer than the last
look it is: looking takes a tenth of one processor at most."""

# --- leases and the sweep ---------------------------------------------------------------------

LEASE_BYTES: Final = 32 * 1024
"""Longest lease that is read: the longest path, each byte of it escaped in six, and the rest."""

DIFF_ENTRIES: Final = 20_000
"""Changes that a diff tells, a few hundred bytes each; how many more there are, it does not say."""

DIFF_FILE_BYTES: Final = 256 * 1024
"""Largest text file of which a diff says what changed."""

DIFF_FILE_LINES: Final = 5_000
"""Most lines on either side of such a file: comparing takes up to the square of it, two seconds for so
many that somebody has chosen with care, and five minutes for what DIFF_FILE_BYTES holds."""

DIFF_TOTAL_LINES: Final = 200_000
"""Most lines of all files' two sides that are compared with each other: half a minute at the worst."""

DIFF_TEXT_CHARS: Final = 64 * 1024
"""Most characters of one file's diff."""

DIFF_TOTAL_CHARS: Final = 1024 * 1024
"""Most characters of all files' diffs together."""

APPLY_JOURNAL_BYTES: Final = 256 * 1024 * 1024
"""Longest journal of an apply that is read: each path in hexadecimal, for as many as were changed."""

OVERLAY_DEPTH: Final = 200
"""Nesting of directories in which changes of an overlay are looked for, as deep as COPY_DEPTH: each
entry is walked to from the top, so thousands of levels, which a command makes at once, take hours."""

OVERLAY_RECORD_BYTES: Final = 32 * 1024
"""Longest record of an overlay that is read: the longest path, each byte in two, and the rest."""

LAYERS_RECORD_BYTES: Final = 32 * 1024
"""Longest list of a session's layers that is read: some twenty bytes each."""

LAYERS_DEEP: Final = 32
"""Frozen layers that a workspace lies upon at most; what would be one more is copied into a single one.
Looking a name up that is in none of them costs a look into each."""

LAYERS_SETTLED_NS: Final = 50_000_000
"""Age at which the time of a change tells that nothing came after: the kernel's clock for files advances
every 10 ms at the slowest."""

SAVED_LAYER_BYTES: Final = 32 * 1024
"""Longest note of a layer that holds a snapshot: the longest path, each byte in two, and the rest."""

SAVED_LAYERS_COUNT: Final = 16
"""Layers that are kept for the next start from a snapshot while no session lies upon them: as many bases
as one program is likely to change between."""

SAVED_LAYERS_BYTES: Final = 8 * 1024**3
"""Bytes that these take on the disk together."""

SAVED_LAYERS_AGE_S: Final = 7 * 24 * 3600.0
"""Age at which one goes that no session has begun upon since: a week, so that a base in daily use stays."""

SAVED_LAYER_PAUSE_S: Final = 0.02
"""Between two looks whether a layer is there that somebody else makes; short beside any restore."""

SAVED_LAYER_WAIT_S: Final = 600.0
"""How long that is waited for: a very large restore. After that, each makes its own."""

STAGE_MARK_BYTES: Final = 64 * 1024 * 1024
"""Longest mark of a stage that is read: it lists what the policy keeps, some hundred bytes each."""

LEASE_PAUSE_S: Final = 0.002
"""Pause between two attempts to lock a lease."""

LEASE_HELD_S: Final = 0.2
"""Seconds after which a lease that says whose it is, and is locked, is in use by them."""

LEASE_SWEPT_S: Final = 30.0
"""Seconds that a lease may be locked that is ours or says nothing yet: a sweep looks at it, which
takes microseconds, unless the sweeping process gets no processor just then."""

SWEEP_EVERY_S: Final = 600.0
"""Seconds after which a client's next create sweeps again: a server that runs for months removes
what its neighbours left within minutes, and pays a listing of one directory for it."""

SWEEP_WAIT_S: Final = 0.1
"""Seconds that a create waits for its sweep: usually there is nothing to do, or a small directory,
and then all is done when create returns. A large tree is removed behind its back."""

SWEEP_LEASES: Final = 4_096
"""Leases that one sweep looks at, some 30 microseconds each; which ones is chance, so that none is
always left out."""

# --- planted files ----------------------------------------------------------------------------

SURVEY_ENTRIES: Final = 50_000
"""Directory entries that a start looks at for repositories and planted files: some 100 ms. A larger
workspace is looked at from its top, and the session says that it was not seen whole."""

SURVEY_DEPTH: Final = 8
"""Directories below the workspace's top in which they are looked for."""

SURVEY_FILE_BYTES: Final = 256 * 1024
"""Bytes of a configuration file that are read: Git's own are a few hundred."""

REVIEW_ENTRIES: Final = 1_000_000
"""Directory entries that a review looks at: it is asked for, and may take seconds."""

REVIEW_FILES: Final = 500
"""Files of one planted directory that a review reads: beyond that it is no configuration."""

# --- archives ---------------------------------------------------------------------------------

ARCHIVE_INPUT_BYTES: Final = 1024**3
ARCHIVE_EXTRACTED_BYTES: Final = 4 * 1024**3
ARCHIVE_MEMBERS: Final = 100_000
"""What one archive may hold unless its caller says otherwise: as other sandboxes have it, and more
than a caller means to hand to a model's program."""

ARCHIVE_RATIO: Final = 250
"""How many times larger than an archive its content may be: source code comes to 5, logs to 50; what
is made to fill a disk to 1,000 and more."""

ARCHIVE_RATIO_FLOOR: Final = 64 * 1024 * 1024
"""Bytes of content up to which the ratio does not matter: they harm nobody, and a file of zeros is
no attack."""

ARCHIVE_DEPTH: Final = 128
"""Directories that a path in an archive leads through; those of real ones stay below 40."""

ARCHIVE_HEADER_BYTES: Final = 1024 * 1024
"""Bytes of the headers of one member: a path of 4 KiB and 64 KiB of attributes (xattr(7)) fit many
times, and they are held in memory."""

ARCHIVE_EXTENTS: Final = 32_768
"""Pieces of data of one sparse file: their map stays below ``ARCHIVE_HEADER_BYTES``. A file in more
pieces is saved with its last holes written out."""

ARCHIVE_WINDOW_BITS: Final = 27
ARCHIVE_XZ_BYTES: Final = 128 * 1024 * 1024
"""Memory that a compressed archive may ask for, 128 MiB: enough for ``zstd -19 --long`` and
``xz -9``."""

ARCHIVE_NOTES: Final = 1_000
"""Paths that a result lists of what was left out or dropped; the rest is counted."""

ARCHIVE_LINK_BYTES: Final = PATH_TOTAL_BYTES
"""Longest target of a symlink (symlink(2))."""

OPEN_DIRECTORIES: Final = 48
"""Directories that are held open while a tree is written: opened again, one costs microseconds, and
this program's limit is often 1,024."""

ZIP_DIRECTORY_BYTES: Final = 128 * 1024 * 1024
"""Bytes of the list of members of a zip archive, which is held in memory: a million members."""

NARROWED_PLACES_MAX: Final = 1_024
"""Rules of Landlock for one command, beside what it is denied. Each is opened and added when the
command is born, which takes some five microseconds; the entries of a large project's top fit many
times."""

# --- tests of sessions ------------------------------------------------------------------------

BEHAVIOUR_PATIENCE_S: Final = 60.0
"""What one behaviour of the conformance suite may take: most take milliseconds, and a machine that is
busy with other things is slow, not wrong."""
PORT_CONNECTIONS_MAX: Final = 256
"""Connections at a time to all exposed ports of a session; more are reset. Each takes two descriptors,
so that it is less where this program may open few: see ``PORT_DESCRIPTORS_SHARE``."""

PORT_DESCRIPTORS_SHARE: Final = 4
"""All of a session's connections take at most one in so many of the descriptors that this program may
have: half of the usual 1,024 stays free beside two busy sessions."""

PORT_BUFFER_BYTES: Final = 64 * 1024
"""Bytes held of each direction of a connection; then its sender waits."""

PORT_BACKLOG: Final = 128
"""Connections that wait to be accepted: those of a browser's page, and of a test that opens a hundred."""

PORT_ACCEPTS_PER_TURN: Final = 32
"""Connections that are accepted before the loop has its turn."""

PORT_PAUSE_S: Final = 0.25
"""Seconds without accepting after this program had no descriptor left for a connection."""

PORT_CONNECT_TIMEOUT_S: Final = 10.0
"""Seconds that a server inside has to take a connection: on a loopback it is microseconds, unless its
own backlog is full."""

PORT_WAIT_TIMEOUT_S: Final = 30.0
"""Seconds that ``wait_for_port`` waits for a server: large ones load for ten."""

PORT_RETRY_S: Final = 0.01
PORT_RETRY_MAX_S: Final = 0.25
"""Seconds between two tries to reach a server that does not listen yet, at first and at most."""

ENDS_TOLD_S: Final = 2.0
"""Seconds in which a sandbox that has ended lets its terminals and processes tell how they ended. All
have been signalled by then, so that it is the work of a moment; what is slower is told as lost."""
