"""YAML into dataclasses: what is taken, and what is refused with which words."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from finetune.typed_yaml import from_tree, read_yaml
from vsr.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    folder: Path | None = None
    kind: Literal["a", "b"] = "a"
    pair: tuple[int, float] = (1, 2.0)
    on: bool = False

    def __post_init__(self) -> None:
        if self.on and self.folder is None:
            raise ValueError("on needs a folder")


def test_a_tree_becomes_nested_dataclasses():
    tree = {"inner": {"rate": 1, "words": ["x", "y"]}, "folder": "some/where", "pair": [3, 4], "on": True}
    outer = from_tree(Outer, tree, "test")
    assert outer == Outer(inner=Inner(rate=1.0, words=("x", "y")), folder=Path("some/where"), pair=(3, 4.0), on=True)
    assert type(outer.inner.rate) is float and type(outer.pair[1]) is float
    assert from_tree(Outer, {"inner": {"rate": 1.5}, "folder": None}, "test").folder is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"foldr": "x"}, "test: unknown field 'foldr'; did you mean 'folder'"),
        ({"zzz": 1}, "test: unknown field 'zzz'; known fields: inner, folder, kind, pair, on"),
        ({"inner": {}}, "test: inner: missing rate"),
        ({"inner": None}, "test: inner: expected a mapping of fields, got None"),
        ({"inner": {"rate": True}}, "test: inner: rate: expected float, got True"),
        ({"inner": {"rate": "1e-5"}}, r"rate: expected float, got '1e-5' \(YAML reads 1e-5 as text; write 1.0e-5\)"),
        ({"inner": {"rate": 1, "words": "x"}}, "words: expected a list, got 'x'"),
        ({"inner": {"rate": 1, "words": [1]}}, "words: item 0: expected str, got 1"),
        ({"folder": 3}, "folder: expected Path, got 3"),
        ({"kind": "c"}, "kind: expected one of a, b; got 'c'"),
        ({"pair": [1]}, r"pair: expected a list of 2, got \[1\]"),
        ({"pair": [1.5, 2]}, "pair: item 0: expected int, got 1.5"),
        ({"on": 1}, "on: expected bool, got 1"),
        ({"on": True}, "test: on needs a folder"),
    ],
)
def test_a_wrong_tree_is_refused_by_field(change, message):
    with pytest.raises(UsageError, match=message):
        from_tree(Outer, {"inner": {"rate": 1.0}, **change}, "test")


@pytest.mark.parametrize("text", ["rate: 1.0\nrate: 2.0\n", "rate: 1.0\nwords: [a]\nwords: [b]\n"])
def test_a_field_written_twice_is_refused(tmp_path, text):
    (tmp_path / "twice.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"twice.yaml.*(rate|words)' is written twice"):
        read_yaml(tmp_path / "twice.yaml", Inner)


def test_a_file_that_is_no_yaml_is_named(tmp_path):
    for data in (b"a: [", b"a: \xff\xfe"):
        (tmp_path / "bad.yaml").write_bytes(data)
        with pytest.raises(UsageError, match=r"bad.yaml: is not YAML"):
            read_yaml(tmp_path / "bad.yaml", Inner)
