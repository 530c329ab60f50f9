"""Tells what is not there from what this program could not look at, for want of descriptors."""

from __future__ import annotations

import errno

__all__ = ["refuse_shortage"]

_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def refuse_shortage(error: OSError) -> None:
    """Pass on an error that says nothing of the host: facts are kept, and shortage passes.

    Raises:
        OSError: it, if this program or the machine is short of something.
    """
    if error.errno in _SHORT:
        raise error
