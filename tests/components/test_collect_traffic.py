"""collect_traffic: one record a chat, whatever the log does to it; nothing of anybody, and no window that is silent."""

import base64
import gzip
import json
import os
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from slmkit.errors import UserError

NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
SOURCE = "/subscriptions/s/resourceGroups/g/providers/M/workspaces/w/onlineEndpoints/shop/deployments/"
NINE_TO_TEN = {"window_start": "2026-03-02T09:00:00Z", "window_end": "2026-03-02T10:00:00Z"}


def iso(moment, timespec="milliseconds"):
    return moment.isoformat(timespec=timespec).replace("+00:00", "Z")


def asked(text="Hello", **more):
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


def answered(text="Hi", **more):
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    return {"object": "chat.completion", "model": "slm", "choices": [choice], "usage": usage, **more}


class Log:
    """A folder as Azure ML's data collector writes it."""

    def __init__(self, folder):
        self.folder, self.num = folder, 0

    def row(self, collection, key, moment, data, *, deployment="blue", instance="one", folder=None, **more):
        self.num += 1
        row = {
            "specversion": "1.0",
            "id": f"event-{self.num}",
            "source": SOURCE + deployment,
            "type": f"azureml.inference.{collection}",
            "datacontenttype": "application/json",
            "time": moment if isinstance(moment, str) else iso(moment),
            "data": data,
            "contentrange": "bytes 0-59/*",
            "correlationid": key,
            "xrequestid": key,
        }
        hour = folder or moment.strftime("%Y/%m/%d/%H")
        path = self.folder / deployment / collection / hour / f"{instance}.jsonl"
        self.add(path, json.dumps(row | more, ensure_ascii=False).encode("utf-8", "backslashreplace"))
        return row | more

    def add(self, path, line):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(line + b"\n")

    def chat(self, key, minutes, seconds=1.5, question="Hello", answer="Hi", **more):
        """A request so many minutes after nine, and its response."""
        moment = NINE + timedelta(minutes=minutes)
        self.row("request", key, moment, asked(question), **more)
        self.row("response", key, moment + timedelta(seconds=seconds), answered(answer), **more)


@pytest.fixture
def log(tmp_path):
    return Log(tmp_path / "logs" / "shop")


@pytest.fixture
def collect(load_main, tmp_path):
    main = load_main("collect_traffic")

    def run(traffic=None, **args):
        paths = {name: tmp_path / "out" / name for name in ("records", "window", "quarantine")}
        main.run(main.Args(**paths, traffic=traffic, **args))
        read = {name: paths[name].read_text("utf-8") for name in paths}
        lines = {
            name: [json.loads(line) for line in read[name].split("\n") if line] for name in ("records", "quarantine")
        }
        return SimpleNamespace(**lines, window=json.loads(read["window"]), text="".join(read.values()))

    return run


def test_a_request_and_its_response_are_one_record(log, collect):
    log.chat("7b7c1b6e-0000-4000-8000-000000000001", 5, question="注文はいつ届きますか", answer="明日です")
    found = collect(log.folder, **NINE_TO_TEN)
    assert found.records == [
        {
            "id": "7b7c1b6e-0000-4000-8000-000000000001",
            "timestamp": "2026-03-02T09:05:00.000Z",
            "messages": [{"role": "user", "content": "注文はいつ届きますか"}],
            "output": "明日です",
            "status": 200,
            "latency_ms": 1500.0,
            "prompt_tokens": 3,
            "completion_tokens": 2,
            "finish_reason": "stop",
            "endpoint": "shop",
            "deployment": "blue",
            "model": "slm",
            "language": "ja",
            "error": None,
        }
    ]
    assert found.window == {
        "name": "to 2026-03-02T10:00Z",
        "start": "2026-03-02T09:00:00.000Z",
        "end": "2026-03-02T10:00:00.000Z",
        "status": "ok",
        "reason": None,
        "num_found": 1,
        "num_rows": 1,
        **dict.fromkeys(("num_malformed", "num_not_chats", "num_duplicates", "num_outside", "num_unpaired"), 0),
        **dict.fromkeys(("num_other_models", "num_excluded", "num_unusable", "num_sampled_out", "num_dropped"), 0),
        "num_unmatched_responses": 0,
        "max_clock_skew_seconds": 0.0,
        "latency_resolution_seconds": 0.001,
        "redaction": {"action": "mask", "num_findings": 0},
    }


def test_the_window_is_kept_to_and_other_hours_are_not_read(log, collect, monkeypatch):
    log.chat("first", 0)
    log.chat("last", 59.999, seconds=90)  # its response is of the next hour
    log.chat("before", -0.001)
    log.chat("after", 60)
    for hour in ("2026/03/02/07", "2026/03/02/11", "2026/03/01/09", "2025/12/31/23"):
        log.add(log.folder / "blue" / "request" / hour / "one.jsonl", b"not read, or it would be refused")
    found = collect(log.folder, **NINE_TO_TEN)
    assert [row["id"] for row in found.records] == ["first", "last"]
    assert (found.window["num_outside"], found.window["num_malformed"]) == (2, 0)
    assert collect(log.folder, window_start="2026-03-02T18:00:00+09:00", window_hours=1).records == found.records
    by_name = collect(log.folder, window_end="2026-03-02T10:00", window_hours=1, window_name="week 9")
    assert (by_name.records, by_name.window["name"]) == (found.records, "week 9")


def test_each_window_begins_where_the_last_one_ended(log, collect, tmp_path):
    for number in range(4):
        log.chat(f"chat-{number}", 30 * number)
    earlier, ids = {"window_start": iso(NINE)}, []
    for week in ("one", "two", "three"):
        found = collect(log.folder, window_hours=0.75, **earlier)
        ids.append([row["id"] for row in found.records])
        (tmp_path / week).write_text(json.dumps(found.window))
        earlier = {"earlier_window": tmp_path / week}
    assert ids == [["chat-0", "chat-1"], ["chat-2"], ["chat-3"]]
    quiet = collect(log.folder, window_hours=1, **earlier)
    assert (quiet.records, quiet.window["status"]) == ([], "no_data")
    assert quiet.window["reason"] == "no chat in the window"
    now = collect(log.folder, **earlier, settle_seconds=3600)
    ended = datetime.fromisoformat(now.window["end"]).timestamp()
    assert abs(time.time() - 3600 - ended) < 60


def test_a_stream_is_put_together(log, collect):
    def event(delta, reason=None, **more):
        choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
        return f"data: {json.dumps({'model': 'slm', 'choices': choices, **more}, ensure_ascii=False)}\n\n"

    usage = {"prompt_tokens": 11, "completion_tokens": 4}
    whole = event({"role": "assistant"}) + event({"content": "네, "}) + event({"content": "내일입니다"}, "length")
    whole += f"data: {json.dumps({'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n"
    broken = event({"content": "네, "})
    failed = event({"content": "네"}) + 'data: {"error": {"message": "the model failed"}}\n\ndata: [DONE]\n\n'
    for key, text in (("a", whole), ("b", broken), ("c", failed)):
        log.row("request", key, NINE, asked("언제 도착하나요?", stream=True))
        log.row("response", key, NINE + timedelta(seconds=2), text, datacontenttype="text/event-stream")
    first, second, third = collect(log.folder, **NINE_TO_TEN).records
    assert (first["output"], first["finish_reason"], first["model"]) == ("네, 내일입니다", "length", "slm")
    assert (first["prompt_tokens"], first["completion_tokens"]) == (11, 4)
    assert (second["output"], second["error"]) == (None, "the stream ended before the answer did")
    assert (third["output"], third["error"]) == (None, "the model failed")


def test_clocks_that_differ_and_times_in_whole_seconds(log, collect):
    log.chat("ahead", 1, seconds=-2.5)
    for number, seconds in enumerate((0, 3)):
        moments = [iso(NINE + timedelta(minutes=2, seconds=s), "seconds") for s in (0, seconds)]
        log.row("request", f"whole-{number}", moments[0], asked(), folder="2026/03/02/09")
        log.row("response", f"whole-{number}", moments[1], answered(), folder="2026/03/02/09")
    found = collect(log.folder, **NINE_TO_TEN)
    assert {row["id"]: row["latency_ms"] for row in found.records} == {
        "ahead": None,
        "whole-0": 500.0,  # the middle of what whole seconds leave open
        "whole-1": 3000.0,
    }
    assert (found.window["max_clock_skew_seconds"], found.window["latency_resolution_seconds"]) == (2.5, 1.0)


def test_what_is_logged_twice_or_not_at_all(log, collect):
    request = log.row("request", "twice", NINE, asked("A"))
    log.row("response", "twice", NINE, answered())
    log.add(log.folder / "blue" / "request" / "2026/03/02/09" / "two.jsonl", json.dumps(request).encode())  # same event
    log.row("request", "twice", NINE + timedelta(seconds=9), asked("A"), instance="two")  # logged by both instances
    for number, error in enumerate(({"error": {"code": 503, "message": "busy"}}, None, None)):  # a client tries again
        moment = NINE + timedelta(minutes=1, seconds=number)
        log.row("request", f"try-{number}", moment, asked("B"), xrequestid="same")
        log.row("response", f"try-{number}", moment, error or answered(), xrequestid="same")
    for number in range(2):  # two chats of a client that calls all of them the same
        moment = NINE + timedelta(minutes=2, seconds=number)
        log.row("request", "test", moment, asked(f"C{number}"))
        log.row("response", "test", moment + timedelta(milliseconds=100), answered(f"D{number}"))
    log.row("request", "lost", NINE, asked("E"))
    log.row("response", "found", NINE, answered("F"))
    found = collect(log.folder, **NINE_TO_TEN)
    kept = [(row["messages"][0]["content"], row["output"], row["status"]) for row in found.records]
    assert sorted(kept, key=str) == [
        ("A", "Hi", 200),
        ("B", "Hi", 200),
        ("B", None, 503),
        ("C0", "D0", 200),
        ("C1", "D1", 200),
    ]
    assert len({row["id"] for row in found.records}) == 5
    counts = {name: found.window[name] for name in ("num_found", "num_duplicates", "num_unpaired")}
    assert counts == {"num_found": 9, "num_duplicates": 3, "num_unpaired": 1}
    assert found.window["num_unmatched_responses"] == 1


def test_tables_of_azureml_ai_monitoring(log, collect):
    """Two requests in one row, paired by their place or by a column; the same chats as payloads are not counted."""
    both = [{"prompt": "one", "k": 1}, {"prompt": "둘", "k": 2}]
    log.row("model_inputs", "t", NINE, both)
    log.row("model_outputs", "t", NINE, [{"output": "1"}, {"output": "2"}])
    log.row("model_inputs", "u", NINE, [{"frage": "drei", "k": 3}])
    log.row("model_outputs", "u", NINE, [{"antwort": "3", "k": 3}])
    found = collect(log.folder, max_error_fraction=0, **NINE_TO_TEN)
    assert {row["messages"][0]["content"]: row["output"] for row in found.records} == {"one": "1", "둘": "2"}
    assert {row["latency_ms"] for row in found.records} == {None}  # both rows have the time of the request
    assert found.window["num_not_chats"] == 1
    named = collect(log.folder, prompt_column="frage", output_column="antwort", **NINE_TO_TEN)
    assert [(row["messages"][0]["content"], row["output"]) for row in named.records] == [("drei", "3")]
    log.chat("p", 1)
    assert [row["id"] for row in collect(log.folder, **NINE_TO_TEN).records] == ["p"]


def test_what_cannot_be_read_is_counted_and_never_quoted(log, collect, tmp_path):
    secret = "taro@gmail.com 090-1234-5678"
    log.chat("good", 0)
    here = log.folder / "blue" / "request" / "2026/03/02/09"
    whole = json.dumps(log.row("request", "cut", NINE, asked(secret), contentrange="bytes 0-9/500")).encode()
    event = {"specversion": "1.0", "type": "azureml.inference.request", "time": iso(NINE), "id": "e"}
    lines = [
        whole[:70],
        b"\xff\xfe" + secret.encode(),
        json.dumps([secret]).encode(),
        json.dumps({"note": secret}).encode(),
        json.dumps(event | {"data": asked(secret), "time": secret}).encode(),
        json.dumps(event | {"data": f"https://x/{secret}/../../../secret.jsonl", "datainblob": "true"}).encode(),
        json.dumps(event | {"data_base64": base64.b64encode(b"\xff" + secret.encode()).decode(), "id": "b"}).encode(),
        json.dumps(event | {"data": {"messages": [{"role": secret, "content": secret}]}, "id": "role"}).encode(),
        json.dumps(event | {"data": f"https://x/{'a' * 300}{secret}", "datainblob": "true", "id": "long"}).encode(),
    ]
    for line in lines:
        log.add(here / "bad.jsonl", line)
    log.row("response", "role", NINE, answered(secret), instance="bad")
    (here / "half.jsonl.gz").write_bytes(gzip.compress(whole * 50)[:-30])
    (tmp_path / "secret.jsonl").write_text(json.dumps({"messages": [], "note": secret}))
    (here / "link.jsonl").symlink_to(tmp_path / "secret.jsonl")
    (log.folder / "up").symlink_to(tmp_path, target_is_directory=True)
    (here / "loop.jsonl").symlink_to("loop.jsonl")
    (here / os.fsdecode(b"\xff.jsonl")).write_bytes(b"[]\n")  # its name is no text
    os.mkfifo(here / "pipe.jsonl")
    with pytest.raises(UserError, match=r"of \d+ rows of the log were refused.* see the quarantine"):
        collect(log.folder, **NINE_TO_TEN)
    assert "not UTF-8" in (tmp_path / "out" / "quarantine").read_text("utf-8")
    assert not (tmp_path / "out" / "records").exists()
    found = collect(log.folder, max_error_fraction=0.95, **NINE_TO_TEN)
    assert [row["id"] for row in found.records] == ["good"]
    assert "taro" not in found.text and "090" not in found.text
    bad = "blue/request/2026/03/02/09/bad.jsonl"
    assert {(row["line"], row["reason"]) for row in found.quarantine if row["source"] == bad} == {
        (1, "not JSON"),
        (2, "not UTF-8"),
        (3, "not a JSON object but a list"),
        (4, "neither a row of the data collector nor a chat"),
        (5, "its time is not one"),
        (6, "its body is in a blob of its own, which is not beside the log"),
        (7, "its body is not UTF-8"),
        (8, "a message of the request has no known role"),
        (9, "its body is in a blob of its own, which is not beside the log"),
    }
    others = {row["source"]: row["reason"] for row in found.quarantine if row["source"] != bad}
    assert others.pop("blue/request/2026/03/02/09/one.jsonl") == "its body was cut when it was logged (contentrange)"
    damaged = others.pop("blue/request/2026/03/02/09/half.jsonl.gz")
    assert damaged in ("not JSON", "the gzip or Parquet file is damaged; what came before the damage was read")
    assert others.pop("blue/request/2026/03/02/09/\ufffd.jsonl") == "not a JSON object but a list"
    assert others == dict.fromkeys(("up", "blue/request/2026/03/02/09/link.jsonl"), "a link out of the folder")


def test_a_body_in_a_blob_beside_the_log_is_read(log, collect):
    log.row("request", "big", NINE, "https://a.blob.core.windows.net/mdc/e%2Da", datainblob="true")
    (log.folder / "blue" / "request" / "2026/03/02/09" / "e-a").write_text(json.dumps(asked("long")))
    log.row("response", "big", NINE, None, data_base64=base64.b64encode(json.dumps(answered()).encode()).decode())
    path = next((log.folder / "blue" / "response").rglob("*.jsonl"))
    path.write_text(path.read_text().replace('"data": null, ', ""))
    (record,) = collect(log.folder, **NINE_TO_TEN).records
    assert (record["messages"][0]["content"], record["output"]) == ("long", "Hi")


def test_chats_as_json_lines_in_any_order(collect, tmp_path):
    folder = tmp_path / "chats"
    folder.mkdir()

    def chat(question, moment, **more):
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": f"{question}!"}]
        return json.dumps({"messages": messages, "timestamp": moment, **more})

    late = (time.time() + 86400) * 1000
    rows = [
        chat("b", NINE.timestamp() + 60),
        chat("a", 1000 * NINE.timestamp(), id="chat of taro@gmail.com"),
        chat("a", iso(NINE), id="chat of taro@gmail.com"),  # once more
        chat("future", late),
        chat("none", None),
        json.dumps({"messages": [{"role": "user", "content": "nothing was said"}], "timestamp": iso(NINE)}),
    ]
    (folder / "x.jsonl").write_bytes(gzip.compress("\n".join(rows).encode()))
    found = collect(folder, max_error_fraction=0.5, **NINE_TO_TEN)
    assert [(row["messages"], row["output"]) for row in found.records] == [
        ([{"role": "user", "content": "b"}], "b!"),
        ([{"role": "user", "content": "a"}], "a!"),
    ]
    assert len({row["id"] for row in found.records}) == 2 and "taro" not in found.text
    assert (found.window["num_outside"], found.window["num_duplicates"]) == (1, 1)
    again = tmp_path / "records.jsonl"
    again.write_text("".join(json.dumps(row) + "\n" for row in found.records))
    assert collect(again, **NINE_TO_TEN).records == found.records  # what it writes it reads
    assert collect(folder, max_error_fraction=1).window["num_rows"] == 3  # a chat without a time, too


def test_redaction_reaches_every_text(log, collect):
    mail = "taro@gmail.com"
    log.row("request", mail, NINE, asked([{"type": "text", "text": f"Mail me: {mail}"}]))
    log.row("response", mail, NINE, answered(f"To {mail}", model=mail))
    log.row("request", "tool", NINE, asked("x"))
    call = {"function": {"name": "send", "arguments": json.dumps({"to": mail})}}
    reply = answered()
    reply["choices"][0]["message"] = {"role": "assistant", "content": None, "tool_calls": [call]}
    log.row("response", "tool", NINE, reply)
    log.row("request", "failed", NINE, asked("y"))
    log.row("response", "failed", NINE, {"error": {"message": f"{mail} is no user", "code": "404"}})
    found = collect(log.folder, **NINE_TO_TEN)
    assert mail not in found.text
    assert [row["output"] for row in found.records] == ["To <EMAIL_ADDRESS>", 'send{"to": "<EMAIL_ADDRESS>"}', None]
    assert (found.records[2]["status"], found.records[2]["error"]) == (404, "<EMAIL_ADDRESS> is no user")
    assert found.window["redaction"] == {"action": "mask", "num_findings": 5}
    dropped = collect(log.folder, action="drop", **NINE_TO_TEN)
    assert (dropped.window["status"], dropped.window["num_dropped"], dropped.records) == ("no_data", 3, [])


def test_what_cannot_be_examined_is_not_written(log, collect, load_main, monkeypatch):
    load_main("collect_traffic")
    from pii_detection import Redactor

    log.chat("a", 0, question="breaks it")
    log.chat("b", 1)
    redact = Redactor.redact
    monkeypatch.setattr(Redactor, "redact", lambda self, text: 1 / 0 if "breaks" in text else redact(self, text))
    found = collect(log.folder, max_error_fraction=0.5, **NINE_TO_TEN)
    assert ([row["id"] for row in found.records], found.window["num_malformed"]) == (["b"], 1)
    assert found.quarantine[0]["reason"] == "ZeroDivisionError while personal data were taken out of it"


def test_a_sample_is_the_same_in_any_order_and_each_row_has_its_chance(log, collect, tmp_path):
    for number in range(60):
        log.chat(f"chat-{number:02}", number, instance=str(number % 3))
    ids = [row["id"] for row in collect(log.folder, max_rows=20, seed=1, **NINE_TO_TEN).records]
    assert (len(ids), ids) == (20, sorted(ids))
    other = Log(tmp_path / "other")
    for number in reversed(range(60)):
        other.chat(f"chat-{number:02}", number)
    again = collect(other.folder, max_rows=20, seed=1, **NINE_TO_TEN)
    assert [row["id"] for row in again.records] == ids
    assert (again.window["num_rows"], again.window["num_sampled_out"], again.window["num_found"]) == (20, 40, 60)
    seeds = [collect(log.folder, max_rows=20, seed=seed, **NINE_TO_TEN).records for seed in range(16)]
    kept = sum(row["id"] < "chat-30" for rows in seeds for row in rows)
    assert 120 < kept < 200  # half of 320, by more than four standard deviations


def test_no_data_is_said_and_no_traffic_is_an_error(log, collect, tmp_path):
    log.add(log.folder / "blue" / "request" / "2026/03/02/09" / "one.jsonl", b"")
    assert collect(log.folder, **NINE_TO_TEN).window["status"] == "no_data"
    (empty := tmp_path / "empty").mkdir()
    assert collect(empty).window["reason"] == "no chat in the window"
    (empty / "notes.csv").write_text("a,b")
    with pytest.raises(UserError, match="nothing in it looks like traffic"):
        collect(empty)
    with pytest.raises(UserError, match="no such folder of logs"):
        collect(tmp_path / "nowhere")
    log.row("request", "a", NINE, asked())
    with pytest.raises(UserError, match="1 requests without a response; switch on the collection response"):
        collect(log.folder, **NINE_TO_TEN)
    log.row("response", "a", NINE, answered())
    with pytest.raises(UserError, match="none of 1 requests is a chat; name the columns"):
        collect(log.folder, prompt_column="question", **NINE_TO_TEN)


def test_the_endpoint_says_where_its_traffic_is(log, collect, tmp_path):
    log.chat("a", 0)
    endpoint = tmp_path / "endpoint.json"
    uri = "azureml://datastores/workspaceblobstore/paths/modelDataCollector/shop"
    endpoint.write_text(json.dumps({"name": "shop", "collected_traffic": uri}))
    with pytest.raises(UserError, match="give it as the input traffic"):
        collect(endpoint=endpoint)
    assert len(collect(log.folder, endpoint=endpoint).records) == 1
    endpoint.write_text(json.dumps({"name": "shop", "collected_traffic": None}))
    nothing = collect(endpoint=endpoint)
    assert nothing.records == []
    assert (nothing.window["status"], nothing.window["reason"][:49]) == (
        "no_data",
        "the traffic of this endpoint is not collected; set"[:49],
    )
    endpoint.write_text(json.dumps({"name": "shop", "collected_traffic": str(log.folder)}))
    assert [row["id"] for row in collect(endpoint=endpoint).records] == ["a"]
    with pytest.raises(UserError, match="give one of the inputs traffic"):
        collect()


def test_what_no_log_can_hold_is_no_damage_to_it(log, collect):
    """As the smoke test of a rollout sends it: two of three requests."""
    log.chat("good", 0)
    log.row("request", "large", NINE, "aaaa", contentrange="bytes 0-3/9000")
    log.row("response", "large", NINE, {"error": {"message": "too large"}}, statuscode=413)
    log.row("request", "bytes", NINE, None)
    (path,) = log.folder.rglob("request/**/*.jsonl")
    *rows, last = path.read_text("utf-8").splitlines()
    row = json.loads(last)
    del row["data"]
    row["data_base64"] = base64.b64encode(b"\xff\xfe").decode()
    path.write_text("\n".join([*rows, json.dumps(row)]) + "\n", encoding="utf-8")
    found = collect(log.folder, max_error_fraction=0.0, **NINE_TO_TEN)
    assert [row["id"] for row in found.records] == ["good"]
    assert (found.window["num_unusable"], found.window["num_malformed"]) == (2, 0)
    assert len(found.quarantine) == 2


def test_a_period_is_the_window(log, collect, tmp_path):
    for number in range(5):
        log.chat(f"at {number}", number)
    period = tmp_path / "period.json"
    period.write_text(json.dumps({"start": iso(NINE + timedelta(minutes=1)), "end": iso(NINE + timedelta(minutes=3))}))
    found = collect(log.folder, period=period)
    assert [row["id"] for row in found.records] == ["at 1", "at 2"]
    assert found.window["start"] == "2026-03-02T09:01:00.000Z"
    with pytest.raises(UserError, match="give period or window_hours, not both"):
        collect(log.folder, period=period, window_hours=1.0)
    period.write_text(json.dumps({"start": iso(NINE), "end": iso(NINE)}))
    with pytest.raises(UserError, match="is not before its end"):
        collect(log.folder, period=period)


def test_what_a_monitor_asks_itself_is_no_traffic(log, collect, tmp_path):
    log.row("request", "canary", NINE, asked("When do you open?"))
    log.row("response", "canary", NINE + timedelta(seconds=1), answered())
    log.chat("user", 1)
    items = tmp_path / "canaries.jsonl"
    items.write_text(json.dumps({"id": "c", "messages": [{"role": "user", "content": "When do you open?"}]}) + "\n")
    found = collect(log.folder, exclude_items=items, **NINE_TO_TEN)
    assert [row["id"] for row in found.records] == ["user"]
    assert (found.window["num_excluded"], found.window["num_found"]) == (1, 2)
    items.write_text('{"id": "c"}\n')
    with pytest.raises(UserError, match=r"canaries.jsonl:1: .*exclude_items takes eval items"):
        collect(log.folder, exclude_items=items, **NINE_TO_TEN)


def test_one_of_several_models_at_an_endpoint(log, collect):
    """By what the request names: a failure names nobody. A request that names none is of whoever answered."""
    asks = {"store": {"model": "store"}, "failed": {"model": "store"}, "billing": {"model": "billing"}, "base": {}}
    for minute, (key, model) in enumerate(asks.items()):
        body = {"messages": asked()["messages"], **model}
        answer = {"error": {"message": "broken"}} if key == "failed" else answered(**{"model": "slm", **model})
        moment = NINE + timedelta(minutes=minute)
        log.row("request", key, moment, json.dumps([body]) if key == "store" else body)
        log.row("response", key, moment + timedelta(seconds=1), answer)
    for model, keys in (("store", ["store", "failed"]), ("billing", ["billing"]), ("slm", ["base"]), (None, [*asks])):
        found = collect(log.folder, endpoint_model=model, **NINE_TO_TEN)
        assert [row["id"] for row in found.records] == keys
        assert found.window["num_other_models"] == 4 - len(keys)
    nobody = collect(log.folder, endpoint_model="returns", **NINE_TO_TEN).window
    assert nobody["status"] == "no_data"
    assert nobody["reason"] == "no chat with this model in the window; 4 are with others"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"window_start": "yesterday"}, "window_start 'yesterday': not a time such as"),
        ({"window_start": "2026-03-02T10:00Z", "window_end": "2026-03-02T09:00Z"}, "not before the end of the window"),
        ({**NINE_TO_TEN, "window_hours": 1.0}, "not all three"),
        ({"window_name": "a\nb"}, "window_name"),
        ({"regions": "XX"}, "'XX' is not the code of a region"),
    ],
)
def test_what_is_refused_at_once(log, collect, args, said):
    log.chat("a", 0)
    with pytest.raises(UserError, match=said):
        collect(log.folder, **args)


def test_no_row_is_in_two_windows(log, collect, tmp_path):
    """Where nothing has settled since the earlier window, and where one ends within a millisecond."""
    log.chat("a", 0)
    (earlier := tmp_path / "earlier").write_text(json.dumps({"end": (now := iso(datetime.now(UTC)))}))
    nothing = collect(log.folder, earlier_window=earlier, settle_seconds=900).window
    assert (nothing["start"], nothing["end"], nothing["status"]) == (now, now, "no_data")
    with pytest.raises(UserError, match="not before the end of the window"):
        collect(log.folder, earlier_window=earlier, window_end=iso(NINE))
    with pytest.raises(UserError, match="not before the end of the window"):  # it has not begun yet
        collect(log.folder, window_end=iso(datetime.now(UTC) + timedelta(days=1)), window_hours=1.0)

    log.chat("b", 1 / 60000 * 0.7)  # 0.7 ms after nine
    first = collect(log.folder, window_start="2026-03-02T08:00Z", window_end="2026-03-02T09:00:00.0009Z")
    earlier.write_text(json.dumps(first.window))
    second = collect(log.folder, earlier_window=earlier, window_hours=1.0)
    assert (first.window["status"], [row["id"] for row in second.records]) == ("no_data", ["a", "b"])


def test_times_of_many_kinds(load_main):
    load_main("collect_traffic")
    import collection_window

    nine = NINE.timestamp()
    told = ("2026-03-02T18:00:00.0000000+09:00", "2026-03-02T09:00", f"{nine:.0f}", f"{1000 * nine:.0f}", 1000 * nine)
    assert {collection_window.seconds_of(value) for value in told} == {nine}
    assert collection_window.iso(nine - 0.0004) == "2026-03-02T08:59:59.999Z"  # as the window says that it is of
    for value in ("0001-01-01T00:00:00", "9" * 30, "", -1, True, None):
        with pytest.raises(ValueError):
            collection_window.seconds_of(value)


def test_minutes_of_their_own_keep_slow_answers(log, collect):
    """As a collector with the rolling rate minute writes them."""
    moment = NINE + timedelta(minutes=1)
    for minute in range(1, 9):
        at = moment + timedelta(minutes=minute)
        log.row("request", f"r{minute}", at, asked(f"q{minute}"), folder=at.strftime("%Y/%m/%d/%H/%M"))
        late = at + timedelta(seconds=170)
        log.row("response", f"r{minute}", late, answered(), folder=late.strftime("%Y/%m/%d/%H/%M"))
    found = collect(log.folder, **NINE_TO_TEN)
    assert (len(found.records), found.window["num_unpaired"]) == (8, 0)


def test_collections_of_another_deployment_and_of_other_names(log, collect):
    log.row("my_prompts", "m", NINE, [{"prompt": "one"}], deployment="green")
    with pytest.raises(UserError, match="1 rows, all of other collections than request"):
        collect(log.folder, **NINE_TO_TEN)
    log.row("model_inputs", "t", NINE, [{"prompt": "one"}], deployment="green")
    log.row("model_outputs", "t", NINE, [{"output": "1"}], deployment="green")
    log.chat("p", 1)
    assert {row["deployment"] for row in collect(log.folder, **NINE_TO_TEN).records} == {"green", "blue"}


def test_an_answer_that_is_not_where_it_should_be_is_no_good_answer(log, collect):
    log.row("model_inputs", "t", NINE, [{"prompt": "one"}])
    log.row("model_outputs", "t", NINE, [{"antwort": "1", "k": 1}])
    for column in ("antwrot", None):
        with pytest.raises(UserError, match="none of 1 requests is a chat; name the columns"):
            collect(log.folder, output_column=column, **NINE_TO_TEN)
    replies = {
        "null": {"output": None, "k": 1},
        "list": answered([1]) | {"choices": [{"message": None}]},
        "vllm": {"object": "error", "message": "too long", "code": 400},
        "empty": None,
    }
    for key, reply in replies.items():
        log.row("request", key, NINE, asked(key))
        log.row("response", key, NINE, reply)
    said = {row["id"]: (row["output"], row["status"], row["error"]) for row in collect(log.folder).records}
    missing = (None, 200, "the response has no text where the answer stands")
    assert said == {"null": missing, "list": missing, "empty": missing, "vllm": (None, 400, "too long")}


def test_a_stream_holds_line_separators_second_answers_and_what_is_no_json(log, collect):
    def event(text, index=0, reason=None):
        choice = {"index": index, "delta": {"content": text}, "finish_reason": reason}
        return f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}\r\n\r\n"

    end = "data: [DONE]\n\n"
    streams = {
        "lines": event("one\u2028two\x85", reason="stop") + end,
        "two": event("A") + event("B", index=1) + event("C", reason="stop") + end,
        "plain": "data: Hello\n\n" + end,
    }
    for key, stream in streams.items():
        log.row("request", key, NINE, asked(key))
        log.row("response", key, NINE, stream)
    said = {row["id"]: (row["output"], row["error"]) for row in collect(log.folder, **NINE_TO_TEN).records}
    assert said == {
        "lines": ("one\u2028two\x85", None),
        "two": ("AC", None),
        "plain": (None, "the stream has an event that is no JSON object"),
    }


def test_half_characters_and_endless_nesting_of_a_client_are_no_damage(log, collect):
    log.chat("good", 0)
    log.chat("half", 1, question="\ud83d")
    row = json.dumps(log.row("request", "deep", NINE, "DEEP")).replace('"DEEP"', "[" * 10_000 + "]" * 10_000)
    path = next(log.folder.rglob("request/**/one.jsonl"))
    path.write_text("\n".join([*path.read_text().split("\n")[:2], row, ""]))
    found = collect(log.folder, max_error_fraction=0.0, **NINE_TO_TEN)
    assert ([row["id"] for row in found.records], found.window["num_unusable"]) == (["good"], 2)


def test_chats_without_ids_and_failures_that_are_there_twice(collect, tmp_path):
    def row(text, second, **more):
        moment = iso(NINE + timedelta(seconds=second))
        return {"messages": [{"role": "user", "content": text}], "output": "Yes", "timestamp": moment, **more}

    failed = row("b", 9, id="f", status=500, error="busy", output=None)
    rows = [row("a", 0), row("a", 1), row("a", 1), failed, failed, failed | {"timestamp": iso(NINE)}]
    (log := tmp_path / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    found = collect(log, **NINE_TO_TEN)
    kept = sorted((row["messages"][0]["content"], row["timestamp"][17:19]) for row in found.records)
    assert (kept, found.window["num_duplicates"]) == ([("a", "00"), ("a", "01"), ("b", "00"), ("b", "09")], 2)


def test_a_sample_without_ids_and_times_is_by_chance(collect, tmp_path):
    chats = [{"messages": [{"role": "user", "content": f"{n:03}"}], "output": "Yes"} for n in range(200)]
    (log := tmp_path / "log.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    kept = [row["messages"][0]["content"] for row in collect(log, max_rows=50).records]
    assert 8 < sum(text < "100" for text in kept) < 42
