"""The OpenAI Agents SDK on Sandyard: ``SandboxRunConfig(client=SandyardClient())``.

It needs the package ``openai-agents``: ``pip install 'sandyard[openai-agents]'``.

Example:
    >>> from agents import RunConfig, Runner
    >>> from agents.sandbox import SandboxAgent, SandboxRunConfig
    >>> from sandyard.integrations.openai_agents import SandyardClient
    >>> run = RunConfig(sandbox=SandboxRunConfig(client=SandyardClient()))
    >>> result = await Runner.run(SandboxAgent(name="coder"), "Fix the tests.", run_config=run)
"""

from __future__ import annotations

try:
    import agents.sandbox  # noqa: F401  # the one look at whether it is there
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "sandyard.integrations.openai_agents needs the OpenAI Agents SDK with its sandbox: "
        f"pip install 'sandyard[openai-agents]' ({error})",
        name=error.name,
    ) from error

from sandyard.integrations.openai_agents.client import SandyardClient
from sandyard.integrations.openai_agents.session import SandyardSession
from sandyard.integrations.openai_agents.snapshots import StoreSnapshot, StoreSnapshotSpec
from sandyard.integrations.openai_agents.state import SandyardClientOptions, SandyardSessionState
from sandyard.integrations.openai_agents.worker import SandyardWorker

__all__ = [
    "SandyardClient",
    "SandyardClientOptions",
    "SandyardSession",
    "SandyardSessionState",
    "SandyardWorker",
    "StoreSnapshot",
    "StoreSnapshotSpec",
]
