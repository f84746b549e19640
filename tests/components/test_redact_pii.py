"""redact_pii: nothing found reaches an output, what could not be examined is not written, four shards are one."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import yaml

from pii_detection import Finding
from slmkit.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "components" / "redact_pii"
KEY = "0123456789abcdef0123456789abcdef"
CREDENTIAL = SimpleNamespace(get_token=lambda scope: SimpleNamespace(token=f"token for {scope}"))
VALUES = ["090-1234-5678", "taro@gmail.com", "4111 1111 1111 1111", "900101-1234568", "AKIAIOSFODNN7EXAMPLE"]
RECORDS = [
    {"id": "ja", "text": "電話は090-1234-5678、メールはtaro@gmail.comまで", "source": "a.txt", "language": "ja"},
    {"id": "none", "text": "何もない", "title": "空", "language": "ja"},
    {
        "id": "chat",
        "messages": [
            {"role": "user", "content": "My card is 4111 1111 1111 1111"},
            {"role": "assistant", "content": [{"type": "text", "text": "주민번호 900101-1234568 확인"}]},
            {
                "role": "assistant",
                "tool_calls": [{"id": "c1", "function": {"arguments": '{"key": "AKIAIOSFODNN7EXAMPLE"}'}}],
            },
        ],
        "origin": "x",
    },
]


def write(path: Path, rows: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def redact(load_main, tmp_path, monkeypatch):
    """Run the component in this process: the redacted records, and the report as a folder."""
    main = load_main("redact_pii")
    monkeypatch.setenv("REDACT_PII_KEY", KEY)

    def run(rows: list, **inputs) -> tuple[list[dict], Path]:
        source, out, report = (
            write(tmp_path / "records", rows),
            tmp_path / "out" / "redacted",
            tmp_path / "out" / "report",
        )
        main.run(main.Args(records=source, redacted_records=out, report=report, **inputs))
        return read(out), report

    return run


def test_documents_and_chats_keep_their_form(redact):
    rows, report = redact(RECORDS)
    assert rows == [
        {"id": "ja", "text": "電話は<PHONE_NUMBER>、メールは<EMAIL_ADDRESS>まで", "source": "a.txt", "language": "ja"},
        RECORDS[1],
        {
            "id": "chat",
            "messages": [
                {"role": "user", "content": "My card is <CREDIT_CARD>"},
                {"role": "assistant", "content": [{"type": "text", "text": "주민번호 <KR_RRN> 확인"}]},
                {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"arguments": '{"key": "<API_KEY>"}'}}]},
            ],
            "origin": "x",
        },
    ]
    content = json.loads((report / "report.json").read_text(encoding="utf-8"))
    assert content["records"] == {"read": 3, "changed": 2, "dropped": 0, "refused": 0}
    assert content["findings"]["PHONE_NUMBER"] == {"ja": 1}
    assert "names and addresses: not covered" in content["gaps"]


@pytest.mark.parametrize("action", ["mask", "hash", "replace", "drop"])
def test_no_value_reaches_any_output(redact, tmp_path, action):
    redact(RECORDS, action=action)
    for path in (tmp_path / "out").rglob("*"):
        if path.is_file():
            text = path.read_text(encoding="utf-8")
            assert not [value for value in VALUES if value in text], path


def test_findings_say_where_and_by_hash(redact):
    rows, report = redact([RECORDS[0], {"id": "2", "title": "０９０ー１２３４ー５６７８", "text": ""}], action="hash")
    first, mail, second = read(report / "findings.jsonl")
    place = {"id": "ja", "source": "records", "line": 1, "field": "text"}
    assert first == place | {"entity_type": "PHONE_NUMBER", "start": 3, "end": 16, "hash": first["hash"]}
    assert mail["entity_type"] == "EMAIL_ADDRESS"
    assert (second["field"], second["line"], second["hash"]) == ("title", 2, first["hash"])
    assert rows[1]["title"] == f"<PHONE_NUMBER:{first['hash']}>"


def test_pseudonyms_are_the_same_in_all_records_and_runs_with_the_key(redact, monkeypatch):
    def of_two_runs() -> list[str]:
        return [row["text"] for _ in range(2) for row in redact(rows, action="replace")[0]]

    rows = [{"id": str(n), "text": "연락처는010-2345-6789입니다", "language": "ko"} for n in range(2)]
    (new,) = set(of_two_runs())
    assert re.fullmatch(r"연락처는010-0\d{3}-\d{4}입니다", new)
    monkeypatch.delenv("REDACT_PII_KEY")
    assert len(set(of_two_runs())) == 2
    assert any(
        "differ between runs" in gap for gap in json.loads((redact(rows)[1] / "report.json").read_text())["gaps"]
    )


def test_drop_leaves_the_whole_record_out(redact):
    rows, report = redact(RECORDS, action="drop")
    assert [row["id"] for row in rows] == ["none"]
    assert json.loads((report / "report.json").read_text(encoding="utf-8"))["records"]["dropped"] == 2


def test_other_fields_only_when_asked_for(redact):
    row = {"id": "1", "text": "x", "author": {"mail": "taro@gmail.com"}}
    rows, report = redact([row])
    assert rows == [row]
    assert "fields not examined: author, id" in (report / "report.html").read_text(encoding="utf-8")
    assert redact([row], fields="text, author")[0][0]["author"] == {"mail": "<EMAIL_ADDRESS>"}


def test_what_cannot_be_examined_is_refused_without_its_text(redact, tmp_path):
    deep: object = "taro@gmail.com"
    for _ in range(900):
        deep = [deep]
    bad = [{"id": "a", "note": "taro@gmail.com"}, "taro@gmail.com", '{"id": "b", "text": "taro@gmail.com"']
    rows, report = redact([RECORDS[1], *bad, {"id": "c", "text": deep}], max_error_fraction=0.8)
    assert [row["id"] for row in rows] == ["none"]
    refused = read(report / "quarantine.jsonl")
    assert {row["id"] for row in refused} == {"a", "c", None}
    assert sorted(row["line"] for row in refused) == [2, 3, 4, 5]
    assert "taro@" not in "".join(path.read_text(encoding="utf-8") for path in report.iterdir())
    with pytest.raises(UserError, match="4 of 5 records were refused"):
        redact([RECORDS[1], *bad, {"id": "c", "text": deep}], max_error_fraction=0.5)


def test_above_max_error_fraction_there_are_no_records_but_the_quarantine(redact, tmp_path):
    with pytest.raises(UserError, match="1 of 2 records"):
        redact([RECORDS[1], {"id": "a"}])
    assert not (tmp_path / "out" / "redacted").exists()
    assert [row["id"] for row in read(tmp_path / "out" / "report" / "quarantine.jsonl")] == ["a"]


@pytest.mark.parametrize(
    "inputs, message",
    [
        ({"entity_types": "EMAIL"}, "'EMAIL' is not one of"),
        ({"regions": "XX"}, "'XX' is not the code of a region"),
        ({"fields": " , "}, "fields is empty"),
        ({"name_recognizer": "azure_ai_language"}, "needs language_endpoint"),
        ({"name_recognizer": "azure_ai_language", "language_endpoint": "http://x.example.com"}, "is not like https://"),
        ({"name_recognizer": "presidio", "spacy_models": "en"}, "is not like en="),
        ({"key_secret_url": "https://evil.example.com/secrets/k"}, "is not like https://NAME.vault.azure.net"),
    ],
)
def test_what_cannot_work_stops_before_any_output(redact, tmp_path, inputs, message):
    with pytest.raises(UserError, match=message):
        redact(RECORDS, **inputs)
    assert not (tmp_path / "out").exists()


def test_a_missing_recognizer_is_one_line_that_names_the_environment(redact, tmp_path):
    missing = "(presidio_analyzer|no_such_model): run the component in environments/privacy"
    with pytest.raises(UserError, match=f"needs the package {missing}"):
        redact(RECORDS, name_recognizer="presidio", spacy_models="ja=no_such_model")
    assert not (tmp_path / "out").exists()


def test_a_process_fails_with_one_line(run_component, tmp_path):
    done = run_component(
        "redact_pii",
        env={"REDACT_PII_KEY": "short"},
        records=write(tmp_path / "in", RECORDS),
        redacted_records=tmp_path / "out",
        report=tmp_path / "report",
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "redact_pii: error: the key in REDACT_PII_KEY has 5 bytes; give it 16 or more random ones"
    )
    assert not (tmp_path / "out").exists()


# --- key in Key Vault, Azure AI Language


def test_key_from_key_vault(load_main):
    load_main("redact_pii")
    import redaction_key

    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "https://kv.vault.azure.net/secrets/pii-key?api-version=7.4"
        assert request.headers["Authorization"] == "Bearer token for https://vault.azure.net/.default"
        return httpx.Response(200, json={"value": KEY})

    url = "https://kv.vault.azure.net/secrets/pii-key"
    assert redaction_key.load(url, httpx.MockTransport(answer), CREDENTIAL) == (KEY.encode(), True)
    with pytest.raises(UserError, match="answered 403: the identity of the compute needs the role"):
        redaction_key.load(url, httpx.MockTransport(lambda request: httpx.Response(403)), CREDENTIAL)


class LanguageService:
    """Names every 山田 a person and every 東京 an address, as Azure AI Language answers."""

    def __init__(self, *failures: httpx.Response) -> None:
        self.failures = list(failures)
        self.requests: list[list[dict]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/language/:analyze-text"
        assert request.headers["Authorization"] == "Bearer token for https://cognitiveservices.azure.com/.default"
        if self.failures:
            return self.failures.pop(0)
        body = json.loads(request.content)
        assert body["parameters"]["stringIndexType"] == "UnicodeCodePoint"
        documents = body["analysisInput"]["documents"]
        self.requests.append(documents)
        return httpx.Response(
            200,
            json={
                "results": {
                    "documents": [
                        {"id": document["id"], "entities": list(self.entities(document["text"]))}
                        for document in documents
                        if "失敗" not in document["text"]
                    ],
                    "errors": [
                        {"id": document["id"], "error": {"code": "InvalidArgument", "message": document["text"]}}
                        for document in documents
                        if "失敗" in document["text"]
                    ],
                }
            },
        )

    def entities(self, text: str):
        for name, category in (("山田", "Person"), ("東京", "Address"), ("営業", "PersonType")):
            for match in re.finditer(name, text):
                yield {"category": category, "offset": match.start(), "length": 2, "confidenceScore": 0.9}


@pytest.fixture
def language_service(redact, monkeypatch):
    import name_recognizers

    def start(*failures: httpx.Response) -> LanguageService:
        service = LanguageService(*failures)
        recognizer = name_recognizers.AzureAILanguage("https://x.example.com", httpx.MockTransport(service), CREDENTIAL)
        monkeypatch.setattr(name_recognizers, "load", lambda *_: recognizer)
        monkeypatch.setattr(name_recognizers.time, "sleep", lambda seconds: None)
        return service

    return start


def test_names_by_azure_ai_language(redact, language_service):
    service = language_service(httpx.Response(429, headers={"Retry-After": "1"}), httpx.Response(503))
    long = "あ" * 5100 + "山田" + "い" * 5100 + "東京"
    texts = ["営業の山田は😀東京にいる。電話は090-1234-5678", *(f"{n}番の山田" for n in range(6)), long]
    rows, report = redact(
        [{"id": str(n), "text": text, "language": "ja"} for n, text in enumerate(texts)],
        name_recognizer="azure_ai_language",
    )
    assert rows[0]["text"] == "営業の<PERSON>は😀<LOCATION>にいる。電話は<PHONE_NUMBER>"
    assert rows[-1]["text"] == "あ" * 5100 + "<PERSON>" + "い" * 5100 + "<LOCATION>"
    assert [len(documents) for documents in service.requests] == [5, 5]
    assert all(len(document["text"]) <= 5120 for documents in service.requests for document in documents)
    assert "not covered" not in (report / "report.html").read_text(encoding="utf-8")


def test_a_record_that_the_service_refuses_is_not_written(redact, language_service):
    language_service()
    rows = [{"id": str(n), "text": f"{n} 山田", "language": "ja"} for n in range(7)]
    rows[3]["text"] = "失敗 taro@gmail.com"
    new, report = redact(rows, name_recognizer="azure_ai_language", max_error_fraction=0.2)
    assert [row["id"] for row in new] == ["0", "1", "2", "4", "5", "6"]
    assert {row["text"][2:] for row in new} == {"<PERSON>"}
    (refused,) = read(report / "quarantine.jsonl")
    assert refused == {"id": "3", "source": "records", "line": 4, "reason": "RuntimeError while it was examined"}


def test_no_access_to_the_service_stops_the_step(redact, language_service, tmp_path):
    language_service(httpx.Response(401))
    with pytest.raises(UserError, match="answered 401: check language_endpoint"):
        redact(RECORDS, name_recognizer="azure_ai_language")
    assert not (tmp_path / "out" / "redacted").exists()


def test_languages_without_a_recognizer_are_named(redact, monkeypatch):
    import name_recognizers

    recognizer = SimpleNamespace(
        languages=frozenset(["ja"]), find_all=lambda texts: [[Finding(0, 2, "PERSON", 1.0)] for _ in texts]
    )
    monkeypatch.setattr(name_recognizers, "load", lambda *_: recognizer)
    rows = [{"id": "1", "text": "山田です", "language": "ja"}, {"id": "2", "text": "김민수입니다", "language": "ko"}]
    new, report = redact(rows, name_recognizer="presidio", action="replace")
    assert re.fullmatch(r"人物-[0-9a-f]{8}です", new[0]["text"])
    assert new[1] == rows[1]
    gaps = json.loads((report / "report.json").read_text(encoding="utf-8"))["gaps"]
    assert "names and addresses: not covered in ko (1 records)" in gaps


def test_names_by_presidio(redact):
    pytest.importorskip("presidio_analyzer", reason="presidio-analyzer is in environments/privacy only")
    pytest.importorskip("ja_ginza", reason="ja_ginza is in environments/privacy only")
    rows, _ = redact(
        [{"id": "1", "text": "山田太郎は東京都新宿区に住んでいます。", "language": "ja"}],
        name_recognizer="presidio",
        spacy_models="ja=ja_ginza",
    )
    assert rows[0]["text"] == "<PERSON>は<LOCATION>に住んでいます。"


# --- the parallel component

ENGINE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("entry", sys.argv.pop(1))
entry = importlib.util.module_from_spec(spec)
shards = sys.argv.pop(1).split(",")
spec.loader.exec_module(entry)
entry.init()
for shard in shards:
    assert len(entry.run([shard])) == 1
entry.shutdown()
"""


def as_the_engine(shards: list[Path], tmp_path: Path, **env: str) -> subprocess.CompletedProcess:
    """What a process of Azure ML's engine does: arguments of its own beside ours, init, run for each mini-batch."""
    arguments = {
        "records": tmp_path / "shards",
        "redacted_records": tmp_path / "parts",
        "report": tmp_path / "parts_report",
    }
    flags = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-c", ENGINE, str(FOLDER / "parallel_entry.py"), ",".join(map(str, shards))]
    return subprocess.run(
        [*command, "--mini_batch_size", "1", "--action", "replace", *flags, "--client_sdk_version", "1.0"],
        capture_output=True,
        text=True,
        env={"PATH": "", **env},
    )


def test_four_shards_in_two_processes_give_the_same_as_one(redact, tmp_path):
    rows = [{**row, "id": f"{row['id']}{n}"} for n in range(4) for row in RECORDS]
    shards = [write(tmp_path / "shards" / f"part-{n}.jsonl", rows[3 * n : 3 * n + 3]) for n in range(4)]
    others = [tmp_path / "shards" / "lineage.json", write(tmp_path / "shards" / ".half.jsonl", rows[:1])]
    others[0].write_text("{}")
    whole, report = redact(rows, action="replace")
    for mine in ([shards[0], shards[2], *others], [shards[1], shards[3]]):
        done = as_the_engine(mine, tmp_path, REDACT_PII_KEY=KEY)
        assert done.returncode == 0, done.stderr
    parts = tmp_path / "parts"
    assert sorted(path.name for path in parts.iterdir()) == [f"part-{n}.jsonl" for n in range(4)]
    assert [row for n in range(4) for row in read(parts / f"part-{n}.jsonl")] == whole
    assert json.loads((tmp_path / "parts_report" / "report.json").read_text()) == json.loads(
        (report / "report.json").read_text()
    )
    hashes = [
        row["hash"] for n in range(4) for row in read(tmp_path / f"parts_report/shards/part-{n}.jsonl/findings.jsonl")
    ]
    assert hashes == [row["hash"] for row in read(report / "findings.jsonl")]


def test_a_parallel_process_without_a_key_does_not_start(tmp_path):
    done = as_the_engine([write(tmp_path / "shards" / "a.jsonl", RECORDS)], tmp_path)
    assert done.returncode == 1
    assert "the processes of a parallel job need one key" in done.stderr
    assert not (tmp_path / "parts").exists()


def test_the_parallel_specification_is_the_same_work():
    from azure.ai.ml import load_component

    result = load_component(FOLDER / "parallel.yml")._validate()
    assert result.passed, result.error_messages
    one, many = (
        yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")) for name in ("component.yml", "parallel.yml")
    )
    assert many["version"] == one["version"]
    assert set(many["outputs"]) == set(one["outputs"])
    keys = ("type", "default", "enum", "optional", "min", "max")
    assert {name: [port.get(key) for key in keys] for name, port in many["inputs"].items() if name != "records"} == {
        name: [port.get(key) for key in keys] for name, port in one["inputs"].items() if name != "records"
    }
    assert many["task"]["program_arguments"].split() == one["command"].removeprefix("python main.py").split()
    assert (FOLDER / many["task"]["code"] / many["task"]["entry_script"]).is_file()
