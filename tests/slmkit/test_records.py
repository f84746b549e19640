"""Reading and writing records: every form they come in, what is refused, and writers that end whole or not at all."""

import datetime
import gzip
import json
import os
import resource
import signal
import subprocess
import sys
import tracemalloc
from decimal import Decimal

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit import records
from slmkit.errors import UserError

ROWS = [{"id": "a", "text": "one"}, {"id": "b", "text": "둘 二 😀"}, {"id": "c", "n": [1, 2.5, None, True]}]
LINES = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in ROWS)
FIRST = LINES.index(b"\n") + 1


def read(path, content=None):
    if content is not None:
        path.write_bytes(content)
    return list(records.read_records(path))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(path, content):
    """What is refused, as ``file:line: reason``, and the ids of what is read."""
    path.write_bytes(content)
    bad = []
    good = [row["id"] for row in records.read_records(path, bad.append)]
    return [str(one) for one in bad], good


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(LINES, id="plain"),
        pytest.param(LINES.rstrip(b"\n"), id="no newline at the end"),
        pytest.param(b"\xef\xbb\xbf" + LINES, id="byte-order mark"),
        pytest.param(LINES.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(b"\n \t\n" + LINES.replace(b"\n", b"\n\r\n\n") + b"\xef\xbb\xbf\n", id="blank lines"),
        pytest.param(LINES[:FIRST] + b"\xef\xbb\xbf" + LINES[FIRST:], id="two files put together, each with its mark"),
        pytest.param(b"".join(json.dumps(row).encode() + b"\n" for row in ROWS), id="escaped, with surrogate pairs"),
        pytest.param(gzip.compress(LINES), id="gzip"),
        pytest.param(gzip.compress(LINES[:FIRST]) + gzip.compress(LINES[FIRST:]), id="gzip of two members"),
    ],
)
def test_the_same_records_in_every_form(tmp_path, content):
    assert read(tmp_path / "chats", content) == ROWS


def test_an_empty_file_holds_no_records(tmp_path):
    assert read(tmp_path / "chats", b"") == []
    assert read(tmp_path / "chats", b"\xef\xbb\xbf") == []


def test_a_huge_line(tmp_path):
    row = {"id": "a", "text": "가" * 5_000_000}  # 15 MB
    assert read(tmp_path / "chats", json.dumps(row, ensure_ascii=False).encode()) == [row]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_line_that_no_memory_may_hold_is_passed_over_as_it_is_read(tmp_path, monkeypatch, pack):
    monkeypatch.setattr(records, "_LONGEST_LINE", 1_000)
    longest = json.dumps({"id": "x" * 988}).encode()  # 999 bytes with its end of line
    assert len(longest) == 998
    content = longest + b"\n" + b"x" * 30_000 + b"\n" + b"x" * 1_000 + b"\n" + b'{"id": "after"}\n' + b"x" * 5_000
    found, good = refused(tmp_path / "chats", pack(content))
    assert found == [f"chats:{line}: longer than 1,000 bytes" for line in (2, 3, 5)]
    assert good == ["x" * 988, "after"]


def test_many_records_take_little_memory(tmp_path):
    path = tmp_path / "chats"
    with records.write_records(path) as write:
        for number in range(5_000):
            write({"id": str(number), "text": "x" * 480})
    assert path.stat().st_size > 2_500_000
    tracemalloc.start()
    assert sum(1 for _ in records.read_records(path)) == 5_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500_000


BAD_LINES = [
    (b"{", "not JSON: Expecting property name enclosed in double quotes"),
    (b'{"id": "x"} {"id": "y"}', "not JSON: Extra data"),
    (b"[1]", "not a JSON object but a list"),
    (b"null", "not a JSON object but a NoneType"),
    (b'"text"', "not a JSON object but a str"),
    (b'{"id": "\xff"}', "not UTF-8: invalid start byte at byte 8 of the line"),
    (b'{"id": "\xed\xa0\xbd"}', "not UTF-8: invalid continuation byte at byte 8 of the line"),
    ('{"id": "x"}'.encode("utf-16"), "not UTF-8: invalid start byte at byte 0 of the line"),
    (b'{"id": NaN}', "not JSON: NaN is no number of JSON"),
    (b'{"id": [-Infinity]}', "not JSON: -Infinity is no number of JSON"),
    (b'{"id": 1e999}', "not JSON: 1e999 is no number of JSON"),
    (rb'{"id": "cut \ud83d"}', "half a character (a lone surrogate), as in a text that was cut within an emoji"),
    (b"[" * 100_000, "not JSON: maximum recursion depth exceeded while decoding a JSON array from a unicode string"),
    (b'{"id": ' + b"1" * 5_000 + b"}", "not JSON: Exceeds the limit (4300 digits) for integer string conversion"),
]


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=range(len(BAD_LINES)))
def test_a_bad_line_is_refused_with_its_place(tmp_path, line, reason):
    content = b'{"id": "before"}\n\n' + line + b'\n{"id": "after"}\n'
    (found,), good = refused(tmp_path / "chats", content)
    assert found.startswith(f"chats:3: {reason}")
    assert good == ["before", "after"]
    with pytest.raises(records.RecordError, match=r"^chats:3: .*; correct or remove the line$"):
        read(tmp_path / "chats")


def test_what_is_refused_can_be_recognized(tmp_path):
    bad = []
    (tmp_path / "chats").write_bytes(b'{"id": "' + b"x" * 500 + b"\xff\n")
    assert list(records.read_records(tmp_path / "chats", bad.append)) == []
    assert bad[0].text == '{"id": "' + "x" * 192


def test_a_damaged_gzip_file(tmp_path):
    whole = gzip.compress(b"".join(b'{"id": "%x"}\n' % (number * 7919) for number in range(5_000)))
    for damaged, reason in [
        (whole[:-2_000], "Compressed file ended before the end-of-stream marker"),
        (whole[:1_000] + b"\0" * 100 + whole[1_100:], ""),
        (whole[:-8] + b"\0" * 8, "CRC check failed"),
    ]:
        with pytest.raises(records.RecordError, match=f"chats: the gzip file is damaged: {reason}"):
            read(tmp_path / "chats", damaged)


def test_parquet_reads_as_the_same_lines_of_json_would(tmp_path):
    table = pyarrow.table(
        {
            "id": ["a", "b"],
            "messages": [[{"role": "user", "content": "안녕"}], []],
            "score": [0.5, None],
            "at": [datetime.datetime(2026, 7, 30, 12), None],
            "price": [Decimal("1.50"), None],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "chats")
    assert list(records.read_located(tmp_path / "chats")) == [
        (
            {
                "id": "a",
                "messages": [{"content": "안녕", "role": "user"}],
                "score": 0.5,
                "at": "2026-07-30 12:00:00",
                "price": "1.50",
            },
            "chats",
            1,
        ),
        ({"id": "b", "messages": [], "score": None, "at": None, "price": None}, "chats", 2),
    ]


def test_not_a_number_in_parquet_is_refused(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"id": ["a", "b"], "x": [1.0, float("nan")]}), tmp_path / "chats")
    bad = []
    assert [row["id"] for row in records.read_records(tmp_path / "chats", bad.append)] == ["a"]
    assert [str(one) for one in bad] == ["chats:2: not JSON: NaN is no number of JSON"]


def test_a_damaged_parquet_file(tmp_path):
    path = tmp_path / "chats"
    pyarrow.parquet.write_table(pyarrow.table({"id": [str(i) for i in range(1_000)]}), path)
    whole = path.read_bytes()
    for damaged in (whole[:-100], whole[:4], whole[:200] + b"\0" * 2_000 + whole[2_200:]):
        with pytest.raises(records.RecordError, match="chats: the Parquet file is damaged: "):
            read(path, damaged)


def test_a_folder_of_shards(tmp_path):
    folder = tmp_path / "chats"
    for name in ("b", "a/z", ".partial", "a/.hidden"):
        (folder / name).mkdir(parents=True)
    (folder / "b" / "part-0.jsonl").write_bytes(b'{"id": 4}\n\n[]\n')
    pyarrow.parquet.write_table(pyarrow.table({"id": [1]}), folder / "a" / "part-0.parquet")
    (folder / "a" / "z" / "part-0.jsonl").write_bytes(b'{"id": 3}\n')
    (folder / "a" / "part-1.jsonl.gz").write_bytes(gzip.compress(b'{"id": 2}\n'))
    for name in (".partial/p.jsonl", "a/.hidden/h.jsonl", "a/.part.jsonl", "b/p.jsonl.partial", "lineage.json"):
        (folder / name).write_bytes(b'{"id": 0}\n')
    bad = []
    assert [(row["id"], name, line) for row, name, line in records.read_located(folder, bad.append)] == [
        (1, "a/part-0.parquet", 1),
        (2, "a/part-1.jsonl.gz", 1),
        (3, "a/z/part-0.jsonl", 1),
        (4, "b/part-0.jsonl", 1),
    ]
    assert [str(one) for one in bad] == ["b/part-0.jsonl:3: not a JSON object but a list"]


def test_nothing_to_read(tmp_path):
    with pytest.raises(UserError, match="absent: no such file or folder"):
        read(tmp_path / "absent")
    (tmp_path / "data.csv").write_text("a,b\n")
    with pytest.raises(UserError, match=r"the folder holds no \.jsonl, \.jsonl\.gz or \.parquet file"):
        read(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(rows=st.lists(st.dictionaries(st.text(), VALUES, max_size=4), max_size=4))
def test_what_is_written_is_read_again(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "any"
    with records.write_records(path) as write:
        for row in rows:
            write(row)
    found = read(path)
    assert found == rows
    assert [list(row) for row in found] == [list(row) for row in rows]  # in the same order
    assert path.read_bytes().count(b"\n") == len(rows)


def test_the_bytes_that_are_written(tmp_path):
    path = tmp_path / "new" / "chats"
    with records.write_records(path) as write:
        write({"b": "héé 語\u2028", "a": 1})
        assert not path.exists()
    assert path.read_bytes() == '{"b": "héé 語\u2028", "a": 1}\n'.encode()
    assert names(path.parent) == ["chats"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "cut \ud83d"])
def test_what_cannot_be_read_again_is_not_written(tmp_path, value):
    refusal = pytest.raises(records.RecordError, match="chats: the record 'x' cannot be written: ")
    with refusal, records.write_records(tmp_path / "chats") as write:
        write({"id": "x", "value": [value]})
    assert names(tmp_path) == []


def test_an_error_leaves_what_was_there(tmp_path):
    (tmp_path / "chats").write_bytes(b"old")
    with pytest.raises(KeyError), records.write_records(tmp_path / "chats") as write:
        write({"id": "new"})
        raise KeyError
    assert names(tmp_path) == ["chats"]
    assert (tmp_path / "chats").read_bytes() == b"old"
    with records.write_records(tmp_path / "chats"):
        pass
    assert (tmp_path / "chats").read_bytes() == b""


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def mounted(tmp_path):
    """An output folder as a second try finds it, with what the first one left."""
    (tmp_path / "model" / "old" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "old" / "deep" / "file").write_text("old")
    (tmp_path / "model" / "config.json").write_text("old")
    (tmp_path / "model" / "link").symlink_to(tmp_path)
    (tmp_path / "model" / ".partial").mkdir()
    (tmp_path / "model" / ".partial" / "half").write_text("half")
    return tmp_path / "model"


def test_a_whole_folder_replaces_what_was_in_it(mounted):
    inode = mounted.stat().st_ino
    with records.whole_folder(mounted) as folder:
        assert list(folder.iterdir()) == []
        (folder / "sub").mkdir()
        (folder / "sub" / "weights").write_text("new")
        (folder / "config.json").write_text("new")
        assert (mounted / "config.json").read_text() == "old"
    assert files(mounted) == {"sub/weights": "new", "config.json": "new"}
    assert names(mounted) == ["config.json", "sub"]
    assert mounted.stat().st_ino == inode, "a mount point cannot be replaced"
    assert mounted.parent.is_dir(), "the link was removed, not what it leads to"


def test_a_whole_folder_that_fails_leaves_what_was_in_it(mounted):
    with pytest.raises(KeyError), records.whole_folder(mounted) as folder:
        (folder / "config.json").write_text("new")
        raise KeyError
    assert files(mounted) == {"old/deep/file": "old", "config.json": "old"}


def process(root, code, *argv, **options):
    # No bytecode: what is cut off on a full disk would stay for all others.
    env = {**os.environ, "PYTHONPATH": str(root / "components" / "_shared"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code, *map(str, argv)]
    return subprocess.Popen(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


KILLED_WRITING = """
import pathlib, sys, time
from slmkit import records
with records.write_records(pathlib.Path(sys.argv[1])) as write:
    for number in range(10_000):
        write({"id": number, "text": "x" * 100})
    print("written", flush=True)
    time.sleep(60)
"""


def test_killed_while_writing(tmp_path, root):
    path = tmp_path / "chats"
    writer = process(root, KILLED_WRITING, path)
    assert writer.stdout.readline() == "written\n"
    writer.kill()
    assert writer.wait() == -signal.SIGKILL
    writer.communicate()
    assert not path.exists()
    assert (tmp_path / "chats.partial").stat().st_size > 1_000_000, "it was in the middle of it"
    with records.write_records(path) as write:
        write({"id": "again"})
    assert names(tmp_path) == ["chats"]
    assert read(path) == [{"id": "again"}]


KILLED_RENAMING = """
import os, pathlib, signal, sys
from slmkit import records

replace, num_done = pathlib.Path.replace, 0

def replace_once(self, target):
    global num_done
    if num_done == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    num_done += 1
    return replace(self, target)

pathlib.Path.replace = replace_once
with records.whole_folder(pathlib.Path(sys.argv[1])) as folder:
    for name in "abc":
        (folder / name).write_text(name)
"""


@pytest.mark.parametrize("num_done", [0, 1, 2])
def test_killed_while_renaming_and_started_again(mounted, root, num_done):
    writer = process(root, KILLED_RENAMING, mounted, num_done)
    writer.communicate()
    assert writer.returncode == -signal.SIGKILL
    assert len([name for name in files(mounted) if not name.startswith(".")]) == num_done
    writer = process(root, KILLED_RENAMING, mounted, 99)
    writer.communicate()
    assert writer.returncode == 0
    assert files(mounted) == {"a": "a", "b": "b", "c": "c"}


def small_files():
    """As on a full disk, the operating system refuses what goes beyond 4 KiB in a file."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


FULL_DISK = """
import pathlib, sys
from slmkit import records
path = pathlib.Path(sys.argv[1])
try:
    if sys.argv[2] == "file":
        with records.write_records(path) as write:
            for number in range(int(sys.argv[3])):
                write({"id": number})
    else:
        with records.whole_folder(path) as folder:
            (folder / "weights").write_bytes(b"0" * 10_000)
except OSError as error:
    print(f"{error.strerror}: {error.filename}")
"""


@pytest.mark.parametrize(
    ("kind", "num_rows"),
    [("file", 1_000), ("file", 500), ("folder", 0)],  # 500 are refused only when the file is closed
)
def test_a_full_disk_leaves_nothing_half_written(tmp_path, root, kind, num_rows):
    writer = process(root, FULL_DISK, tmp_path / "out", kind, num_rows, preexec_fn=small_files)
    said, errors = writer.communicate()
    assert (writer.returncode, errors) == (0, "")
    assert said == f"File too large: {tmp_path / 'out'}\n"
    assert files(tmp_path) == {}


def test_a_full_disk_ends_a_component_with_one_line(tmp_path, root):
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "long.txt").write_text("A sentence. " * 1_000)
    outputs = {name: tmp_path / "out" / name for name in ("documents", "held_out_documents", "manifest", "quarantine")}
    command = [sys.executable, root / "components" / "collect_documents" / "main.py", "--raw_data", raw]
    for name, path in outputs.items():
        command += [f"--{name}", path]
    env = {**os.environ, "PYTHONPATH": str(root / "components" / "_shared"), "SLMKIT_DEBUG": ""}
    env["PYTHONDONTWRITEBYTECODE"] = "1"  # what is cut off on a full disk would stay for all others
    done = subprocess.run(
        [str(word) for word in command], env=env, capture_output=True, text=True, preexec_fn=small_files
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"collect_documents: error: File too large: {outputs['documents']} (--debug shows the traceback)\n"
    )
    assert names(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("num_bad", "num_all", "max_error_fraction", "stops"),
    [
        (0, 0, 0.0, False),
        (0, 10, 0.0, False),
        (1, 10, 0.0, True),
        (29, 100, 0.29, False),  # in floating point 0.29 x 100 is less than 29
        (30, 100, 0.29, True),
        (10, 10, 1.0, False),
    ],
)
def test_the_share_that_may_be_refused(num_bad, num_all, max_error_fraction, stops):
    if stops:
        with pytest.raises(UserError, match=rf"^{num_bad} of {num_all} chats were refused.*{max_error_fraction}"):
            records.check_share(num_bad, num_all, max_error_fraction, "chats")
    else:
        records.check_share(num_bad, num_all, max_error_fraction, "chats")


def test_content_ids():
    # printf 'a\x1fb' | sha256sum, printf '가' | sha256sum
    assert records.content_id("a", "b") == "f04cdced9736a69d"
    assert records.content_id("가") == "64ee5293d31bc58b"
    assert records.content_id("a", "b") != records.content_id("ab")
    assert len(records.content_id("\ud800")) == 16


TURN = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "a chat needs a non-empty list 'messages'"),
        ({"messages": []}, "a chat needs a non-empty list 'messages'"),
        ({"messages": "Hi"}, "a chat needs a non-empty list 'messages'"),
        ({"messages": [TURN, "Hi"]}, "message 2 is not an object with role and content"),
        ({"messages": [{"content": "Hi"}]}, "message 1 has the unknown role None"),
        ({"messages": [TURN, {"role": "bot", "content": "Hi"}]}, "message 2 has the unknown role 'bot'"),
        ({"messages": [{"role": ["user"], "content": "Hi"}]}, r"message 1 has the unknown role \['user'\]"),
        ({"messages": [{"role": "user"}]}, r"message 1 \(user\) has no text"),
        ({"messages": [{"role": "user", "content": " \n"}]}, r"message 1 \(user\) has no text"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, r"message 1 \(user\) has no text"),
    ],
)
def test_what_is_no_chat(record, reason):
    with pytest.raises(ValueError, match=f"^{reason}"):
        records.check_chat(record)


def test_a_chat():
    records.check_chat({"messages": [{"role": role, "content": "Hi"} for role in ("system", "user", "assistant")]})
