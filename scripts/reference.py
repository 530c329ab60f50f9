#!/usr/bin/env python3
"""Writes docs/reference.md from the docstrings and signatures of the public names.

scripts/reference.py           writes the file
scripts/reference.py --check   exits with 1 if it is not up to date
"""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import itertools
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

import sandyard

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference.md"
WIDTH = 100

HEAD = """\
# Reference

Every public name, importable from `sandyard`. This page is made from the source by
`scripts/reference.py`; `help(sandyard.Policy)` and the like say more.
"""

CHAPTERS = (
    (
        "Clients and sessions",
        (
            "sandyard.client",
            "sandyard.session",
            "sandyard.contract.",
            "sandyard.contract",
            "sandyard.changes",
            "sandyard.options",
        ),
    ),
    (
        "What a command may touch",
        (
            "sandyard.policy",
            "sandyard.narrowing",
            "sandyard.resources",
            "sandyard.confinement.explanation",
        ),
    ),
    ("Commands", ("sandyard.process.",)),
    ("Files", ("sandyard.file_verbs.", "sandyard.workspace.events")),
    ("Archives", ("sandyard.archive.", "sandyard.workspace.persist_stream")),
    ("What exists before work starts", ("sandyard.manifest.", "sandyard.workspace.")),
    ("Values", ("sandyard.types", "sandyard.endpoint")),
    (
        "What a machine can hold",
        (
            "sandyard.checkup",
            "sandyard.confinement.doctor_values",
            "sandyard.confinement.footing",
        ),
    ),
    ("Saved state", ("sandyard.state",)),
    ("Snapshots", ("sandyard.snapshot.", "sandyard.checkpoints", "sandyard.forking")),
    ("Events", ("sandyard.events.",)),
    ("Dependencies", ("sandyard.dependencies",)),
    ("Errors", ("sandyard.errors",)),
    ("Helpers", ("sandyard.truncation", "sandyard.util.")),
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parse(path: str) -> ast.Module:
    """A source file, parsed once."""
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def find_class(thing: type) -> ast.ClassDef:
    """The definition of a class in its source."""
    tree = parse(inspect.getsourcefile(thing) or "")
    return next(
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == thing.__name__
    )


def first_paragraph(node: ast.ClassDef | Function) -> str:
    """The first paragraph of a docstring, on one line."""
    text = inspect.cleandoc(ast.get_docstring(node) or "")
    return " ".join(text.partition("\n\n")[0].split())


def parameters(function: Function) -> list[str]:
    """The parameters of a function as they are written, without self."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    missing = len(positional) - len(given.defaults)
    defaults: list[ast.expr | None] = [None] * missing + list(given.defaults)
    shown = [written(one, default) for one, default in zip(positional, defaults, strict=True)]
    if shown and positional[0].arg in {"self", "cls"}:
        del shown[0]
    if given.vararg:
        shown.append(f"*{written(given.vararg, None)}")
    elif given.kwonlyargs:
        shown.append("*")
    pairs = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    return [*shown, *(written(one, default) for one, default in pairs)]


def written(parameter: ast.arg, default: ast.expr | None) -> str:
    """One parameter."""
    kind = "" if parameter.annotation is None else f": {ast.unparse(parameter.annotation)}"
    if default is None:
        return parameter.arg + kind
    return f"{parameter.arg}{kind}{' = ' if kind else '='}{ast.unparse(default)}"


def fields(node: ast.ClassDef) -> list[str]:
    """The fields of a value, as keyword arguments."""
    found = []
    for line in node.body:
        if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name):
            continue
        kind = ast.unparse(line.annotation)
        if line.target.id.startswith("_") or kind.startswith("ClassVar"):
            continue
        if kind.startswith("Annotated["):
            kind = ast.unparse(line.annotation.slice.elts[0])  # type: ignore[attr-defined]
        default = "" if line.value is None else f" = {shown_default(line.value)}"
        found.append(f"{line.target.id}: {kind}{default}")
    return found


def shown_default(value: ast.expr) -> str:
    """A default; one that is made anew each time is dots."""
    text = ast.unparse(value)
    return "..." if text.startswith("Field(default_factory") else text


def call(name: str, given: list[str], returns: str = "") -> str:
    """A signature, broken into lines where it is long."""
    line = f"{name}({', '.join(given)}){returns}"
    if len(line) <= WIDTH:
        return line
    body = "".join(f"    {one},\n" for one in given)
    return f"{name}(\n{body}){returns}"


def methods(node: ast.ClassDef) -> Iterator[Function]:
    """The public methods of a class, in the order of its source."""
    for line in node.body:
        if isinstance(line, Function) and not line.name.startswith("_"):
            yield line


def all_methods(thing: type) -> Iterator[Function]:
    """Those of a class and of the bases of ours that belong to no entry of their own."""
    yield from methods(find_class(thing))
    bases = [base for base in thing.__mro__[1:] if base.__module__.startswith("sandyard.")]
    entries = [base for base in bases if base.__name__ in public_names()]
    for base in bases:
        if not any(issubclass(entry, base) for entry in entries):
            yield from methods(find_class(base))


def is_property(function: Function) -> bool:
    """Whether a method is read like an attribute."""
    return any(ast.unparse(mark) == "property" for mark in function.decorator_list)


def describe_method(function: Function) -> str:
    """One method: how it is called and what it does."""
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    if is_property(function):
        signature = f"{function.name}{returns.replace(' -> ', ': ')}"
    else:
        is_async = isinstance(function, ast.AsyncFunctionDef)
        managed = any("contextmanager" in ast.unparse(mark) for mark in function.decorator_list)
        prefix = "async with " if managed else "await " if is_async else ""
        signature = prefix + call(function.name, parameters(function), returns)
    return f"```text\n{signature}\n```\n\n{first_paragraph(function)}\n"


def describe_value(name: str) -> str:
    """A constant, or another name of a type: what it is, and the words beneath it."""
    body = parse(inspect.getsourcefile(importlib.import_module(homes()[name])) or "").body
    for line, after in itertools.pairwise(body):
        targets = line.targets if isinstance(line, ast.Assign) else [getattr(line, "target", None)]
        named = any(isinstance(target, ast.Name) and target.id == name for target in targets)
        if named and isinstance(line, ast.Assign | ast.AnnAssign) and line.value is not None:
            said = ast.literal_eval(after.value) if isinstance(after, ast.Expr) else ""
            shown = f"{name} = {ast.unparse(line.value)}"
            code = f"```text\n{shown}\n```\n\n" if len(shown) <= WIDTH else ""
            return f"### {name}\n\n{code}{' '.join(said.split())}\n"
    raise SystemExit(f"{name} is not assigned in {homes()[name]}")


def is_ours(thing: object) -> bool:
    """Whether a class or function was written here."""
    return str(getattr(thing, "__module__", "")).partition(".")[0] == "sandyard"


def describe(name: str) -> str:
    """One public name."""
    thing = getattr(sandyard, name)
    if inspect.isfunction(thing):
        tree = parse(inspect.getsourcefile(thing) or "")
        found = (node for node in tree.body if isinstance(node, Function) and node.name == name)
        return f"### {name}\n\n{describe_method(next(found))}"
    if isinstance(thing, TypeVar):
        return f"### {name}\n\nA type variable: some `{thing.__bound__.__forward_arg__}`.\n"
    if not inspect.isclass(thing) or not is_ours(thing):
        return describe_value(name)
    if thing.__name__ != name:
        return f"### {name}\n\nThe same as `{thing.__name__}`.\n"
    node = find_class(thing)
    bases = [base.__name__ for base in thing.__bases__ if base.__name__ in public_names()]
    kin = f"Is a {', '.join(f'`{base}`' for base in bases)}. " if bases else ""
    parts = [f"### {name}\n", f"{kin}{first_paragraph(node)}\n"]
    if issubclass(thing, enum.Enum):
        members = ", ".join(f"`{member.name}`" for member in thing)
        return "\n".join([*parts, f"Members: {members}.\n"])
    if not issubclass(thing, sandyard.SandboxError):
        makers = [
            line for line in node.body if isinstance(line, Function) and line.name == "__init__"
        ]
        given = fields(node) or [one for maker in makers for one in parameters(maker)]
        if given:
            parts.append(f"```text\n{call(name, given)}\n```\n")
        parts += [describe_method(function) for function in all_methods(thing)]
    return "\n".join(parts)


@cache
def public_names() -> frozenset[str]:
    """The names that may be imported."""
    return frozenset(sandyard.__all__)


@cache
def homes() -> dict[str, str]:
    """The module that each public name is loaded from."""
    stub = parse(str(Path(sandyard.__file__).with_suffix(".pyi")))
    lines = [line for line in stub.body if isinstance(line, ast.ImportFrom)]
    return {one.name: str(line.module) for line in lines for one in line.names}


def belongs(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a public name comes from one of a chapter's modules."""
    thing = getattr(sandyard, name)
    module = thing.__module__ if is_ours(thing) else homes()[name]
    return any(module == one or (one.endswith(".") and module.startswith(one)) for one in modules)


def write_page() -> str:
    """The whole page."""
    left = sorted(public_names())
    parts = [HEAD]
    for title, modules in CHAPTERS:
        parts.append(f"## {title}\n")
        for name in list(left):
            if belongs(name, modules):
                parts.append(describe(name))
                left.remove(name)
    if left:
        raise SystemExit(f"these names belong to no chapter: {', '.join(left)}")
    return "\n".join(parts)


def main() -> int:
    """Write the page, or compare."""
    page = write_page()
    if "--check" in sys.argv[1:]:
        return 0 if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page else 1
    PAGE.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
