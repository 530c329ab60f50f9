"""The environment of commands: an allowlist, made from values alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from sandyard.confinement.etc import HOME, USER
from sandyard.platform import is_within
from sandyard.policy import INHERITED_VARIABLES, OWN_VARIABLES

if TYPE_CHECKING:
    from sandyard.confinement.footing import PrivatePlace
    from sandyard.platform import HostFacts
    from sandyard.policy import Policy

__all__ = ["command_environment"]

_TMPDIR: Final = "/tmp"  # noqa: S108  # the sandbox's own


def command_environment(
    policy: Policy,
    facts: HostFacts,
    environ: Mapping[str, str],
    manifest: Mapping[str, str],
    workspace: str,
    private: PrivatePlace | None = None,
) -> tuple[tuple[str, str], ...]:
    """The whole environment of a command, as ``(name, value)`` pairs.

    Each line of this list overrides those above it:

    1. the host's variables of ``INHERITED_VARIABLES``, as far as they name nothing that is not
       visible inside;
    2. what toolchains need to find themselves, and the sandbox's own variables;
    3. the host's variables that the policy inherits by name;
    4. the policy's environment;
    5. the manifest's environment, which may set anything, HOME and PATH included.

    Args:
        workspace: where the workspace is inside.
        private: HOME and TMPDIR, where they can't have the paths that they have in a root of their
            own.
    """
    paths = _shown_paths(policy, facts)
    shown = tuple(path for path in paths if not _is_shown(path, policy.deny))
    variables = {
        name: environ[name]
        for name in INHERITED_VARIABLES
        if name in environ and name not in OWN_VARIABLES and _is_meaningful(environ[name], shown)
    }
    if policy.toolchains:
        variables.update(facts.toolchains.variables)
    search_path = (path for path in facts.search_path if _is_shown(path, shown))
    variables |= {
        "PATH": ":".join(search_path),
        "HOME": workspace if policy.home == "workspace" else private.home if private else HOME,
        "TMPDIR": private.temporary if private else _TMPDIR,
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": facts.shell,
    }
    if private is not None:
        # It is there and closed, which git takes for a failure; in a root of its own it is not there.
        variables["GIT_CONFIG_NOSYSTEM"] = "1"
    variables |= {name: environ[name] for name in policy.inherit if name in environ}
    variables.update(policy.environment)
    variables.update(manifest)
    return tuple(variables.items())


def _shown_paths(policy: Policy, facts: HostFacts) -> Iterable[str]:
    yield from facts.system_trees
    yield from (entry.path for entry in facts.root_entries)
    yield from (entry.path for entry in facts.etc)
    if policy.toolchains:
        yield from facts.toolchains.roots
        yield from (path for path, _ in facts.toolchains.links)
    yield from policy.reads
    yield from policy.writes


def _is_meaningful(value: str, shown: tuple[str, ...]) -> bool:
    """Whether every path in ``value`` is visible inside.

    A program that is told of a certificate file that is not there fails; without the variable it
    uses the system's.
    """
    return all(_is_shown(part, shown) for part in value.split(":") if part.startswith("/"))


def _is_shown(path: str, shown: tuple[str, ...]) -> bool:
    return any(is_within(path, tree) for tree in shown)
