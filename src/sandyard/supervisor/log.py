"""Owns the supervisor's log: a file of bounded size, written in a thread, and never a reason to fail."""

from __future__ import annotations

import logging
import os
import queue
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from types import TracebackType
from typing import Final, Self

from sandyard.server.limits import SUPERVISOR_LOG_BYTES, SUPERVISOR_LOG_WAITING

__all__ = ["SupervisorLog"]

_FORMAT: Final = "%(asctime)s %(process)d %(levelname)s %(message)s"


class SupervisorLog:
    """Writes what the library logs to a file, while it is entered.

    A disk that is full or slow loses lines, nothing else.

    Args:
        directory: where the file lies; it is made if need be.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._listener: QueueListener | None = None
        self._handler: QueueHandler | None = None
        self._file: logging.Handler | None = None

    def __enter__(self) -> Self:
        """Begin."""
        lines: queue.Queue[object] = queue.Queue(SUPERVISOR_LOG_WAITING)
        handler = self._handler = _Dropping(lines)
        logger = logging.getLogger("sandyard")
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        self._file = self._opened()
        self._listener = QueueListener(lines, self._file)
        self._listener.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write what waits, and close the file."""
        if self._handler is not None:
            logging.getLogger("sandyard").removeHandler(self._handler)
        if self._listener is not None:
            self._listener.stop()
        if self._file is not None:
            self._file.close()

    def _opened(self) -> logging.Handler:
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            path = os.path.join(self._directory, "supervisor.log")
            file = _File(
                path,
                maxBytes=SUPERVISOR_LOG_BYTES,
                backupCount=1,
                encoding="utf-8",
                errors="backslashreplace",
            )
        except OSError:  # a full disk, a file in its way
            return logging.NullHandler()
        file.setFormatter(logging.Formatter(_FORMAT))
        return file


class _Dropping(QueueHandler):
    """Hands lines to the thread, or drops them where it is behind."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        """Say nothing: there is nobody to say it to."""


class _File(RotatingFileHandler):
    """The file."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's own name
        """Say nothing: a full disk is no reason to end."""
