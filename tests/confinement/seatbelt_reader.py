"""Reads a Seatbelt profile as macOS does, as far as files go: the last rule that fits decides."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sandyard.confinement.seatbelt import SeatbeltProfile
from sandyard.platform import is_within

TOKEN = re.compile(r"""\s*(?:;[^\n]*\n\s*)*([()]|\#?"(?:[^"\\]|\\.)*"|[^\s()";]+)""")

Form = str | list["Form"]


def read_forms(text: str) -> list[Form]:
    """The forms of a profile; an error if a parenthesis or a string does not end."""
    stack: list[list[Form]] = [[]]
    at = 0
    while text[at:].strip():
        found = TOKEN.match(text, at)
        assert found is not None, text[at : at + 80]
        token, at = found.group(1), found.end()
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    assert len(stack) == 1
    return stack[0]


@dataclass(frozen=True)
class Rules:
    """The rules of a profile, with its parameters."""

    forms: list[Form]
    parameters: dict[str, str]

    def allows(self, operation: str, path: str) -> bool:
        """Whether something may be done to a file."""
        verdict = False
        for form in self.forms:
            if isinstance(form, str) or form[0] not in {"allow", "deny"}:
                continue
            operations = [each for each in form[1:] if isinstance(each, str)]
            filters = [each for each in form[1:] if isinstance(each, list)]
            named = any(_covers(each, operation) for each in operations)
            if named and (not filters or any(self._fits(each, path) for each in filters)):
                verdict = form[0] == "allow"
        return verdict

    def _fits(self, form: list[Form], path: str) -> bool:
        kind, *rest = form
        if kind not in {"subpath", "literal"}:
            return False
        value = rest[0]
        place = self.parameters[str(value[1])[1:-1]] if isinstance(value, list) else value[1:-1]
        return is_within(path, place) if kind == "subpath" else path == place


def read_profile(profile: SeatbeltProfile) -> Rules:
    """The rules that a profile is."""
    return Rules(read_forms(profile.text), dict(profile.parameters))


def _covers(name: str, operation: str) -> bool:
    return operation.startswith(name[:-1]) if name.endswith("*") else name in {operation, "default"}
