"""Policy: what a command may touch, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from sandyard.errors import PolicyError
from sandyard.planted import PROTECTED_NAMES
from sandyard.resources import DEFAULT_LIMITS, ResourceLimits

__all__ = [
    "DIMENSIONS",
    "INHERITED_VARIABLES",
    "OWN_VARIABLES",
    "RUNGS",
    "DeviceOption",
    "Dimension",
    "Policy",
    "Requirement",
    "Rung",
    "Standing",
    "SyscallOption",
]

DeviceOption = Literal["gpu", "kvm", "fuse", "tun"]
"""A device that a policy may name."""

Dimension = Literal["read", "write", "network", "processes", "ipc", "syscalls", "resources"]
"""A part of the wall that holds or does not hold for itself."""

Rung = Literal["full", "full_without_proc", "landlock_seccomp"]
"""How the wall is built, the best first."""

Standing = Rung | Literal["unconfined"]
"""What a session stands on: a rung, or nothing, where the policy says so itself."""

Requirement = Dimension | Rung | Literal["strict"]
"""What a policy can insist on."""

DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
RUNGS: Final[tuple[Rung, ...]] = get_args(Rung)

SyscallOption = Literal["ptrace", "no-unix-sockets"]
"""How a policy changes which system calls are refused."""

INHERITED_VARIABLES: Final = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_COLLATE",
    "LC_CTYPE",
    "LC_MESSAGES",
    "LC_MONETARY",
    "LC_NUMERIC",
    "LC_TIME",
    "TZ",
    "TERM",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "UV_PYTHON",
    "NO_COLOR",
    "FORCE_COLOR",
    "CI",
)
"""Host variables that commands get without being asked for. They say how to speak, where programs
and certificates are, and nothing that opens a door. A value that is a path is passed only if that
path is visible inside."""

OWN_VARIABLES: Final = ("PATH", "HOME", "TMPDIR", "USER", "LOGNAME", "SHELL")
"""Variables that the sandbox sets itself, since the host's values would name things that are not
there. They can be given in ``environment``, not inherited."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What commands of a session may read, write, reach and know.

    The policy is the caller's: it is checked when it is made, never changes, and nothing in the
    workspace is consulted for it. ``Policy()`` lets commands use the workspace, the system's
    programs and the toolchains found on the host, and nothing else.

    Attributes:
        reads: Takes absolute host paths of files and directories. Each becomes visible inside at
            its own path, read-only, with everything beneath it. Default: none. Unset or empty, only
            the system, toolchains and the workspace are visible. A path inside the workspace makes
            that part of it read-only. Does not create anything; a missing path is an error. Does
            not hide what lies beneath a path: grant narrower paths instead.
        writes: Takes absolute host paths, as ``reads`` does; each is visible and writable at its
            own path, and changes are the host's at once. Default: none. Unset or empty, commands
            write only to the workspace and to private, temporary directories. A path in both
            ``reads`` and ``writes`` is writable; the deeper of two nested paths decides for what
            lies beneath it. Is not for scratch space: use /tmp or HOME.
        deny: Takes absolute host paths. What stands there inside can't be opened, listed, written
            or moved, nor can anything beneath it; programs are told EACCES. Default: none. Wins
            over ``reads``, ``writes``, the workspace and the system, wherever they lie. Does not
            create anything: a path that does not exist when the session starts is not denied
            later. Does not follow hard links: another name of the same file stays. Is not needed
            for what no grant shows, such as your home directory.
        protect: Takes names, such as ``".git"``, and paths relative to the workspace. What has such
            a name in the workspace or in ``writes`` when the session starts is kept as it is:
            read-only, and held in its place. Of a Git directory that is what Git runs (hooks,
            ``config``, attributes); committing works, changing the configuration fails. Default:
            Git directories and the settings of editors and agents that run programs
            (``sandyard.planted``). Empty lifts all of it. Does not create anything: what does not
            exist can appear. Does not hold symlinks, nor other names of the same file (hard links).
            ``session.review()`` tells of what appeared or changed all the same.
        environment: Takes ``(name, value)`` pairs; each is set for every command. Default: none.
            Overrides what is inherited and what the sandbox sets itself (``HOME`` and ``PATH``
            included); a manifest's environment overrides it in turn. Is not for secrets that
            commands must not see: every command sees it.
        inherit: Takes names of host variables; those that are set are passed on unchanged. Default:
            none. Unset or empty, only ``INHERITED_VARIABLES`` are. Does not accept
            ``OWN_VARIABLES``, whose host values name host places: use ``environment``.
        network: Takes ``"none"`` or ``"host"``. Default: ``"none"``, a loopback of the session's
            own and no other interface. ``"host"`` shares the host's network, its loopback services
            included; abstract Unix sockets of the host stay closed, which on kernels before 6.12
            costs all Unix sockets except pairs of streams.
        toolchains: Takes a bool. Default: True, interpreters and toolchains that are found through
            PATH, VIRTUAL_ENV and the running interpreter are visible read-only at their own path,
            without the credentials beside them. False leaves the system's own (``/usr``). Does not
            find everything: use ``reads`` and ``environment`` for the rest.
        home: Takes ``"private"`` or ``"workspace"``. Default: ``"private"``, HOME is an empty
            directory outside the workspace, in memory, and gone with the session. ``"workspace"``
            makes the workspace HOME, so that caches and settings stay with the files; nothing
            keeps a program from reading settings that commands wrote there.
        syscalls: Takes options that change which system calls are refused. Default: none: what
            reaches into the kernel, other processes or mounts is refused. ``"ptrace"`` allows debuggers and tracers
            on processes of the same session (the first process stays closed to them).
            ``"no-unix-sockets"`` refuses new Unix sockets, which closes those that host programs
            put into granted directories; pairs of streams work. Does not take the names of calls.
        devices: Takes names of devices. Default: none, only ``/dev/null`` and its like. ``"gpu"``
            shows what computes and draws (``/dev/dri/renderD*``, ``/dev/nvidia*``, ``/dev/kfd``,
            ``/dev/dxg``) and what the kernel tells of that hardware; ``"kvm"`` shows ``/dev/kvm``,
            with which virtual machines run. ``"fuse"`` (``/dev/fuse``) and ``"tun"``
            (``/dev/net/tun``) can be opened, but mounting, and making an interface, stay refused.
            An ordinary user's session opens them with that user's rights, root's as the owner of
            a node of its own. A driver is a large piece of the kernel: what is named here is
            that much more to attack. One that is missing, or that you can't open, refuses the
            start. Does not show the nodes that own a screen.
        require: Takes names of what must hold whole: dimensions (``"read"``, ``"write"``,
            ``"network"``, ``"processes"``, ``"ipc"``, ``"syscalls"``, ``"resources"``), ``"strict"``
            for all of them, or a rung (``"full"``, ``"full_without_proc"``), which means that rung
            or a better one. A dimension that is named holds whole, or the start is refused, also
            where the policy itself lifts it: ``"ipc"`` refuses grants in which sockets of the host's
            may lie, and ``"network"`` can't stand beside ``network="host"``. For ``"strict"`` what
            the policy itself lifts is no loss. Default: none, which refuses where a dimension is
            absent, or lets through more than metadata of your own files and that processes exist.
            Is not needed for the wall to hold: what a machine can't hold is refused anyway.
        accept: Takes dimensions that may be held in part, or not at all, where this machine can do
            no better. Default: none. ``session.confinement`` says what was lost. Does not weaken
            anything on a machine that holds it, and does not lift the other dimensions. Is not the
            way to give commands more: use ``reads``, ``writes`` or ``network``.
        limits: Takes a ``ResourceLimits``: memory, processes, processors, time, files and output.
            Default: ``ResourceLimits()``, which bounds processes, open files, output and what
            private directories hold, so that neither a fork bomb nor a full /tmp harms the
            machine. Does not change during a session.
        unconfined: Takes a bool. Default: False. True takes the whole wall away: commands do what
            the user they run as may do on this machine. Never happens by itself: where a wall can't be
            had a session is refused. Must stand beside ``network="host"`` and ``protect=()``, since
            neither could be held, and beside no grant, denial, requirement or option of system calls
            and devices, no ``toolchains=False`` and no limit on processors or scratch (PolicyError).
            Other limits are held by rlimits; commands gain no rights (no_new_privs, and root's run as
            a user of their own). Is not the way to get a session on a machine that lacks a part of
            the wall: ``accept`` gives up that part alone.

    Raises:
        PolicyError: a field says something impossible.
    """

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    protect: tuple[str, ...] = PROTECTED_NAMES
    environment: tuple[tuple[str, str], ...] = ()
    inherit: tuple[str, ...] = ()
    network: Literal["none", "host"] = "none"
    toolchains: bool = True
    home: Literal["private", "workspace"] = "private"
    syscalls: tuple[SyscallOption, ...] = ()
    devices: tuple[DeviceOption, ...] = ()
    require: tuple[Requirement, ...] = ()
    accept: tuple[Dimension, ...] = ()
    limits: ResourceLimits = DEFAULT_LIMITS
    unconfined: bool = False

    def __post_init__(self) -> None:
        """Check every field, and bring paths into their one normal form."""
        for field in ("reads", "writes", "deny"):
            object.__setattr__(self, field, _paths(getattr(self, field), field))
        object.__setattr__(self, "protect", _protected(self.protect))
        object.__setattr__(self, "environment", _variables(self.environment))
        object.__setattr__(self, "inherit", _inherited(self.inherit))
        _check_choice(self.network, "network", ("none", "host"))
        _check_choice(self.home, "home", ("private", "workspace"))
        _check_flag(self.toolchains, "toolchains")
        _check_flag(self.unconfined, "unconfined")
        for field, known in _OPTIONS.items():
            object.__setattr__(self, field, _options(getattr(self, field), field, known))
        _check_limits(self.limits)
        for name in self.accept:
            if name in self.require:
                raise PolicyError(
                    f"{name} can't be both required and accepted in part",
                    field="accept",
                    value=name,
                )
        if "network" in self.require and self.network != "none":
            raise PolicyError(
                'network can\'t be required to hold and lifted by network="host"; ask for "strict" where '
                "what the policy lifts is no loss",
                field="require",
                value="network",
            )
        if self.unconfined:
            _check_unconfined(self)


def _check_unconfined(policy: Policy) -> None:
    """Refuse what would look as if it held. Defaults too: whoever wants no wall says what goes with it."""
    for field, only in _UNCONFINED.items():
        if getattr(policy, field) != only:
            raise PolicyError(
                f"without a wall {field} can only be {only!r}: nothing would hold more; "
                "presets.UNCONFINED says all that it takes",
                field=field,
                value=getattr(policy, field),
            )
    if policy.limits.cpus is not None or policy.limits.scratch_size is not None:
        raise PolicyError(
            "without a wall nothing holds a limit on cpus or scratch_size: commands could leave a control "
            "group, and private directories lie on a disk",
            field="limits",
            value=policy.limits,
        )


_UNCONFINED: Final[dict[str, object]] = {
    "network": "host",
    "protect": (),
    "reads": (),
    "writes": (),
    "deny": (),
    "toolchains": True,
    "syscalls": (),
    "devices": (),
    "require": (),
}
"""What fields must say beside ``unconfined``."""


def _check_choice(
    value: object, what: str, choices: tuple[str, ...], field: str | None = None
) -> None:
    if value not in choices:
        words = " or ".join(repr(choice) for choice in choices)
        raise PolicyError(f"{what} is {words}", field=field or what, value=value)


def _check_flag(value: object, field: str) -> None:
    if not isinstance(value, bool):
        raise PolicyError(f"{field} is True or False", field=field, value=value)


def _check_limits(value: object) -> None:
    if not isinstance(value, ResourceLimits):
        raise PolicyError(
            "limits is a ResourceLimits, such as ResourceLimits(memory=2 * 1024**3)",
            field="limits",
            value=value,
        )


_OPTIONS: Final = {
    "syscalls": get_args(SyscallOption),
    "devices": get_args(DeviceOption),
    "require": ("strict", *RUNGS, *DIMENSIONS),
    "accept": DIMENSIONS,
}
"""Fields that take some of a few words."""


def _options(value: object, field: str, known: tuple[str, ...]) -> tuple[str, ...]:
    options = _sequence(value, field, f'("{known[0]}",)')
    for option in options:
        _check_choice(option, f"an option in {field}", known, field)
    # In one order, so that equal policies are equal.
    return tuple(option for option in known if option in options)


def _sequence(value: object, field: str, example: str) -> tuple[object, ...]:
    # A lone string is a sequence too, of its letters: by far the likeliest slip.
    if isinstance(value, (str, bytes)) or not isinstance(value, (tuple, list)):
        raise PolicyError(f"{field} is a tuple, such as {example}", field=field, value=value)
    return tuple(value)


def _paths(value: object, field: str) -> tuple[str, ...]:
    items = _sequence(value, field, '("/srv/data",)')
    # dict.fromkeys: named twice is granted once, in the order of first naming.
    return tuple(dict.fromkeys(_path(item, field) for item in items))


def _path(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise PolicyError(f"a path in {field} is a string", field=field, value=value)
    if not value.startswith("/") or "\0" in value:
        raise PolicyError(
            f"a path in {field} is absolute and holds no NUL", field=field, value=value
        )
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if ".." in parts:
        # What ".." means depends on the symlinks before it, which may change after this check.
        raise PolicyError(f'a path in {field} holds no ".."', field=field, value=value)
    if not parts:
        raise PolicyError(
            f'{field} can\'t be all of "/": name the directories that are needed',
            field=field,
            value=value,
        )
    return "/" + "/".join(parts)


def _protected(value: object) -> tuple[str, ...]:
    names = _sequence(value, "protect", '(".git",)')
    for name in names:
        parts = name.split("/") if isinstance(name, str) else [""]
        if not {"", ".", ".."}.isdisjoint(parts) or "\0" in "".join(parts):
            raise PolicyError(
                'a name in protect is a name or a path relative to the workspace, without ".."',
                field="protect",
                value=name,
            )
    return tuple(dict.fromkeys(str(name) for name in names))


def _name(value: object, field: str) -> str:
    if not isinstance(value, str) or not value or "=" in value or "\0" in value:
        raise PolicyError(
            f'the name of a variable in {field} is a non-empty string without "=" and NUL',
            field=field,
            value=value,
        )
    return value


def _inherited(value: object) -> tuple[str, ...]:
    names = [_name(item, "inherit") for item in _sequence(value, "inherit", '("LS_COLORS",)')]
    for name in names:
        if name in OWN_VARIABLES:
            raise PolicyError(
                f"{name} is the sandbox's own and can't be inherited: give a value in environment",
                field="inherit",
                value=name,
            )
    return tuple(dict.fromkeys(names))


def _variables(value: object) -> tuple[tuple[str, str], ...]:
    pairs: dict[str, str] = {}
    for pair in _sequence(value, "environment", '(("CI", "1"),), or tuple(mapping.items())'):
        match pair:
            case (name, text):
                _add_variable(pairs, _name(name, "environment"), text)
            case _:
                raise PolicyError(
                    "environment holds (name, value) pairs", field="environment", value=pair
                )
    return tuple(pairs.items())


def _add_variable(pairs: dict[str, str], name: str, text: object) -> None:
    # The name and never the value is quoted: values are what one would not like to see in a log.
    if not isinstance(text, str) or "\0" in text:
        raise PolicyError(
            f"the value of {name} is a string without NUL", field="environment", value=name
        )
    if name in pairs:
        raise PolicyError(f"{name} is given twice", field="environment", value=name)
    pairs[name] = text
