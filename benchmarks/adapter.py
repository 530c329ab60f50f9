"""Owns what a tool call of an agent costs: the Agents SDK's runner on our client and on its own."""

from __future__ import annotations

import importlib
import importlib.util
from functools import partial

from benchmarks.measure import Row, interleaved, shown
from benchmarks.peers import agents_session

__all__ = ["adapter_rows"]

CALLS = 20
ROUNDS = 25
WARM_UP = 3


async def adapter_rows() -> list[Row]:
    """One row: the time of runs of many calls, each of a shell and ``true``."""
    if importlib.util.find_spec("agents") is None:
        return []
    importlib.import_module("agents").set_tracing_disabled(True)
    module = importlib.import_module("sandyard.integrations.openai_agents")
    client = module.SandyardClient()
    session = await client.create()
    try:
        async with session, agents_session() as theirs:
            subjects = {"confined": partial(_run, session), "its own": partial(_run, theirs)}
            series = await interleaved(subjects, ROUNDS, WARM_UP)
    finally:
        await client.delete(session)
    ratio = series["confined"].median / series["its own"].median
    what = f"{CALLS} tool calls of an agent, beside openai-agents"
    return [Row(what, ratio, 1.0, shown(series))]


async def _run(session: object) -> None:
    """Has the runner carry out a script of calls.

    Raises:
        RuntimeError: if a call failed: its time would mean nothing.
    """
    agents = importlib.import_module("agents")
    sandbox = importlib.import_module("agents.sandbox")
    testing = importlib.import_module("agents.testing")
    calls = [
        [testing.function_call("exec_command", {"cmd": "true"}, call_id=f"call-{number}")]
        for number in range(CALLS)
    ]
    model = testing.ScriptedModel([*calls, [testing.assistant_message("done")]])
    config = agents.RunConfig(
        sandbox=sandbox.SandboxRunConfig(session=session), tracing_disabled=True
    )
    agent = sandbox.SandboxAgent(name="worker", model=model)
    await agents.Runner.run(agent, "go", run_config=config, max_turns=CALLS + 1)
    said = [item["output"] for item in model.last_call.input if "output" in item]
    if len(said) != CALLS or not all("exited with code 0" in each for each in said):
        raise RuntimeError(f"a call failed: {said[-1:]}")
