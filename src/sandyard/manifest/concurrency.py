"""SandboxConcurrencyLimits: how much of a manifest is made at the same time."""

from __future__ import annotations

from dataclasses import dataclass, fields

from sandyard.errors import ArgumentError, ArgumentTypeError
from sandyard.limits import MANIFEST_WORKERS

__all__ = ["SandboxConcurrencyLimits"]


@dataclass(frozen=True, slots=True)
class SandboxConcurrencyLimits:
    """How much of a manifest is made at the same time, at most.

    Each limit is a whole number, 1 at least, or None for none.

    Attributes:
        manifest_entries: entries that are made at once, and repositories that are cloned at once
            (default: 4). None is as many as there are; 64 threads write at most.
        local_dir_files: files of one copied directory that are copied at once (default: 4). They are
            copied one after the other, which keeps within every limit.

    Raises:
        ArgumentError, ArgumentTypeError: a limit is no such number.

    Example:
        >>> client = UnixLocalSandboxClient(
        ...     concurrency_limits=SandboxConcurrencyLimits(manifest_entries=1)
        ... )
    """

    manifest_entries: int | None = MANIFEST_WORKERS
    local_dir_files: int | None = MANIFEST_WORKERS

    def __post_init__(self) -> None:
        """Check each limit."""
        for each in fields(self):
            value = getattr(self, each.name)
            argument = f"concurrency_limits.{each.name}"
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool):
                raise ArgumentTypeError(
                    f"{argument} is a whole number, or None for no limit",
                    op="create",
                    argument=argument,
                    value=value,
                )
            if value < 1:
                raise ArgumentError(
                    f"{argument} must be at least 1; give None for no limit",
                    op="create",
                    argument=argument,
                    value=value,
                )
