"""Manifest: what should exist in a workspace before work starts."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath, PurePosixPath
from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from sandyard.errors import ManifestError, shown
from sandyard.limits import MANIFEST_DEPTH
from sandyard.manifest.base import SAVED, ManifestModel, manifest_error
from sandyard.manifest.entries import BaseEntry, Dir, Entries, GivenEntries, Mount
from sandyard.manifest.environment import Environment
from sandyard.manifest.grants import SandboxPathGrant
from sandyard.manifest.paths import ROOT_KEY, absolute_path, entry_key
from sandyard.types import Group, User

__all__ = ["DEFAULT_ROOT", "FORMER_FIELDS", "Manifest"]

DEFAULT_ROOT = "/workspace"
"""The root that means: make me a private directory."""

FORMER_FIELDS: Final = ("remote_mount_command_allowlist",)
"""What manifests of the OpenAI Agents SDK have besides: words for a model's instructions, which bind
nobody. They are taken, so that its JSON can be read, and not kept."""


def _root(path: object) -> str:
    """Check the root; it is kept as written, since only the literal default is special."""
    absolute_path(path, "root")
    text = str(path)
    if ".." in text.split("/"):
        raise ManifestError(f"root {shown(text)} has a '..'; give the plain path", field="root")
    return text


class Manifest(ManifestModel):
    """What should exist in a workspace before work starts.

    Everything is checked when it is made. Entries that are changed afterwards are checked again
    when the manifest is applied.

    Attributes:
        version: version of this format.
        root: absolute path of the workspace; the default stands for a private directory.
        entries: what to make, by path beneath the root (``.`` is the root itself).
        environment: variables of every command.
        users: users that exist inside besides ``agent``; only as root.
        groups: groups that exist inside, whose members are users too; only as root.
        extra_path_grants: paths outside the workspace that commands may use too.
    """

    version: Literal[1] = 1
    root: Annotated[str, BeforeValidator(_root)] = DEFAULT_ROOT
    entries: Entries = Field(default_factory=dict)
    environment: Environment = Field(default_factory=Environment)
    users: list[User] = Field(default_factory=list)
    groups: list[Group] = Field(default_factory=list)
    extra_path_grants: tuple[SandboxPathGrant, ...] = ()

    def __init__(
        self,
        *,
        version: Literal[1] = 1,
        root: str | PurePath = DEFAULT_ROOT,
        entries: GivenEntries | None = None,
        environment: Environment | Mapping[str, object] | None = None,
        users: Iterable[User | Mapping[str, object]] = (),
        groups: Iterable[Group | Mapping[str, object]] = (),
        extra_path_grants: Iterable[SandboxPathGrant | Mapping[str, object]] = (),
        **unknown: object,
    ) -> None:
        super().__init__(
            version=version,
            root=root,
            entries=entries,
            environment=Environment() if environment is None else environment,
            users=users,
            groups=groups,
            extra_path_grants=extra_path_grants,
            **unknown,
        )

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def from_saved(cls, payload: Mapping[str, object] | str | bytes) -> Self:
        """Read back what ``model_dump(mode="json")`` or ``model_dump_json()`` gave.

        Unknown fields are ignored, since another version may have written them.

        Args:
            payload: the mapping, or its JSON.

        Raises:
            ManifestError: a field is wrong.
        """
        try:
            if isinstance(payload, str | bytes):
                return cls.model_validate_json(payload, context=SAVED)
            return cls.model_validate(payload, context=SAVED)
        except ValidationError as error:
            raise manifest_error(error) from error

    @classmethod
    def json_schema(cls) -> dict[str, object]:
        """Return the JSON schema of manifests: what ``Manifest.model_validate`` takes.

        It names every type of entry that is known, your own ones too. The one of the library itself
        is docs/manifest.schema.json.
        """
        from sandyard.manifest.schema import manifest_schema  # noqa: PLC0415  # seldom asked for

        return manifest_schema(cls)

    def validated_entries(self) -> dict[str, BaseEntry]:
        """Give the entries at the top by their keys, if all of them and all beneath are possible.

        Raises:
            ManifestError: a path is impossible (entries may have been changed by hand).
        """
        for _ in self.walk():
            pass
        return dict(self.entries)

    def iter_entries(self) -> Iterator[tuple[PurePosixPath, BaseEntry]]:
        """Give every entry with its path beneath the root, parents first, in declared order.

        Raises:
            ManifestError: a path is impossible (entries may have been changed by hand).
        """
        for path, entry in self.walk():
            yield PurePosixPath(path), entry

    def walk(self) -> Iterator[tuple[str, BaseEntry]]:
        """Give what ``iter_entries`` gives, with paths as text in normal form.

        Raises:
            ManifestError: a path is impossible.
        """
        todo = [(entry_key(key), 1, entry) for key, entry in reversed(self.entries.items())]
        while todo:
            path, level, entry = todo.pop()
            if level > MANIFEST_DEPTH:
                raise ManifestError(
                    f"entry {shown(path)} is nested more than {MANIFEST_DEPTH} directories deep; "
                    "give paths such as 'a/b/c' as keys instead",
                    entry=path,
                )
            yield path, entry
            if isinstance(entry, Dir):
                above = "" if path == ROOT_KEY else f"{path}/"
                for key, child in reversed(entry.children.items()):
                    name = _beneath(path, key)
                    todo.append((f"{above}{name}", level + 1, child))

    def mounts(self) -> Iterator[tuple[str, Mount]]:
        """Give every mount with the path beneath the root where it stands, in declared order.

        Raises:
            ManifestError: a path is impossible, or a mount stands outside the workspace.
        """
        for path, entry in self.walk():
            if isinstance(entry, Mount):
                yield self._place(path, entry), entry

    def mount_targets(self) -> list[tuple[Mount, PurePosixPath]]:
        """Return every mount with its absolute path inside, deepest first.

        Raises:
            ManifestError: a path is impossible, or a mount stands outside the workspace.
        """
        root = PurePosixPath(self.root)
        found = [(entry, root / path) for path, entry in self.mounts()]
        return sorted(found, key=lambda each: len(each[1].parts), reverse=True)

    def ephemeral_mount_targets(self) -> list[tuple[Mount, PurePosixPath]]:
        """Return the mounts that a snapshot leaves out, which are all; as ``mount_targets``.

        Raises:
            ManifestError: a path is impossible, or a mount stands outside the workspace.
        """
        return [(entry, path) for entry, path in self.mount_targets() if entry.ephemeral]

    def ephemeral_entry_paths(self) -> set[PurePosixPath]:
        """Return the paths, beneath the root, of entries that a snapshot leaves out.

        Raises:
            ManifestError: a path is impossible.
        """
        return {path for path, entry in self.iter_entries() if entry.ephemeral}

    def ephemeral_persistence_paths(self) -> set[PurePosixPath]:
        """Return the paths, beneath the root, that a snapshot leaves out: ephemeral entries, mounts.

        Raises:
            ManifestError: a path is impossible, or a mount stands outside the workspace.
        """
        mounts = {PurePosixPath(path) for path, _ in self.mounts()}
        return self.ephemeral_entry_paths() | mounts

    def describe(self, depth: int | None = 1) -> str:
        """Draw the entries as a tree, for a model's instructions.

        Args:
            depth: levels to draw (default 1); None draws all.

        Raises:
            ManifestError: the depth is less than 1.
        """
        from sandyard.manifest.rendering import Line, render  # noqa: PLC0415  # seldom needed

        lines = (
            Line(self._place(path, entry), entry.is_dir, entry.description)
            for path, entry in self.walk()
        )
        return render(self.root, lines, depth)

    def _place(self, path: str, entry: BaseEntry) -> str:
        """Return where an entry stands, beneath the root: a mount may say so itself."""
        chosen = entry.mount_path if isinstance(entry, Mount) else None
        if chosen is None or not chosen.startswith("/"):
            return path if chosen is None else chosen
        for root in dict.fromkeys((self.root.rstrip("/"), DEFAULT_ROOT)):
            if chosen.startswith(root + "/"):
                return entry_key(chosen[len(root) + 1 :])
        raise ManifestError(
            f"entry {shown(path)} has the mount_path {shown(chosen)}, which is not in the workspace; "
            "give one that is relative to it",
            field="mount_path",
            entry=path,
        )

    def _check_mounts(self, seen: Mapping[str, BaseEntry]) -> None:
        """Refuse mounts that would hide an entry or another mount, or the workspace itself."""
        places: dict[str, str] = {}
        for path, entry in seen.items():
            place = self._place(path, entry)
            if not isinstance(entry, Mount):
                continue
            if place == ROOT_KEY:
                raise ManifestError(
                    f"entry {shown(path)} is mounted on the workspace itself; mount it in a "
                    "directory of it",
                    entry=path,
                )
            hidden = next((key for key in seen if key != path and _is_in(key, place)), None)
            hidden = hidden or next((key for key in places if _overlap(key, place)), None)
            if hidden is not None:
                raise ManifestError(
                    f"entry {shown(path)} is mounted over {shown(hidden)}; move one of them",
                    entry=path,
                )
            places[place] = path

    @model_validator(mode="before")
    @classmethod
    def _leave_former(cls, fields: object) -> object:
        """Leave out what only the Agents SDK makes something of."""
        if not isinstance(fields, Mapping) or fields.keys().isdisjoint(FORMER_FIELDS):
            return fields
        for name in FORMER_FIELDS:
            words = fields.get(name, [])
            if not isinstance(words, list | tuple) or not all(isinstance(w, str) for w in words):
                raise ManifestError(f"{name} is a list of commands' names", field=name)
        return {name: value for name, value in fields.items() if name not in FORMER_FIELDS}

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        """Refuse entries that can't exist at the same time."""
        seen: dict[str, BaseEntry] = {}
        for path, entry in self.walk():
            if path in seen:
                raise ManifestError(f"entry {shown(path)} is there twice; keep one", entry=path)
            if path == ROOT_KEY and not entry.is_dir:
                raise ManifestError(
                    f"entry {ROOT_KEY!r} is the workspace's root and must be a directory",
                    entry=path,
                )
            seen[path] = entry
        for path in seen:
            above = path.rpartition("/")[0]
            while above:
                if above in seen and not seen[above].is_dir:
                    raise ManifestError(
                        f"entry {shown(above)} is a file, so {shown(path)} can't be beneath it",
                        entry=path,
                    )
                above = above.rpartition("/")[0]
        self._check_mounts(seen)
        return self


def _beneath(parent: str, key: str) -> str:
    """Return a child's key in normal form; a child can't be its own parent."""
    name = entry_key(key)
    if name == ROOT_KEY:
        raise ManifestError(f"a child of {shown(parent)} has the name '.'", entry=parent)
    return name


def _is_in(path: str, tree: str) -> bool:
    """Tell whether one of two paths in normal form is the other, or lies in it."""
    return path == tree or path.startswith(tree + "/")


def _overlap(one: str, other: str) -> bool:
    return _is_in(one, other) or _is_in(other, one)
