"""A name has at most four words; if it wants a fifth, it wants a house."""

from __future__ import annotations

import re

from tests.house.sources import walk_definitions

WORD_LIMIT = 4
WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+")

# Names of the API that Sandyard keeps, for programs that were written against it.
OLD_API = frozenset({
    "ApplyPatchFileNotFoundError",
    "GitMissingInImageError",
    "PtySessionNotFoundError",
    "UnixLocalSandboxClientOptions",
    "UnixLocalSandboxSessionState",
    "approx_tokens_from_byte_count",
    "exception_chain_has_status_code",
    "formatted_truncate_text_with_token_count",
    "WorkspaceReadNotFoundError",
    "WorkspaceRootNotFoundError",
    "register_persist_workspace_skip_path",
    "safe_tar_member_rel_path",
    "should_provision_manifest_accounts_on_resume",
})  # fmt: skip


def count_words(name: str) -> int:
    """The words of a snake_case or CamelCase name; an acronym is one."""
    return len(WORD.findall(name))


def test_counts_words() -> None:
    names = ("exec", "HTTPError", "sandyard_init", "WorkspaceReadNotFoundError", "__aexit__")
    assert [count_words(name) for name in names] == [1, 2, 2, 5, 1]


def test_names_are_short() -> None:
    long = {
        f"{path}:{node.lineno} {node.name}"
        for path, node in walk_definitions()
        if count_words(node.name) > WORD_LIMIT and node.name not in OLD_API
    }
    assert not long
