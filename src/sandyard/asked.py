"""Which variables of the host's a client was asked to pass on, checked."""

from __future__ import annotations

from collections.abc import Iterable

from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.policy import OWN_VARIABLES, Policy

__all__ = ["asked_variables"]


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
