"""What the adapters' tests share: no tracing, since its exporter has a thread and wants a network."""

from __future__ import annotations

import agents
import pytest

from sandyard.integrations.openai_agents import SandyardClient

agents.set_tracing_disabled(True)


@pytest.fixture
def client() -> SandyardClient:
    return SandyardClient()
