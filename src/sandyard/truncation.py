"""Owns the shortening of text for a model: head and tail are kept, what is left out is counted.

A token is taken for four bytes of UTF-8. Nothing here splits a character.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

__all__ = [
    "APPROX_BYTES_PER_TOKEN",
    "TruncationPolicy",
    "approx_bytes_for_tokens",
    "approx_token_count",
    "approx_tokens_from_byte_count",
    "assemble_truncated_output",
    "continues",
    "format_truncation_marker",
    "formatted_truncate_text",
    "formatted_truncate_text_with_token_count",
    "removed_units_for_source",
    "split_budget",
    "split_string",
    "truncate_text",
    "truncate_with_byte_estimate",
    "truncate_with_token_budget",
]

APPROX_BYTES_PER_TOKEN: Final = 4
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
        return approx_tokens_from_byte_count(self.limit) if self.mode == "bytes" else self.limit

    def byte_budget(self) -> int:
        """The limit in bytes."""
        return self.limit if self.mode == "bytes" else approx_bytes_for_tokens(self.limit)


def approx_token_count(text: str) -> int:
    """How many tokens a text has, about."""
    return approx_tokens_from_byte_count(len(_encoded(text)))


def approx_bytes_for_tokens(tokens: int) -> int:
    """How many bytes a number of tokens has, about."""
    return max(0, tokens) * APPROX_BYTES_PER_TOKEN


def approx_tokens_from_byte_count(byte_count: int) -> int:
    """How many tokens a number of bytes makes, a part of one counted whole."""
    return max(0, -(-byte_count // APPROX_BYTES_PER_TOKEN))


def truncate_text(content: str, policy: TruncationPolicy) -> str:
    """A text within a policy's limit: whole, or its head, a marker, and its tail."""
    if policy.mode == "bytes":
        return truncate_with_byte_estimate(content, policy)
    return truncate_with_token_budget(content, policy)[0]


def formatted_truncate_text(content: str, policy: TruncationPolicy) -> str:
    """As ``truncate_text``; what was shortened begins with the number of lines that there were.

    That line counts towards a limit of tokens and is left out where it does not fit. A limit of bytes
    is for the text alone.
    """
    whole = _encoded(content)
    if len(whole) <= policy.byte_budget():
        return content
    lines = f"Total output lines: {len(content.splitlines())}\n\n"
    if policy.mode == "bytes":
        return lines + truncate_with_byte_estimate(content, policy)
    return _fitted(whole, policy, lines)


def formatted_truncate_text_with_token_count(
    content: str, max_output_tokens: int | None
) -> tuple[str, int | None]:
    """As ``formatted_truncate_text`` with a limit of tokens.

    Args:
        content: the text.
        max_output_tokens: the limit, or None for none.

    Returns:
        The text, and how many tokens it had if it was shortened, else None.
    """
    if max_output_tokens is None:
        return content, None
    policy = TruncationPolicy.tokens(max_output_tokens)
    whole = _encoded(content)
    if len(whole) <= policy.byte_budget():
        return content, None
    return formatted_truncate_text(content, policy), approx_tokens_from_byte_count(len(whole))


def truncate_with_byte_estimate(s: str, policy: TruncationPolicy) -> str:
    """A text of which a policy's limit in bytes is kept; the marker comes on top."""
    whole = _encoded(s)
    budget = policy.byte_budget()
    if len(whole) <= budget:
        return s
    head, tail = _ends(whole, budget)
    return assemble_truncated_output(head, tail, _marker(policy, whole, head + tail))


def truncate_with_token_budget(s: str, policy: TruncationPolicy) -> tuple[str, int | None]:
    """A text within a policy's limit, marker included.

    Returns:
        The text, and how many tokens it had if it was shortened, else None.
    """
    whole = _encoded(s)
    if len(whole) <= approx_bytes_for_tokens(policy.token_budget()):
        return s, None
    return _fitted(whole, policy, ""), approx_tokens_from_byte_count(len(whole))


def split_string(s: str, beginning_bytes: int, end_bytes: int) -> tuple[int, str, str]:
    """How many characters lie between a head and a tail, the head, and the tail.

    Args:
        s: the text.
        beginning_bytes: the most that the head has.
        end_bytes: the most that the tail has. The two never overlap.
    """
    whole = _encoded(s)
    head = _start_of(whole, min(max(0, beginning_bytes), len(whole)))
    rest = whole[len(_encoded(head)) :]
    tail = _end_of(rest, max(0, end_bytes))
    return len(s) - len(head) - len(tail), head, tail


def split_budget(budget: int) -> tuple[int, int]:
    """A number of bytes as one for the head and one for the tail; an odd one is the tail's."""
    return budget // 2, budget - budget // 2


def removed_units_for_source(
    policy: TruncationPolicy, removed_bytes: int, removed_chars: int
) -> int:
    """What a marker counts of what was left out: tokens or characters."""
    return (
        approx_tokens_from_byte_count(removed_bytes) if policy.mode == "tokens" else removed_chars
    )


def format_truncation_marker(policy: TruncationPolicy, removed_count: int) -> str:
    """What stands in the place of what was left out."""
    return f"…{removed_count} {'tokens' if policy.mode == 'tokens' else 'chars'} truncated…"


def assemble_truncated_output(prefix: str, suffix: str, marker: str) -> str:
    """Head, marker and tail."""
    return f"{prefix}{marker}{suffix}"


def _fitted(whole: bytes, policy: TruncationPolicy, prefix: str) -> str:
    """Prefix, head, marker and tail within the budget: the marker's own length depends on the rest."""
    budget = policy.byte_budget()
    marker = _marker(policy, whole, "")
    if len(prefix) + len(_encoded(marker)) > budget:
        prefix = ""
    room = budget - len(prefix) - len(_encoded(marker))
    if room < 0:
        return _start_of(_encoded(marker), budget)
    while True:
        head, tail = _ends(whole, room)
        marker = _marker(policy, whole, head + tail)
        text = assemble_truncated_output(prefix + head, tail, marker)
        over = len(_encoded(text)) - budget
        if over <= 0:
            return text
        room -= over


def _marker(policy: TruncationPolicy, whole: bytes, kept: str) -> str:
    """What stands in the place of all but ``kept``."""
    chars = len(whole.decode("utf-8", "surrogatepass")) - len(kept)
    removed = removed_units_for_source(policy, len(whole) - len(_encoded(kept)), chars)
    return format_truncation_marker(policy, removed)


def _ends(whole: bytes, room: int) -> tuple[str, str]:
    """The head and the tail of a text within ``room`` bytes, half of it each."""
    first, last = split_budget(room)
    return _start_of(whole, first), _end_of(whole, last)


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
