"""Agents whose model is a script: runs of the Agents SDK that need no network."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agents import RunConfig, Runner, RunResult, RunState
from agents.items import TResponseOutputItem
from agents.sandbox import SandboxAgent, SandboxRunConfig
from agents.testing import ModelCall, ModelStep, ScriptedModel, assistant_message, function_call
from openai.types.responses import ResponseCustomToolCall

__all__ = ["Step", "called", "is_there", "outputs", "patched", "run", "scripted", "text_of"]

Step = TResponseOutputItem | Callable[[list[str]], TResponseOutputItem]
"""A call of a tool, or a function that makes one of what the tools have said so far."""


def called(name: str, number: int, **arguments: object) -> TResponseOutputItem:
    """A call of a function tool."""
    return function_call(name, arguments, call_id=f"call-{number}")


def patched(number: int, text: str) -> TResponseOutputItem:
    """A call of ``apply_patch``, whose input is a text."""
    return ResponseCustomToolCall(
        type="custom_tool_call", call_id=f"call-{number}", name="apply_patch", input=text
    )


def said(call: ModelCall) -> list[str]:
    """What the tools have said, in the input of a model's call."""
    items: Sequence[Mapping[str, object]] = [] if isinstance(call.input, str) else call.input
    return [str(item["output"]) for item in items if str(item.get("type")).endswith("_output")]


def scripted(*steps: Step) -> ScriptedModel:
    """A model that calls one tool after the other, and then says ``done``."""
    return ScriptedModel([*map(_stepped, steps), [assistant_message("done")]])


def _stepped(step: Step) -> ModelStep:
    if not callable(step):
        return ModelStep(output=[step])
    return ModelStep.respond(lambda call: [step(said(call))])


async def run(
    agent: SandboxAgent[None], sandbox: SandboxRunConfig, given: str | RunState[None] = "go"
) -> RunResult:
    """Run an agent to its end, or to its next question."""
    config = RunConfig(sandbox=sandbox, tracing_disabled=True)
    return await Runner.run(agent, given, run_config=config, max_turns=40)


def outputs(agent: SandboxAgent[None]) -> list[str]:
    """What the tools of an agent said in its run."""
    model = agent.model
    assert isinstance(model, ScriptedModel)
    model.assert_complete()
    assert model.last_call is not None
    return said(model.last_call)


def is_there(*path: str | Path) -> bool:
    """Whether something is on the host."""
    return os.path.lexists(Path(*path))


def text_of(*path: str | Path) -> str:
    """What a file of the host holds."""
    return Path(*path).read_text(encoding="utf-8")
