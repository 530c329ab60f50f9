"""The contract of sessions and clients: what every kind of them does, whoever implements it."""

from __future__ import annotations

from sandyard.contract.commands import CommandContract
from sandyard.contract.files import FileContract
from sandyard.contract.life import LifeContract
from sandyard.contract.trees import TreeContract

__all__ = ["BaseSandboxSession", "SandboxSession"]


class BaseSandboxSession(LifeContract, CommandContract, FileContract, TreeContract):
    """What a session is, whatever holds its sandbox: this machine, a server, a test's fake.

    A kind of session sets ``state`` and implements the methods that are marked as abstract. It may
    implement the others; those that it leaves out raise ``UnsupportedOperationError``, or are made of
    the ones that it has: ``aclose``, ``exists`` and ``read_bounded``. Methods without an underscore
    are all that there is to implement. Arguments of a method that a kind can't honour are refused by
    ``UnsupportedOperationError`` too, never ignored.

    Errors are ``SandboxError``s, as each method says. Sessions can be told apart and be put into sets
    and weak references.

    Example:
        >>> class MemorySession(BaseSandboxSession):
        ...     def __init__(self, state: SandboxSessionState) -> None:
        ...         self.state = state
        ...
        ...     async def exec(self, *command, **options) -> ExecResult: ...
    """


SandboxSession = BaseSandboxSession
"""The same: sessions tell of their events themselves, so that nothing is wrapped around them."""
