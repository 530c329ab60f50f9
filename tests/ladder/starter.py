"""A host program: starts a session with each policy that it is told, and says what came of it."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from typing import Any

from sandyard import (
    ConfinementUnavailableError,
    Manifest,
    Narrowing,
    Policy,
    UnixLocalSandboxClient,
)


async def attempt(order: dict[str, Any]) -> dict[str, Any]:
    """One session: its report and its state, or the refusal."""
    if "temporary" in order:
        tempfile.tempdir = order["temporary"]
    named: dict[str, Any] = order["policy"]
    policy = Policy(**{name: tuple(value) for name, value in named.items()})  # type: ignore[arg-type]
    client = UnixLocalSandboxClient(policy=policy)
    manifest = Manifest(root=order["root"]) if order.get("root") else None
    session = await client.create(manifest=manifest)
    try:
        async with session:
            report = session.confinement
            assert report is not None
            result = await session.exec(order.get("command", "echo works > f; cat f"), timeout=20)
            await session.write("made", b"by the host")
            again = await session.exec("cat made && echo more >> made", timeout=20)
            code = "cat made; ls; echo x > new; echo x > $TMPDIR/new; cat $TMPDIR/new; ls $HOME"
            less = await session.exec(code, timeout=20, narrow=Narrowing(reads=(), writes=()))
            return {
                "narrowed": less.stdout.decode(),
                "report": report.document(),
                "state": session.state.model_dump(mode="json")["confinement"],
                "fix": report.fix,
                "said": result.stdout.decode() + result.stderr.decode(),
                "shared": again.exit_code,
            }
    except ConfinementUnavailableError as error:
        return {"refused": error.message, "context": {k: str(v) for k, v in error.context.items()}}
    finally:
        await client.delete(session)


def main() -> None:
    orders = json.loads(sys.stdin.read())
    # One after the other in one program: what was found by trying is used again.
    json.dump([asyncio.run(attempt(order)) for order in orders], sys.stdout)


if __name__ == "__main__":
    main()
