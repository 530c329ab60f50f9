"""What every message is made of: text that may be no Unicode, and models that accept nothing else."""

from __future__ import annotations

import base64
import binascii
import os
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, PlainSerializer, PlainValidator

__all__ = ["Message", "Text", "Variables"]

_BASE64: Final = "base64"


def _text(value: object) -> str:
    """Take text; what is not Unicode travels as its bytes, which JSON has no other word for."""
    if isinstance(value, dict) and list(value) == [_BASE64] and isinstance(value[_BASE64], str):
        try:
            value = os.fsdecode(base64.b64decode(value[_BASE64], validate=True))
        except binascii.Error:
            raise ValueError("this is no base64") from None
    if not isinstance(value, str):
        raise ValueError("this is no text")  # pydantic wants a ValueError
    return value


def _travelling(value: str) -> str | dict[str, str]:
    try:
        value.encode()
    except UnicodeEncodeError:
        return {_BASE64: base64.b64encode(os.fsencode(value)).decode()}
    return value


Text = Annotated[str, PlainValidator(_text), PlainSerializer(_travelling)]
"""A word of a command, a path, a variable's value: bytes of the kernel, as Python decodes them."""

Variables = dict[str, Text]


class Message(BaseModel):
    """Anything that is said; fields that are not known are refused."""

    # Numbers that JSON lacks travel as they are, to be refused where they are used.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, ser_json_inf_nan="constants"
    )
