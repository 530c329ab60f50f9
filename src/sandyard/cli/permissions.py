"""What a command may touch, as options of the command line: their words, and the policy they make."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast, get_type_hints

import typer

from sandyard import ArgumentError, Policy, ResourceLimits
from sandyard.cli.order import absolute_path, split_variables
from sandyard.planted import PROTECTED_NAMES
from sandyard.resources import LIMIT_UNITS

if TYPE_CHECKING:
    from sandyard.policy import DeviceOption, Dimension, Requirement, SyscallOption

__all__ = ["PolicyMaker", "Variables", "make_policy", "policy_options"]

Read = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH", help="Show it this too, read-only; may be repeated."),
]
Write = Annotated[
    list[str] | None,
    typer.Option(metavar="PATH", help="Let it write to this too; may be repeated."),
]
Denied = Annotated[
    list[str] | None,
    typer.Option(
        "--deny", metavar="PATH", help="Close this, whatever else shows it; may be repeated."
    ),
]
Protected = Annotated[
    list[str] | None,
    typer.Option(
        "--protect",
        metavar="NAME",
        help="Keep what has this name as it is, besides .git and the settings of editors and "
        "agents; may be repeated.",
    ),
]
Unprotected = Annotated[
    bool,
    typer.Option("--no-protect", help="Keep only what --protect names, and nothing without it."),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[=VALUE]", help="Set a variable, or pass yours on; may be repeated."),
]
Network = Annotated[
    Literal["none", "host"], typer.Option(help="Its network: loopback alone, or yours.")
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Run where this machine holds it only in part, or not: read, write, network, "
        "processes, ipc, syscalls or resources; may be repeated.",
    ),
]
Require = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Refuse where this is not so: strict, a rung, or a name that --accept takes.",
    ),
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device", metavar="gpu|kvm|fuse|tun", help="Let it use this device; may be repeated."
    ),
]
Syscalls = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ptrace|no-unix-sockets",
        help="Let debuggers work, or refuse Unix sockets; may be repeated.",
    ),
]
Toolchains = Annotated[
    bool, typer.Option("--no-toolchains", help="Show only the system's own programs.")
]
Home = Annotated[
    Literal["private", "workspace"],
    typer.Option(help="Its HOME: an empty directory in memory, or the workspace."),
]
Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit",
        metavar="NAME=VALUE",
        help=f"Bound what it uses, such as memory=2G or processes=100; may be repeated. Names: "
        f"{', '.join(LIMIT_UNITS)}.",
    ),
]

_SUFFIXES: Final = {"K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_FRACTIONS: Final = ("cpus", "wall_time")


def make_policy(  # noqa: PLR0913  # one parameter for each option
    *,
    read: Read = None,
    write: Write = None,
    deny: Denied = None,
    protect: Protected = None,
    no_protect: Unprotected = False,
    env: Variables = None,
    net: Network = "none",
    device: Devices = None,
    syscalls: Syscalls = None,
    no_toolchains: Toolchains = False,
    home: Home = "private",
    limit: Limits = None,
    accept: Accept = None,
    require: Require = None,
) -> Policy:
    """The policy that options say.

    Raises:
        ArgumentError, PolicyError: an option says something impossible.
    """
    values, names = split_variables(env or ())
    usual = () if no_protect else PROTECTED_NAMES
    # Words as they were given: the policy knows which there are, and says so.
    devices = cast("tuple[DeviceOption, ...]", tuple(device or ()))
    options = cast("tuple[SyscallOption, ...]", tuple(syscalls or ()))
    accepted = cast("tuple[Dimension, ...]", tuple(accept or ()))
    required = cast("tuple[Requirement, ...]", tuple(require or ()))
    return Policy(
        reads=tuple(absolute_path(path, "--read") for path in read or ()),
        writes=tuple(absolute_path(path, "--write") for path in write or ()),
        deny=tuple(absolute_path(path, "--deny") for path in deny or ()),
        protect=(*usual, *(protect or ())),
        environment=values,
        inherit=names,
        network=net,
        devices=devices,
        syscalls=options,
        toolchains=not no_toolchains,
        home=home,
        accept=accepted,
        require=required,
        limits=_limits(limit or ()),
    )


PolicyMaker = Callable[[], Policy]
"""What makes the policy that the options of a call say, or raises what ``make_policy`` raises."""


def policy_options(
    *, without: Collection[str] = ()
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a verb the options of ``make_policy``, in the place of its parameter ``permitted``.

    The verb calls that parameter for the policy, where it can tell of an error in its own way.

    Args:
        without: options that the verb does not have, by their parameters.
    """
    listed = inspect.signature(make_policy, eval_str=True).parameters.values()
    options = [one for one in listed if one.name not in without]

    def decorate(verb: Callable[..., int]) -> Callable[..., int]:
        hints = get_type_hints(verb, include_extras=True)
        shown: list[inspect.Parameter] = []
        for one in inspect.signature(verb).parameters.values():
            own = one.replace(kind=one.KEYWORD_ONLY, annotation=hints[one.name])
            shown += options if one.name == "permitted" else [own]

        @wraps(verb)
        def asked(**words: object) -> int:
            said = {one.name: words.pop(one.name) for one in options}
            return verb(**words, permitted=lambda: make_policy(**said))  # type: ignore[arg-type]  # read as it says

        # What typer makes the options of.
        asked.__annotations__ = {one.name: one.annotation for one in shown} | {"return": int}
        asked.__signature__ = inspect.Signature(shown, return_annotation=int)  # type: ignore[attr-defined]  # as PEP 362 has it
        return asked

    return decorate


def _limits(given: Iterable[str]) -> ResourceLimits:
    """The limits of ``--limit``; of one that is given twice the last word counts."""
    found: dict[str, int | float] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.replace("-", "_")
        if name not in LIMIT_UNITS or not equals:
            problem = "names no limit" if equals else "is no NAME=VALUE"
            raise _refusal(f"{problem}; names are {', '.join(LIMIT_UNITS)}", text)
        found[name] = _number(name, value, text)
    return ResourceLimits(**found)  # type: ignore[arg-type]  # it checks them, and says what is wrong


def _number(name: str, value: str, text: str) -> int | float:
    try:
        if name in _FRACTIONS:
            return float(value)
        factor = _SUFFIXES.get(value[-1:].upper(), 0) if LIMIT_UNITS[name] == "bytes" else 0  # type: ignore[index]
        return int(value[:-1]) * factor if factor else int(value)
    except ValueError:
        unit = LIMIT_UNITS[name]  # type: ignore[index]
        sizes = ", or with K, M, G or T" if unit == "bytes" else ""
        raise _refusal(f"needs a number of {unit}{sizes}", text) from None


def _refusal(problem: str, text: str) -> ArgumentError:
    return ArgumentError(f"--limit {text} {problem}", op="create", argument="--limit", value=text)
