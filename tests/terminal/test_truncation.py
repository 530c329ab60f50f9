"""Text is shortened to a budget: whole characters, an honest count, head and tail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard import TruncationPolicy, formatted_truncate_text, truncate_text
from sandyard.process.gathering import whole_characters
from sandyard.truncation import (
    approx_bytes_for_tokens,
    approx_token_count,
    approx_tokens_from_byte_count,
    formatted_truncate_text_with_token_count,
)

texts = st.text(st.sampled_from("ab \n\ré漢🎉\ud800"), max_size=300)


@pytest.mark.parametrize(
    ("text", "tokens", "shown", "count"),
    [
        ("", 0, "", None),
        ("abcd", 1, "abcd", None),
        ("abcde", None, "abcde", None),
        ("abcde", 1, "…2", 2),
        ("abcde", 0, "", 2),
        ("x" * 100, 10, "xxxxxxx…22 tokens truncated…xxxxxxxx", 25),
        (
            "a\n" * 100,
            14,
            "Total output lines: 100\n\na\na…49 tokens truncated…\na\n",
            50,
        ),
    ],
)
def test_examples(text: str, tokens: int | None, shown: str, count: int | None) -> None:
    assert formatted_truncate_text_with_token_count(text, tokens) == (shown, count)


LINES = "".join(f"line {number}\n" for number in range(100))
COUNTED = "Total output lines: 100\n\n"


@pytest.mark.parametrize(
    ("policy", "shown"),
    [
        (
            TruncationPolicy.tokens(20),
            f"{COUNTED}line 0\nline 1\n…191 tokens truncated…ine 98\nline 99\n",
        ),
        (TruncationPolicy.tokens(12), "line 0\nline…192 tokens truncated…98\nline 99\n"),
        (TruncationPolicy.tokens(8), "lin…196 tokens truncated…99\n"),
        (TruncationPolicy.tokens(0), ""),
        (TruncationPolicy.bytes(20), f"{COUNTED}line 0\nlin…770 chars truncated…8\nline 99\n"),
        (TruncationPolicy.bytes(0), f"{COUNTED}…790 chars truncated…"),
        (TruncationPolicy.bytes(790), LINES),
        (TruncationPolicy.tokens(198), LINES),
    ],
)
def test_exact_forms(policy: TruncationPolicy, shown: str) -> None:
    assert formatted_truncate_text(LINES, policy) == shown
    if policy.mode == "bytes":
        assert truncate_text(LINES, policy) == shown.removeprefix(COUNTED)


@given(texts, st.integers(-1, 90))
def test_budget_of_tokens_is_kept(text: str, tokens: int) -> None:
    size = len(text.encode("utf-8", "surrogatepass"))
    shown, count = formatted_truncate_text_with_token_count(text, tokens)
    assert len(shown.encode("utf-8", "surrogatepass")) <= max(0, tokens) * 4 or shown == text
    assert (count is None) == (shown == text and size <= max(0, tokens) * 4)
    assert count in {None, -(-size // 4)}


@given(texts, st.integers(0, 300))
def test_budget_of_bytes_is_kept(text: str, limit: int) -> None:
    shown = truncate_text(text, TruncationPolicy.bytes(limit))
    if shown == text and len(text.encode("utf-8", "surrogatepass")) <= limit:
        return
    head, marker, tail = shown.partition("…")[0], shown, shown.rpartition("…")[2]
    assert text.startswith(head)
    assert text.endswith(tail)
    assert f"…{len(text) - len(head) - len(tail)} chars truncated…" in marker
    assert len((head + tail).encode("utf-8", "surrogatepass")) <= limit


def test_budgets() -> None:
    assert TruncationPolicy.bytes(-3) == TruncationPolicy("bytes", 0)
    assert (TruncationPolicy.bytes(9).token_budget(), TruncationPolicy.bytes(9).byte_budget()) == (
        3,
        9,
    )
    assert (
        TruncationPolicy.tokens(9).token_budget(),
        TruncationPolicy.tokens(9).byte_budget(),
    ) == (
        9,
        36,
    )
    assert (approx_token_count("漢字"), approx_tokens_from_byte_count(0)) == (2, 0)
    assert (approx_bytes_for_tokens(-1), approx_tokens_from_byte_count(-1)) == (0, 0)


@given(st.binary(max_size=12))
def test_whole_characters(data: bytes) -> None:
    whole = whole_characters(data)
    assert len(data) - whole <= 3
    rest = data[whole:]
    if rest:  # more bytes may make it a character, and nothing else is held back
        assert any(_begins(rest, size) for size in (2, 3, 4))


def _begins(rest: bytes, size: int) -> bool:
    first = {2: range(0xC0, 0xE0), 3: range(0xE0, 0xF0), 4: range(0xF0, 0xF8)}[size]
    return rest[0] in first and len(rest) < size and all(b & 0xC0 == 0x80 for b in rest[1:])


@given(st.text(max_size=20), st.integers(0, 80))
def test_cut_text_is_whole_characters(text: str, cut: int) -> None:
    data = text.encode()[:cut]
    assert (
        data[: whole_characters(data)].decode()
        == text[: len(data[: whole_characters(data)].decode())]
    )
