"""collect_documents: what becomes of real files in each form, language and encoding, and of broken ones."""

import csv
import json
import os
import random
import zipfile
from pathlib import Path

import pypdf
import pytest

from slmkit.errors import UserError

CENTERS = {
    "en": [["Center name", "Address", "Phone"], ["Fern Hall", "3 Ferry Street, Old Town", ""]],
    "ja": [["施設名", "住所", "電話番号"], ["ちどり丘会館", "みなと町3丁目, 2番", ""]],
    "ko": [["시설명", "주소", "전화번호"], ["가람들 회관", "나루길 3, 2층", ""]],
}
PROSE = {
    "ja": [
        "休館日",
        "月曜日は休館です。",
        "公民館の開館時間は午前九時から午後八時までです。予約は窓口で受け付けます。",
    ],
    "ko": [
        "휴관일",
        "월요일은 쉽니다.",
        "주민센터는 오전 아홉 시부터 오후 여덟 시까지 엽니다. 예약은 창구에서 받습니다.",
    ],
}
ENCODINGS = {"ja": ["cp932", "euc_jp"], "ko": ["cp949", "euc_kr"]}


@pytest.fixture
def collect(load_main, tmp_path):
    """Run the component in this process on ``tmp_path / "raw"`` and give back documents, manifest and quarantine."""
    main = load_main("collect_documents")

    def run(raw: Path = tmp_path / "raw", **inputs):
        outputs = {name: tmp_path / "out" / name for name in ("documents", "manifest", "quarantine")}
        main.run(main.Args(raw_data=raw, **outputs, **{"max_error_fraction": 1.0, **inputs}))
        return [read(path) for path in outputs.values()]

    return run


@pytest.fixture
def raw(tmp_path) -> Path:
    (tmp_path / "raw").mkdir()
    return tmp_path / "raw"


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write_csv(path: Path, rows: list[list[str]], encoding: str, delimiter: str = ",") -> None:
    with path.open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def pdf(pages: list[list[str]]) -> bytes:
    """A PDF whose characters are UTF-16 codes with a ToUnicode map, which is how office programs embed any script."""
    cmap = "1 begincodespacerange <0000> <FFFF> endcodespacerange 1 beginbfrange <0000> <FFFF> <0000> endbfrange"
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{' '.join(f'{6 + 2 * i} 0 R' for i in range(len(pages)))}] >>",
        "<< /Type /Font /Subtype /Type0 /BaseFont /F /Encoding /Identity-H"
        " /DescendantFonts [4 0 R] /ToUnicode 5 0 R >>",
        "<< /Type /Font /Subtype /CIDFontType2 /BaseFont /F /DW 1000 /CIDSystemInfo"
        " << /Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>",
        f"<< /Length {len(cmap)} >>\nstream\n{cmap}\nendstream",
    ]
    for i, lines in enumerate(pages):
        shown = "".join(f"<{line.encode('utf-16-be').hex()}> Tj T*\n" for line in lines)
        content = f"BT /F1 11 Tf 60 780 Td 16 TL\n{shown}ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {7 + 2 * i} 0 R"
            " /Resources << /Font << /F1 3 0 R >> >> >>"
        )
        objects.append(f"<< /Length {len(content)} >>\nstream\n{content}\nendstream")
    body, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += f"{number} 0 obj\n{content}\nendobj\n"
    table = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    return (
        f"{body}xref\n0 {size}\n0000000000 65535 f \n{table}trailer\n<< /Size {size} /Root 1 0 R >>\n"
        f"startxref\n{len(body)}\n%%EOF\n"
    ).encode("ascii")


def docx(path: Path, *body: str) -> None:
    word = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    package = "http://schemas.openxmlformats.org/package/2006"
    office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(
            "[Content_Types].xml",
            f'<Types xmlns="{package}/content-types"><Default Extension="rels" ContentType='
            '"application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/word/document.xml" '
            'ContentType="application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"/></Types>',
        )
        file.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{package}/relationships"><Relationship Id="r" Type="{office}" '
            'Target="word/document.xml"/></Relationships>',
        )
        content = f'<w:document xmlns:w="{word}"><w:body>{"".join(body)}</w:body></w:document>'
        file.writestr("word/document.xml", content)


def paragraph(text: str, style: str = "") -> str:
    heading = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{heading}<w:r><w:t>{text}</w:t></w:r></w:p>"


def table(*rows: list[str]) -> str:
    cells = ["".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows]
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


# --- CSV


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        *[("en", encoding) for encoding in ("utf-8", "utf-8-sig", "utf-16")],
        *[("ja", encoding) for encoding in ("utf-8-sig", "utf-16", "cp932", "euc_jp")],
        *[("ko", encoding) for encoding in ("utf-8-sig", "utf-16", "cp949", "euc_kr")],
    ],
)
def test_a_csv_row_is_a_document_in_each_language_and_encoding(collect, raw, language, encoding):
    header, row = CENTERS[language]
    write_csv(raw / "centers.csv", CENTERS[language], encoding)
    (document,), (file,), quarantine = collect()
    # The comma within quotes is kept, the blank phone left out.
    assert document["text"] == f"{header[0]}: {row[0]}\n{header[1]}: {row[1]}"
    assert (document["title"], document["language"], document["line"]) == (row[0], language, 2)
    assert (file["status"], file["documents"], file["media_type"]) == ("read", 1, "text/csv")
    assert quarantine == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_delimiter_is_found_although_the_text_holds_the_others(collect, raw, delimiter):
    rows = [["Name", "Note"], ["Fern Hall", "red, green; blue, white"], ["Ivory Hall", "a; b; c; d, e"]]
    write_csv(raw / "centers.csv", rows, "utf-8", delimiter)
    documents, _, _ = collect()
    assert [document["text"] for document in documents] == [f"Name: {name}\nNote: {note}" for name, note in rows[1:]]


def test_broken_csv_rows_are_refused_with_their_line_and_the_others_kept(collect, raw):
    (raw / "centers.csv").write_text(
        'Name,Area\n"Fern\nHall",North\nIvory Hall\nHazel Hall,South,,\n\nAlder Hall,East,extra\n'
        '"Bad" Hall,West\nRowan Hall,East\n"Otter Hall,North\nlost,row\n',
        encoding="utf-8",
    )
    documents, (file,), quarantine = collect()
    assert [d["text"] for d in documents] == [
        "Name: Fern Hall\nArea: North",  # a line break within quotes is one cell
        "Name: Hazel Hall\nArea: South",  # spreadsheets write empty cells past the end
        "Name: Rowan Hall\nArea: East",
    ]
    assert [d["line"] for d in documents] == [2, 5, 9]
    assert [(entry["source"], entry["line"]) for entry in quarantine] == [("centers.csv", n) for n in (4, 7, 8, 10)]
    assert quarantine[0]["reason"] == "1 cells where the header has 2"
    assert "lines 10 to 11" in quarantine[3]["reason"]  # the quote that is never closed
    assert (file["status"], file["error"]) == ("partial", "1 cells where the header has 2")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (["No.", "Store Name", "Manager name"], "b"),
        (["Manager name", "title"], "b"),
        (["項番", "担当者名", "店舗名"], "c"),
        (["번호", "설명", "매장명"], "c"),
        (["번호", "담당자명", "이름"], "c"),
        (["Area", "Address", "Phone"], "a"),
    ],
)
def test_the_title_is_the_column_headed_as_a_name_else_the_first_with_letters(collect, raw, header, expected):
    write_csv(raw / "table.csv", [header, ["a", "b", "c"][: len(header)]], "utf-8")
    (document,), _, _ = collect()
    assert document["title"] == expected


# --- encodings


@pytest.mark.parametrize("language", PROSE)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "legacy 0", "legacy 1"])
def test_prose_of_a_few_characters_and_more_is_decoded_right(collect, raw, language, encoding):
    if encoding.startswith("legacy"):
        encoding = ENCODINGS[language][int(encoding[-1])]
    for number, text in enumerate(PROSE[language]):
        if len(text) > 3 or encoding != "euc_jp":  # three kanji alone are as good in cp949
            (raw / f"{number}.txt").write_text(text, encoding=encoding)
    documents, manifest, quarantine = collect()
    assert [document["text"] for document in documents] == PROSE[language][-len(documents) :]
    assert {document["language"] for document in documents} == {language}
    assert quarantine == [] and len(documents) >= 2
    assert {file["encoding"] for file in manifest} == {"cp949" if encoding == "euc_kr" else encoding}


def test_slices_of_the_samples_are_decoded_right(load_main, tmp_path, root):
    load_main("collect_documents")
    from text_decoding import detect_encoding

    samples = root / "pipelines" / "samples" / "documents"
    texts = {
        "cp932": (samples / "community-centers-ja.csv").read_text(encoding="cp932"),
        "cp949": (samples / "community-centers-ko.csv").read_text(encoding="utf-8"),
    }
    draw = random.Random(0)
    wrong = []
    for encoding, text in texts.items():
        for _ in range(200):
            start = draw.randrange(len(text) - 40)
            cut = text[start : start + 40]
            path = tmp_path / "cut.txt"
            path.write_bytes(cut.encode(encoding))
            if path.read_bytes().decode(detect_encoding(path)) != cut:
                wrong.append((encoding, cut))
    assert wrong == []


def test_western_windows_text_is_not_taken_for_japanese(collect, raw):
    text = "Das Café an der Größe-Straße ist “geöffnet” – täglich."
    (raw / "cafe.txt").write_text(text, encoding="cp1252")
    (document,), (file,), _ = collect()
    assert (document["text"], file["encoding"]) == (text, "cp1252")


@pytest.mark.parametrize("language", PROSE)
def test_an_encoding_that_shows_only_after_megabytes_of_ascii_is_found(collect, raw, language):
    plain = "open every day of the week but Sunday and Monday\n" * 40_000
    (raw / "large.txt").write_text(plain + PROSE[language][2], encoding=ENCODINGS[language][0])
    (document,), _, _ = collect()
    assert document["text"] == plain + PROSE[language][2]


def test_a_large_file_is_checked_to_its_end(collect, raw):
    plain = "open every day of the week but Sunday and Monday\n" * 40_000
    (raw / "large.txt").write_bytes((plain + "休館日\n").encode() + b"\xe3\x81\n")
    (raw / "small.txt").write_text("text", encoding="utf-8")
    (document,), manifest, _ = collect()
    assert document["source"] == "small.txt"
    assert "line 40002" in manifest[0]["error"]


def test_text_is_composed_and_cleaned(collect, raw):
    # Written on a Mac: 가람 in conjoining jamo; Windows line ends; a control character; three blank lines
    (raw / "note.txt").write_bytes("\u1100\u1161\u1105\u1161\u11b7 회관\r\n\x07둘째 줄  \n\n\n\n끝".encode())
    (document,), _, _ = collect()
    assert document["text"] == "가람 회관\n둘째 줄\n\n끝"


# --- other forms


def test_jsonl_lines_are_documents_and_a_broken_line_is_refused_with_its_number(collect, raw):
    lines = [
        '{"text": "会館は月曜日に休みです。", "title": "休館日", "views": 3}',
        '{"question": "언제 여나요?", "level": 100, "open": true, "tags": ["a"], "none": null}',
        "not json",
        "",
        "[1]",
        '{"tags": ["a"]}',
        '{"text": "lone \\ud800 surrogate"}',
    ]
    (raw / "facts.jsonl").write_text("\n".join(lines), encoding="utf-8")
    documents, _, quarantine = collect()
    assert [(d["text"], d.get("title"), d["line"], d["language"]) for d in documents] == [
        ("会館は月曜日に休みです。", "休館日", 1, "ja"),
        ("question: 언제 여나요?\nlevel: 100\nopen: true", None, 2, "ko"),
        ("lone \ufffd surrogate", None, 7, "en"),
    ]
    assert [(entry["line"], entry["reason"].split(":")[0]) for entry in quarantine] == [
        (3, "not JSON"),
        (5, "not a JSON object but a list"),
        (6, "no field 'text' and no other field with a plain value"),
    ]


def test_markdown_is_titled_by_its_first_heading_outside_code(collect, raw):
    (raw / "guide.md").write_text("```\n# a comment\n```\n\n## 이용 *안내* ##\n\n본문입니다.\n", encoding="utf-8")
    (document,), _, _ = collect()
    assert document["title"] == "이용 *안내"  # Markdown marks at the ends are taken off
    assert document["text"].endswith("본문입니다.")


@pytest.mark.parametrize("encoding", ["utf-8", "cp932"])
def test_html_keeps_headings_and_tables_and_drops_scripts(collect, raw, encoding):
    (raw / "page.html").write_text(
        f"<html><head><meta charset='{encoding}'><title>案内</title><style>p {{}}</style></head><body>"
        "<h1>開館のご案内</h1><p>予約は<b>窓口</b>で受け付けます。</p><script>alert(1)</script>"
        "<table><tr><th>曜日</th><th>時間</th></tr><tr><td>土曜日</td><td>9時～17時</td></tr></table></body></html>",
        encoding=encoding,
    )
    (document,), _, _ = collect()
    assert (document["title"], document["language"]) == ("開館のご案内", "ja")
    assert document["text"] == (
        "# 開館のご案内\n\n予約は**窓口**で受け付けます。\n\n| 曜日 | 時間 |\n| --- | --- |\n| 土曜日 | 9時～17時 |"
    )


def test_docx_keeps_text_and_tables_with_the_first_row_as_head(collect, raw):
    rows = (["방", "요금"], ["회의실", "3,000원"])
    docx(raw / "요금표.docx", paragraph("이용 요금을 알려 드립니다."), table(*rows))
    (document,), (file,), _ = collect()
    assert document["text"] == "이용 요금을 알려 드립니다.\n\n| 방 | 요금 |\n| --- | --- |\n| 회의실 | 3,000원 |"
    assert (document["title"], document["language"], file["path"]) == ("요금표", "ko", "요금표.docx")


def test_a_pdf_page_is_a_document_with_its_line_breaks_joined(collect, raw):
    english = """Rooms
Every center lends its rooms to the peo-
ple of the city, and a booking is free of
charge until noon.
Keys
A deposit is taken for each of the keys."""
    japanese = """公民館の部屋は市民ならどなたでも使うこ
とができます。予約は三十日前から受け付
けています。"""
    korean = """주민센터의 방은 시민이라면 누구나 쓸 수 있으며
예약은 서른 날 전부터 창구에서 받고
있습니다."""
    (raw / "guide.pdf").write_bytes(pdf([text.splitlines() for text in (english, japanese, korean)]))
    documents, _, quarantine = collect()
    assert [(d["page"], d["language"], d["text"]) for d in documents] == [
        (
            1,
            "en",
            "Rooms\nEvery center lends its rooms to the people of the city, and a booking is free of charge until noon."
            "\nKeys\nA deposit is taken for each of the keys.",
        ),
        (2, "ja", "公民館の部屋は市民ならどなたでも使うことができます。予約は三十日前から受け付けています。"),
        (3, "ko", "주민센터의 방은 시민이라면 누구나 쓸 수 있으며 예약은 서른 날 전부터 창구에서 받고 있습니다."),
    ]
    assert quarantine == []


def test_running_heads_and_feet_of_a_pdf_are_left_out_and_blank_pages_named(collect, raw):
    bodies = [["First body."], ["Second body."], [], ["Third body."]]
    pages = [["City report", *body, f"page {n} of 4"] if body else [] for n, body in enumerate(bodies, start=1)]
    (raw / "report.pdf").write_bytes(pdf(pages))
    documents, (file,), quarantine = collect()
    assert [(d["page"], d["text"]) for d in documents] == [(1, "First body."), (2, "Second body."), (4, "Third body.")]
    assert quarantine[0] | {"reason": ""} == {"source": "report.pdf", "page": 3, "reason": ""}
    assert file["status"] == "partial"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            ["Opening hours", "Monday to Friday from nine to five, and on the last", "Saturday from ten until noon."],
            "Opening hours\nMonday to Friday from nine to five, and on the last Saturday from ten until noon.",
        ),
        (  # a heading after a paragraph whose last line is full
            ["Open from nine in the morning.", "Holidays", "The hall is closed on holidays", "and in January."],
            "Open from nine in the morning.\nHolidays\nThe hall is closed on holidays and in January.",
        ),
        (
            ["Bring a towel and a water bottle", "• a cup", "• 毛布", "", "See the long list of all things"],
            "Bring a towel and a water bottle\n• a cup\n• 毛布\n\nSee the long list of all things",
        ),
        (
            ["see https://example.org/rooms-", "and-halls for a well-known-to-", "all list"],
            "see https://example.org/rooms-and-halls for a well-known-to-all list",
        ),
    ],
)
def test_only_lines_that_fill_their_column_are_joined(load_main, lines, expected):
    load_main("collect_documents")
    from document_readers import join_lines

    assert join_lines(lines) == expected


# --- ids and order


def test_ids_stay_when_rows_are_put_before_and_equal_rows_get_ids_of_their_own(collect, raw):
    rows = [["Name", "Area"], ["Fern Hall", "North"], ["Fern Hall", "North"], ["Ivory Hall", "South"]]
    write_csv(raw / "centers.csv", rows, "utf-8")
    before, _, _ = collect()
    write_csv(raw / "centers.csv", [rows[0], ["Alder Hall", "East"], *rows[1:]], "utf-8")
    after, _, _ = collect()
    ids = [document["id"] for document in before]
    assert len(set(ids)) == 3
    assert [document["id"] for document in after][1:] == ids


def test_two_runs_write_the_same_bytes_whatever_the_order_of_the_files(collect, raw, tmp_path):
    for name in ("b.txt", "a/z.md", "a.txt", "A.txt"):
        (raw / name).parent.mkdir(exist_ok=True)
        (raw / name).write_text(f"text of {name}", encoding="utf-8")
    documents, _, _ = collect()
    first = (tmp_path / "out" / "documents").read_bytes()
    other = tmp_path / "other"
    for name in ("a.txt", "A.txt", "b.txt", "a/z.md"):
        (other / name).parent.mkdir(exist_ok=True, parents=True)
        (other / name).write_text(f"text of {name}", encoding="utf-8")
    collect(other)
    assert [document["source"] for document in documents] == ["A.txt", "a.txt", "a/z.md", "b.txt"]
    assert (tmp_path / "out" / "documents").read_bytes() == first


# --- bad input


def encrypted_pdf() -> bytes:
    import io

    writer = pypdf.PdfWriter(clone_from=pypdf.PdfReader(io.BytesIO(pdf([["Secret body."]]))))
    writer.encrypt("secret", algorithm="RC4-128")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


def test_unreadable_files_are_refused_each_with_its_reason(collect, raw, tmp_path):
    docx(raw / "whole.docx", paragraph("text"))
    bad = {
        "cut.docx": (raw / "whole.docx").read_bytes()[:200],
        "cut.pdf": pdf([["body"]])[:120],
        "empty.csv": b"",
        "encrypted.pdf": encrypted_pdf(),
        "header-only.csv": b"Name,Area\n",
        "mixed.txt": "日本語".encode() + "한국어".encode("cp949") + b"\xff\x80",
        "picture.png": b"\x89PNG",
        "program.txt": b"MZ\0\0\0",
        "scan.pdf": pdf([[]]),
    }
    for name, content in bad.items():
        (raw / name).write_bytes(content)
    documents, manifest, quarantine = collect()
    reasons = {entry["source"]: entry["reason"] for entry in quarantine}
    expected = {
        "cut.docx": "not a Word document: cut short",
        "cut.pdf": "cannot be read: ",
        "empty.csv": "the file is empty",
        "encrypted.pdf": "an encrypted PDF: it needs a password",
        "header-only.csv": "no text in it",
        "mixed.txt": "no text in UTF-8 (",
        "picture.png": "unknown type .png; known: .csv",
        "program.txt": "holds zero bytes: binary",
        "scan.pdf": "no text on this page",
    }
    assert {name: reasons[name][: len(reason)] for name, reason in expected.items()} == expected
    assert [document["source"] for document in documents] == ["whole.docx"]
    statuses = {file["path"]: (file["status"], file["error"]) for file in manifest}
    assert statuses == {"whole.docx": ("read", None)} | {name: ("refused", reasons[name]) for name in bad}


def test_hidden_files_are_skipped_and_links_that_lead_out_not_followed(collect, raw, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text("a secret", encoding="utf-8")
    (raw / "link.txt").symlink_to(outside / "secret.txt")
    (raw / "folder").symlink_to(outside)
    (raw / ".hidden").mkdir()
    for name in (".hidden/a.txt", ".b.txt", "~$guide.docx"):
        (raw / name).write_text("hidden", encoding="utf-8")
    (raw / "note.txt").write_text("a note", encoding="utf-8")
    (raw / "same.txt").symlink_to(raw / "note.txt")
    os.mkfifo(raw / "pipe.txt")
    documents, _, quarantine = collect()
    assert [(d["source"], d["text"]) for d in documents] == [("note.txt", "a note"), ("same.txt", "a note")]
    assert {entry["source"]: entry["reason"] for entry in quarantine} == {
        "folder": "a link that leads out of the folder is not followed",
        "link.txt": "a link that leads out of the folder is not followed",
        "pipe.txt": "not a regular file",
    }


def test_file_names_that_are_not_utf_8_are_shown_with_replacement_characters(load_main, raw):
    main = load_main("collect_documents")
    for name in ("案内.txt".encode("cp932"), b"data.\xff"):  # as unpacked from a zip file made on Japanese Windows
        (raw / os.fsdecode(name)).write_bytes(b"text")
    found = {}
    for path in main.list_files(raw):
        row = {"path": main.source_of(path, raw)}
        (found[row["path"]],) = main.read_documents(path, raw, row)
    assert json.dumps(found, ensure_ascii=False).encode()  # no surrogates are left that UTF-8 refuses
    assert found["\ufffd\u0113\ufffd.txt"]["text"] == "text"
    assert found["data.\ufffd"].reason.startswith("unknown type .\ufffd; known: .csv")


def test_a_docx_that_unpacks_to_too_much_is_refused(collect, raw, load_main, monkeypatch):
    load_main("collect_documents")
    import document_readers

    docx(raw / "bomb.docx", paragraph("a" * 10_000))
    monkeypatch.setattr(document_readers, "MAX_UNPACKED_BYTES", 5_000)
    with pytest.raises(UserError, match="no file in it could be read"):
        collect()


def test_above_max_error_fraction_the_step_stops_and_the_quarantine_stays(run_component, raw, tmp_path):
    (raw / "good.txt").write_text("text", encoding="utf-8")
    for name in ("a.bin", "b.bin", "c.bin"):
        (raw / name).write_bytes(b"\0")
    outputs = {name: tmp_path / name for name in ("documents", "manifest", "quarantine")}
    result = run_component("collect_documents", raw_data=raw, max_error_fraction=0.7, **outputs)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith(
        f"collect_documents: error: 3 of 4 files in {raw} were refused, which is more than max_error_fraction=0.7"
    )
    assert not outputs["documents"].exists()
    assert len(read(outputs["quarantine"])) == 3 and len(read(outputs["manifest"])) == 4
    assert run_component("collect_documents", raw_data=raw, max_error_fraction=0.75, **outputs).returncode == 0
    assert [document["text"] for document in read(outputs["documents"])] == ["text"]


@pytest.mark.parametrize(
    ("make", "code", "message"),
    [
        (lambda path: None, 2, "no file or folder at"),
        (lambda path: path.mkdir(), 1, "the folder holds no files; put documents (.csv"),
        (lambda path: path.write_text("x"), 1, "a file, not a folder"),
        (lambda path: (path.mkdir(), (path / "a.bin").touch()), 1, "no file in it could be read"),
    ],
)
def test_nothing_to_read_is_one_clear_line(run_component, tmp_path, make, code, message):
    make(tmp_path / "raw")
    outputs = {name: tmp_path / name for name in ("documents", "manifest", "quarantine")}
    result = run_component("collect_documents", raw_data=tmp_path / "raw", max_error_fraction=1, **outputs)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
    assert not outputs["documents"].exists()


# --- the samples, and real documents


def test_the_samples_are_all_read(run_component, root, tmp_path):
    samples = root / "pipelines" / "samples" / "documents"
    outputs = {name: tmp_path / name for name in ("documents", "manifest", "quarantine")}
    result = run_component("collect_documents", raw_data=samples, **outputs)
    assert result.returncode == 0, result.stderr
    documents, manifest, quarantine = (read(path) for path in outputs.values())
    assert {file["path"]: (file["encoding"], file["documents"], file["status"]) for file in manifest} == {
        "annual-report-en.pdf": (None, 2, "read"),
        "booking-guide-en.md": ("utf-8", 1, "read"),
        "community-centers-en.csv": ("utf-8-sig", 100, "read"),
        "community-centers-ja.csv": ("cp932", 105, "read"),
        "community-centers-ko.csv": ("utf-8", 105, "read"),
        "culture-courses-ja.docx": (None, 1, "read"),
        "disaster-shelter-ja.html": ("utf-8", 1, "read"),
        "volunteer-guide-ko.txt": ("cp949", 1, "read"),
    }
    assert quarantine == []
    assert len({document["id"] for document in documents}) == 316
    assert all(f"-{document['language']}." in document["source"] for document in documents)
    titles = [document["title"] for document in documents if document["source"].endswith(".csv")]
    assert len(set(titles)) == 310
    assert sum(path.stat().st_size for path in samples.iterdir()) < 300_000
    assert json.loads((tmp_path / "documents.lineage.json").read_text())["component"] == "collect_documents"


def test_real_documents_in_three_languages(collect, raw_data):
    documents, manifest, quarantine = collect(raw_data)
    assert quarantine == []
    assert {file["path"]: file["documents"] for file in manifest} == {
        "glan-instructions-english.jsonl": 13,
        "glan-instructions-japanese.jsonl": 13,
        "glan-instructions-korean.jsonl": 16,
        "imagenet-training-en.pdf": 9,
        "store-information-en.csv": 5,
        "store-information-jp.csv": 5,
        "store-information-ko.csv": 5,
    }
    first = {document["source"]: document for document in reversed(documents)}
    japanese = first["store-information-jp.csv"]
    assert (japanese["title"], japanese["language"]) == ("ブライトストアセントラル", "ja")
    assert japanese["text"].startswith("項番: 1\n店舗名: ブライトストアセントラル\n")  # the byte-order mark is gone
    english = first["store-information-en.csv"]["text"].splitlines()
    assert english[2] == "Address: 3rd Floor, Star Tower, 10000 Myeongdong-ro, Jung-gu, Seoul"
    assert (first["store-information-ko.csv"]["title"], first["store-information-ko.csv"]["language"]) == (
        "빛나스토어 중앙점",
        "ko",
    )
    pages = [document["text"] for document in documents if document["source"].endswith(".pdf")]
    assert "distributed GPU training using Horovod for experimental purposes." in pages[0]  # broken over two lines
    assert "오전" not in "".join(pages)  # the browser's foot line
