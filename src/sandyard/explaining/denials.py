"""From complaints to denials: each is put to the policy, and only what the policy denies is told."""

from __future__ import annotations

import errno
import os
import posixpath
import resource
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sandyard.confinement.explaining import explain_path, is_open_to_owner
from sandyard.confinement.explaining_calls import (
    explain_address,
    explain_limit,
    explain_network,
    explain_refusal,
    explain_syscall,
)
from sandyard.confinement.rootfs import PRIVATE_DIRECTORIES
from sandyard.explaining.addresses import read_address
from sandyard.explaining.looking import make_look
from sandyard.explaining.parsing import find_complaints
from sandyard.platform import is_within
from sandyard.types import Denial

if TYPE_CHECKING:
    from sandyard.confinement.explanation import Enforced, Explanation, Look
    from sandyard.explaining.audit_records import Refusal
    from sandyard.explaining.parsing import Complaint
    from sandyard.types import DenialKind, RefusedCall

__all__ = ["DENIALS_MOST", "find_denials", "judge_complaints"]

DENIALS_MOST: Final = 8
"""Denials of one result. What comes after these has mostly the same reason."""

_JUDGED_MOST: Final = 64
"""Complaints that are judged: each may look at the file system."""

_ENTRY_OPERATIONS: Final = frozenset({"remove", "move"})
_WRITING: Final = frozenset({"create", "write", "remove", "move"})

_HEARD_OPERATIONS: Final = {
    "fs.read_file": "read",
    "fs.read_dir": "read",
    "fs.write_file": "write",
    "fs.truncate": "write",
    "fs.remove_file": "remove",
    "fs.remove_dir": "remove",
    "fs.refer": "move",
}
"""By the right that was missing."""


def find_denials(
    stderr: bytes,
    stdout: bytes,
    enforced: Enforced,
    cwd: bytes,
    refused: tuple[RefusedCall, ...] = (),
    heard: tuple[Refusal, ...] = (),
) -> tuple[Denial, ...]:
    """Find what the policy kept a command from, by what it and the kernel said; it blocks.

    Args:
        stderr: what it wrote, its end at least; ``stdout`` likewise.
        stdout: see there.
        enforced: what the session enforces.
        cwd: where it began.
        refused: the system calls that the kernel refused it.
        heard: what the machine's audit told of meanwhile.
    """
    told = judge_complaints(find_complaints(stderr, stdout), enforced, os.fsdecode(cwd))
    told = _with_calls(told, _call_denials(refused, enforced))
    return _with_heard(told, _heard_denials(heard, enforced)) if heard else told


def _heard_denials(heard: tuple[Refusal, ...], enforced: Enforced) -> Iterator[Denial]:
    """What Landlock refused, where the policy is the reason: programs can add domains of their own."""
    look = make_look()
    for refusal in heard:
        operation = _heard_operation(refusal.blockers)
        if refusal.path is None:
            continue
        writing = operation in _WRITING
        told = explain_path(refusal.path, enforced, writing=writing, look=look)
        if told.access == "none" or (told.access == "read" and writing):
            yield Denial(
                kind="path",
                subject=told.subject,
                operation=operation,
                error="EXDEV" if refusal.blockers == ("fs.refer",) else "EACCES",
                rule=told.rule,
                grant=told.grant,
            )


def _heard_operation(blockers: tuple[str, ...]) -> str | None:
    """What was tried, as the first right that was missing tells it; None for running a program."""
    for blocker in blockers:
        if blocker.startswith("fs.make_"):
            return "create"
        if blocker in _HEARD_OPERATIONS:
            return _HEARD_OPERATIONS[blocker]
    return None


def _with_heard(told: tuple[Denial, ...], heard: Iterable[Denial]) -> tuple[Denial, ...]:
    """Words know the name of what is made in a directory or taken from it, the audit the directory."""
    found = {(each.kind, each.subject): each for each in told}
    named = {subject for kind, subject in found if kind == "path"}
    named |= {posixpath.dirname(subject) for subject in named}
    for each in heard:
        if each.subject not in named:
            found.setdefault((each.kind, each.subject), each)
    return tuple(found.values())[:DENIALS_MOST]


def _call_denials(refused: tuple[RefusedCall, ...], enforced: Enforced) -> Iterator[Denial]:
    for call in refused:
        told = explain_refusal(call.number, call.error, enforced)
        if told is not None:
            yield Denial(
                kind="syscall",
                subject=told.subject,
                error=errno.errorcode[call.error],
                rule=told.rule,
                grant=told.grant,
                program=call.program,
                times=call.times,
            )


def _with_calls(told: tuple[Denial, ...], calls: Iterable[Denial]) -> tuple[Denial, ...]:
    """What words tell, in their order; of a call the kernel knows more, and of others it alone does."""
    found = {(each.kind, each.subject): each for each in told}
    for call in calls:
        found[call.kind, call.subject] = call
    return tuple(found.values())[:DENIALS_MOST]


def judge_complaints(
    complaints: Iterable[Complaint], enforced: Enforced, cwd: str
) -> tuple[Denial, ...]:
    """Find out which complaints are denials of the policy; looks into shown trees, so it blocks.

    Args:
        complaints: in the order of their appearance.
        enforced: what the session enforces.
        cwd: where the command began; relative paths are taken from there.
    """
    judge = _Judge(enforced, cwd)
    found: dict[tuple[DenialKind, str], Denial] = {}
    seen = set[tuple[str, tuple[str, ...], str | None]]()
    for complaint in complaints:
        key = (complaint.phrase.error, complaint.subjects, complaint.operation)
        if key in seen:
            continue
        seen.add(key)
        denial = judge.denial(complaint)
        if denial is not None:
            found.setdefault((denial.kind, denial.subject), denial)
        if len(found) == DENIALS_MOST + 1 or len(seen) == _JUDGED_MOST:
            break
    return tuple(_without_vague(found.values()))[:DENIALS_MOST]


def _without_vague(denials: Iterable[Denial]) -> Iterable[Denial]:
    """What names an address says more than what names only the network."""
    kept = list(denials)
    if any(each.kind == "address" and each.subject != "network" for each in kept):
        return [each for each in kept if each.kind != "address" or each.subject != "network"]
    return kept


class _Judge:
    """The policy, asked about one command's complaints."""

    def __init__(self, enforced: Enforced, cwd: str) -> None:
        self._enforced = enforced
        self._whole = replace(enforced, less=None)
        self._cwd = cwd
        self._look: Look = make_look()

    def denial(self, complaint: Complaint) -> Denial | None:
        """The denial that a complaint is about; None if it is no denial."""
        match complaint.phrase.kind:
            case "path" | "program":
                return self._path_denial(complaint)
            case "host" | "address":
                return self._address_denial(complaint)
            case "network":
                told = explain_network(self._enforced)
                return None if told.access == "write" else _denial("address", complaint, told)
            case "syscall":
                call = explain_syscall(complaint.subjects[0], self._enforced)
                # A part of a call may have been refused by others: files have owners.
                wanted = call is not None and call.access == "none"
                return _denial("syscall", complaint, call) if call and wanted else None
            case limit:
                own, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
                ceiling = own if limit == "open_files" else float("inf")
                told = explain_limit(limit, self._enforced, ceiling)
                return None if told.access == "write" else _denial("limit", complaint, told)

    def _address_denial(self, complaint: Complaint) -> Denial | None:
        host, port = complaint.subjects[0], None
        address = read_address(host)
        if address is not None:
            host, port = address
        told = explain_address(host.strip("[]"), port, self._enforced)
        return None if told.access == "write" else _denial("address", complaint, told)

    def _path_denial(self, complaint: Complaint) -> Denial | None:
        for path in complaint.subjects:
            absolute = posixpath.join(self._cwd, path)
            if complaint.phrase.error == "ENOSPC":
                if any(is_within(posixpath.normpath(absolute), own) for own in PRIVATE_DIRECTORIES):
                    told = explain_limit("scratch_size", self._enforced)
                    return None if told.access == "write" else _denial("limit", complaint, told)
                continue
            if complaint.phrase.error == "ENOENT" and _is_vague(path):
                continue
            if self._enforced.less is not None:
                less = self._less_denial(absolute, complaint)
                if less is not None:
                    return less
            told = self._explained(absolute, complaint, self._whole)
            if _is_denied(told, complaint):
                return _denial("path", complaint, told)
        return None

    def _less_denial(self, path: str, complaint: Complaint) -> Denial | None:
        """The denial of what the session may do, and this command may not."""
        if complaint.phrase.error not in {"EACCES", "EXDEV"}:
            return None  # nothing else is what Landlock answers
        told = self._explained(path, complaint, self._enforced)
        whole = self._explained(path, complaint, self._whole)
        if told.access == whole.access:
            return None
        if complaint.operation not in _WRITING:
            # The words may be about something else, and a mode may be the reason.
            if not is_open_to_owner(path, self._whole, self._look):
                return None
            if told.access != "none" and complaint.operation is not None:
                return None
        return _denial("path", complaint, told)

    def _explained(self, path: str, complaint: Complaint, enforced: Enforced) -> Explanation:
        operation, error = complaint.operation, complaint.phrase.error
        writing = operation in _WRITING or error in {"EROFS", "EXDEV"}
        entry = operation in _ENTRY_OPERATIONS and error != "EBUSY"
        return explain_path(path, enforced, entry=entry, writing=writing, look=self._look)


def _is_vague(path: str) -> bool:
    """Whether a path can't be told without knowing where the command had gone meanwhile."""
    return not path.startswith("/") and ".." in path.split("/")


def _is_denied(told: Explanation, complaint: Complaint) -> bool:
    """Whether the policy is the reason for an error, as far as that is certain."""
    match complaint.phrase.error:
        case "EBUSY":
            # The workspace itself is fixed too, and so is every mount: no rule says so.
            return told.fixed and (told.access != "write" or told.grant is not None)
        case "EROFS" | "EXDEV":
            return told.access != "write"
        case "EACCES":
            # What is read-only says EROFS to who may write by its mode, and EACCES to others.
            return told.access == "none" or (
                told.access == "read" and complaint.operation in _WRITING
            )
        case _:
            return told.access == "none"


def _denial(kind: DenialKind, complaint: Complaint, told: Explanation) -> Denial:
    return Denial(
        kind=kind,
        subject=told.subject,
        operation=complaint.operation,
        error=complaint.phrase.error,
        rule=told.rule,
        grant=told.grant,
    )
