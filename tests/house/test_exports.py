"""The public names are listed once, and each of them is documented and typed."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path

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
    stub = Path(sandyard.__file__).with_suffix(".pyi").read_text()
    told = {
        (node.module, alias.name)
        for node in ast.parse(stub).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert {name for _, name in told} == set(EXPORTS)
    for module, name in told:
        assert getattr(sandyard, name) is getattr(importlib.import_module(str(module)), name)
    assert set(EXPORTS) <= set(dir(sandyard))


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = getattr(sandyard, "Nothing")  # noqa: B009  # as a program that asks for it


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
