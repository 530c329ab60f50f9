"""Owns the shortening of text for a model: head and tail are kept, what is left out is counted.

A token is taken for four bytes of UTF-8. Nothing here splits a character.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "TruncationPolicy",
    "approx_bytes_for_tokens",
    "approx_token_count",
    "approx_tokens_from_bytes",
    "continues",
    "formatted_truncate_text",
    "formatted_truncate_with_count",
    "truncate_text",
]

BYTES_PER_TOKEN: Final = 4
"""Bytes of UTF-8 that make a token, about: true of English and of code."""


_KIND, _CONTINUES = 0xC0, 0x80
"""The two bits that tell what a byte of UTF-8 is, and what they are within a character."""


@dataclass(frozen=True, slots=True)
class TruncationPolicy:
    """How much of a text is kept.

    Attributes:
        mode: what ``limit`` counts: bytes or tokens. The marker of a gap counts characters or tokens.
        limit: how much of it is kept.
    """

    mode: Literal["bytes", "tokens"]
    limit: int

    @classmethod
    def bytes(cls, limit: int) -> TruncationPolicy:
        """Keeps a number of bytes; below 0 is 0."""
        return cls("bytes", max(0, limit))

    @classmethod
    def tokens(cls, limit: int) -> TruncationPolicy:
        """Keeps a number of tokens; below 0 is 0."""
        return cls("tokens", max(0, limit))

    def token_budget(self) -> int:
        """The limit in tokens."""
        return approx_tokens_from_bytes(self.limit) if self.mode == "bytes" else self.limit

    def byte_budget(self) -> int:
        """The limit in bytes."""
        return self.limit if self.mode == "bytes" else approx_bytes_for_tokens(self.limit)


def approx_token_count(text: str) -> int:
    """How many tokens a text has, about."""
    return approx_tokens_from_bytes(len(_encoded(text)))


def approx_bytes_for_tokens(tokens: int) -> int:
    """How many bytes a number of tokens has, about."""
    return max(0, tokens) * BYTES_PER_TOKEN


def approx_tokens_from_bytes(count: int) -> int:
    """How many tokens a number of bytes makes, a part of one counted whole."""
    return max(0, -(-count // BYTES_PER_TOKEN))


def truncate_text(text: str, policy: TruncationPolicy) -> str:
    """A text within a policy's limit: whole, or its head, a marker, and its tail."""
    return _shortened(_encoded(text), policy, "")


def formatted_truncate_text(text: str, policy: TruncationPolicy) -> str:
    """As ``truncate_text``; what was shortened begins with the number of lines that there were.

    That line counts towards a limit of tokens and is left out where it does not fit. A limit of bytes
    is for the text alone.
    """
    whole = _encoded(text)
    if len(whole) <= policy.byte_budget():
        return text
    lines = f"Total output lines: {len(text.splitlines())}\n\n"
    if policy.mode == "bytes":
        return lines + _shortened(whole, policy, "")
    return _shortened(whole, policy, lines)


def formatted_truncate_with_count(text: str, max_tokens: int | None) -> tuple[str, int | None]:
    """As ``formatted_truncate_text`` with a limit of tokens.

    Args:
        text: the text.
        max_tokens: the limit, or None for none.

    Returns:
        The text, and how many tokens it had if it was shortened, else None.
    """
    if max_tokens is None:
        return text, None
    policy = TruncationPolicy.tokens(max_tokens)
    whole = _encoded(text)
    if len(whole) <= policy.byte_budget():
        return text, None
    return formatted_truncate_text(text, policy), approx_tokens_from_bytes(len(whole))


def _shortened(whole: bytes, policy: TruncationPolicy, prefix: str) -> str:
    budget = policy.byte_budget()
    if len(whole) <= budget:
        return whole.decode("utf-8", "surrogatepass")
    if budget == 0:
        # Of a limit of bytes the marker is the answer; one of tokens holds the marker as well.
        return "" if policy.mode == "tokens" else _marker(policy, whole, "")
    if policy.mode == "bytes":
        head, tail = _ends(whole, budget)
        return head + _marker(policy, whole, head + tail) + tail
    return _fitted(whole, policy, prefix, budget)


def _fitted(whole: bytes, policy: TruncationPolicy, prefix: str, budget: int) -> str:
    """Prefix, head, marker and tail within the budget: the marker's own length depends on the rest."""
    marker = _marker(policy, whole, "")
    if len(prefix) + len(_encoded(marker)) > budget:
        prefix = ""
    room = budget - len(prefix) - len(_encoded(marker))
    if room < 0:
        return _start_of(_encoded(marker), budget)
    while True:
        head, tail = _ends(whole, room)
        marker = _marker(policy, whole, head + tail)
        over = len(prefix) + len(_encoded(head + marker + tail)) - budget
        if over <= 0:
            return prefix + head + marker + tail
        room -= over


def _marker(policy: TruncationPolicy, whole: bytes, kept: str) -> str:
    """What stands in the place of all but ``kept``."""
    if policy.mode == "bytes":
        removed = len(whole.decode("utf-8", "surrogatepass")) - len(kept)
        return f"…{removed} chars truncated…"
    removed = len(whole) - len(_encoded(kept))
    return f"…{approx_tokens_from_bytes(removed)} tokens truncated…"


def _ends(whole: bytes, room: int) -> tuple[str, str]:
    """The head and the tail of a text within ``room`` bytes, half of it each."""
    first = room // 2
    return _start_of(whole, first), _end_of(whole, room - first)


def _start_of(whole: bytes, size: int) -> str:
    while 0 < size < len(whole) and continues(whole[size]):
        size -= 1
    return whole[:size].decode("utf-8", "surrogatepass")


def _end_of(whole: bytes, size: int) -> str:
    start = max(0, len(whole) - size)
    while start < len(whole) and continues(whole[start]):
        start += 1
    return whole[start:].decode("utf-8", "surrogatepass")


def continues(byte: int) -> bool:
    """Whether a byte of UTF-8 is not the first of its character."""
    return byte & _KIND == _CONTINUES


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
