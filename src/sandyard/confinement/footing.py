"""The values of the ladder: on which rung a plan stands, and how well each dimension holds there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from sandyard.policy import DIMENSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sandyard.platform import Grant, HostFacts
    from sandyard.policy import Dimension, Standing

__all__ = ["BARE", "FULL", "UNCONFINED", "ConfinementReport", "Footing", "Held", "PrivatePlace"]

BARE: Final = ("landlock_seccomp", "unconfined")
"""Where there are no namespaces."""


@dataclass(frozen=True, slots=True)
class PrivatePlace:
    """Private directories on the host's disk, for where no file system can be mounted.

    Attributes:
        home: HOME.
        temporary: TMPDIR.
        inodes: their ``(st_dev, st_ino)``.
    """

    home: str
    temporary: str
    inodes: tuple[tuple[int, int], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Footing:
    """What a plan stands on.

    Attributes:
        rung: the rung, or that there is none.
        cause: why it is no higher one; empty on the highest.
        fix: what to change for a higher one.
        copies: ``(name, content)`` of the files that stand in /proc where none can be mounted.
        given: True where the workspace, which the library made, is given to the leased user, since
            its file system can't show it as his (an idmapped mount).
        private: HOME and TMPDIR where none can be mounted.
        around: the host's facts and the grants without what must not show, for where nothing can be
            put over it.
    """

    rung: Standing = "full"
    cause: str = ""
    fix: str = ""
    copies: tuple[tuple[str, bytes], ...] = ()
    given: bool = False
    private: PrivatePlace | None = None
    around: tuple[HostFacts, tuple[Grant, ...]] | None = None

    @property
    def bare(self) -> bool:
        """Whether there are no namespaces."""
        return self.rung in BARE


FULL: Final = Footing()
UNCONFINED: Final = Footing(
    "unconfined",
    cause="the policy says so: Policy(unconfined=True)",
    fix="leave unconfined out of the policy",
)


@dataclass(frozen=True, slots=True)
class Held:
    """How well one dimension is held.

    Attributes:
        state: ``"enforced"``; ``"partial"``, with what gets through in ``why``; ``"absent"``.
        why: what gets through and for what reason; empty where nothing does.
        chosen: whether the policy itself asks for it.
        slight: whether nothing gets through but metadata of the caller's own files, the existence
            of processes, or a share of the machine: what is accepted unless ``Policy.require``
            says otherwise.
    """

    state: Literal["enforced", "partial", "absent"] = "enforced"
    why: str = ""
    chosen: bool = False
    slight: bool = False

    def __str__(self) -> str:
        """The state, and why."""
        return f"{self.state}: {self.why}" if self.why else self.state


@dataclass(frozen=True, kw_only=True, slots=True)
class ConfinementReport:
    """What holds in one session, dimension by dimension; ``session.confinement``.

    Attributes:
        rung: how the wall is built: ``"full"``; ``"full_without_proc"``, where /proc holds a few
            files and no processes; ``"landlock_seccomp"``, without namespaces; ``"unconfined"``, not
            at all, which only the policy itself can ask for.
        cause: why it is no higher rung; empty on the highest.
        fix: what to change for a higher one.
        read: files and what is in them.
        write: changes to files.
        network: other machines and the host's own ports.
        processes: other processes, and the end of the session's own.
        ipc: sockets, shared memory, queues and semaphores of others.
        syscalls: the kernel's rarely needed calls.
        resources: the policy's limits; ``session.limits.report`` says it for each.

    Example:
        >>> session.confinement.rung, session.confinement.read.state
        ('full', 'enforced')
    """

    rung: Standing
    cause: str = ""
    fix: str = ""
    read: Held
    write: Held
    network: Held
    processes: Held
    ipc: Held
    syscalls: Held
    resources: Held

    def dimensions(self) -> Mapping[Dimension, Held]:
        """Each dimension by its name."""
        return {name: self._held(name) for name in DIMENSIONS}

    def document(self) -> dict[str, str]:
        """The rung, its cause and each dimension, as words; what a state and ``--json`` hold."""
        said: dict[str, str] = {"rung": self.rung, "cause": self.cause}
        for name, held in self.dimensions().items():
            said[name] = str(held)
        return said

    def _held(self, name: Dimension) -> Held:
        held: Held = getattr(self, name)
        return held
