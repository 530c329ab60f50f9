"""The way round what one command is denied: rights of Landlock for everything that lies beside it.

Pure, but for a function that is given, which lists directories. Landlock knows no denial: a right
holds for all that is beneath. So a right above a denied path is taken apart, directory by directory,
into the rights of what lies beside the way down to it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from sandyard.confinement.landlock import READ_DIR
from sandyard.errors import PolicyError
from sandyard.limits import NARROWED_PLACES_MAX
from sandyard.plan import Bind, LandlockRule
from sandyard.platform import is_beneath, is_within

if TYPE_CHECKING:
    from sandyard.confinement.explanation import Enforced

__all__ = ["Listing", "rules_around"]

Listing = Callable[[str, str], Mapping[str, bool]]
"""Lists ``(source, below)``, a host path that is mounted inside and a path relative to it: each name,
and whether it is a symlink. Nothing where no directory is; PolicyError where it can't be known."""

_ALWAYS_THERE = ("dev", "proc")


def rules_around(
    rights: Mapping[str, int], denied: tuple[str, ...], enforced: Enforced, listing: Listing
) -> tuple[LandlockRule, ...]:
    """Rights without what is denied.

    Args:
        rights: by path inside; each holds for all that is beneath it.
        denied: paths inside.
        enforced: what the session enforces.
        listing: lists directories of the trees that it shows.

    Raises:
        PolicyError: it would take too many rules, or a denied path is a symlink.
    """
    way = _WayRound(denied, enforced, listing)
    found: dict[str, int] = {}
    for path, access in rights.items():
        for place, right in way.split(path, access):
            found[place] = found.get(place, 0) | right
            if len(found) > NARROWED_PLACES_MAX:
                raise PolicyError(
                    f"deny of a narrowing takes a rule of the kernel for each of more than "
                    f"{NARROWED_PLACES_MAX} entries beside what is denied ({', '.join(denied)}); deny a "
                    "directory that holds fewer beside it, or the whole one",
                    field="deny",
                    value=denied,
                )
    return tuple(LandlockRule(path, access) for path, access in found.items())


class _WayRound:
    """The directories that lead to what is denied, each listed once."""

    def __init__(self, denied: tuple[str, ...], enforced: Enforced, listing: Listing) -> None:
        self._denied = denied
        self._enforced = enforced
        self._list = listing
        self._known: dict[str, tuple[str, ...]] = {}

    def split(self, path: str, access: int) -> Iterator[tuple[str, int]]:
        """A right without what is denied beneath it."""
        if any(is_within(path, denied) for denied in self._denied):
            return
        if not any(is_beneath(denied, path) for denied in self._denied):
            yield path, access
            return
        # Names in denied directories can be listed by this; without it no program could work here.
        if access & READ_DIR:
            yield path, READ_DIR
        for name in self._entries(path):
            yield from self.split(posixpath.join(path, name), access)

    def _entries(self, path: str) -> tuple[str, ...]:
        """What lies in a directory and may need a right: symlinks have none of their own."""
        if path not in self._known:
            start = len(path.rstrip("/")) + 1
            shown = {
                each[start:].partition("/")[0]
                for each in (*self._enforced.steps, *self._enforced.skeleton)
                if is_beneath(each, path)
            }
            shown.update(_ALWAYS_THERE if path == "/" else ())
            entries = dict.fromkeys(shown, False) | dict(self._listed(path))
            for name, is_link in entries.items():
                self._check_link(posixpath.join(path, name), is_link=is_link)
            self._known[path] = tuple(sorted(name for name in entries if not entries[name]))
        return self._known[path]

    def _listed(self, path: str) -> Mapping[str, bool]:
        around = path
        while around != "/" and around not in self._enforced.steps:
            around = posixpath.dirname(around)
        step = self._enforced.steps.get(around)
        if not isinstance(step, Bind):
            return {}
        return self._list(step.source, path[len(around) :].lstrip("/"))

    def _check_link(self, path: str, *, is_link: bool) -> None:
        if is_link and any(is_within(denied, path) for denied in self._denied):
            raise PolicyError(
                f"{path} in deny of a narrowing is a symlink, and closed would be only its name; deny "
                "what it leads to",
                field="deny",
                value=path,
            )
