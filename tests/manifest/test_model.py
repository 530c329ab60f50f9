"""Manifests: what is accepted, what is refused and how that is said, and JSON both ways."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from sandyard.errors import InvalidManifestPathError, ManifestError
from sandyard.limits import MANIFEST_DEPTH, SHOWN_VALUE_CHARS
from sandyard.manifest import (
    BaseEntry,
    Dir,
    EnvEntry,
    Environment,
    EnvValue,
    File,
    LocalDir,
    LocalFile,
    Manifest,
    SandboxPathGrant,
    SecretValue,
    StrEnvValue,
)
from sandyard.types import Group, Permissions, User


def _full() -> Manifest:
    return Manifest(
        root="/srv/w",
        entries={
            "text": File(content="héllo", description="greeting"),
            "d": Dir(children={"deep/er": File(content=b"\xff\0", ephemeral=True)}),
            "src": LocalDir(src="project"),
            "cfg": LocalFile(src=Path("/etc/x"), permissions=Permissions(owner=6)),
            "odd\n\\name": File(content=b""),
        },
        environment={"value": {"A": "b", "C": EnvEntry(value=StrEnvValue(value="d"))}},
        users=[User(name="u")],
        groups=[Group(name="g", users=[])],
        extra_path_grants=[SandboxPathGrant(path="/data", read_only=True)],
    )


# --- what is accepted -------------------------------------------------------------------------


def test_defaults() -> None:
    manifest = Manifest()
    assert (manifest.version, manifest.root, manifest.entries) == (1, "/workspace", {})
    assert manifest.environment.value == {}
    assert manifest.extra_path_grants == ()
    entry = File(content="x")
    assert entry.content == b"x"
    assert str(entry.permissions) == "-rwxr-xr-x"
    assert (entry.description, entry.ephemeral, entry.group, entry.is_dir) == (
        None,
        False,
        None,
        False,
    )
    assert Dir().is_dir
    assert LocalDir().is_dir


def test_keys_have_one_normal_form() -> None:
    manifest = Manifest(entries={"./a//b/": Dir(), "c": Dir(children={"d/./e": Dir()})})
    assert list(manifest.entries) == ["a/b", "c"]
    assert [path for path, _ in manifest.iter_entries()] == [
        PurePosixPath("a/b"),
        PurePosixPath("c"),
        PurePosixPath("c/d/e"),
    ]
    assert list(Manifest(entries={Path("x/y"): Dir()}).entries) == ["x/y"]


@pytest.mark.parametrize(
    "name", ["a\\b", "a\nb", " ", "...", "-rf", "日本", "é", "a*?[", "C:\\x", "\x7f", "x" * 255]
)
def test_odd_names_are_kept(name: str) -> None:
    assert list(Manifest(entries={name: Dir()}).entries) == [name]


def test_entries_in_declared_order_parents_first() -> None:
    manifest = Manifest(
        entries={"z": Dir(children={"2": Dir(), "1": File(content="")}), "a": File(content="")}
    )
    assert [str(path) for path, _ in manifest.iter_entries()] == ["z", "z/2", "z/1", "a"]
    assert manifest.validated_entries() == {"z": manifest.entries["z"], "a": manifest.entries["a"]}


def test_the_root_itself_may_be_an_entry() -> None:
    manifest = Manifest(entries={".": Dir(children={"a": File(content="")})})
    assert [path for path, _ in manifest.walk()] == [".", "a"]


def test_a_directory_and_paths_beneath_it_go_together() -> None:
    manifest = Manifest(entries={"a/b": File(content=""), "a": LocalDir(src="x")})
    assert list(manifest.entries) == ["a/b", "a"]


def test_mappings_become_entries() -> None:
    manifest = Manifest(
        entries={"d": {"type": "dir", "children": {"f": {"type": "file", "content": "x"}}}}
    )
    directory = manifest.entries["d"]
    assert isinstance(directory, Dir)
    assert directory.children["f"] == File(content=b"x")


# --- what is refused --------------------------------------------------------------------------

_DEEP: dict[str, object] = {"type": "dir"}
for _ in range(5_000):
    _DEEP = {"type": "dir", "children": {"a": _DEEP}}


def _nested(levels: int) -> Dir:
    inner = Dir()
    for _ in range(levels - 1):
        inner = Dir(children={"a": inner})
    return inner


@pytest.mark.parametrize(
    ("fields", "said", "field", "entry"),
    [
        ({"entrys": {}}, "did you mean 'entries'", "entrys", None),
        ({"version": 2}, "version", "version", None),
        ({"root": "w"}, "root must be an absolute path, not 'w'", "root", None),
        ({"root": "/"}, "root of the file system", "root", None),
        ({"root": "//"}, "root of the file system", "root", None),
        ({"root": "/a/../.."}, "root of the file system", "root", None),
        ({"root": "/a/../b"}, "'..'", "root", None),
        ({"root": "/a\0"}, "NUL", "root", None),
        ({"root": "/" + "x" * 256}, "256 bytes", "root", None),
        ({"root": 3}, "must be a str", "root", None),
        ({"entries": {"a": {"type": "fil"}}}, "known types: archive, bind_mount, dir", None, "a"),
        ({"entries": {"a": {"content": "x"}}}, "type None is not known", None, "a"),
        ({"entries": {"a": 3}}, "3 is neither", None, "a"),
        ({"entries": [1]}, "mapping of paths", "entries", None),
        ({"entries": {"a": {"type": "file"}}}, "field required", "content", "a"),
        (
            {"entries": {"a": {"type": "file", "content": "", "contnt": ""}}},
            "did you mean 'content'",
            "contnt",
            "a",
        ),
        (
            {"entries": {"a": {"type": "dir", "children": {"b": {"type": "file", "content": 3}}}}},
            "entry 'a/b': content must be bytes",
            "content",
            "a/b",
        ),
        ({"entries": {"": {"type": "dir"}}}, "key is empty", "entries", None),
        ({"entries": {"a\0b": {"type": "dir"}}}, "NUL", "entries", None),
        ({"entries": {"\udc80": {"type": "dir"}}}, "surrogate", "entries", None),
        ({"entries": {"x" * 256: {"type": "dir"}}}, "255", "entries", None),
        ({"entries": {"x/" * 2500: {"type": "dir"}}}, "4095", "entries", None),
        ({"entries": {3: {"type": "dir"}}}, "str or a path", "entries", None),
        ({"entries": {"a": Dir(), "./a": Dir()}}, "same path", None, "a"),
        ({"entries": {"a": Dir(children={"b": Dir()}), "a/b": Dir()}}, "twice", None, "a/b"),
        ({"entries": {"f": File(content=""), "f/g": Dir()}}, "is a file", None, "f/g"),
        ({"entries": {"f/g": Dir(), "f": File(content="")}}, "is a file", None, "f/g"),
        ({"entries": {".": File(content="")}}, "must be a directory", None, "."),
        ({"entries": {"a": Dir(children={".": Dir()})}}, "name '.'", None, "a"),
        ({"entries": {"a": _DEEP}}, "nested too deeply", None, None),
        ({"entries": {"a": _nested(MANIFEST_DEPTH + 1)}}, "nested more than", None, ...),
        ({"users": ["u"]}, "users.0", "users.0", None),
        ({"extra_path_grants": [{"path": "x"}]}, "absolute", "extra_path_grants.0.path", None),
        ({"environment": {"A": "b"}}, 'environment={"value"', "environment.A", None),
        ({"environment": {"value": {"A=": "b"}}}, "'='", "environment.value", None),
        ({"environment": {"value": {"": "b"}}}, "some length", "environment.value", None),
        ({"environment": {"value": {"A": "b\0"}}}, "value.A", "environment.value.A", None),
        ({"environment": {"value": {"A": 3}}}, "must be a str", "environment.value.A", None),
    ],
)
def test_problems_name_field_and_entry(
    fields: dict[str, object], said: str, field: str | None, entry: object
) -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest(**fields)  # type: ignore[arg-type]
    error = caught.value
    assert said in str(error)
    assert error.context.get("field") == field
    if entry is not ...:
        assert error.context.get("entry") == entry
    assert len(str(error)) < 5 * SHOWN_VALUE_CHARS


@pytest.mark.parametrize(
    ("key", "reason"), [("/a", "absolute"), ("../a", "escape_root"), ("a/../b", "escape_root")]
)
def test_escaping_keys(key: str, reason: str) -> None:
    for make in (
        lambda: Manifest(entries={key: Dir()}),
        lambda: Manifest(entries={"d": {"type": "dir", "children": {key: {"type": "dir"}}}}),
        lambda: Dir(children={key: Dir()}),
    ):
        with pytest.raises(InvalidManifestPathError) as caught:
            make()
        assert caught.value.context == {"rel": key, "reason": reason}


def test_the_deepest_manifest_is_accepted() -> None:
    manifest = Manifest(entries={"a": _nested(MANIFEST_DEPTH)})
    assert len(list(manifest.iter_entries())) == MANIFEST_DEPTH
    assert Manifest.from_saved(manifest.model_dump_json()) == manifest
    assert len(manifest.describe(None)) <= 5000


def test_a_directory_in_itself_ends_with_an_error() -> None:
    loop = Dir()
    loop.children["again"] = loop
    manifest = Manifest()
    manifest.entries["a"] = loop
    for ask in (lambda: list(manifest.iter_entries()), manifest.validated_entries):
        with pytest.raises(ManifestError, match="nested more than"):
            ask()


def test_entries_changed_by_hand_are_checked_when_they_are_used() -> None:
    manifest = Manifest()
    manifest.entries["../out"] = File(content="")
    with pytest.raises(InvalidManifestPathError):
        list(manifest.iter_entries())


def test_secrets_are_not_quoted() -> None:
    with pytest.raises(ManifestError) as caught:
        Manifest(environment={"value": {"KEY": {"type": "str", "value": ["hunter2"]}}})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ManifestError) as caught:
        Manifest(environment={"value": {"KEY": "hunter2\0"}})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Manifest(environment={"value": {"KEY": {"typ": "secret", "value": "hunter2"}}}),
        lambda: Environment.model_validate({"value": {"KEY": {"typ": "x", "value": "hunter2"}}}),
        lambda: EnvEntry.model_validate({"value": "hunter2"}),
        lambda: EnvEntry(value="hunter2"),  # type: ignore[arg-type]  # on purpose
        lambda: EnvValue.parse("hunter2"),
        lambda: EnvValue.parse({"type": "secret", "value": ["hunter2"]}),
        lambda: SecretValue(["hunter2"]),  # type: ignore[arg-type]  # likewise
        lambda: SecretValue(b"hunter2\xff"),  # type: ignore[arg-type]  # likewise
    ],
)
def test_a_slip_quotes_no_secret(make: Callable[[], object]) -> None:
    with pytest.raises((ManifestError, ValidationError)) as caught:
        make()
    assert "hunter2" not in str(caught.value)


# --- types of entries -------------------------------------------------------------------------


def test_own_types_join_the_family() -> None:
    class Note(BaseEntry):
        type: str = "test_note"
        text: str = ""

    try:
        manifest = Manifest(entries={"n": {"type": "test_note", "text": "x"}})
        assert isinstance(manifest.entries["n"], Note)
        assert Manifest.from_saved(manifest.model_dump_json()) == manifest
        assert BaseEntry.registered_types()["test_note"] is Note
        with pytest.raises(ValueError, match="is taken by Note"):

            class Other(BaseEntry):
                type: str = "test_note"

    finally:
        BaseEntry._known.pop("test_note")  # noqa: SLF001 - nothing else takes a type out again


def test_a_type_needs_a_tag() -> None:
    with pytest.raises(TypeError, match="default for its field 'type'"):

        class Nameless(BaseEntry):
            pass


def test_parse() -> None:
    entry = File(content="x")
    assert BaseEntry.parse(entry) is entry
    assert BaseEntry.parse({"type": "file", "content": "x"}) == entry
    with pytest.raises(ManifestError, match="known types"):
        BaseEntry.parse({"type": "zip"})
    with pytest.raises(ManifestError, match="field required"):
        BaseEntry.parse({"type": "file"})
    with pytest.raises(ManifestError, match="neither"):
        Dir.parse(File(content=""))


@pytest.mark.parametrize(
    "content",
    ["text", b"\xff\xfe", b"", "é\n\0", bytearray(b"x"), memoryview(b"y"), {"base64": "/w=="}],
)
def test_content_forms(content: object) -> None:
    entry = File(content=content)  # type: ignore[arg-type]
    back = BaseEntry.parse(json.loads(entry.model_dump_json()))
    assert isinstance(back, File)
    assert back.content == entry.content
    assert type(entry.content) is bytes


@pytest.mark.parametrize("content", [3, None, "\ud800", {"base64": "!"}, {"hex": ""}, ["a"]])
def test_bad_content(content: object) -> None:
    with pytest.raises(ManifestError, match="content"):
        File(content=content)  # type: ignore[arg-type]


@pytest.mark.parametrize("src", ["", "a\0", "\ud800", 3])
def test_bad_sources(src: object) -> None:
    with pytest.raises(ManifestError, match="src"):
        LocalFile(src=src)  # type: ignore[arg-type]


# --- grants -----------------------------------------------------------------------------------


def test_grants_are_normal_immutable_values() -> None:
    grant = SandboxPathGrant(path="/data/./x//y/../z")
    assert grant.path == "/data/x/z"
    assert len({grant, SandboxPathGrant(path="/data/x/z")}) == 1
    assert "host_path" not in grant.model_dump()
    shared = SandboxPathGrant(path="/d", host_path="/e")
    assert shared.model_dump()["host_path"] == "/e"
    assert Manifest(extra_path_grants=[{"path": "/a"}]).extra_path_grants == (
        SandboxPathGrant(path="/a"),
    )


@pytest.mark.parametrize("path", ["", "x", "/", "//", "/..", "/a/..", "/a\0", "/\ud800", None])
def test_bad_grants(path: object) -> None:
    with pytest.raises(ManifestError):
        SandboxPathGrant(path=path)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["x", "/", "/a/../b"])
def test_bad_host_paths(path: str) -> None:
    with pytest.raises(ManifestError, match="host_path"):
        SandboxPathGrant(path="/a", host_path=path)


# --- JSON -------------------------------------------------------------------------------------


def test_json_round_trip() -> None:
    manifest = _full()
    dumped = manifest.model_dump(mode="json")
    json.dumps(dumped)
    assert Manifest.from_saved(dumped) == manifest
    assert Manifest.from_saved(manifest.model_dump_json()) == manifest
    assert Manifest(**dumped) == manifest
    assert dumped["entries"]["text"]["content"] == "héllo"
    assert dumped["entries"]["d"]["children"]["deep/er"]["content"] == {"base64": "/wA="}


def test_permissions_of_directories_say_so() -> None:
    shared = Permissions(owner=6)
    entries = {"d": Dir(permissions=shared), "e": Dir(), "l": LocalDir(), "f": File(content=b"")}
    dumped = Manifest(entries=entries).model_dump(mode="json")["entries"]
    assert [dumped[key]["permissions"]["directory"] for key in "def"] == [True, True, False]
    assert not shared.directory
    assert str(entries["d"].permissions) == "drw-------"
    # Nobody chose those of the copy, and so they are not saved.
    assert "permissions" not in dumped["l"]
    again = Manifest.model_validate(Manifest(entries=entries).model_dump(mode="json"))
    assert again.model_dump(mode="json")["entries"] == dumped


def test_permissions_nobody_chose_stay_unchosen() -> None:
    back = Manifest.from_saved(_full().model_dump_json())
    source, chosen = back.entries["src"], back.entries["cfg"]
    assert isinstance(source, LocalDir)
    assert source.given_permissions() is None
    assert isinstance(chosen, LocalFile)
    assert chosen.given_permissions() == Permissions(owner=6)


def test_saved_manifests_may_have_unknown_fields() -> None:
    dumped = _full().model_dump(mode="json")
    dumped["later"] = 1
    dumped["entries"]["d"]["later"] = 1
    dumped["entries"]["d"]["children"]["deep/er"]["later"] = 1
    dumped["extra_path_grants"][0]["later"] = 1
    dumped["environment"]["value"]["C"]["later"] = 1
    assert Manifest.from_saved(dumped) == _full()
    with pytest.raises(ManifestError, match="unknown field"):
        Manifest(**dumped)


def test_former_field_is_taken() -> None:
    """JSON of the Agents SDK's manifests has it always; what else is unknown is refused as ever."""
    former = {"root": "/srv/w", "remote_mount_command_allowlist": ["ls", "cat"]}
    kept = dict(former)
    expected = Manifest(root="/srv/w")
    assert Manifest.model_validate(former) == Manifest.model_validate_json(json.dumps(former))
    assert Manifest(**former) == Manifest.from_saved(former) == expected  # type: ignore[arg-type]  # as read
    assert former == kept
    assert "remote_mount_command_allowlist" not in expected.model_dump()
    for words in ("ls", [1], None):
        with pytest.raises(ManifestError, match="remote_mount_command_allowlist"):
            Manifest(remote_mount_command_allowlist=words)
    with pytest.raises(ManifestError, match="unknown field"):
        Manifest(**former, later=1)  # type: ignore[arg-type]  # as read


@pytest.mark.parametrize("payload", ["{", "[]", b"\xff", {"root": "x"}])
def test_bad_saved_manifests(payload: str | bytes | dict[str, object]) -> None:
    with pytest.raises(ManifestError):
        Manifest.from_saved(payload)


_NAMES = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20
).filter(lambda name: name not in {".", ".."})


@given(st.dictionaries(_NAMES, st.one_of(st.binary(), st.text(st.characters(codec="utf-8")))))
def test_any_content_survives_json(files: dict[str, bytes | str]) -> None:
    manifest = Manifest(entries={name: File(content=content) for name, content in files.items()})
    assert Manifest.from_saved(json.loads(manifest.model_dump_json())) == manifest


@given(st.text(st.characters(exclude_characters="\0")))
def test_any_key_is_normal_or_refused(key: str) -> None:
    try:
        (path,) = Manifest(entries={key: Dir()}).entries
    except ManifestError:
        return
    names = path.split("/")
    assert ".." not in names
    assert all(names)
    assert Manifest(entries={path: Dir()}).entries.keys() == {path}
