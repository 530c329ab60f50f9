"""Every verb of a session is one that the faults of this directory are tried on."""

from __future__ import annotations

import inspect

from sandyard import BaseSandboxSession, UnixLocalSandboxClient
from tests.faults import keeping, verbs

SPARED = {
    "provision_manifest_accounts": "does nothing: accounts are made by the start",
    "run_pre_stop_hooks": "the caller's own functions",
}
"""Those that have no fault of their own to meet."""


def list_verbs(kind: type) -> set[str]:
    """The public coroutines and asynchronous contexts of a class."""
    found = set()
    for name, member in inspect.getmembers(kind, inspect.isroutine):
        if name.startswith("_"):
            continue
        plain = inspect.unwrap(member)
        is_context = "Async" in str(inspect.signature(plain).return_annotation)
        if inspect.iscoroutinefunction(plain) or is_context:
            found.add(name)
    return found


def test_each_verb_is_tried() -> None:
    source = inspect.getsource(verbs) + inspect.getsource(keeping)
    every = list_verbs(BaseSandboxSession) | list_verbs(UnixLocalSandboxClient)
    assert {"exec", "stream", "watch", "fork"} <= every
    untried = {name for name in every if f".{name}(" not in source}
    assert untried == SPARED.keys() & every == SPARED.keys()
