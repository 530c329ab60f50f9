"""What a client is given besides its policy, checked: variables to pass on, and companions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NoReturn

from sandyard.errors import ArgumentError, ArgumentTypeError, shown
from sandyard.policy import OWN_VARIABLES, Policy

__all__ = ["asked_variables", "check_caller", "check_companions"]


def asked_variables(inherit: object, names: object) -> tuple[str, ...] | None:
    """The variables of the host's that a client was asked to pass on; None for the short list.

    Args:
        inherit: what it was given as ``inherit_host_environment``.
        names: what it was given as ``host_environment_allowlist``.

    Raises:
        ArgumentError, ArgumentTypeError: it asks for all of them, or they are no list of strings.
        PolicyError: one of them is no name of a variable.
    """
    _refuse_inheriting(inherit)
    return None if names is None else _checked_names(names)


def _refuse_inheriting(asked: object) -> None:
    if asked is not None and not isinstance(asked, bool):
        raise ArgumentTypeError(
            "inherit_host_environment is True or False",
            op="create",
            argument="inherit_host_environment",
            value=asked,
        )
    if asked:
        raise ArgumentError(
            "a sandbox does not get all variables of the host's, among which keys may be: name what it "
            "needs in host_environment_allowlist, or in Policy(inherit=…)",
            op="create",
            argument="inherit_host_environment",
            value=asked,
        )


def _checked_names(names: object) -> tuple[str, ...]:
    found = tuple(names) if isinstance(names, Iterable) and not isinstance(names, str) else (None,)
    if not all(isinstance(name, str) for name in found):
        raise ArgumentTypeError(
            'host_environment_allowlist is a list of names, such as ["LANG", "MY_PROXY"]',
            op="create",
            argument="host_environment_allowlist",
            value=names,
        )
    unique = tuple(dict.fromkeys(found))
    Policy(inherit=tuple(name for name in unique if name not in OWN_VARIABLES))
    return unique


def check_caller(environ: object, directory: object, mount_providers: object) -> None:
    """Refuse what can't be of a program that sessions are made for, where something is given.

    Raises:
        ArgumentError, ArgumentTypeError: it can't.
    """
    if directory is not None and not isinstance(directory, str):
        _refuse_kind("directory", directory, "a text")
    if isinstance(directory, str) and (not directory.startswith("/") or "\0" in directory):
        raise ArgumentError(
            "directory is an absolute path", op="create", argument="directory", value=directory
        )
    _check_names("environ", environ)
    _check_names("mount_providers", mount_providers)
    texts = environ.values() if isinstance(environ, Mapping) else ()
    if not all(isinstance(text, str) for text in texts):
        _refuse_kind("environ", type(environ), "a mapping of names to texts")


def _check_names(argument: str, given: object) -> None:
    if given is None:
        return
    if not isinstance(given, Mapping):
        _refuse_kind(argument, given, "a mapping")
    for name in given:
        if not isinstance(name, str):
            _refuse_kind(argument, name, "a mapping with texts for names")


def _refuse_kind(argument: str, value: object, kind: str) -> NoReturn:
    raise ArgumentTypeError(
        f"{argument} is {kind}, or None, not {shown(value)}",
        op="create",
        argument=argument,
        value=value,
    )


def check_companions(
    instrumentation: object, dependencies: object, concurrency_limits: object
) -> None:
    """Refuse what is none of these, where something is given.

    Raises:
        ArgumentTypeError: it is not.
    """
    if instrumentation is not None:
        from sandyard.events.instrumentation import Instrumentation  # noqa: PLC0415  # it is given

        _check_kind("instrumentation", instrumentation, Instrumentation)
    if dependencies is not None:
        from sandyard.dependencies import Dependencies  # noqa: PLC0415  # likewise

        _check_kind("dependencies", dependencies, Dependencies)
    if concurrency_limits is not None:
        from sandyard.manifest.concurrency import SandboxConcurrencyLimits  # noqa: PLC0415  # likewise

        _check_kind("concurrency_limits", concurrency_limits, SandboxConcurrencyLimits)


def _check_kind(argument: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        _refuse_kind(argument, value, kind.__name__)
