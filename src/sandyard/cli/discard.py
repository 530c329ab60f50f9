"""``sandyard discard``: an end to what a session that stays has changed."""

from __future__ import annotations

from sandyard.cli.reaching import Session, attended, supervised

__all__ = ["discard_changes"]


def discard_changes(session: Session) -> int:
    """Throw away what a session made with --try has changed.

    It begins anew from the directory as it is. All that runs in the session is ended.

    Exit codes: 0; 125 where sandyard refuses.
    """

    async def work() -> int:
        await supervised().session(session).discard()
        return 0

    return attended(work)
