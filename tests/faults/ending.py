"""A program whose loop ends while a verb is under way; it tells what was left of each verb."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sandyard.process.budget import descriptor_budget
from tests.faults.awaits import leave_amid
from tests.faults.verbs import VERBS, Place, Verb
from tests.house.leaks import describe_process, find_descendants
from tests.session.host import find_survivors, make_token, open_descriptors

MOMENTS = 5
"""Suspensions of each verb that are tried; a stream has more, which are alike."""

WITHIN_S = 10.0


def look_around() -> set[str]:
    """What there is of this program, apart from itself."""
    found = {f"open {opened}" for opened in open_descriptors()}
    found |= {f"file {name}" for name in os.listdir(tempfile.gettempdir())}
    found |= {describe_process(pid) for pid in find_descendants()}
    found |= {f"thread {thread.name}" for thread in threading.enumerate()}
    return found | {f"budget {descriptor_budget.used}"}


def soon(condition: Callable[[], bool]) -> bool:
    """Whether something becomes so within a moment."""
    end = time.monotonic() + WITHIN_S
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def try_ending(place: Place, verb: Verb, number: int, said: list[str]) -> bool:
    """End a loop at one moment of a verb; append what is wrong afterwards."""
    before = look_around()

    async def begin() -> bool:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: said.append(f"{number}: {context}")
        )
        await place.prepare(verb)
        return await leave_amid(verb.act(place), number)

    reached = asyncio.run(begin())
    if reached and find_survivors(place.token):
        said.append(f"{number}: its command lives on")
    with suppress(Exception):  # what cannot be deleted will be seen
        asyncio.run(place.clear())
    if not soon(lambda: look_around() <= before):
        said.append(f"{number}: {sorted(look_around() - before)}")
    return reached


def main() -> None:
    """Try each verb; print what was wrong as JSON, by verb."""
    place = Place(Path(sys.argv[1]), make_token())
    place.fill_source()
    wrong: dict[str, list[str]] = {}
    for name, verb in VERBS.items():
        said: list[str] = []
        for number in range(1, MOMENTS + 1):
            if said or not try_ending(place, verb, number, said):
                break
        if said:
            wrong[name] = said
    sys.stdout.write(json.dumps(wrong))


if __name__ == "__main__":
    main()
