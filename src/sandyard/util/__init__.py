"""Small helpers that need no session, for programs that had them from the OpenAI Agents SDK.

They are here under their old names; each is importable from ``sandyard`` too.
"""

from __future__ import annotations

from sandyard.errors import UnsafeTarMemberError
from sandyard.truncation import (
    APPROX_BYTES_PER_TOKEN,
    TruncationPolicy,
    approx_bytes_for_tokens,
    approx_token_count,
    approx_tokens_from_byte_count,
    assemble_truncated_output,
    format_truncation_marker,
    formatted_truncate_text,
    formatted_truncate_text_with_token_count,
    removed_units_for_source,
    split_budget,
    split_string,
    truncate_text,
    truncate_with_byte_estimate,
    truncate_with_token_budget,
)
from sandyard.util.listing import parse_ls_la
from sandyard.util.merging import deep_merge
from sandyard.util.retrying import (
    DEFAULT_TRANSIENT_RETRY_BACKOFF,
    DEFAULT_TRANSIENT_RETRY_INTERVAL_S,
    DEFAULT_TRANSIENT_RETRY_MAX_ATTEMPT,
    TRANSIENT_HTTP_STATUS_CODES,
    BackoffStrategy,
    exception_chain_contains_type,
    exception_chain_has_status_code,
    iter_exception_chain,
    retry_async,
)
from sandyard.util.streams import IteratorIO, sha256_file, sha256_io
from sandyard.util.tar_extraction import safe_extract_tarfile
from sandyard.util.tar_rules import (
    safe_tar_member_rel_path,
    should_skip_tar_member,
    validate_tar_bytes,
    validate_tarfile,
)
from sandyard.util.tasks import gather_in_order

__all__ = [
    "APPROX_BYTES_PER_TOKEN",
    "DEFAULT_TRANSIENT_RETRY_BACKOFF",
    "DEFAULT_TRANSIENT_RETRY_INTERVAL_S",
    "DEFAULT_TRANSIENT_RETRY_MAX_ATTEMPT",
    "TRANSIENT_HTTP_STATUS_CODES",
    "BackoffStrategy",
    "IteratorIO",
    "TruncationPolicy",
    "UnsafeTarMemberError",
    "approx_bytes_for_tokens",
    "approx_token_count",
    "approx_tokens_from_byte_count",
    "assemble_truncated_output",
    "deep_merge",
    "exception_chain_contains_type",
    "exception_chain_has_status_code",
    "format_truncation_marker",
    "formatted_truncate_text",
    "formatted_truncate_text_with_token_count",
    "gather_in_order",
    "iter_exception_chain",
    "parse_ls_la",
    "removed_units_for_source",
    "retry_async",
    "safe_extract_tarfile",
    "safe_tar_member_rel_path",
    "sha256_file",
    "sha256_io",
    "should_skip_tar_member",
    "split_budget",
    "split_string",
    "truncate_text",
    "truncate_with_byte_estimate",
    "truncate_with_token_budget",
    "validate_tar_bytes",
    "validate_tarfile",
]
