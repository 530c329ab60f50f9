"""The public names are listed once, and each of them is documented and typed."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest

import sandyard

EXPORTS: tuple[str, ...] = tuple(getattr(sandyard, "__all__", ()))


def is_ours(thing: object) -> bool:
    """Whether a class or function was written here, not in a library that we build on."""
    return str(getattr(thing, "__module__", "")).partition(".")[0] == "sandyard"


def walk_methods(owner: type) -> Iterator[tuple[str, Callable[..., object]]]:
    """The public methods and properties that a class itself defines, by name."""
    for name, member in vars(owner).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            if member.fget is not None:
                yield name, member.fget
        elif isinstance(member, classmethod | staticmethod):
            yield name, member.__func__
        elif inspect.isfunction(member):
            yield name, member


def list_callables(name: str) -> dict[str, Callable[..., object]]:
    """What a public name lets its user call and was written here, by its full name."""
    thing = getattr(sandyard, name)
    if inspect.isclass(thing):
        methods = walk_methods(thing)
        return {f"{name}.{key}": method for key, method in methods if is_ours(method)}
    return {name: thing} if inspect.isfunction(thing) and is_ours(thing) else {}


def find_untyped(function: Callable[..., object]) -> list[str]:
    """Parameters without an annotation, and "return"."""
    signature = inspect.signature(function)
    names = list(signature.parameters)
    untyped = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation is parameter.empty
        and not (name in {"self", "cls"} and name == names[0])
    ]
    missing_return = signature.return_annotation is signature.empty
    return [*untyped, "return"] if missing_return else untyped


def test_list_is_complete() -> None:
    assert EXPORTS, "sandyard lists its public names in __all__"
    assert len(set(EXPORTS)) == len(EXPORTS)
    found = {
        name
        for name, value in vars(sandyard).items()
        if not name.startswith("_") and not isinstance(value, ModuleType) and name != "annotations"
    }
    assert found == {name for name in EXPORTS if not name.startswith("_")}


@pytest.mark.parametrize("name", EXPORTS)
def test_name_is_documented(name: str) -> None:
    thing = getattr(sandyard, name)
    if inspect.isclass(thing) and is_ours(thing):
        own = vars(thing).get("__doc__") or ""
        # A dataclass without a docstring is given its signature for one.
        assert own.strip(), f"{name} has no docstring"
        assert not own.startswith(f"{name}("), f"{name} has no docstring"
    bare = [key for key, method in list_callables(name).items() if not inspect.getdoc(method)]
    inherited = {
        f"{name}.{key}" for base in getattr(thing, "__mro__", ())[1:] for key in vars(base)
    }
    assert not set(bare) - inherited


@pytest.mark.parametrize("name", EXPORTS)
def test_name_is_typed(name: str) -> None:
    untyped = {key: find_untyped(method) for key, method in list_callables(name).items()}
    assert not {key: names for key, names in untyped.items() if names}
