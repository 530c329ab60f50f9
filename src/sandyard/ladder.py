"""The rung of one session: the highest that this machine allows, found by trying, and what it needs.

A start tries the highest rung. Where the kernel refuses a part of it that no policy could do without,
small sandboxes are tried on one rung after the other; the first that stands is the session's, if its
policy accepts it. The answer is kept for as long as nothing changes that it depends on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from sandyard.confinement.footing import (
    BARE,
    FULL,
    UNCONFINED,
    ConfinementReport,
    Footing,
    PrivatePlace,
)
from sandyard.confinement.holding import (
    Circumstances,
    check_enough,
    check_given,
    report_holding,
)
from sandyard.errors import ConfinementUnavailableError, WorkspaceStartError, WorkspaceStopError
from sandyard.finishing import finished, in_thread
from sandyard.platform import host_facts, state_directory
from sandyard.process import InitProcess
from sandyard.workspace import WorkspaceRoot
from sandyard.workspace.lease import Lease
from sandyard.workspace.root import Owner

if TYPE_CHECKING:
    from sandyard.plan import LaunchPlan
    from sandyard.platform import HostFacts
    from sandyard.policy import Policy
    from sandyard.process.layering import LayeredTree

__all__ = ["Ladder", "planned_on"]

_OURS: Final = frozenset({"protocol", "limits", "landlock", "seccomp", "serve"})
"""Steps that every rung has: their refusal is no reason for a lower one."""

_PASSING: Final = frozenset({errno.EAGAIN, errno.ENOSPC, errno.EUSERS, errno.ENOMEM})
"""Answers that say that there are too many already: the next start may find room. EAGAIN is clone(2)'s
for a user that has all its processes."""

_FOUND: Final[dict[tuple[object, ...], Footing]] = {}
"""Footings below the highest that were found by trying, by what they depend on."""

_PASSABLE: Final = 0o711

_FOUND_MOST: Final = 8
"""A program has one, or a few; then all are found anew."""


@dataclass(slots=True)
class _Place:
    """A private directory of one session on the host's disk, with its lease."""

    lease: Lease
    root: WorkspaceRoot
    private: PrivatePlace


class Ladder:
    """The rung of one session, and its private directories where the rung has no others.

    Attributes:
        report: what holds; None until the session was started once.
        facts: the host as commands see it, where that is less than the policy grants; else None.
    """

    def __init__(self, policy: Policy) -> None:
        """Take what is asked for."""
        self.report: ConfinementReport | None = None
        self.facts: HostFacts | None = None
        self._policy = policy
        self._place: _Place | None = None
        self._given: tuple[WorkspaceRoot, Owner] | None = None

    @property
    def private(self) -> PrivatePlace | None:
        """HOME and TMPDIR, where the rung has no file system of its own for them."""
        return None if self._place is None else self._place.private

    def document(self) -> dict[str, str] | None:
        """The report as a session's state holds it."""
        return None if self.report is None else self.report.document()

    @property
    def has_terminals(self) -> bool:
        """Whether commands can be given terminals; so far as is known before the first start."""
        return self.report is None or self.report.rung != "landlock_seccomp"

    def check_terminals(self) -> None:
        """Refuse a terminal where the rung has none.

        Raises:
            ConfinementUnavailableError: it has none.
        """
        if self.report is None or self.has_terminals:
            return
        raise ConfinementUnavailableError(
            "there are no terminals in this session",
            dimension="terminals",
            # Whoever may open one there may open those that the same user works in.
            cause_text="without namespaces it would have to share those of this machine, and "
            f"{self.report.cause}",
            fix=f"{self.report.fix}; or run the command without a terminal, by exec, start_process, "
            "or pty_exec_start with tty=False",
        )

    def check_mounts(self) -> None:
        """Refuse a mount where the rung has none.

        Raises:
            ConfinementUnavailableError: it has none.
        """
        if self.report is None or self.report.rung not in BARE:
            return
        raise ConfinementUnavailableError(
            "there are no mounts in this session",
            dimension="mounts",
            cause_text="without namespaces a mount would be the whole machine's, and "
            f"{self.report.cause}",
            fix=f"{self.report.fix}; or copy by LocalDir, or let the policy grant the path",
        )

    def check_ports(self) -> None:
        """Refuse ports where the rung has no network to reach.

        Raises:
            ConfinementUnavailableError: it has none.
        """
        if self.report is None or self.report.rung != "landlock_seccomp":
            return
        raise ConfinementUnavailableError(
            "there are no ports in this session",
            dimension="ports",
            cause_text=f"without namespaces no command can listen on any, and {self.report.cause}",
            fix=f'{self.report.fix}; or share this machine\'s network by Policy(network="host")',
        )

    def judge(self, circumstances: Circumstances, footing: Footing) -> Footing:
        """Say what holds, and refuse what is not enough (blocking).

        Returns:
            The footing with all that a plan needs of the host.

        Raises:
            ConfinementUnavailableError: a dimension, or the rung, is less than the policy asks for.
        """
        if trees := circumstances.shown():
            from sandyard.platform.listening import find_listening  # noqa: PLC0415  # not all show any

            circumstances = replace(circumstances, sockets=find_listening(trees))
        report = report_holding(self._policy, circumstances, footing)
        check_enough(self._policy, report)
        check_given(circumstances, footing)
        self.report, self.facts = report, None
        if not footing.bare:
            return footing
        from sandyard.platform.lowering import (  # noqa: PLC0415  # few machines need it
            facts_around,
            grants_around,
        )

        facts = facts_around(circumstances.facts, circumstances.denied)
        grants = tuple(grants_around(circumstances.grants, circumstances.denied))
        self.facts = facts
        return replace(footing, around=(facts, grants))

    async def start(
        self,
        root: WorkspaceRoot,
        plan: Callable[[Footing], LaunchPlan],
        layered: LayeredTree | None = None,
    ) -> InitProcess:
        """Start a sandbox on the highest rung that there is, or on none, if the policy asks for that.

        Args:
            root: the workspace.
            plan: gives the plan for a rung, and refuses what is not enough; it may block.
            layered: what the workspace is, where it is a layered tree.

        Raises:
            ConfinementUnavailableError: no rung that is enough can be had; nothing is left.
            ResourceLimitError: this program or the machine has no descriptor or thread left.
            WorkspaceStartError: the private directories can't be made.
        """
        if self._policy.unconfined:
            return await self._start_lower(root, plan, UNCONFINED, layered)
        # Where nothing was ever refused there is nothing to look up.
        footing = await in_thread(_remembered) if _FOUND else FULL
        if footing is FULL:
            try:
                return await InitProcess.start(lambda: plan(FULL), layered)
            except ConfinementUnavailableError as error:
                step = error.context.get("step")
                if step is None or step in _OURS:
                    raise
                found = await _find_lower(error)
                if found is None and step == "idmap" and root.owned:
                    found = Footing(given=True)
                if found is None:
                    raise
                footing = found
        return await self._start_lower(root, plan, footing, layered)

    async def close(self) -> None:
        """Remove the private directories, and take back what was given; the sandbox has ended."""
        place, self._place = self._place, None
        given, self._given = self._given, None
        try:
            if given is not None and not given[0].gone:
                await finished(in_thread(_give_tree, *given))
        finally:
            if place is not None:
                await finished(in_thread(_remove_place, place))

    async def _start_lower(
        self,
        root: WorkspaceRoot,
        plan: Callable[[Footing], LaunchPlan],
        footing: Footing,
        layered: LayeredTree | None,
    ) -> InitProcess:
        if footing.rung == "full_without_proc":
            from sandyard.platform.lowering import proc_copies  # noqa: PLC0415  # few machines need it

            footing = replace(footing, copies=await in_thread(proc_copies))
        elif footing.bare:
            await self._make_place()
            footing = replace(footing, private=self.private)
        try:
            init = await InitProcess.start(lambda: plan(footing), layered)
            try:
                if footing.given or footing.private is not None:
                    await self._give(root, init.owner)
            except BaseException:
                await init.close()
                raise
        except BaseException:
            await self.close()
            raise
        return init

    async def _make_place(self) -> None:
        def make() -> None:
            self._place = _make_place()

        try:
            await finished(in_thread(make))
        except BaseException:  # cancelled, with what was made
            await self.close()
            raise

    async def _give(self, root: WorkspaceRoot, leased: tuple[int, int] | None) -> None:
        """Give the session's directories to the leased user, where no mount can show them as his."""
        if leased is None:
            return
        owner = Owner(*leased)
        self._given = (root, root.owner)
        await finished(in_thread(_give_tree, root, owner))
        if self._place is not None:
            await finished(in_thread(_give_tree, self._place.root, owner))


def planned_on(
    footing: Footing, plan: Callable[[Footing], LaunchPlan]
) -> tuple[LaunchPlan, LaunchPlan]:
    """A plan for a rung, and what a session shows there: a plan in which paths can be looked up.

    It is the same one, unless directories are given away or have no mounts: then another tells what is
    the caller's from what is the system's.

    Args:
        footing: the rung.
        plan: gives the plan for a rung.
    """
    own = plan(footing)
    if not own.namespaces:
        from sandyard.confinement.bare import bare_view  # noqa: PLC0415  # few machines need it

        return own, bare_view(plan(FULL), footing)
    return own, plan(replace(footing, given=False)) if footing.given else own


def _remembered() -> Footing:
    from sandyard.platform.lowering import machine_key  # noqa: PLC0415  # few machines need it

    return _FOUND.get(machine_key(), FULL)


async def _find_lower(refused: ConfinementUnavailableError) -> Footing | None:
    """The highest rung below the first that stands here; None where the first does, or none."""
    # Loaded where something was refused, and nowhere else.
    from sandyard.confinement.trials import rung_trials  # noqa: PLC0415
    from sandyard.platform.lowering import machine_key  # noqa: PLC0415

    facts: HostFacts = await in_thread(host_facts, dict(os.environ))
    key = await in_thread(machine_key)
    for rung, trial in rung_trials(facts):
        try:
            init = await InitProcess.start(partial(_given, trial))
        except ConfinementUnavailableError:
            continue
        await init.close()
        if rung == "full":
            return None  # it was this session's own plan that was refused
        context = refused.context
        found = Footing(rung=rung, cause=_cause(refused), fix=str(context.get("fix", "")))
        if context.get("errno") not in _PASSING:
            if len(_FOUND) >= _FOUND_MOST:
                _FOUND.clear()
            _FOUND[key] = found
        return found
    return None


def _given(plan: LaunchPlan) -> LaunchPlan:
    return plan


def _cause(refused: ConfinementUnavailableError) -> str:
    """What was refused, in the words of its error, without the remedy."""
    said, _, _ = refused.message.partition(". To fix it: ")
    return said.removeprefix("the sandbox could not be started: ")


def _make_place() -> _Place:
    """Make private directories on the host's disk, beneath a lease that outlives this program."""
    with ExitStack() as undo:
        path = WorkspaceRoot.private_path()
        try:
            state = state_directory(os.environ)
        except OSError as error:
            raise WorkspaceStartError(path="sandyard", cause=error) from error
        lease = Lease.take(state, str(uuid4()), root=path, owned=True)
        undo.callback(lease.remove)
        root = WorkspaceRoot.create_private(path)
        undo.callback(root.close)
        undo.callback(root.delete)
        lease.note(root.inode)
        if os.geteuid() == 0:
            os.fchmod(root.fd, _PASSABLE)  # root's commands are somebody else, on the way to theirs
        inodes = []
        for name in ("home", "tmp"):
            try:
                os.mkdir(name, 0o700, dir_fd=root.fd)
                facts = os.stat(name, dir_fd=root.fd, follow_symlinks=False)
            except OSError as error:
                raise WorkspaceStartError(path=f"{path}/{name}", cause=error) from error
            inodes.append((facts.st_dev, facts.st_ino))
        private = PrivatePlace(
            home=f"{root.real_path}/home",
            temporary=f"{root.real_path}/tmp",  # noqa: S108  # beneath a directory of ours
            inodes=(inodes[0], inodes[1]),
        )
        undo.pop_all()
        return _Place(lease, root, private)


def _remove_place(place: _Place) -> None:
    from sandyard.workspace.deletion import delete_leased  # noqa: PLC0415  # few machines need it

    path, inode = place.root.path, place.root.inode
    place.root.close()
    # What can't be removed now is, with its lease, for the next sweep.
    with suppress(WorkspaceStopError, WorkspaceStartError):
        delete_leased(place.lease, path, inode)


def _give_tree(root: WorkspaceRoot, owner: Owner) -> None:
    from sandyard.workspace.giving import give_tree  # noqa: PLC0415  # few machines need it

    give_tree(root, owner)
