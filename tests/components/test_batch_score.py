"""batch_score: shards in, shards out; a row for every record, its error where it has one, and no answer asked twice."""

import gzip
import json
import math
import random
from pathlib import Path

import pytest

from slmkit import lineage, records
from slmkit.answers import Answer
from slmkit.chat_client import AnswerError
from slmkit.errors import UserError
from tests.chat_endpoint import completion


@pytest.fixture(scope="module")
def main(load_main):
    return load_main("batch_score")


@pytest.fixture(scope="module")
def record_scoring(main):
    import record_scoring

    return record_scoring


def chat(text: str, **more: object) -> dict:
    return {"id": text, "messages": [{"role": "user", "content": text}], **more}


def lines(*rows: object) -> bytes:
    """JSON Lines; a row that is bytes stands as it is."""
    return b"".join(row if isinstance(row, bytes) else f"{json.dumps(row)}\n".encode() for row in rows)


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def timeless(path: Path) -> bytes:
    return lines(*({**row, "latency_ms": 0} for row in read(path)))


@pytest.fixture
def score(main, small_model, tmp_path):
    """Score in this process; the folder of predictions and the report."""

    def run(shards: Path, **changes: object) -> tuple[Path, dict]:
        values = {"model": small_model, "records": shards, "max_new_tokens": 6, "report": tmp_path / "report"}
        args = main.Args(**{**values, "predictions": tmp_path / "predictions", **changes})
        main.run(args)
        return args.predictions, json.loads((args.report / "report.json").read_text(encoding="utf-8"))

    return run


def test_shards_of_every_form_become_shards_and_keep_their_fields(score, tmp_path):
    import pyarrow
    import pyarrow.parquet

    japanese, korean = chat("電話番号は何ですか？", tags=["連絡先"]), chat("전화번호는 무엇입니까? 👩‍👩‍👧", n=1.5)
    put(tmp_path / "in" / "a.jsonl", lines(chat("one", slices={"language": "en"}), japanese))
    put(tmp_path / "in" / "deep" / "b.jsonl.gz", gzip.compress(lines(korean)))
    rows = [{"id": 7, "prompt": "What is it?", "answer": "x"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), put(tmp_path / "in" / "c.parquet", b""))
    put(tmp_path / "in" / "lineage.json", b"{}")
    put(tmp_path / "in" / ".hidden.jsonl", b"nothing")

    folder, report = score(tmp_path / "in", candidate="tuned")

    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"a.jsonl", "deep/b.jsonl.gz.jsonl", "c.parquet.jsonl", "lineage.json"}
    one, two = read(folder / "a.jsonl")
    assert list(one) == [
        *("id", "messages", "slices", "candidate", "model_sha256", "output", "latency_ms", "prompt_tokens"),
        *("completion_tokens", "finish_reason"),
    ]
    assert (one["slices"], two["tags"], two["messages"]) == ({"language": "en"}, ["連絡先"], japanese["messages"])
    assert "電話番号は何ですか？".encode() in (folder / "a.jsonl").read_bytes()
    (three,) = read(folder / "deep" / "b.jsonl.gz.jsonl")
    assert (three["id"], three["n"], three["candidate"]) == (korean["id"], 1.5, "tuned")
    (four,) = read(folder / "c.parquet.jsonl")
    assert (four["id"], four["prompt"], four["answer"]) == ("7", "What is it?", "x")
    assert {name: shard["num_rows"] for name, shard in report["shards"].items()} == {
        "a.jsonl": 2,
        "c.parquet": 1,
        "deep/b.jsonl.gz": 1,
    }
    tokens = [row["completion_tokens"] for row in (one, two, three, four)]
    assert all(tokens)
    assert report["completion_tokens"] == sum(tokens)
    assert (report["num_rows"], report["num_failed"]) == (4, 0)


def test_the_answers_are_those_of_generate_answers(score, load_main, small_model, tmp_path):
    items = [chat("電話番号は何ですか？"), chat("Phone?"), chat("x" * 50)]
    shard = put(tmp_path / "items.jsonl", lines(*items))
    other = load_main("generate_answers")
    other.run(
        other.Args(
            model=small_model, eval_items=shard, candidate="a", max_new_tokens=6, predictions=tmp_path / "expected"
        )
    )
    folder, _ = score(shard, batch_size=2)
    names = ("id", "output", "prompt_tokens", "completion_tokens", "finish_reason")
    assert [[row[name] for name in names] for row in read(folder / "items.jsonl")] == [
        [row[name] for name in names] for row in records.read_records(tmp_path / "expected")
    ]


BAD = [
    (b"{not JSON\n", "unreadable", "bad.jsonl:2: not JSON"),
    (b"\xff\xfe\n", "unreadable", "bad.jsonl:2: not UTF-8"),
    (b"[1, 2]\n", "unreadable", "not a JSON object but a list"),
    ({"id": "x"}, "no_chat", "non-empty list 'messages'"),
    ({"id": "x", "messages": []}, "no_chat", "non-empty list 'messages'"),
    ({"id": "x", "messages": "hello"}, "no_chat", "non-empty list 'messages'"),
    ({"id": "x", "messages": [{"role": "robot", "content": "a"}]}, "no_chat", "unknown role 'robot'"),
    ({"id": "x", "messages": [{"role": "user", "content": [{"text": "a"}]}]}, "no_chat", "has no text"),
    ({"id": "x", "messages": [{"role": "assistant", "content": "a"}]}, "no_chat", "end with the assistant's turn"),
    ({"id": "x", "prompt": ""}, "no_chat", "has no text"),
    ({"id": "x", "prompt": "word " * 3000}, "too_long", "tokens, the model takes 2042"),
]


def test_a_bad_row_of_any_kind_is_a_row_with_its_error(score, tmp_path):
    for number, (bad, _, _) in enumerate(BAD):
        put(tmp_path / "in" / str(number) / "bad.jsonl", lines(chat("before"), bad, chat("after")))
    folder, report = score(tmp_path / "in", max_error_fraction=0.34)
    for number, (bad, kind, error) in enumerate(BAD):
        before, row, after = read(folder / str(number) / "bad.jsonl")
        assert (before["id"], after["id"]) == ("before", "after")
        assert "error" not in before | after
        assert error in row["error"]
        assert row["id"] == (f"{number}/bad.jsonl:2" if isinstance(bad, bytes) else "x")
        assert (row["output"], row["completion_tokens"], row["latency_ms"]) == ("", 0, None)
        assert report["shards"][f"{number}/bad.jsonl"][f"num_{kind}"] == 1
    assert report["num_failed"] == len(BAD)
    assert [report[f"num_{kind}"] for kind in ("unreadable", "no_chat", "too_long", "no_answer")] == [3, 7, 1, 0]


def test_ids_that_are_missing_odd_or_given_twice_lose_no_row(score, tmp_path):
    rows = [{"prompt": "a"}, {"id": None, "prompt": "b"}, {"id": 0, "prompt": "c"}, {"id": True, "prompt": "d"}]
    rows += [{"id": "same", "prompt": "e"}, {"id": "same", "prompt": "f"}, {"id": "", "prompt": "g"}]
    folder, _ = score(put(tmp_path / "q.jsonl", lines(*rows)))
    found = read(folder / "q.jsonl")
    assert [row["id"] for row in found] == ["q.jsonl:1", "q.jsonl:2", "0", "q.jsonl:4", "same", "same", "q.jsonl:7"]
    assert [row["prompt"] for row in found] == list("abcdefg")


def test_every_row_says_whose_it_is_whatever_the_record_says(score, small_model, tmp_path):
    """By these two fields score_answers and the gate know an answer as that of the model, or an error as its error."""
    theirs = {"candidate": "other", "model_sha256": "0" * 64}
    shard = put(tmp_path / "q.jsonl", lines(chat("a", **theirs), b"{\n", {"id": "none", **theirs}))
    folder, _ = score(shard, candidate="mine", max_error_fraction=1)
    whose = [(row["candidate"], row["model_sha256"]) for row in read(folder / "q.jsonl")]
    assert whose == [("mine", lineage.sha256(small_model))] * 3


def test_a_number_that_is_too_large_costs_its_row_and_not_the_shard(score, tmp_path):
    shard = put(tmp_path / "q.jsonl", lines(chat("a"), b'{"id": "x", "prompt": "b", "n": 1e999}\n', chat("c")))
    folder, _ = score(shard, max_error_fraction=1)
    assert ["error" in row for row in read(folder / "q.jsonl")] == [False, True, False]


def test_a_link_out_of_the_folder_is_refused(record_scoring, tmp_path):
    inside = put(tmp_path / "in" / "deep" / "a.jsonl", lines(chat("a")))
    (tmp_path / "in" / "b.jsonl").symlink_to(inside)
    assert list(record_scoring.list_shards(tmp_path / "in")) == ["b.jsonl", "deep/a.jsonl"]
    (tmp_path / "in" / "c.jsonl").symlink_to(put(tmp_path / "secret", b"password"))
    with pytest.raises(UserError, match=r"c\.jsonl: a link to a file outside of the folder"):
        record_scoring.list_shards(tmp_path / "in")
    assert list(record_scoring.list_shards(tmp_path / "in" / "c.jsonl")) == ["c.jsonl"]  # named by who starts the step


def test_an_error_or_answer_that_the_record_came_with_is_not_taken_for_ours(score, tmp_path):
    old = {"error": "of an earlier run", "output": "old", "latency_ms": -1, "candidate": "base"}
    folder, report = score(put(tmp_path / "q.jsonl", lines(chat("again", **old))))
    (row,) = read(folder / "q.jsonl")
    assert "error" not in row
    assert row["latency_ms"] > 0
    assert row["output"] != "old"
    assert row["candidate"] == "base"
    assert report["num_failed"] == 0


def test_too_many_errors_exit_with_3_after_all_is_written_and_only_they_are_asked_again(run_component, serve, tmp_path):
    failing = True

    def reply(number: int, body: dict) -> object:
        text = body["messages"][0]["content"]
        return (400, {"error": {"message": "no such thing"}}) if failing and text == "bad" else completion(f"{text}!")

    endpoint = serve(reply)
    shard = put(tmp_path / "in" / "q.jsonl", lines(chat("a"), chat("bad"), b"{\n", chat("b")))
    flags = {
        **{"endpoint": endpoint.url, "endpoint_model": "m", "auth": "none", "records": shard.parent},
        **{"predictions": tmp_path / "out", "report": tmp_path / "report", "max_error_fraction": 0.49},
    }
    done = run_component("batch_score", **flags)
    assert done.returncode == 3
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("batch_score: error: ")
    assert "2 of 4 rows have an error (1 no_answer, 1 unreadable)" in line or "(1 unreadable, 1 no_answer)" in line
    found = read(tmp_path / "out" / "q.jsonl")
    assert [row["output"] for row in found] == ["a!", "", "", "b!"]
    assert "no such thing" in found[1]["error"]
    assert "above the limit" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")

    failing, before = False, len(endpoint.bodies)
    done = run_component("batch_score", **flags)
    assert done.returncode == 0, done.stderr
    assert [body["messages"][0]["content"] for body in endpoint.bodies[before:]] == ["bad"]
    assert [row["output"] for row in read(tmp_path / "out" / "q.jsonl")] == ["a!", "bad!", "", "b!"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["lineage.json", "q.jsonl"]


def test_a_killed_run_asks_only_for_the_rest_and_gives_the_same_bytes(score, record_scoring, tmp_path, monkeypatch):
    """Killed in the second chunk of the second shard: what a start after it asks is what was not answered."""
    from model_inference.local_model import LocalModel

    monkeypatch.setattr(record_scoring, "CHUNK_ROWS", 4)
    for name in "ab":
        rows = [chat(f"{name} {n} 電話") for n in range(9)]
        put(tmp_path / "in" / f"{name}.jsonl", lines(*rows[:5], b"{\n", *rows[5:]))
    whole, _ = score(tmp_path / "in", predictions=tmp_path / "whole", max_error_fraction=0.2)
    answered, real = [], LocalModel.answers

    def answers(self, requests):
        for pair in real(self, requests):
            if len(answered) == 9 + 4 + 2:
                raise KeyboardInterrupt
            answered.append(pair[0].messages[0]["content"])
            yield pair

    monkeypatch.setattr(LocalModel, "answers", answers)
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "in", max_error_fraction=0.2)
    assert sorted(path.name for path in (tmp_path / "predictions").glob("*.jsonl")) == ["a.jsonl"]  # whole or not
    first = list(answered)
    answered.clear()
    folder, report = score(tmp_path / "in", max_error_fraction=0.2)
    assert len(first) + len(answered) == 18
    assert not set(first) & set(answered)
    assert report["num_known"] == 15
    for name in ("a.jsonl", "b.jsonl"):
        assert timeless(folder / name) == timeless(whole / name)
    assert not (folder / ".so_far").exists()


def test_what_was_answered_otherwise_is_not_taken_over(score, record_scoring, tmp_path):
    """After a failed run, a change of the question or of its settings is asked about, whatever its place."""
    shard = put(tmp_path / "q.jsonl", lines(chat("a"), b"{\n"))
    with pytest.raises(UserError, match="1 of 2 rows have an error"):
        score(shard)
    assert (tmp_path / "predictions" / ".so_far").is_dir()
    put(shard, lines(chat("b"), b"{\n"))
    with pytest.raises(UserError):
        score(shard)
    _, report = score(shard, max_new_tokens=5, max_error_fraction=0.5)
    assert report["num_known"] == 0
    _, report = score(shard, max_new_tokens=5, max_error_fraction=0.5)
    assert report["num_known"] == 0  # done, so nothing is kept


WRONG = [
    ({"a.jsonl": b"\n\n"}, "no records; is this the right file"),
    ({"a.txt": b"x"}, "holds no .jsonl, .jsonl.gz or .parquet"),
    ({"a.parquet": b"PAR1", "a.parquet.jsonl": b""}, "two shards would become a.parquet.jsonl"),
    ({"a.jsonl.gz": gzip.compress(lines(chat("a")) * 99)[:-20]}, "the gzip file is damaged"),
    ({"a.jsonl": b"x\n" * 11}, "a.jsonl:11: not JSON: Expecting value; nor are the 10 lines before it"),
]


@pytest.mark.parametrize(("files", "expected"), WRONG, ids=["empty", "no shard", "twice", "damaged", "other"])
def test_what_cannot_be_scored_at_all_is_one_line(record_scoring, tmp_path, monkeypatch, files, expected, main):
    monkeypatch.setattr(record_scoring, "MAX_UNREADABLE_LINES", 10)
    monkeypatch.setattr("model_inference.answer_sources.connect", FakeConnect)
    for name, content in files.items():
        put(tmp_path / "in" / name, content)
    args = main.Args(endpoint="x", records=tmp_path / "in", predictions=tmp_path / "out", report=tmp_path / "report")
    with pytest.raises(UserError, match=expected):
        main.run(args)
    assert not (tmp_path / "report").exists()


class FakeSource:
    """Answers each question with its text; what says "stop" gets none."""

    identity, usage = "fake", {}

    def __init__(self):
        self.most_at_once = 0

    def answers(self, requests):
        self.most_at_once = max(self.most_at_once, len(requests))
        for request in reversed(requests):
            text = request.messages[-1]["content"]
            yield request, AnswerError("stopped") if "stop" in text else Answer(text, 1, 2, "stop", latency_ms=5.0)


class FakeConnect:
    def __init__(self, *_, **__):
        pass

    def __enter__(self):
        return FakeSource()

    def __exit__(self, *_):
        return None


def test_a_long_shard_is_never_in_memory_as_a_whole(record_scoring, tmp_path, monkeypatch):
    """Six times the rows take no more memory, but for what the list of this test takes."""
    import tracemalloc

    monkeypatch.setattr(record_scoring, "CHUNK_ROWS", 100)

    def peak(num_rows: int) -> int:
        shard = put(
            tmp_path / f"{num_rows}.jsonl", lines(*(chat(f"{n:05}", padding="x" * 500) for n in range(num_rows)))
        )
        source, written = FakeSource(), []
        scorer = record_scoring.RecordScorer(source, record_scoring.Asking(endpoint="https://here/v1"))
        tracemalloc.start()
        tally = scorer.score(shard.name, shard, lambda row: written.append(row["output"] == row["id"]), tmp_path / "so")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (tally.num_rows, all(written)) == (num_rows, True)
        assert source.most_at_once == 100
        return most

    assert peak(1_800) < 1.2 * peak(300)


def test_sums_and_percentiles_of_shards_are_those_of_all_rows(main):
    """Percentiles by the nearest rank of the sorted latencies; sums counted one by one."""
    import scoring_report

    draws = random.Random(1)
    rows = [
        {
            **{"id": str(n), "prompt_tokens": n, "completion_tokens": 1, "latency_ms": draws.lognormvariate(5, 1)},
            **{"finish_reason": "length" if n % 3 else "stop", "error": f"e{n}"},
        }
        for n in range(200)
    ]
    tallies = [scoring_report.Tally() for _ in range(4)]
    for n, row in enumerate(rows):
        tallies[n % 4].count(row, "no_answer" if n >= 150 else None)
    whole = scoring_report.total(scoring_report.from_json(tally.as_json()) for tally in tallies)
    found = whole.figures()
    latencies = sorted(row["latency_ms"] for row in rows)
    assert math.isclose(found["latency_p50_ms"], latencies[99], rel_tol=0.006)
    assert math.isclose(found["latency_p95_ms"], latencies[189], rel_tol=0.006)
    assert (found["num_rows"], found["num_no_answer"], found["num_cut"]) == (200, 50, 133)
    assert (found["prompt_tokens"], found["completion_tokens"]) == (19900, 200)
    assert whole.examples == {"no_answer": "152: e152"}


def test_the_report_tells_reasons_and_shards_and_escapes_them(score, tmp_path):
    put(tmp_path / "in" / "a.jsonl", lines(chat("a"), {"id": "<script>", "messages": 1}))
    put(tmp_path / "in" / "b.jsonl", lines(chat("b"), chat("c")))
    score(tmp_path / "in", max_error_fraction=0.25)
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "4 rows, 1 with an error (25.00%; 25.00% may have one)" in page
    assert "within the limit" in page
    assert "the record holds no chat that waits for an answer" in page
    assert "&lt;script&gt;: a chat needs" in page
    assert "<script" not in page
    assert all(f"<td>{name}</td>" in page for name in ("a.jsonl", "b.jsonl", "all"))
