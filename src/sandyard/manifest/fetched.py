"""Entries whose content comes from elsewhere: Git repositories, and archives of the host."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Annotated, Final, Literal, NamedTuple, Unpack
from urllib.parse import quote, unquote, urlsplit

from pydantic import BeforeValidator, model_validator

from sandyard.errors import GitSubpathError, ManifestError, shown
from sandyard.limits import GIT_CLONE_S, TIMEOUT_MAX_S
from sandyard.manifest.base import plain_text
from sandyard.manifest.entries import BaseEntry, Copied, EntryFields, source_path

__all__ = ["Archive", "GitRepo", "Repository"]

_REMOTE: Final = frozenset({"https", "http", "ssh", "git"})
_SCP_LIKE: Final = re.compile(r"(?:[\w.+-]+@)?[\w.-]+:(?!//)\S+\Z")
_PASSWORD_LIKE: Final = re.compile(r"[\w.+-]+:(?!//)[^/@\s]*@")
"""A URL's user and password without its scheme, which Git takes for a host and a path."""

_NAME: Final = re.compile(r"[\w.-]+(?:/[\w.-]+)+\Z")
_HOST: Final = re.compile(r"[\w.-]+(?::\d+)?\Z")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")


class Repository(NamedTuple):
    """What is cloned, as plain values.

    Attributes:
        url: what Git is given; it never holds a password.
        local: absolute path on the host, if it lies there.
        ref: branch, tag, full reference or commit; None is what the repository says itself.
        subpath: the part of it that is wanted; None is all.
        depth: commits of history; None is all of them.
        submodules: whether they are cloned as well.
        token_env: variable that holds what the server asks for; None is nothing.
        timeout: seconds that it may take.
    """

    url: str
    local: str | None
    ref: str | None
    subpath: str | None
    depth: int | None
    submodules: bool
    token_env: str | None
    timeout: float


def _ref(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip():
        raise ManifestError(f"ref is a branch, a tag or a commit, not {shown(value)}")
    if value.startswith("-") or any(char.isspace() or char in "\0~^:?*[\\" for char in value):
        raise ManifestError(f"ref {shown(value)} is no name that Git allows")
    return plain_text(value, f"ref {shown(value)}")


def _token_env(value: object) -> str | None:
    if value is None or (isinstance(value, str) and _VARIABLE.match(value)):
        return value
    raise ManifestError(
        "token_env is the name of a variable that holds the token, such as 'GITHUB_TOKEN'; never "
        "the token itself"
    )


def _location(repo: str, host: str) -> tuple[str, str | None]:
    """The URL for Git, and the path on the host if it lies there.

    Raises:
        ManifestError: it is no place that a repository can be cloned from.
    """
    if repo.startswith("/"):
        return f"file://{quote(repo)}", repo
    if "://" in repo:
        return _checked_url(repo)
    if _PASSWORD_LIKE.match(repo):
        raise _has_password()
    if _SCP_LIKE.match(repo):
        return repo, None
    if not _NAME.match(repo):
        raise ManifestError(
            f"repo {shown(repo)} is no 'owner/name', no URL and no absolute path", field="repo"
        )
    if not _HOST.match(host):
        raise ManifestError(f"host {shown(host)} is no name of a host", field="host")
    return f"https://{host}/{repo.removesuffix('.git')}.git", None


def _has_password() -> ManifestError:
    return ManifestError(
        "the URL in repo has a user, a password or a query in it, which would be stored with the "
        "manifest; leave it out, and name a variable that holds the token in token_env",
        field="repo",
    )


def _checked_url(url: str) -> tuple[str, str | None]:
    """Check a URL; one with a password in it is never quoted."""
    try:
        parts = urlsplit(url)
        secret = parts.password is not None or (parts.scheme != "ssh" and "@" in parts.netloc)
    except ValueError:
        raise ManifestError("repo is no URL that can be taken apart", field="repo") from None
    if secret or parts.query or parts.fragment:
        raise _has_password()
    if parts.scheme == "file":
        path = unquote(parts.path)
        if parts.netloc or not path.startswith("/") or "\0" in path:
            raise ManifestError(
                f"repo {shown(url)} is no file URL of this machine; write file:///path",
                field="repo",
            )
        return f"file://{quote(path)}", path
    if parts.scheme not in _REMOTE or not parts.hostname:
        known = ", ".join(sorted({*_REMOTE, "file"}))
        raise ManifestError(
            f"repo {shown(url)} has no host, or not one of the schemes {known}", field="repo"
        )
    return url, None


class GitRepo(BaseEntry):
    """A clone of a Git repository, made in a sandbox of its own before work starts.

    That sandbox sees the system's programs and nothing of yours; for a URL it has the network, for a
    path of the host it sees that path and has none. No hook, filter or setting of yours runs, and
    nothing of it stays.

    Attributes:
        repo: a URL (``https``, ``http``, ``ssh``, ``git``, ``file``), ``user@host:path``, an absolute
            path of the host under the rules of ``LocalFile.src``, or ``owner/name`` at ``host``.
        host: where ``owner/name`` lies (default ``github.com``).
        ref: branch, tag, full reference or commit (default: what the repository says itself).
        subpath: a directory of it to copy instead of all of it; then without ``.git``.
        depth: commits of history to fetch (default 1); None fetches all.
        submodules: True clones submodules as well (default: False).
        token_env: variable of the manifest's environment, or else of this program's, that holds a
            token or ``user:password`` for the server (default: none). Git is given it by
            environment, in the clone's own sandbox, and sends it to the repository's host alone; it
            is not stored. Commands of the session have it only if it is the manifest's.
        timeout: seconds that the clone may take (default 600).
    """

    type: Literal["git_repo"] = "git_repo"
    is_dir: bool = True
    repo: str
    host: str = "github.com"
    ref: Annotated[str | None, BeforeValidator(_ref)] = None
    subpath: str | None = None
    depth: int | None = 1
    submodules: bool = False
    token_env: Annotated[str | None, BeforeValidator(_token_env)] = None
    timeout: float = GIT_CLONE_S

    def __init__(
        self,
        *,
        repo: str,
        host: str = "github.com",
        ref: str | None = None,
        subpath: str | None = None,
        depth: int | None = 1,
        submodules: bool = False,
        token_env: str | None = None,
        timeout: float = GIT_CLONE_S,
        **common: Unpack[EntryFields],
    ) -> None:
        super().__init__(
            repo=repo,
            host=host,
            ref=ref,
            subpath=subpath,
            depth=depth,
            submodules=submodules,
            token_env=token_env,
            timeout=timeout,
            **common,
        )

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @model_validator(mode="after")
    def _can_be_cloned(self) -> GitRepo:
        """Refuse what no clone could give."""
        plain_text(self.repo, "repo")
        self.repository()
        if self.depth is not None and self.depth < 1:
            raise ManifestError("depth is 1 or more, or None for all history", field="depth")
        if not 0 < self.timeout <= TIMEOUT_MAX_S:
            raise ManifestError(
                f"timeout is more than 0 and at most {TIMEOUT_MAX_S:.0f} seconds", field="timeout"
            )
        return self

    def repository(self) -> Repository:
        """What is to be cloned, as plain values.

        Raises:
            ManifestError: there is no such place.
            GitSubpathError: the subpath is no path in a repository.
        """
        url, local = _location(self.repo, self.host)
        return Repository(
            url=url,
            local=local,
            ref=self.ref,
            subpath=self._plain_subpath(),
            depth=self.depth,
            submodules=self.submodules,
            token_env=self.token_env,
            timeout=self.timeout,
        )

    def _plain_subpath(self) -> str | None:
        """The subpath in normal form; an empty one, or '.', is all of the repository."""
        if self.subpath is None or self.subpath in {"", "."}:
            return None
        names = self.subpath.split("/")
        reason = ""
        if not self.subpath.strip():
            reason = "empty"
        elif self.subpath.startswith("/"):
            reason = "absolute"
        elif "\\" in self.subpath or re.match(r"[A-Za-z]:", self.subpath):
            reason = "windows_path"
        elif ".." in names:
            reason = "parent_traversal"
        if reason:
            raise GitSubpathError(repo=self.repo, subpath=self.subpath, reason=reason)
        return "/".join(name for name in names if name not in {"", "."}) or None


def _sha256(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and _SHA256.match(value.lower()):
        return value.lower()
    raise ManifestError(f"sha256 is 64 hexadecimal digits, not {shown(value)}", field="sha256")


class Archive(Copied):
    """What is in an archive of the host: a tar, plain or compressed, or a zip.

    It is unpacked whole or not at all, under the rules of ``session.extract``: members keep their
    permissions and times, and one that would leave the entry's directory refuses the archive.

    Attributes:
        src: the archive, under the rules of ``LocalFile.src``.
        sha256: its checksum; another content is refused before anything is unpacked (default: not
            compared).
        permissions: who may do what with the entry's directory itself (default: as the archive
            says).
    """

    type: Literal["archive"] = "archive"
    is_dir: bool = True
    src: Annotated[Path, BeforeValidator(source_path)]
    sha256: Annotated[str | None, BeforeValidator(_sha256)] = None

    def __init__(
        self, *, src: str | PurePath, sha256: str | None = None, **common: Unpack[EntryFields]
    ) -> None:
        super().__init__(src=src, sha256=sha256, **common)

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]
