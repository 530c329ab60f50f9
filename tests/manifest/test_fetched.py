"""Repositories and archives as entries: what is accepted, and what is refused before anything runs."""

from __future__ import annotations

import json
import traceback

import pytest

from sandyard.errors import GitSubpathError, ManifestError
from sandyard.manifest import Archive, GitRepo, Manifest
from sandyard.manifest.fetched import Repository


@pytest.mark.parametrize(
    ("repo", "url", "local"),
    [
        ("openai/x", "https://github.com/openai/x.git", None),
        ("group/sub/x.git", "https://github.com/group/sub/x.git", None),
        ("https://example.org:8443/x", "https://example.org:8443/x", None),
        ("ssh://git@example.org/x", "ssh://git@example.org/x", None),
        ("git@example.org:x/y.git", "git@example.org:x/y.git", None),
        ("file:///srv/a%20b", "file:///srv/a%20b", "/srv/a b"),
        ("/srv/a b", "file:///srv/a%20b", "/srv/a b"),
    ],
)
def test_where_a_repository_lies(repo: str, url: str, local: str | None) -> None:
    entry = GitRepo(repo=repo)
    assert entry.repository() == Repository(url, local, None, None, 1, False, None, 600.0)
    assert (
        GitRepo(repo="a/b", host="git.example.org")
        .repository()
        .url.startswith("https://git.example.org/")
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"repo": "x"}, "no 'owner/name'"),
        ({"repo": "-x/y;z"}, "no 'owner/name'"),
        ({"repo": "ext::sh -c touch% /tmp/x"}, "no 'owner/name'"),
        ({"repo": "ftp://h/x"}, "schemes"),
        ({"repo": "file://other/x"}, "file URL"),
        ({"repo": "a/b", "host": "h/../x"}, "name of a host"),
        ({"repo": "a/b", "ref": "-u"}, "no name that Git allows"),
        ({"repo": "a/b", "ref": "a b"}, "no name that Git allows"),
        ({"repo": "a/b", "depth": 0}, "depth"),
        ({"repo": "a/b", "timeout": 0}, "timeout"),
        ({"repo": "a/b", "token_env": "ghp-secret"}, "never the token itself"),
        ({"repo": "a/b", "reff": "x"}, "did you mean 'ref'"),
    ],
)
def test_what_can_not_be_cloned(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        GitRepo(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "repo",
    [
        "https://u:hunter2@h/x",
        "https://hunter2@h/x",
        "ssh://u:hunter2@h/x",
        "u:hunter2@h/x/y",
        "u:hunter2@h:x",
        "https://h/x?t=hunter2",
    ],
)
def test_passwords_are_not_quoted(repo: str) -> None:
    with pytest.raises(ManifestError, match="token_env") as caught:
        Manifest(entries={"r": {"type": "git_repo", "repo": repo}})
    assert caught.value.context["entry"] == "r"
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("subpath", "reason"),
    [
        (" ", "empty"),
        ("/a", "absolute"),
        ("a\\b", "windows_path"),
        ("C:/a", "windows_path"),
        ("a/../b", "parent_traversal"),
    ],
)
def test_subpaths(subpath: str, reason: str) -> None:
    with pytest.raises(GitSubpathError) as caught:
        GitRepo(repo="a/b", subpath=subpath)
    assert caught.value.context["reason"] == reason
    assert GitRepo(repo="a/b", subpath="./a//b/").repository().subpath == "a/b"
    assert GitRepo(repo="a/b", subpath="").repository().subpath is None


def test_they_survive_json() -> None:
    manifest = Manifest(
        entries={
            "r": GitRepo(repo="a/b", ref="v1", subpath="x", depth=None, token_env="T"),
            "a": Archive(src="x.tgz", sha256="AB" * 32),
        }
    )
    assert Manifest.from_saved(manifest.model_dump_json()) == manifest
    assert json.loads(manifest.model_dump_json())["entries"]["a"]["sha256"] == "ab" * 32
    with pytest.raises(ManifestError, match="64 hexadecimal"):
        Archive(src="x", sha256="abc")
