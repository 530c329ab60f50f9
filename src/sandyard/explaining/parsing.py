"""Finds what programs complain of in the end of their output, in time that grows with its length.

The output is hostile: every look is bounded, and no pattern here can go back over what it has read.
What is found are candidates; whether the policy denies them is asked elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sandyard.explaining.complaints import OPERATIONS, PHRASES, TAIL_BYTES

if TYPE_CHECKING:
    from sandyard.explaining.complaints import Phrase

__all__ = ["Complaint", "find_complaints"]

_HITS: Final = 128
"""Phrases that are looked at more closely, the last ones. More of them is a log, not a message."""

_LINE_BYTES: Final = 1024
"""Bytes before and after a phrase that belong to it. Longer lines are data."""

_SUBJECTS: Final = 4
"""Things beside a phrase that it may be about: a message names one or two."""

_EARLIER_BYTES: Final = 300
"""Bytes before a line that has nothing but a phrase, in which its subject may stand."""

_PATH_BYTES: Final = 4095  # PATH_MAX without the NUL
_NAME_BYTES: Final = 255  # NAME_MAX

_QUOTED: Final = re.compile(rb"(?<!\w)'([^'\n]+)'(?!\w)|(?<!\w)\"([^\"\n]+)\"|`([^`'\n]+)[`']")
_NUMBER: Final = re.compile(rb"(?:^|(?<=[\s:(]))(?:\[Errno -?\d{1,3}\]|E[A-Z]{3,12}:?)\s*$")
_CALL: Final = re.compile(rb"(?:^|[\s:])([a-z][a-z0-9_]{1,30})(?:\([^()\n]{0,80}\))?(?: failed)?$")
_HOST: Final = re.compile(
    rb"(?:name)?[\s:='\"`]{0,4}(\[[0-9a-fA-F:.%]{2,64}\]|[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?)"
)
_PORT: Final = re.compile(rb"[^\n]{0,60}?(?::|port[ =])(\d{1,5})(?!\d)")
_LAST_ADDRESS: Final = re.compile(rb"(\[[0-9a-fA-F:.%]{2,64}\]|[A-Za-z0-9._-]{1,253}):(\d{1,5})$")
_SUBJECT: Final = re.compile(rb"(?<!\w)['\"`]|/")
_WORD: Final = re.compile(rb"[a-z]+")
_OPERATION_OF: Final = {word: name for name, words in OPERATIONS.items() for word in words}


@dataclass(frozen=True, slots=True)
class Complaint:
    """Something that a program may have been refused.

    Attributes:
        phrase: its words.
        subjects: what it may be about, the likeliest first: paths, addresses or system calls.
        operation: what was tried; None where the words don't tell.
    """

    phrase: Phrase
    subjects: tuple[str, ...]
    operation: str | None


def find_complaints(stderr: bytes, stdout: bytes) -> tuple[Complaint, ...]:
    """Find complaints in the last bytes of a command's output, in the order of their appearance."""
    errors = stderr[-TAIL_BYTES:]
    rest = TAIL_BYTES - len(errors)
    return (*_complaints(errors), *_complaints(stdout[-rest:] if rest else b""))


def _complaints(tail: bytes) -> Iterator[Complaint]:
    # GNU programs quote with these in UTF-8.
    text = tail.replace(b"\xe2\x80\x98", b"'").replace(b"\xe2\x80\x99", b"'")
    lowered = text.lower()
    hits = sorted(_hits(lowered), key=lambda hit: hit[0])
    for at, phrase in hits[-_HITS:]:
        complaint = _read(text, at, phrase)
        if complaint is not None:
            yield complaint


def _hits(lowered: bytes) -> Iterator[tuple[int, Phrase]]:
    for phrase in PHRASES:
        if phrase.text not in lowered:  # much faster than to look from the end
            continue
        at, count = len(lowered), 0
        while count < _HITS and (at := lowered.rfind(phrase.text, 0, at)) >= 0:
            count += 1
            yield at, phrase


def _read(text: bytes, at: int, phrase: Phrase) -> Complaint | None:
    end = at + len(phrase.text)
    start = text.rfind(b"\n", max(0, at - _LINE_BYTES), at) + 1 or max(0, at - _LINE_BYTES)
    stop = text.find(b"\n", end, end + _LINE_BYTES)
    before, after = text[start:at], text[end : stop if stop >= 0 else end + _LINE_BYTES]
    if phrase.kind == "path":
        subjects = _paths(text, start, before, after)
        return _complaint(phrase, subjects, _operation(before, after, subjects))
    if phrase.kind == "program":
        path = before.rpartition(b": ")[2]
        found = [path] if path.startswith(b"/") and _is_path(path) else []
        return _complaint(phrase, found, None)
    if phrase.kind in {"host", "address"}:
        address = _address(before, after, port_needed=phrase.kind == "address")
        return _complaint(phrase, [] if address is None else [address], None)
    if phrase.kind == "syscall":
        call = phrase.subject.encode() or _call(before)
        return _complaint(phrase, [call] if call else [], None)
    if phrase.kind == "open_files" and after.lstrip().startswith(b"in system"):
        return None  # of the whole machine: ENFILE
    return Complaint(phrase, (), None)


def _complaint(phrase: Phrase, subjects: list[bytes], operation: str | None) -> Complaint | None:
    if not subjects:
        return None
    return Complaint(phrase, tuple(os.fsdecode(subject) for subject in subjects), operation)


# --- paths --------------------------------------------------------------------------------------


def _paths(text: bytes, start: int, before: bytes, after: bytes) -> list[bytes]:
    """The paths beside a phrase, the likeliest first."""
    found = _quoted(after) or _quoted(before)[::-1]
    if not found:
        before = _trimmed(before)
        found = _absolute(before, after)
        if not found and not before:
            found = _quoted(text[max(0, start - _EARLIER_BYTES) : start])[::-1][:1]
        if not found and before:
            found = [before.rpartition(b": ")[2].rpartition(b" ")[2]]
    return [path for path in found[:_SUBJECTS] if _is_path(path)]


def _quoted(text: bytes) -> list[bytes]:
    return [next(filter(None, match.groups())) for match in _QUOTED.finditer(text)]


def _trimmed(before: bytes) -> bytes:
    """Text before a phrase without what belongs to the phrase: colons, ``(``, ``[Errno 2]``."""
    before = before.rstrip(b" \t:(")
    return _NUMBER.sub(b"", before[-_LINE_BYTES:]).rstrip(b" \t:(")


def _absolute(before: bytes, after: bytes) -> list[bytes]:
    """The nearest absolute path without quotes."""
    if after.startswith(b": /"):
        return [after[2:].partition(b" -> ")[0].rstrip()]
    for part in reversed(before.split(b": ")[-4:]):
        if part.startswith(b"/") and b" /" not in part:
            return [part]
        space = part.rfind(b" /")
        if space >= 0:
            return [part[space + 1 :]]
    return []


def _is_path(path: bytes) -> bool:
    return (
        0 < len(path) <= _PATH_BYTES
        and b"\0" not in path
        and all(len(name) <= _NAME_BYTES for name in path.split(b"/"))
    )


def _operation(before: bytes, after: bytes, subjects: list[bytes]) -> str | None:
    """What was tried: a word that stands before the first path or quote."""
    for text in (before, after):
        ends = [at for at in map(text.find, subjects) if at >= 0]
        plain = _SUBJECT.split(text[: min(ends, default=_LINE_BYTES)].lower(), maxsplit=1)[0]
        for match in _WORD.finditer(plain):
            if match[0] in _OPERATION_OF:
                return _OPERATION_OF[match[0]]
    return None


# --- the others ---------------------------------------------------------------------------------


def _address(before: bytes, after: bytes, *, port_needed: bool) -> bytes | None:
    last = _LAST_ADDRESS.search(before[-320:])
    if last is not None and port_needed:
        return last[0]
    if after.startswith(b" ::1:"):  # Node writes addresses without brackets
        after = b" [::1]:" + after[5:]
    host = _HOST.match(after)
    if host is None:
        return None
    port = _PORT.match(after, host.end()) if port_needed else None
    if port_needed and port is None:
        return None
    return host[1] if port is None else host[1] + b":" + port[1]


def _call(before: bytes) -> bytes:
    """The name before ``: Operation not permitted``, with or without arguments."""
    match = _CALL.search(before[-160:].rstrip(b" \t:.").lower())
    return match[1] if match is not None else b""
