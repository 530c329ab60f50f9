"""No coroutine of ours may block the loop: blockbuster watches src/sandyard in async tests."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from types import ModuleType

import pytest
from blockbuster import BlockBuster, BlockBusterFunction

# Calls that blockbuster does not know by itself and that wait for a disk or for a process.
MORE_CALLS = ("os.fsync", "os.fdatasync", "os.sync", "os.wait", "subprocess.run")

# Places where a call that can block is right: (end of the file's path, functions, why).
MAY_BLOCK: tuple[tuple[str, frozenset[str], str], ...] = (
    (
        "<frozen importlib._bootstrap>",
        frozenset({"_find_and_load"}),
        "an import blocks once, in whichever test happens to be the first",
    ),
    (
        "sandyard/process/freezing.py",
        frozenset({"is_crowded"}),
        "a line that the kernel makes up; amid the crowd a thread would wait seconds for its turn",
    ),
    (
        "sandyard/process/channel.py",
        frozenset({"send_message"}),
        "a memfd is memory: writing to it waits for nothing",
    ),
    (
        "sandyard/integrations/openai_agents/snapshots.py",
        frozenset({"persist", "restore", "restorable"}),
        "a program's own snapshot is called on the loop, as the SDK does it",
    ),
)


def locate_package(name: str) -> ModuleType:
    """A stand-in with the package's path: blockbuster wants a module, importing may fail."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise pytest.UsageError(f"{name} is not installed; run `make setup`")
    module = ModuleType(name)
    module.__path__ = list(spec.submodule_search_locations)
    return module


@cache
def make_watch(name: str) -> BlockBuster:
    """The watch over one package, made once: it is costlier to make than to switch on."""
    package = locate_package(name)
    watch = BlockBuster([package])
    for call in MORE_CALLS:
        watch.functions[call] = BlockBusterFunction(None, call, scanned_modules=[package])
    for call in ("os.waitid", "os.waitpid"):
        watch.functions[call] = BlockBusterFunction(
            None,
            call,
            scanned_modules=[package],
            # The options come last in both; asking whether a child has ended does not block.
            can_block_predicate=lambda *arguments: bool(arguments[-1] & os.WNOHANG),
        )
    for function in watch.functions.values():
        for file, callers, _why in MAY_BLOCK:
            function.can_block_in(file, callers)
    return watch


@pytest.fixture(autouse=True)
def never_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Raise BlockingError inside any call of ours that blocks the loop of an async test."""
    if not inspect.iscoroutinefunction(getattr(request.node, "obj", None)):
        yield
        return
    watch = make_watch(os.environ.get("SANDYARD_WATCHED_PACKAGE", "sandyard"))
    watch.activate()
    try:
        yield
    finally:
        watch.deactivate()
