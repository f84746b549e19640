"""Seeds from a listing, from prose and from tables; what is refused; teachers that fail; a kill in the middle."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from slmkit import document_chunks, records
from slmkit.errors import UserError
from tests.chat_endpoint import completion

EN = "No.: 1\nStore Name: BrightStore Central\nPhone Number: 02-5678-1234\nClosed: N\nDescription: Big. It is new."
JA = "項番: 1\n店舗名: ブライトストア\n電話番号: 02-5678-1234\n住所：3階、スタータワー"
KO = "번호: 1\n매장명: 빛나스토어\n주소: 서울특별시 중구\n전화번호: 02-5678-1234"
PROSE = (
    "Solar panels on the main library produce ninety kilowatts. Is that enough?\n"
    "The reading room opens at 8.30 and closes\nat midnight. Short one.\n"
)
FIELDS = ("question", "answer", "question_type")
ALL_TYPES = ["short", "boolean", "long"]


@pytest.fixture
def module(load_main):
    """A module of the component by name."""
    load_main("build_coverage_seed")
    return lambda name: sys.modules[name]


@pytest.fixture
def main(load_main):
    return load_main("build_coverage_seed")


@pytest.fixture
def pairs_from(module):
    teacher = module("extractive_teacher")

    def pairs(title, text, language, num_pairs=50, question_types=ALL_TYPES, seed=0):
        found = teacher.pairs_from(title, text, language, num_pairs, question_types, seed)
        return [(pair["question"], pair["answer"], pair["question_type"]) for pair in found]

    return pairs


def document(text, *, id="d1", media_type="text/csv", language="en", **fields):
    row = {"id": id, "text": text, "source": "s", "sha256": "0" * 64, "media_type": media_type, "language": language}
    return row | fields


def write_documents(path, *rows):
    with records.write_records(path) as write:
        for row in rows:
            write(row)
    return path


def read(path):
    return list(records.read_records(path))


@pytest.fixture
def build(run_component, tmp_path):
    """Run the component on documents; gives the process, the chats (None when absent), the quarantine, the report.

    Pairs about one fact and a single pass, unless the flags say otherwise.
    """

    def run(*documents, **flags):
        path = write_documents(tmp_path / "documents", *documents)
        chats, report = tmp_path / "chats", tmp_path / "report"
        flags = {"question_types": "short,boolean,long", "num_passes": 1} | flags
        done = run_component("build_coverage_seed", documents=path, chats=chats, report=report, **flags)
        counts = json.loads((report / "report.json").read_text()) if (report / "report.json").exists() else None
        quarantine = read(report / "quarantine.jsonl") if (report / "quarantine.jsonl").exists() else None
        return done, read(chats) if chats.exists() else None, quarantine, counts

    return run


def teacher_says(*pairs):
    return completion(json.dumps({"pairs": [dict(zip(FIELDS, pair, strict=True)) for pair in pairs]}))


# --- the embedded teacher


def test_english_listing(pairs_from):
    found = pairs_from("BrightStore Central", EN, "en")
    assert [(answer, kind) for _, answer, kind in found] == [
        ("02-5678-1234", "short"),  # neither the serial number nor the title itself
        ("N", "boolean"),
        ("Big. It is new.", "long"),  # two sentences
    ]
    assert found[0][0] in (
        "What is the Phone Number of BrightStore Central?",
        "Tell me the Phone Number of BrightStore Central.",
        "I need the Phone Number of BrightStore Central.",
        "Could you give me the Phone Number of BrightStore Central?",
    )
    assert found[1][0] in (
        'Is "Closed" Y or N for BrightStore Central?',
        'For BrightStore Central, is "Closed" Y or N?',
    )


def test_japanese_listing_with_full_width_colon_and_title_from_the_name_column(pairs_from):
    (phone, number, _), (address, place, _) = pairs_from("", JA, "ja")
    assert (number, place) == ("02-5678-1234", "3階、スタータワー")
    assert phone in (
        "ブライトストアの電話番号は何ですか？",
        "ブライトストアの電話番号を教えてください。",
        "ブライトストアの電話番号が知りたいです。",
        "ブライトストアの電話番号はどうなっていますか？",
    )
    assert address.startswith("ブライトストアの住所")


def test_korean_listing_takes_the_particle_of_the_last_sound(pairs_from):
    asked = {}
    for seed in range(40):  # every wording comes up
        for question, answer, _ in pairs_from("빛나스토어", KO + "\n규모: 150평\n휴무일: 월요일", "ko", seed=seed):
            asked.setdefault(answer, set()).add(question)
    assert asked["서울특별시 중구"] == {  # 주소 ends in a vowel
        "빛나스토어의 주소는 무엇인가요?",
        "빛나스토어의 주소를 알려 주세요.",
        "빛나스토어의 주소가 궁금합니다.",
        "빛나스토어의 주소는 어떻게 되나요?",
    }
    assert asked["월요일"] == {  # 휴무일 ends in a consonant
        "빛나스토어의 휴무일은 무엇인가요?",
        "빛나스토어의 휴무일을 알려 주세요.",
        "빛나스토어의 휴무일이 궁금합니다.",
        "빛나스토어의 휴무일은 어떻게 되나요?",
    }


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("주소", False),
        ("이름", True),
        ("A1", True),  # il
        ("B2", False),  # i
        ("URL", True),  # el
        ("FAX", False),
        ("규모(평)", True),
        ("", False),
    ],
)
def test_batchim(module, word, expected):
    assert module("extractive_fields").ends_in_consonant(word) is expected


def test_number_and_kind_of_pairs_are_kept_to(pairs_from):
    assert pairs_from("BrightStore Central", EN, "en", question_types=["boolean"])[0][1:] == ("N", "boolean")
    chosen = {pairs_from("BrightStore Central", EN, "en", num_pairs=1, seed=seed)[0][1] for seed in range(40)}
    assert chosen == {"02-5678-1234", "N", "Big. It is new."}
    assert pairs_from("t", EN, "en", seed=3) == pairs_from("t", EN, "en", seed=3)


def test_prose_is_asked_by_its_sentences(pairs_from):
    found = pairs_from("", PROSE, "en")
    assert [answer for _, answer, _ in found] == [  # not the question, not the short one; the broken line is joined
        "Solar panels on the main library produce ninety kilowatts.",
        "The reading room opens at 8.30 and closes at midnight.",
    ]
    for (question, _, kind), phrase in zip(found, ["Solar panels", "reading room opens"], strict=True):
        assert kind == "long"
        assert question in (f"What does the text say about {phrase}?", f"What is said about {phrase}?")


def test_japanese_and_korean_prose(pairs_from):
    ((question, answer, _),) = pairs_from("", "市内の公民館は、大雨のときに避難所になります。短い。", "ja")
    assert answer == "市内の公民館は、大雨のときに避難所になります。"
    assert question in ("「公民館」について、本文には何と書かれていますか？", "「公民館」について教えてください。")
    ((question, answer, _),) = pairs_from("안내", "주민센터에서 자원봉사자를 모집합니다.", "ko")
    assert answer == "주민센터에서 자원봉사자를 모집합니다."
    assert question in (
        '"안내"에서 "자원봉사자"에 대해 무엇이라고 하나요?',
        '"안내"의 "자원봉사자"에 대해 알려 주세요.',
    )


def test_tables_and_lists_under_headings(pairs_from):
    table = "| Room | Fee | Stay |\n| --- | :-: | --- |\n| Studio | $5 | |\n| Hall | $9 | 8 hours |"
    found = pairs_from("Guide", f"# Rooms\n\n{table}", "en")
    assert [answer for _, answer, _ in found] == ["$5", "$9", "8 hours"]
    for (question, *_), name in zip(found, ["Fee of Studio", "Fee of Hall", "Stay of Hall"], strict=True):
        assert name in question
    listing = "## North\n- Fee: $1\n- Seats: 20\n## South\n- Fee: $2\n- Seats: 30"
    found = pairs_from("Guide", listing, "en")
    assert [answer for _, answer, _ in found] == ["$1", "20", "$2", "30"]
    assert "Fee of South" in found[2][0]


@pytest.mark.parametrize("text", ["", "12 34", "Note: this", "https://example.com\nhttps://example.org", "A heading"])
def test_nothing_to_ask(pairs_from, text):
    assert pairs_from("", text, "en") == []


def test_another_prompt_is_refused(module):
    with pytest.raises(ValueError, match=r"prompts\.yml"):
        module("extractive_teacher").answer({"messages": [{"role": "user", "content": "Hello"}]})


# --- chunks and checks


def test_chunks_end_where_something_ends(module):
    chunks = document_chunks
    text = "First paragraph. It is short.\n\nSecond one. " + "Word " * 30 + "end.\n\n" + "x" * 130
    cut = chunks.cut(text, 100)
    assert cut[0] == "First paragraph. It is short.\n\nSecond one."
    assert cut[-2:] == ["x" * 100, "x" * 30]
    assert all(len(part) <= 100 and part in text for part in cut)
    assert "".join("".join(cut).split()) == "".join(text.split())
    row = document("Name: A\n" + "Text: " + "long " * 100)
    assert [chunk.text for chunk in chunks.chunks_of(row, 100)] == [row["text"].strip()]


@pytest.mark.parametrize(
    ("question", "answer", "kind", "text", "language", "expected"),
    [
        ("What is the phone number?", "02-5678-1234", "short", EN, "en", None),
        ("What is the phone number?", "5678-1234-99", "short", EN, "en", "ungrounded"),
        ("What is the number?", "567", "short", EN, "en", "ungrounded"),  # part of a number is another number
        ("How does it look?", "It is Big and New.", "long", EN, "en", None),  # all but stop words stand there
        ("What is its name?", "BrightStore Central, store number 99", "long", EN, "en", "ungrounded"),
        ("How does it look?", "Painted in gorgeous turquoise tones.", "long", EN, "en", "ungrounded"),
        ("電話番号は？", "02-5678-1234", "short", EN, "en", "wrong_language"),
        ("What is the phone number of ブライトストア?", "02-5678-1234", "short", JA, "ja", "wrong_language"),
        ("ブライトストアの電話番号は何ですか？", "02-5678-1234です。", "short", JA, "ja", None),
        ("場所はどこですか？", "It is on the third floor.", "short", JA, "ja", "wrong_language"),
        ("場所はどこですか？", "大阪の駅前です", "short", JA, "ja", "ungrounded"),
        ("規模はどのくらいですか？", "10坪です", "short", JA, "ja", "ungrounded"),
        ("전화번호가 무엇인가요?", "02-5678-1234입니다", "short", KO, "ko", None),
        ("빛나스토어의 주소는 무엇인가요?", "서울특별시 중구", "short", KO, "ko", None),
        ("빛나스토어의 주소는 무엇인가요?", "부산광역시 해운대구", "short", KO, "ko", "ungrounded"),
        ("Is the store BrightStore Central closed?", "No", "boolean", EN, "en", None),
        ("Is the moon made of green cheese?", "No", "boolean", EN, "en", "ungrounded"),
    ],
)
def test_reasons_to_refuse(module, question, answer, kind, text, language, expected):
    assert module("pair_checks").reason_to_refuse(question, answer, kind, text, language) == expected


# --- the component


def test_three_languages(build):
    documents = [
        document(EN, id="en", title="BrightStore Central"),
        document(JA, id="ja", title="ブライトストア"),
        document(KO, id="ko", title="빛나스토어"),
    ]
    done, chats, quarantine, report = build(*documents, num_pairs_per_chunk=2)
    assert done.returncode == 0, done.stderr
    assert "teacher=embedded: 6 chats from 3 of 3 chunks" in done.stdout
    assert [(chat["source_ids"], chat["language"]) for chat in chats] == [
        ([language], language) for language in ("en", "en", "ja", "ja", "ko", "ko")
    ]
    for chat in chats:
        records.check_chat(chat)
        text = {"en": EN, "ja": JA, "ko": KO}[chat["language"]]
        user, assistant = (message["content"] for message in chat["messages"])
        assert user.startswith(f"{text}\n\n")
        assert "\n" not in user.removeprefix(f"{text}\n\n")
        assert assistant in text
        assert chat["id"] == records.content_id(user, assistant)
    assert len({chat["id"] for chat in chats}) == 6
    assert quarantine == []
    counts = report["counts"]
    assert (counts["documents"], counts["chunks"], counts["pairs"], counts["chats"]) == (3, 3, 6, 6)
    assert report["teacher"] == "embedded"


def test_without_context_only_the_question_is_asked(build):
    _, chats, _, _ = build(document(KO, title="빛나스토어"), include_context="false", num_pairs_per_chunk=1)
    assert chats[0]["messages"][0]["content"].startswith("빛나스토어의 ")


def test_numbers_add_up_and_everything_refused_is_kept(build):
    documents = [
        document(EN, id="good"),
        document(EN, id="again"),  # the same text: its pairs are duplicates
        document("这家商店九点开门。", id="zh"),
        document("A heading", id="empty", media_type="text/plain"),
        {"id": "no text"},
    ]
    done, chats, quarantine, report = build(*documents, max_error_fraction=0.2)
    assert done.returncode == 0, done.stderr
    assert report["counts"] == {
        "documents": 5, "documents_refused": 1, "documents_with_chats": 1,
        "chunks": 4, "chunks_wanted": 3, "chunks_asked": 3, "chunks_in_other_languages": 1,
        "chunks_left_out": 0, "chunks_not_asked": 0, "chunks_with_chats": 1,
        "chunks_with_refused_pairs_only": 1, "chunks_without_pairs": 1,
        "pairs": 6, "pairs_duplicate": 3, "chats": 3, "chats_en": 3,
        "chats_boolean": 1, "chats_long": 1, "chats_short": 1,
    }  # fmt: skip
    assert [(row["reason"], row.get("document_id")) for row in quarantine] == [
        ("language zh is not one of en, ja, ko", "zh"),
        ("a document needs an id and a text", None),
        *[("duplicate", "again")] * 3,
        ("the teacher found nothing to ask", "empty"),
    ]
    again = build(*documents, max_error_fraction=0.2, concurrency=1)
    assert (again[1], again[3]["counts"]) == (chats, report["counts"])
    done, chats, quarantine, _ = build(*documents)
    assert done.returncode == 1
    assert "1 of 5 documents were refused" in done.stderr


def test_report_page_shows_examples_and_refusals(build, tmp_path):
    build(document(EN, title="BrightStore <Central>"), document(JA, id="ja"), document("这家商店九点开门。", id="zh"))
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "02-5678-1234" in page
    assert "BrightStore &lt;Central&gt;" in page
    assert "language zh is not one of" in page
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == [
        "lineage.json", "quarantine.jsonl", "report.html", "report.json", "uncovered_chunks.jsonl",
    ]  # fmt: skip


def test_max_num_chunks_is_spread_over_the_documents(build):
    documents = [document(f"Name: Shop {i}\nSeats: {i}0", id=f"d{i}") for i in range(9)]
    _, chats, _, report = build(*documents, max_num_chunks=3)
    assert [chat["source_ids"] for chat in chats] == [["d2"], ["d5"], ["d8"]]
    assert (report["counts"]["chunks_asked"], report["counts"]["chunks_left_out"]) == (3, 6)


def test_a_real_endpoint_is_asked_with_the_prompt_of_the_language(build, serve):
    endpoint = serve(
        lambda number, body: teacher_says(
            ("住所はどこですか？", "3階、スタータワー", "short"),
            ("What is the phone number?", "02-5678-1234", "short"),
            ("郵便番号は？", "123-4567", "short"),
            ("電話番号は？", "02-5678-1234", "short"),
        )
    )
    done, chats, quarantine, report = build(
        document(JA, title="ブライトストア"), teacher=endpoint.url, teacher_model="gpt-x", auth="none", seed=7
    )
    assert done.returncode == 0, done.stderr
    (body,) = endpoint.bodies
    assert (body["model"], body["seed"]) == ("gpt-x", 7)
    assert "日本語" in body["messages"][0]["content"]
    assert f"<title>ブライトストア</title>\n<text>\n{JA}\n</text>" in body["messages"][1]["content"]
    schema = body["response_format"]["json_schema"]["schema"]
    assert schema["$defs"]["Pair"]["properties"]["question_type"]["enum"] == [
        "short", "boolean", "long", "summary", "conversation",
    ]  # fmt: skip
    assert [chat["messages"][1]["content"] for chat in chats] == ["3階、スタータワー"]
    assert [row["reason"] for row in quarantine] == ["wrong_language", "ungrounded", "surplus"]
    assert report["usage"]["prompt_tokens"] == 10
    assert report["teacher"] == "gpt-x"


def test_failed_and_filtered_chunks_are_counted(build, serve):
    def reply(number, body):
        text = body["messages"][1]["content"]
        if "Bad" in text:
            return 400, {"error": {"code": "content_filter"}}
        return (422, {"error": {"message": "no"}}) if "Odd" in text else teacher_says(("What?", "Seats", "short"))

    endpoint = serve(reply)
    documents = [document(f"Name: {name} shop\nSeats: 10", id=name) for name in ("Good", "Bad", "Odd")]
    flags = {"teacher": endpoint.url, "auth": "none"}
    done, chats, quarantine, report = build(*documents, **flags)
    assert done.returncode == 1
    assert "1 of 3 chunks were refused" in done.stderr
    assert chats is None
    assert sorted((row["document_id"], row["reason"]) for row in quarantine) == [
        ("Bad", "the teacher or its content filter refused"),
        ("Odd", "HTTP 422: no"),
    ]
    assert len(endpoint.bodies) == 3
    done, chats, _, report = build(*documents, **flags, max_error_fraction=0.5)
    assert done.returncode == 0, done.stderr
    assert [chat["source_ids"] for chat in chats] == [["Good"]]
    counts = report["counts"]
    assert (counts["chunks_with_chats"], counts["chunks_filtered"], counts["chunks_failed"]) == (1, 1, 1)
    assert len(endpoint.bodies) == 5  # what was answered before the step failed is not asked again


def test_unreachable_teacher(build):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    done, chats, _, _ = build(document(EN), teacher=url, auth="none")
    assert (done.returncode, chats) == (1, None)
    assert f"nothing answers at {url}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            {"question_types": "short,essay"},
            "question_types: 'essay' is not one of short, boolean, long, summary, conversation",
        ),
        ({"question_types": ","}, "question_types is empty"),
        ({"teacher": "gpt"}, "'gpt' is not the URL of an endpoint"),
        ({"num_pairs_per_chunk": 0}, "below the minimum 1"),
    ],
)
def test_bad_parameters(build, flags, expected):
    done, chats, _, _ = build(document(EN), **flags)
    assert done.returncode != 0
    assert expected in done.stderr
    assert chats is None


def test_no_documents_and_nothing_to_ask(build):
    done, chats, _, _ = build()
    assert (done.returncode, chats) == (1, None)
    assert "no chat came out of 0 documents" in done.stderr
    done, chats, _, report = build(document("A heading", media_type="text/plain"))
    assert (done.returncode, chats) == (1, None)
    assert report["counts"]["chunks_without_pairs"] == 1


def test_killed_in_the_middle_goes_on_to_the_same_output(build, serve, tmp_path, root, main):
    def reply(number, body):
        seats = body["messages"][1]["content"].partition("Seats: ")[2].split()[0]
        if stall and number >= 12:
            time.sleep(30)
        return teacher_says((f"How many seats are there, {seats} or more?", seats, "short"))

    stall, endpoint = False, serve(reply)
    documents = [document(f"Name: Shop {i}\nSeats: {i}7", id=f"d{i}") for i in range(20)]
    flags = {"teacher": endpoint.url, "auth": "none", "concurrency": 2, "num_passes": 1, "question_types": "short"}
    _, undisturbed, _, report = build(*documents, **flags)
    assert len(undisturbed) == len(endpoint.bodies) == 20
    (tmp_path / "chats").unlink()

    stall, endpoint = True, serve(reply)
    flags["teacher"] = endpoint.url
    command = [sys.executable, str(root / "components" / "build_coverage_seed" / "main.py")]
    ports = {"documents": tmp_path / "documents", "chats": tmp_path / "chats", "report": tmp_path / "report"}
    command += [part for name, value in {**ports, **flags}.items() for part in (f"--{name}", str(value))]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(root / "components" / "_shared")})
    deadline = time.monotonic() + 60
    while len(endpoint.bodies) < 14 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "chats").exists()
    assert len(endpoint.bodies) == 14

    stall = False
    done, chats, _, again = build(*documents, **flags)
    assert done.returncode == 0, done.stderr
    assert chats == undisturbed
    assert again["counts"] == report["counts"]
    assert (again["usage"]["cached"], again["usage"]["requests"]) == (12, 8)
    assert len(endpoint.bodies) == 22  # 12 answered, 2 lost in the kill, 8 asked afterwards


def test_azure_is_the_default_sign_in_and_needs_https(main, tmp_path):
    write_documents(tmp_path / "documents", document(EN))
    args = main.Args(tmp_path / "documents", tmp_path / "chats", tmp_path / "report", teacher="http://example.org/v1")
    with pytest.raises(UserError, match="https"):
        main.run(args)


def test_real_rows(raw_data, run_component, tmp_path):
    collected = {name: tmp_path / name for name in ("documents", "held_out_documents", "manifest", "quarantine")}
    done = run_component("collect_documents", raw_data=raw_data, **collected)
    assert done.returncode == 0, done.stderr
    chats, report = tmp_path / "chats", tmp_path / "report"
    flags = {"question_types": "short,boolean,long", "num_passes": 1}
    done = run_component("build_coverage_seed", documents=collected["documents"], chats=chats, report=report, **flags)
    assert done.returncode == 0, done.stderr
    texts = {row["id"]: row for row in read(collected["documents"])}
    asked = {"en": 0, "ja": 0, "ko": 0}
    for chat in read(chats):
        source = texts[chat["source_ids"][0]]
        user, assistant = (message["content"] for message in chat["messages"])
        assert "".join(assistant.split()) in "".join(source["text"].split())  # verbatim, but for line breaks
        if source["media_type"] == "text/csv":
            assert source["title"] in user.rpartition("\n\n")[2]
            asked[chat["language"]] += 1
    assert asked == {"en": 15, "ja": 15, "ko": 15}  # five stores a file, three pairs each
    counts = json.loads((report / "report.json").read_text())["counts"]
    assert counts["documents"] == len(texts)
