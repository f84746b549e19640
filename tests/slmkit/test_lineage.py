"""Lineage: hashes that say the same for the same content, and where it stands."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from slmkit import lineage
from slmkit.errors import UserError

SPEC = """
name: {name}
version: 0.1.0
inputs: {{}}
outputs: {{{outputs}}}
"""


def of_text(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "abc").write_text("abc")
    # FIPS 180-2, appendix B.1
    assert lineage.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "z").write_text("1")
    (folder / "sub" / "a").write_text("2")
    return folder


def test_the_hash_of_a_folder(folder):
    expected = of_text(f"sub/a\0{of_text('2')}\nz\0{of_text('1')}\n")
    assert lineage.sha256(folder) == expected
    (folder / "empty").mkdir()
    (folder / "nowhere").symlink_to(folder / "absent")
    (folder / "lineage.json").write_text("{}")
    assert lineage.sha256(folder) == expected


@pytest.mark.parametrize("change", ["content", "name", "moved", "added", "removed"])
def test_the_hash_of_a_folder_tells_changes(folder, change):
    before = lineage.sha256(folder)
    if change == "content":
        (folder / "z").write_text("2")
    elif change == "name":
        (folder / "z").rename(folder / "y")
    elif change == "moved":
        (folder / "z").rename(folder / "sub" / "z")
    elif change == "added":
        (folder / "new").write_text("")
    else:
        (folder / "z").unlink()
    assert lineage.sha256(folder) != before


def test_what_a_link_to_a_folder_leads_to_counts(folder, tmp_path_factory):
    """A model whose weights stand behind a link would else keep its hash when they change."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "weights").write_text("1")
    (folder / "link").symlink_to(outside)
    (folder / "link" / "back_up").symlink_to(folder)
    before = lineage.sha256(folder)
    (outside / "weights").write_text("2")
    assert lineage.sha256(folder) != before


def test_names_that_are_not_utf8(folder):
    name = os.fsdecode("料金.csv".encode("cp932"))
    (folder / name).write_text("3")
    expected = hashlib.sha256(
        f"sub/a\0{of_text('2')}\nz\0{of_text('1')}\n".encode()
        + "料金.csv".encode("cp932")
        + f"\0{of_text('3')}\n".encode()
    )
    assert lineage.sha256(folder) == expected.hexdigest()


def test_a_file_that_may_not_be_read_does_not_stop_a_step(folder, monkeypatch):
    """As when a component has put it into quarantine; root may read everything, so the refusal is made up."""
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "z")
    assert lineage.sha256(folder) == of_text(f"sub/a\0{of_text('2')}\n")


@dataclass(frozen=True)
class Collect:
    raw_data: Path
    documents: Path
    quarantine: Path
    optional_data: Path | None = None
    seed: int = 42
    note: str | None = None


@dataclass(frozen=True)
class Train:
    documents: Path
    model: Path
    learning_rate: float = 1e-5


@pytest.fixture
def chain(tmp_path):
    """A file made from a folder, and a folder made from that file."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.txt").write_text("가")
    collect = Collect(tmp_path / "raw", tmp_path / "documents", tmp_path / "quarantine")
    collect.documents.write_text("{}\n")
    (tmp_path / "collect.yml").write_text(SPEC.format(name="collect", outputs="documents: , quarantine: "))
    lineage.write(collect, tmp_path / "collect.yml")

    train = Train(tmp_path / "documents", tmp_path / "model")
    train.model.mkdir()
    (train.model / "weights").write_text("w")
    (tmp_path / "train.yml").write_text(SPEC.format(name="train", outputs="model: "))
    lineage.write(train, tmp_path / "train.yml")
    return tmp_path


def test_what_is_written(chain):
    collected = {
        "component": "collect",
        "version": "0.1.0",
        "inputs": {"raw_data": {"sha256": of_text(f"a.txt\0{of_text('가')}\n")}},
        "parameters": {"seed": 42},
    }
    assert json.loads((chain / "documents.lineage.json").read_text()) == collected
    assert not (chain / "quarantine.lineage.json").exists(), "an output that is not there has no lineage"
    assert json.loads((chain / "model" / "lineage.json").read_text()) == {
        "component": "train",
        "version": "0.1.0",
        "inputs": {"documents": {"sha256": of_text("{}\n"), "lineage": collected}},
        "parameters": {"learning_rate": 1e-05},
    }
    assert {path.name for path in chain.iterdir()} == {
        *("raw", "documents", "documents.lineage.json", "collect.yml", "model", "train.yml"),
    }


@dataclass(frozen=True)
class Watch:
    model: Path
    documents: Path
    earlier: Path
    report: Path


def test_what_is_read_on_two_ways_stands_there_once(chain):
    """Nearest to the output; and of a monitor's own last output there is the hash alone."""
    spec = chain / "watch.yml"
    spec.write_text(SPEC.format(name="watch", outputs="report: ") + "\ntags: {stage: monitor}\n")
    sizes = []
    for week in range(5):
        earlier = chain / (f"report_{week - 1}" if week else "documents")
        watch = Watch(chain / "model", chain / "documents", earlier, chain / f"report_{week}")
        watch.report.write_text(f"week {week}")
        lineage.write(watch, spec)
        sizes.append((chain / f"report_{week}.lineage.json").stat().st_size)
    written = lineage.read(chain / "report_4")["inputs"]
    assert written["documents"]["lineage"]["component"] == "collect"
    assert "lineage" not in written["model"]["lineage"]["inputs"]["documents"]
    assert written["earlier"] == {"sha256": of_text("week 3")}
    assert max(sizes[1:]) == min(sizes[1:])


def test_what_the_outputs_hold_travels_with_them(chain):
    args = Collect(chain / "raw", chain / "documents", chain / "quarantine")
    lineage.write(args, chain / "collect.yml", contents={"num_documents": 1})
    lineage.write(Train(chain / "documents", chain / "model"), chain / "train.yml")
    made = lineage.read(chain / "model")
    assert "contents" not in made
    assert made["inputs"]["documents"]["lineage"]["contents"] == {"num_documents": 1}


def test_what_is_read(chain):
    assert lineage.read(chain / "model")["component"] == "train"
    assert lineage.read(chain / "documents")["component"] == "collect"
    assert lineage.read(chain / "raw") == {}
    assert lineage.read(chain / "absent") == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
def test_a_file_of_that_name_that_is_something_else(chain, content):
    """A model folder from somewhere else may hold one."""
    (chain / "model" / "lineage.json").write_bytes(content)
    assert lineage.read(chain / "model") == {}


def test_the_hash_of_a_model_does_not_depend_on_how_it_was_made(chain):
    assert lineage.sha256(chain / "model") == of_text(f"weights\0{of_text('w')}\n")


def test_weights_are_read_once_until_they_change(tmp_path, monkeypatch):
    """By the inode, size and time of change of the file, not by its name."""
    (tmp_path / "small").write_text("1")
    (tmp_path / "weights").write_bytes(b"w" * 2**20)
    read, digest = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, name: read.append(Path(file.name).name) or digest(file, name)
    )
    first = lineage.sha256(tmp_path)
    assert lineage.sha256(tmp_path) == first
    assert read == ["small", "weights", "small"]
    (tmp_path / "new").write_bytes(b"v" * 2**20)
    (tmp_path / "new").replace(tmp_path / "weights")
    assert lineage.sha256(tmp_path / "weights") == hashlib.sha256(b"v" * 2**20).hexdigest()
    made = (tmp_path / "weights").stat()
    (tmp_path / "weights").write_bytes(b"u" * 2**20)
    os.utime(tmp_path / "weights", ns=(made.st_atime_ns, made.st_mtime_ns))  # in disguise
    assert lineage.sha256(tmp_path / "weights") == hashlib.sha256(b"u" * 2**20).hexdigest()


@dataclass(frozen=True)
class Asks:
    model: Path | None = None
    endpoint: str | None = None


def test_what_a_step_asks(folder):
    assert lineage.asked(Asks(model=folder)) == {"model_sha256": lineage.sha256(folder)}
    said = lineage.asked(Asks(endpoint="https://me:secret@h:8443/openai/v1?api-version=1&sig=secret#secret"))
    assert said == {"endpoint": "https://h:8443/openai/v1"}


A, B = {"model_sha256": "a"}, {"model_sha256": "b"}


@pytest.mark.parametrize(
    ("rows", "found"), [([], {}), ([A, A | {"id": "x"}], A), ([{}, {"id": "x"}], {}), ([{"model_sha256": None}], {})]
)
def test_what_was_asked_for_all_rows(rows, found):
    assert lineage.asked_for_all(rows, "here") == found


@pytest.mark.parametrize("other", [B, {"endpoint": "a"}, A | {"endpoint": "https://h"}, {"model_sha256": {"a": 1}}])
def test_rows_of_two_models_are_refused(other):
    with pytest.raises(UserError, match="here: answers of several models under one name"):
        lineage.asked_for_all([A, A, other], "here")


def test_rows_of_unknown_origin_among_those_of_a_model_are_refused():
    """Otherwise answers of any model, added to the file, would count as those of the one in its lineage."""
    with pytest.raises(UserError, match="rows that name none and model_sha256 a"):
        lineage.asked_for_all([A, {}], "here")
