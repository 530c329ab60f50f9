"""Values that cross the public border: results of commands, files, permissions, accounts."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Self, TypedDict, Unpack

from pydantic import BaseModel, ConfigDict, Field

from sandyard.limits import SHOWN_STREAM_BYTES

__all__ = [
    "Denial",
    "DenialKind",
    "EntryKind",
    "ExecResult",
    "FileEntry",
    "FileMode",
    "Group",
    "Leftover",
    "LimitHit",
    "LimitName",
    "Permissions",
    "ResourceUsage",
    "User",
]


_NAMES_SHOWN: Final = 5

LimitName = Literal[
    "memory",
    "processes",
    "cpus",
    "cpu_time",
    "wall_time",
    "file_size",
    "workspace_size",
    "open_files",
    "scratch_size",
    "output",
]
"""The limits that there are, by their names in ``ResourceLimits``."""


DenialKind = Literal["path", "address", "syscall", "limit"]
"""What a denial is of."""


# --- commands ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceUsage:
    """What one command and its waited-for children used, as getrusage(2) counts it.

    Attributes:
        user_s: seconds of processor time in its own code.
        system_s: seconds of processor time in the kernel.
        max_rss_bytes: most memory resident at once in one process of it.
        minor_faults: page faults served from memory.
        major_faults: page faults that waited for a disk.
        blocks_in: 512-byte blocks read from a disk.
        blocks_out: 512-byte blocks written to a disk.
        voluntary_switches: times it waited for something.
        involuntary_switches: times it was put aside for another process.
    """

    user_s: float = 0.0
    system_s: float = 0.0
    max_rss_bytes: int = 0
    minor_faults: int = 0
    major_faults: int = 0
    blocks_in: int = 0
    blocks_out: int = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A process that a command left running.

    Attributes:
        pid: its id inside the sandbox.
        name: its name, as the kernel keeps it (at most 15 bytes).
    """

    pid: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitHit:
    """A limit that was reached while a command ran.

    Attributes:
        limit: which one, by its name in ``ResourceLimits``.
        value: the limit, in ``unit``.
        unit: what it is counted in, such as ``bytes``.
        by: what held it, such as ``cgroup v2 memory``.
        detail: what happened, in a sentence.
    """

    limit: LimitName
    value: float
    unit: str
    by: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """Something that the policy kept a command from. ``str`` is one line, short enough for a model.

    Attributes:
        kind: ``"path"``, ``"address"``, ``"syscall"`` or ``"limit"``.
        subject: the path, ``HOST:PORT`` or host, system call, or limit by its name in
            ``ResourceLimits``; ``"network"`` where the command did not say which address.
        error: the errno that the command was given, such as ``EROFS``, as its words tell it; for
            names of hosts an error of getaddrinfo(3).
        rule: what decides, in words.
        operation: what was tried: ``"create"``, ``"write"``, ``"remove"``, ``"move"`` or
            ``"read"``; None where the command did not say.
        grant: the least to be written to allow it, such as ``Policy(reads=('/srv/data',))``, in
            addition to what the policy says, or the narrowing of the command, whose grant is written
            as ``Narrowing(writes=('build',))``; None where nothing does, and for what the policy
            denies by name or what belongs to the system itself. Whether the host has a path that
            is not shown is not looked up: a policy that names a missing one is refused.
        program: the name of the first process that was refused a system call, of at most 15 bytes,
            as the kernel told of it; None for what the command's words or the machine's audit tell.
        times: how often a system call was refused, as the kernel counts; 1 for what words tell.
    """

    kind: DenialKind
    subject: str
    error: str
    rule: str
    operation: str | None = None
    grant: str | None = None
    program: str | None = None
    times: int = 1

    def __str__(self) -> str:
        """One line: the subject, the rule, the grant; what can't be shown is escaped."""
        told = f"{_printable(self.subject)}: {_printable(self.rule)}"
        return told if self.grant is None else f"{told}; to allow it: {self.grant}"


def _printable(text: str) -> str:
    """Text that came out of a command, without what would speak to a terminal."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


class RefusedCall(NamedTuple):
    """A system call that the kernel refused a command, or what it started.

    Attributes:
        times: how often.
        number: which call, as this machine numbers them.
        error: the errno that it was refused with.
        program: the name of the first process that made it.
    """

    times: int
    number: int
    error: int
    program: str


class ExecResult:
    """What a command did. Two results are equal only if they are the same object.

    Attributes:
        stdout: its standard output; the middle is missing where ``stdout_dropped`` is not 0.
        stderr: its standard error; likewise with ``stderr_dropped``.
        exit_code: its exit status; a command ended by signal N has -N.
        stdout_dropped: bytes cut from the middle of ``stdout``.
        stderr_dropped: bytes cut from the middle of ``stderr``.
        stdout_total: bytes it wrote to standard output, dropped ones included.
        stderr_total: bytes it wrote to standard error, dropped ones included.
        duration_s: seconds from its start to its end.
        leftovers: processes it left running in the session.
        limit_hits: limits that were reached while it ran. What a limit made a program inside see as
            an error of its own (EAGAIN, EMFILE, ENOSPC, EFBIG) is not among them.
        denials: what the policy kept a command that failed from, as far as its last words and the
            kernel tell: at most 8, in the order in which it complained, then the system calls that
            it did not complain of, then paths of which only the machine's audit told. Empty for a
            command that succeeded.
        refused: how many system calls the kernel refused it and what it started, until it exited;
            those that are refused as if they did not exist (ENOSYS) are not counted.
        refused_calls: the first 8 kinds of them.
    """

    __slots__ = (
        "__weakref__",
        "_usage",
        "denials",
        "duration_s",
        "exit_code",
        "leftovers",
        "limit_hits",
        "refused",
        "refused_calls",
        "stderr",
        "stderr_dropped",
        "stderr_total",
        "stdout",
        "stdout_dropped",
        "stdout_total",
    )

    def __init__(  # noqa: PLR0913 - one keyword for each fact about a command
        self,
        *,
        stdout: bytes,
        stderr: bytes,
        exit_code: int,
        stdout_dropped: int = 0,
        stderr_dropped: int = 0,
        stdout_total: int | None = None,
        stderr_total: int | None = None,
        duration_s: float = 0.0,
        usage: ResourceUsage | Callable[[], ResourceUsage] | None = None,
        leftovers: tuple[Leftover, ...] = (),
        limit_hits: tuple[LimitHit, ...] = (),
        denials: tuple[Denial, ...] = (),
        refused: int = 0,
        refused_calls: tuple[RefusedCall, ...] = (),
    ) -> None:
        """Make a result; totals of None are what was kept plus what was dropped.

        A function that tells the usage is asked for it at most once, when somebody wants to know.
        """
        self.stdout = stdout
        self.stderr = stderr
        self.exit_code = exit_code
        self.stdout_dropped = stdout_dropped
        self.stderr_dropped = stderr_dropped
        self.stdout_total = len(stdout) + stdout_dropped if stdout_total is None else stdout_total
        self.stderr_total = len(stderr) + stderr_dropped if stderr_total is None else stderr_total
        self.duration_s = duration_s
        self._usage = usage
        self.leftovers = leftovers
        self.limit_hits = limit_hits
        self.denials = denials
        self.refused = refused
        self.refused_calls = refused_calls

    @property
    def usage(self) -> ResourceUsage | None:
        """What it used, or None where that is not known."""
        usage = self._usage
        if callable(usage):
            usage = self._usage = usage()
        return usage

    def ok(self) -> bool:
        """Tell whether the command succeeded: its exit code is 0."""
        return self.exit_code == 0

    def __repr__(self) -> str:
        """Show the exit code, the beginning of each stream, and whatever is out of the ordinary."""
        parts = [
            f"exit_code={self.exit_code}",
            f"stdout={_shown_stream(self.stdout, self.stdout_total)}",
            f"stderr={_shown_stream(self.stderr, self.stderr_total)}",
            f"duration_s={self.duration_s:.3f}",
        ]
        if self.leftovers:
            names = ", ".join(f"{left.name}:{left.pid}" for left in self.leftovers[:_NAMES_SHOWN])
            more = ", …" if len(self.leftovers) > _NAMES_SHOWN else ""
            parts.append(f"leftovers=({names}{more})")
        if self.limit_hits:
            parts.append(f"limit_hits=({', '.join(hit.limit for hit in self.limit_hits)})")
        if self.denials:
            subjects = (_printable(denial.subject) for denial in self.denials[:_NAMES_SHOWN])
            more = ", …" if len(self.denials) > _NAMES_SHOWN else ""
            parts.append(f"denials=({', '.join(subjects)}{more})")
        return f"ExecResult({', '.join(parts)})"


def _shown_stream(kept: bytes, total: int) -> str:
    """Quote the beginning of a stream, with the size of the whole where that is more."""
    if len(kept) <= SHOWN_STREAM_BYTES and total == len(kept):
        return repr(kept)
    return f"{kept[:SHOWN_STREAM_BYTES]!r}…({total} bytes)"


# --- permissions ------------------------------------------------------------------------------


class FileMode(IntEnum):
    """What one class of users may do with a file; members combine with ``|``."""

    ALL = 7
    NONE = 0
    READ = 4
    WRITE = 2
    EXEC = 1


_TEXT_LENGTH: Final = 10
_TRAILERS: Final = "@+."
"""What ``ls -l`` puts after the mode: extended attributes, an ACL, a security context."""
_READ_FLAGS: Final = {"r": FileMode.READ, "-": FileMode.NONE}
_WRITE_FLAGS: Final = {"w": FileMode.WRITE, "-": FileMode.NONE}
_EXEC_FLAGS: Final = {
    "x": FileMode.EXEC,
    "s": FileMode.EXEC,
    "t": FileMode.EXEC,
    "S": FileMode.NONE,
    "T": FileMode.NONE,
    "-": FileMode.NONE,
}


class Permissions(BaseModel):
    """Who may read, write and execute something.

    Attributes:
        owner: bits of the owner, a combination of ``FileMode`` (default: all).
        group: bits of the group (default: none).
        other: bits of everybody else (default: none).
        directory: True for a directory.
    """

    model_config = ConfigDict(validate_assignment=True)

    owner: int = Field(default=7, ge=0, le=7)
    group: int = Field(default=0, ge=0, le=7)
    other: int = Field(default=0, ge=0, le=7)
    directory: bool = False

    def to_mode(self) -> int:
        """Return the mode bits: nine for the permissions, and S_IFDIR for a directory."""
        bits = (self.owner << 6) | (self.group << 3) | self.other
        return bits | stat.S_IFDIR if self.directory else bits

    @classmethod
    def from_mode(cls, mode: int) -> Permissions:
        """Take the permissions out of ``st_mode``; set-id and sticky bits are left out."""
        return cls(
            owner=(mode >> 6) & 7,
            group=(mode >> 3) & 7,
            other=mode & 7,
            directory=stat.S_ISDIR(mode),
        )

    @classmethod
    def from_str(cls, perms: str) -> Permissions:
        """Parse the ten characters that ``ls -l`` shows, such as ``drwxr-xr-x``.

        Args:
            perms: the text; one trailing ``@``, ``+`` or ``.`` is ignored.

        Raises:
            ValueError: the text has another length, is of something other than a file or a
                directory, or has a character out of place.
        """
        text = perms[:-1] if len(perms) == _TEXT_LENGTH + 1 and perms[-1] in _TRAILERS else perms
        if len(text) != _TEXT_LENGTH:
            raise ValueError(
                f"permissions need {_TEXT_LENGTH} characters, such as 'drwxr-xr-x', "
                f"not {len(perms)}: {perms[:20]!r}"
            )
        if text[0] not in "d-":
            raise ValueError(f"permissions begin with 'd' or '-', not {text[0]!r}: {text!r}")
        owner, group, other = (_triplet(text, start) for start in (1, 4, 7))
        return cls(owner=owner, group=group, other=other, directory=text[0] == "d")

    def owner_can(self, mode: int) -> Self:
        """Set the owner's bits and return this object."""
        self.owner = mode
        return self

    def group_can(self, mode: int) -> Self:
        """Set the group's bits and return this object."""
        self.group = mode
        return self

    def others_can(self, mode: int) -> Self:
        """Set everybody else's bits and return this object."""
        self.other = mode
        return self

    def __str__(self) -> str:
        """Show the ten characters that ``ls -l`` shows."""
        return stat.filemode(self.to_mode() if self.directory else self.to_mode() | stat.S_IFREG)

    def __repr__(self) -> str:
        """Show the ten characters that ``ls -l`` shows."""
        return str(self)

    def __eq__(self, other: object) -> bool:
        """Compare the mode bits."""
        if not isinstance(other, Permissions):
            return NotImplemented
        return self.to_mode() == other.to_mode()

    def __hash__(self) -> int:
        """Hash the mode bits."""
        return hash(self.to_mode())


def _triplet(text: str, start: int) -> int:
    """Return the bits of the three characters at ``start``."""
    tables = (_READ_FLAGS, _WRITE_FLAGS, _EXEC_FLAGS)
    try:
        return sum(table[text[start + at]] for at, table in enumerate(tables))
    except KeyError as error:
        raise ValueError(
            f"permissions have {error.args[0]!r} out of place in "
            f"{text[start : start + 3]!r}: {text!r}"
        ) from None


# --- accounts ---------------------------------------------------------------------------------


class User(BaseModel):
    """A user inside a sandbox; two users of one name are equal.

    Attributes:
        name: login name: a letter or underscore, then up to 31 letters, digits, underscores, dots and
            hyphens.
    """

    name: str

    def __eq__(self, other: object) -> bool:
        """Compare names."""
        if not isinstance(other, User):
            return NotImplemented
        return self.name == other.name

    def __hash__(self) -> int:
        """Hash the name."""
        return hash(self.name)


class Group(BaseModel):
    """A group of users inside a sandbox; two groups of one name are equal.

    Attributes:
        name: group name.
        users: its members.
    """

    name: str
    users: list[User]

    def __eq__(self, other: object) -> bool:
        """Compare names."""
        if not isinstance(other, Group):
            return NotImplemented
        return self.name == other.name

    def __hash__(self) -> int:
        """Hash the name."""
        return hash(self.name)


# --- files ------------------------------------------------------------------------------------


class EntryKind(StrEnum):
    """What a directory entry is."""

    DIRECTORY = "directory"
    FILE = "file"
    SYMLINK = "symlink"
    OTHER = "other"


class EntryFacts(TypedDict):
    """The attributes of a ``FileEntry``, but for its permissions."""

    path: str
    owner: str
    group: str
    size: int
    kind: EntryKind
    modified_ns: int
    target: str | None


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One entry of a directory.

    Attributes:
        path: absolute path, as commands in the sandbox see it.
        permissions: who may do what.
        owner: name of the owning user inside, or its number where it has no name there.
        group: name of the owning group inside, or its number.
        size: size in bytes; of a symlink, the length of its target.
        kind: what it is.
        modified_ns: when its content last changed, in ns since 1970.
        target: of a symlink, the text that it holds; None for anything else.
    """

    path: str
    permissions: Permissions
    owner: str
    group: str
    size: int
    kind: EntryKind = EntryKind.FILE
    modified_ns: int = 0
    target: str | None = None

    @classmethod
    def of(cls, mode: int, **facts: Unpack[EntryFacts]) -> Self:
        """Make an entry of all its attributes, with ``st_mode`` for its permissions.

        A listing of thousands takes a third of the time: the permissions are made when they are
        first asked for.
        """
        made = cls.__new__(cls)
        made.__dict__.update(facts, mode=mode)
        return made

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Permissions:
            """Make the permissions of an entry that was made without."""
            if name != "permissions" or "mode" not in self.__dict__:
                raise AttributeError(name)
            return self.__dict__.setdefault(name, Permissions.from_mode(self.__dict__["mode"]))

    def is_dir(self) -> bool:
        """Tell whether this is a directory."""
        return self.kind is EntryKind.DIRECTORY
