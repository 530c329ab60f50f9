"""A host program: two starts, of which the first one finds no room for a process of its own.

The filter that says so binds one thread and those that it starts, so the second start has a better
machine. It prints what became of both: the rung, or the error.
"""

from __future__ import annotations

import asyncio
import errno
import json
import sys
import threading

from sandyard import Policy, ResourceLimitError, UnixLocalSandboxClient
from tests.doctor.degrade import ERRNO, NEW_ANY, refuse


async def start() -> str:
    """The rung of a session, or why there is none."""
    client = UnixLocalSandboxClient(policy=Policy(accept=("write",)))
    session = await client.create()
    try:
        async with session:
            assert session.confinement is not None
            return session.confinement.rung
    except ResourceLimitError as error:
        return f"{error.context['limit']} {error.retryable}"
    finally:
        await client.delete(session)


def main() -> None:
    rungs = list[str]()

    def worse() -> None:
        no = ERRNO | errno.EAGAIN
        clone3 = (0, ERRNO | errno.ENOSYS)
        refuse({"unshare": (NEW_ANY, no), "clone": (NEW_ANY, no), "clone3": clone3})
        rungs.append(asyncio.run(start()))

    thread = threading.Thread(target=worse)
    thread.start()
    thread.join()
    rungs.append(asyncio.run(start()))
    json.dump({"rungs": rungs}, sys.stdout)


if __name__ == "__main__":
    main()
