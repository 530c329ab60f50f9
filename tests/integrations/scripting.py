"""Agents whose model is a script: runs of the Agents SDK that need no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agents import Agent, RunConfig, Runner, RunResult, RunState
from agents.sandbox import SandboxAgent, SandboxRunConfig
from agents.testing import ModelCall, ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseCustomToolCall

__all__ = ["Say", "called", "outputs", "patched", "run", "scripted"]

Say = Callable[[list[str]], Any]
"""A step of a script that depends on what the tools have said so far."""


def called(name: str, number: int, **arguments: object) -> Any:
    """A call of a function tool."""
    return function_call(name, arguments, call_id=f"call-{number}")


def patched(number: int, text: str) -> Any:
    """A call of ``apply_patch``, whose input is a text."""
    return ResponseCustomToolCall(
        type="custom_tool_call", call_id=f"call-{number}", name="apply_patch", input=text
    )


def said(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the tools have said, in the input of a model's call."""
    return [str(item["output"]) for item in items if str(item.get("type")).endswith("_output")]


def scripted(*steps: Any) -> ScriptedModel:
    """A model that calls one tool after the other, and then says ``done``.

    Args:
        steps: calls, or functions that make one of what the tools have said so far.
    """

    def step(given: Any) -> Any:
        if not callable(given):
            return [given]
        return {"responder": lambda call: [given(said(_items(call)))]}

    return ScriptedModel([*map(step, steps), [assistant_message("done")]])


def _items(call: ModelCall) -> Sequence[Mapping[str, Any]]:
    return [] if isinstance(call.input, str) else call.input


async def run(
    agent: Agent[Any], sandbox: SandboxRunConfig, given: str | RunState[Any] = "go"
) -> RunResult:
    """Run an agent to its end, or to its next question."""
    config = RunConfig(sandbox=sandbox, tracing_disabled=True)
    return await Runner.run(agent, given, run_config=config, max_turns=40)


def outputs(agent: SandboxAgent[Any]) -> list[str]:
    """What the tools of an agent said in its run."""
    model = agent.model
    assert isinstance(model, ScriptedModel)
    model.assert_complete()
    assert model.last_call is not None
    return said(_items(model.last_call))
