"""What the SDK keeps of a session of ours between runs, and what a run may ask of the client."""

from __future__ import annotations

from typing import Literal

from agents.sandbox.session import BaseSandboxClientOptions, SandboxSessionState

__all__ = ["BACKEND_ID", "SandyardClientOptions", "SandyardSessionState"]

BACKEND_ID = "sandyard"
"""What the SDK calls this backend, in a ``RunState`` as well."""


class SandyardClientOptions(BaseSandboxClientOptions):
    """What one run asks for: ``SandboxRunConfig(options=SandyardClientOptions(...))``.

    What commands may touch is no option: a run's configuration may come from anywhere, and the policy
    is the program's own, given to ``SandyardClient``.

    Attributes:
        exposed_ports: ports of ``localhost`` inside that this machine's programs reach on the same
            numbers of their own loopback, from the start of a session to its end (default: none). What
            commands reach outside does not change by them.
    """

    type: Literal["sandyard"] = "sandyard"
    exposed_ports: tuple[int, ...] = ()


class SandyardSessionState(SandboxSessionState):
    """What resumes a session.

    Attributes:
        workspace_root_owned: True if the workspace is a directory that the library made; only such a
            one is ever deleted, and only if a lease of this machine says the same.
        seal: by which this user's library knows that it wrote where the workspace is, and where it is
            kept.
        confinement: what held at the last start, in words; None before. It is told and never obeyed.
    """

    type: Literal["sandyard"] = "sandyard"
    workspace_root_owned: bool = False
    seal: str = ""
    confinement: dict[str, str] | None = None
