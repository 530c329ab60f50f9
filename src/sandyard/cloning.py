"""A Git repository, cloned in a sandbox that is made for it alone: what runs there, and with what."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from sandyard.errors import ExecTimeoutError, GitCloneError, GitMissingInImageError, SandboxError
from sandyard.limits import GIT_STALLED_S, GIT_STDERR_CHARS
from sandyard.policy import Policy
from sandyard.types import ExecResult

if TYPE_CHECKING:
    from sandyard.manifest.fetched import Repository

__all__ = [
    "WORKING_TREE",
    "CloneSandbox",
    "Spare",
    "clone_commands",
    "clone_config",
    "clone_policy",
    "clone_repository",
]

WORKING_TREE: Final = "repository"
"""Where the clone comes to stand in its sandbox's workspace."""

_CONFIG: Final = "config"
_MISSING: Final = 127
_STALLED_BYTES: Final = 1_000
_FULL_NAMES: Final = frozenset({40, 64})
"""Digits of a commit's whole name: SHA-1 and SHA-256."""

_SHORT_NAME: Final = 7
_HEX: Final = frozenset("0123456789abcdef")
_USER: Final = "x-access-token"
"""What servers that take a token as password want as user name, or do not look at."""

_HELPER: Final = (
    'test "$1" = get && printf "username=%s\\\\npassword=%s\\\\n" "$CLONE_USER" "$CLONE_TOKEN"'
)

Command = tuple[str, ...]


class CloneSandbox(Protocol):
    """What is asked of a sandbox that clones."""

    async def exec(
        self,
        *command: str,
        timeout: float | None = ...,
        shell: bool = ...,
        cwd: str | PurePath | None = ...,
        env: Mapping[str, str] | None = ...,
    ) -> ExecResult:
        """Run a command."""

    async def write(self, path: str, data: bytes) -> None:
        """Write a file."""

    async def rm(self, path: str, *, recursive: bool = ...) -> None:
        """Remove a tree."""


class Spare(NamedTuple):
    """A sandbox for one piece of work.

    Attributes:
        sandbox: it, running.
        inside: path of its workspace, as its commands see it.
        host: path of its workspace on the host.
    """

    sandbox: CloneSandbox
    inside: str
    host: str


# --- what is decided; pure --------------------------------------------------------------------


def clone_policy(policy: Policy, repository: Repository) -> Policy:
    """What the sandbox of a clone may do: the network for a URL, and one path for what lies here.

    Args:
        policy: the policy of the session that wants it, whose words for variables and for what may
            be lost it has too.
        repository: what is cloned.
    """
    return Policy(
        reads=() if repository.local is None else (repository.local,),
        network="host" if repository.local is None else "none",
        protect=(),
        environment=policy.environment,
        inherit=policy.inherit,
        toolchains=policy.toolchains,
        accept=policy.accept,
    )


def clone_commands(repository: Repository) -> Iterator[Sequence[Command]]:
    """Ways to clone a repository, the cheapest first: commands that must all succeed.

    A server may refuse to give a commit by its name; then all of the history is fetched.
    """
    ref = repository.ref
    if ref is None:
        yield (_clone(repository),)
        return
    is_hex = len(ref) >= _SHORT_NAME and set(ref.lower()) <= _HEX
    if ref.startswith("refs/") or (is_hex and len(ref) in _FULL_NAMES):
        yield (
            ("git", "init", "-q", "--template=", WORKING_TREE),
            _inside("remote", "add", "origin", repository.url),
            _inside("fetch", "-q", *_depth(repository), "--no-tags", "origin", ref),
            _inside("checkout", "-q", "--detach", "FETCH_HEAD"),
            *_submodules(repository),
        )
        if not is_hex:
            return
    else:
        yield (_clone(repository, f"--branch={ref}"),)
    if is_hex:
        whole = repository._replace(depth=None, submodules=False)
        yield (
            _clone(whole, "--no-checkout"),
            _inside("checkout", "-q", "--detach", ref),
            *_submodules(repository),
        )


def _clone(repository: Repository, *options: str) -> Command:
    submodules = ("--recurse-submodules",) if repository.submodules else ()
    shallow = ("--shallow-submodules",) if submodules and repository.depth else ()
    few = (*_depth(repository), "--no-tags") if repository.depth else ()
    words = ("git", "clone", "-q", "--template=", *few, *submodules, *shallow, *options)
    return (*words, "--", repository.url, WORKING_TREE)


def _depth(repository: Repository) -> Command:
    return () if repository.depth is None else (f"--depth={repository.depth}",)


def _inside(*words: str) -> Command:
    return ("git", "-C", WORKING_TREE, *words)


def _submodules(repository: Repository) -> tuple[Command, ...]:
    if not repository.submodules:
        return ()
    depth = _depth(repository)
    return (_inside("submodule", "-q", "update", "--init", "--recursive", *depth),)


def clone_config(repository: Repository, *, with_token: bool) -> str:
    """The only settings that Git has: no hooks, no filters, nobody asked, and a server that stalls is left.

    The token stands in the environment, which this names; it goes to the repository's own host
    alone.
    """
    lines = [
        "[core]\n\thooksPath = /dev/null\n",
        "[safe]\n\tdirectory = *\n",
        '[protocol "file"]\n\tallow = always\n',
        "[advice]\n\tdetachedHead = false\n",
        "[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n",
        f"[http]\n\tlowSpeedLimit = {_STALLED_BYTES}\n\tlowSpeedTime = {GIT_STALLED_S}\n",
    ]
    if with_token:
        parts = urlsplit(repository.url)
        helper = _HELPER.replace('"', '\\"')
        lines.append(f'[credential "{parts.scheme}://{parts.netloc}"]\n')
        lines.append(f'\thelper = "!f() {{ {helper}; }}; f"\n')
    return "".join(lines)


# --- what is done -----------------------------------------------------------------------------


async def clone_repository(
    sandbox: CloneSandbox, root: str, repository: Repository, token: str | None
) -> None:
    """Clone a repository into ``WORKING_TREE`` of a sandbox's workspace.

    Args:
        sandbox: where it runs.
        root: path of the sandbox's workspace, inside.
        repository: what is cloned.
        token: what the server asks for, ``user:password`` or a token alone; None is nothing.

    Raises:
        GitMissingInImageError: there is no git inside.
        GitCloneError: Git refused, or took too long.
    """
    environment = {
        "GIT_CONFIG_GLOBAL": f"{root}/{_CONFIG}",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "https:http:ssh:git:file",
        "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
        "GIT_LFS_SKIP_SMUDGE": "1",
        "LC_ALL": "C.UTF-8",
    }
    if token is not None:
        user, colon, password = token.partition(":")
        environment |= {
            "CLONE_USER": user if colon else _USER,
            "CLONE_TOKEN": password if colon else token,
        }
    config = clone_config(repository, with_token=token is not None)
    await sandbox.write(_CONFIG, config.encode())
    loop = asyncio.get_running_loop()
    deadline = loop.time() + repository.timeout
    said = ""
    for commands in clone_commands(repository):
        for command in commands:
            result = await _run(sandbox, command, environment, deadline - loop.time(), repository)
            if result.exit_code == _MISSING:
                raise GitMissingInImageError(repo=repository.url, ref=repository.ref)
            if not result.ok():
                said = _without(token, result.stderr.decode("utf-8", "replace"))
                await sandbox.rm(WORKING_TREE, recursive=True)
                break
        else:
            return
    raise _failed(repository, said[-GIT_STDERR_CHARS:])


async def _run(
    sandbox: CloneSandbox,
    command: Command,
    environment: Mapping[str, str],
    remaining: float,
    repository: Repository,
) -> ExecResult:
    """Run one command of a clone in what is left of its time."""
    said = f"it took longer than {repository.timeout:g} seconds (timeout=)"
    if remaining <= 0:
        raise _failed(repository, said, retryable=True)
    try:
        return await sandbox.exec(*command, shell=False, env=environment, timeout=remaining)
    except ExecTimeoutError as error:
        raise _failed(repository, said, error, retryable=True) from error


def _failed(
    repository: Repository,
    said: str,
    cause: SandboxError | None = None,
    *,
    retryable: bool | None = None,
) -> GitCloneError:
    failed = GitCloneError(
        url=repository.url,
        ref=repository.ref,
        stderr=said,
        repo=repository.url,
        subpath=repository.subpath,
        cause=cause,
    )
    failed.retryable = retryable
    return failed


def _without(token: str | None, text: str) -> str:
    """Git does not tell the token, but a server may say what it was given."""
    for part in (token or "").split(":", 1):
        if part:
            text = text.replace(part, "***")
    return text
