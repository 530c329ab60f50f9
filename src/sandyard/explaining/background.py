"""Owns a background process whose result tells what was denied, as its last words say."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

from sandyard.errors import ExecTimeoutError, SandboxError
from sandyard.explaining.complaints import TAIL_BYTES
from sandyard.loading import loading
from sandyard.process.background import BackgroundProcess

if TYPE_CHECKING:
    from sandyard.explaining.explainer import Explainer
    from sandyard.narrowing import Narrowing
    from sandyard.process.background import PortWait
    from sandyard.process.background_run import ProcessRun
    from sandyard.types import ExecResult

__all__ = ["ExplainedProcess"]


class ExplainedProcess(BackgroundProcess):
    """A background process that explains why it failed."""

    def __init__(
        self,
        run: ProcessRun,
        *,
        label: tuple[str, str],
        wait_for_port: PortWait,
        explainer: Explainer,
        narrow: Narrowing | None,
    ) -> None:
        """Prepare a process; use ``session.start_process`` instead."""
        super().__init__(run, label=label, wait_for_port=wait_for_port)
        self._explainer = explainer
        self._spawn, self._narrow = run.call.spawn, narrow
        self._began = time.time()
        self._explained: ExecResult | None = None

    @loading("process")
    async def wait(self, timeout: float | None = None) -> ExecResult:
        """Wait until the command has exited, as ``BackgroundProcess`` does."""
        try:
            result = await super().wait(timeout)
        except ExecTimeoutError as error:
            if error.result is not None:
                await self._explain(error.result)
            raise
        if result.exit_code and self._explained is not result:
            await self._explain(result)
            self._explained = result
        return result

    async def _explain(self, result: ExecResult) -> None:
        try:
            stderr, stdout = await self._last("stderr"), await self._last("stdout")
        except SandboxError:  # the log is gone: nothing is told, and the result stands
            return
        said = stderr, stdout
        await self._explainer.explain(result, self._spawn, self._narrow, *said, began=self._began)

    async def _last(self, stream: Literal["stdout", "stderr"]) -> bytes:
        reader = self.logs(last_bytes=TAIL_BYTES, stream=stream, follow=False)
        return b"".join([chunk.data async for chunk in reader])
