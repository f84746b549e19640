"""collect_documents: what becomes of real files in each form, language and encoding, and of broken ones."""

import csv
import datetime
import hashlib
import io
import json
import os
import random
import subprocess
import sys
import unicodedata
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
        held_out = tmp_path / "out" / "held_out_documents"
        main.run(
            main.Args(raw_data=raw, held_out_documents=held_out, **outputs, **{"max_error_fraction": 1.0, **inputs})
        )
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
    (document,), _, _ = collect(max_document_chars=3_000_000)
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
    from pdf_reader import join_lines

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
        "cut.docx": "not an Office file: cut short",
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


def test_file_names_that_are_not_utf_8_are_shown_with_replacement_characters(collect, raw):
    for name in ("案内.txt".encode("cp932"), b"data.\xff"):  # as unpacked from a zip file made on Japanese Windows
        (raw / os.fsdecode(name)).write_bytes(b"text")
    (document,), manifest, (refused,) = collect()
    assert (document["source"], document["text"]) == ("\ufffd\u0113\ufffd.txt", "text")
    assert refused["source"] == "data.\ufffd"
    assert refused["reason"].startswith("unknown type .\ufffd; known: .csv")
    assert [file["path"] for file in manifest] == ["data.\ufffd", "\ufffd\u0113\ufffd.txt"]


def test_a_docx_that_unpacks_to_too_much_is_refused(collect, raw, load_main, monkeypatch):
    load_main("collect_documents")
    import office_reader

    docx(raw / "bomb.docx", paragraph("a" * 10_000))
    monkeypatch.setattr(office_reader, "MAX_XML_BYTES", 5_000)
    with pytest.raises(UserError, match="no file in it could be read"):
        collect()


def test_above_max_error_fraction_the_step_stops_and_the_quarantine_stays(run_component, raw, tmp_path):
    (raw / "good.txt").write_text("text", encoding="utf-8")
    for name in ("a.bin", "b.bin", "c.bin"):
        (raw / name).write_bytes(b"\0")
    outputs = {name: tmp_path / name for name in ("documents", "held_out_documents", "manifest", "quarantine")}
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
    outputs = {name: tmp_path / name for name in ("documents", "held_out_documents", "manifest", "quarantine")}
    result = run_component("collect_documents", raw_data=tmp_path / "raw", max_error_fraction=1, **outputs)
    assert (result.returncode, result.stdout) == (code, "")
    assert message in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
    assert not outputs["documents"].exists()


# --- slides and workbooks


def test_a_slide_is_a_document_with_its_table_and_notes(collect, raw):
    from PIL import Image
    from pptx import Presentation
    from pptx.util import Inches

    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "이용 안내", "월요일은 쉽니다."
    slide.notes_slide.notes_text_frame.text = "예약은 창구에서 받습니다."
    deck.slides.add_slide(deck.slide_layouts[6])  # blank
    slide = deck.slides.add_slide(deck.slide_layouts[6])
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(3), Inches(1)).table
    for i, text in enumerate(["Room", "Fee", "Hall", "30"]):
        table.cell(i // 2, i % 2).text = text
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    slide.shapes.add_picture(picture, 0, 0)  # described by its file's name alone
    slide.shapes.add_picture(picture, 0, 0)._element.nvPicPr.cNvPr.set("descr", "A map of the hall")
    deck.save(raw / "deck.pptx")
    documents, (file,), _ = collect()
    assert [(d["page"], d["title"], d["language"], d["text"]) for d in documents] == [
        (1, "이용 안내", "ko", "# 이용 안내\n월요일은 쉽니다.\n\n### Notes:\n예약은 창구에서 받습니다."),
        (3, "deck", "en", "A map of the hall\n| Room | Fee |\n| --- | --- |\n| Hall | 30 |"),
    ]
    assert file["status"] == "read"


def workbook(path: Path, sheets: dict[str, list[list]], merged: list[str] = ()) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    for cells in merged:
        book.worksheets[0].merge_cells(cells)
    book.save(path)


def edit_sheet(path: Path, *changes: tuple[str, str]) -> None:
    """Replace text in the first sheet's XML, which openpyxl would not write so."""
    with zipfile.ZipFile(path) as package:
        parts = {name: package.read(name) for name in package.namelist()}
    sheet = parts["xl/worksheets/sheet1.xml"].decode()
    for old, new in changes:
        assert old in sheet
        sheet = sheet.replace(old, new)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as package:
        for name, content in (parts | {"xl/worksheets/sheet1.xml": sheet.encode()}).items():
            package.writestr(name, content)


def test_the_rows_of_a_sheet_with_a_header_are_documents(collect, raw):
    rows = [
        ["施設一覧"],
        ["地区", "施設名", "開館日", "料金", "駐車場"],
        ["北", "ちどり丘会館", datetime.date(2024, 4, 1), 300, True],
        [None, "みなと会館", datetime.datetime(2024, 4, 2, 9, 30), 0.1 + 0.2, None],
        [None, "港の家", None, "=SUM(D3:D4)", None],
        ["南", "川辺会館", datetime.time(9, 30), "=D3*2", None],
    ]
    workbook(raw / "book.xlsx", {"施設": rows, "空": []}, merged=["A1:E1", "A3:A5"])
    edit_sheet(raw / "book.xlsx", ("<f>SUM(D3:D4)</f><v></v>", "<f>SUM(D3:D4)</f><v>300.3</v>"))
    documents, (file,), quarantine = collect()
    assert [(d.get("line"), d["title"], d["text"].replace("\n", ", ")) for d in documents] == [
        (None, "施設", "施設一覧"),
        (3, "ちどり丘会館", "地区: 北, 施設名: ちどり丘会館, 開館日: 2024-04-01, 料金: 300, 駐車場: TRUE"),
        (4, "みなと会館", "地区: 北, 施設名: みなと会館, 開館日: 2024-04-02 09:30:00, 料金: 0.3"),  # merged with A3
        (5, "港の家", "地区: 北, 施設名: 港の家, 料金: 300.3"),  # what Excel has calculated
        (6, "川辺会館", "地区: 南, 施設名: 川辺会館, 開館日: 09:30:00"),
    ]
    assert {(d["page"], d["language"]) for d in documents} == {(1, "ja")}
    # The one formula that was never calculated is not lost without a word.
    assert [(q["page"], q["reason"][:40]) for q in quarantine] == [(1, "sheet '施設': 1 formulas have no stored va")]
    assert file["status"] == "partial"


def test_a_sheet_without_a_header_is_one_text(collect, raw):
    form = [[None, "Application"], [None, None, None, "Name", None, None, "Fern Hall"], ["Date", "2024"], ["Seal"]]
    workbook(raw / "form.xlsx", {"Form": form, "List": [["one"], ["two"]]})
    documents, _, quarantine = collect()
    assert [(d["page"], d["title"], d["text"]) for d in documents] == [
        (1, "Form", "Application\nName | Fern Hall\nDate | 2024\nSeal"),
        (2, "List", "one\ntwo"),
    ]
    assert quarantine == []


def test_a_sheet_may_declare_any_size(collect, raw):
    rows = {"Rooms": [["Name", "Fee"], ["Hall", 3]]}
    for name in ("wide.xlsx", "last.xlsx", "far.xlsx"):
        workbook(raw / name, rows)
    edit_sheet(raw / "wide.xlsx", ('<dimension ref="A1:B2"', '<dimension ref="A1:XFD1048576"'))
    for name, row in (("last.xlsx", "1048576"), ("far.xlsx", "99999999999")):
        edit_sheet(raw / name, ('r="2"', f'r="{row}"'), ('r="A2"', f'r="A{row}"'), ('r="B2"', f'r="B{row}"'))
    documents, _, quarantine = collect()
    assert [(d["source"], d["line"], d["text"]) for d in documents] == [
        ("last.xlsx", 1048576, "Name: Hall\nFee: 3"),
        ("wide.xlsx", 2, "Name: Hall\nFee: 3"),
    ]
    assert [(q["source"], q["reason"][:42]) for q in quarantine] == [
        ("far.xlsx", "sheet 'Rooms' goes on after row 1048576, t")
    ]


def test_cells_that_share_one_long_text_do_not_multiply_it(collect, raw):
    rooms = [["Name", "Fee"], *([f"Hall {n}", n] for n in range(30)), ["a long text " * 100] * 1000]
    workbook(raw / "book.xlsx", {"Rooms": rooms})
    documents, _, (refused,) = collect()
    assert [d["title"] for d in documents] == [f"Hall {n}" for n in range(30)]
    assert refused["reason"] == "sheet 'Rooms', row 32: longer than max_document_chars=1000000"


def test_unreadable_office_files_are_refused_each_with_its_reason(collect, raw):
    workbook(raw / "good.xlsx", {"Rooms": [["Name", "Fee"], ["Hall", 3]]})
    good = (raw / "good.xlsx").read_bytes()
    bombs = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
    for name, reference in (("bomb.xlsx", "&l9;"), ("outside.xlsx", "&file;")):
        (raw / name).write_bytes(good)
        entities = f'<!DOCTYPE x [<!ENTITY l0 "lol">{bombs}<!ENTITY file SYSTEM "file:///etc/passwd">]><worksheet'
        edit_sheet(raw / name, ("<worksheet", entities), ("<v>3</v>", f"<v>{reference}</v>"), ('t="n"', 't="str"'))
    (raw / "cut.xlsx").write_bytes(good[:400])
    (raw / "cut.pptx").write_bytes(good[:400])
    (raw / "password.xlsx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600))
    (raw / "other.docx").write_bytes(good)
    (raw / "other.pptx").write_bytes(good)
    documents, _, quarantine = collect()
    assert [d["source"] for d in documents] == ["good.xlsx"]
    assert {q["source"]: q["reason"][:22] for q in quarantine} == {
        "bomb.xlsx": "cannot be read: ValueE",
        "cut.pptx": "not an Office file: cu",
        "cut.xlsx": "not an Office file: cu",
        "other.docx": "not the Office file th",
        "other.pptx": "not the Office file th",
        "outside.xlsx": "cannot be read: ValueE",
        "password.xlsx": "protected by a passwor",
    }
    assert "root" not in json.dumps(quarantine)  # of /etc/passwd


# --- tables of HTML


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (  # no head is marked, and a cell holds the mark of columns
            "<table><tr><td>Room</td><td>Fee</td></tr><tr><td>A|B</td><td>3<br>or 4</td></tr></table>",
            "| Room | Fee |\n| --- | --- |\n| A\\|B | 3 or 4 |",
        ),
        (
            "<table><tr><th rowspan=2>방</th><th colspan=2>요금</th></tr><tr><th>평일</th><th>주말</th></tr>"
            "<tr><td rowspan='2'>회의실</td><td>1</td><td>2</td></tr><tr><td>3</td><td>4</td></tr></table>",
            "| 방 | 요금 | 요금 |\n| --- | --- | --- |\n| 방 | 평일 | 주말 |\n| 회의실 | 1 | 2 |\n| 회의실 | 3 | 4 |",
        ),
        (  # a table that only lays out the page
            "<table><tr><td>Menu</td><td><table><tr><th>Day</th></tr><tr><td>Sunday</td></tr></table></td></tr></table>",
            "Menu\n\n| Day |\n| --- |\n| Sunday |",
        ),
        ("<table><tr><td colspan='x' rowspan='-1'>a</td></tr></table>", "| a |\n| --- |"),
    ],
)
def test_tables_of_html_keep_their_columns(collect, raw, html, expected):
    (raw / "page.html").write_text(html, encoding="utf-8")
    (document,), _, _ = collect()
    assert document["text"] == expected


def test_pages_made_to_exhaust_the_reader_are_bounded(collect, raw):
    (raw / "deep.html").write_text("<table><tr><td>" * 3000 + "bare text")
    (raw / "spans.html").write_text(f"<table>{'<tr><td rowspan=60000 colspan=60000>x</td></tr>' * 2000}</table>")
    (raw / "large.html").write_bytes(b"<p>" + b"a" * (8 << 20))
    (document,), _, quarantine = collect()
    assert (document["source"], document["text"]) == ("deep.html", "bare text")
    assert [(q["source"], q["reason"][:31]) for q in quarantine] == [
        ("large.html", "a page of 8388611 bytes, more t"),
        ("spans.html", "the cells of its tables span to"),
    ]


# --- archives


def archive(path: Path | io.BytesIO, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)


def archive_bytes(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    archive(packed, files)
    return packed.getvalue()


def test_the_files_of_an_archive_are_read_like_others(collect, raw, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    table, note = "施設名,区\nちどり丘会館,北\n".encode("cp932"), "월요일은 쉽니다.".encode()
    inner = archive_bytes({"note.txt": note, "picture.png": b"\x89PNG"})
    files = {"./b/table.csv": table, "b/": b"", "a/inner.zip": inner, "__MACOSX/._x.txt": b"x", ".hidden.txt": b"x"}
    archive(raw / "all.zip", files)
    documents, manifest, quarantine = collect(license="CC-BY-4.0")
    assert [(d["source"], d["text"], d.get("line")) for d in documents] == [
        ("all.zip/a/inner.zip/note.txt", "월요일은 쉽니다.", None),
        ("all.zip/b/table.csv", "施設名: ちどり丘会館\n区: 北", 2),
    ]
    packed = (raw / "all.zip").read_bytes()
    assert [(m["path"], m["bytes"], m["sha256"], m["status"]) for m in manifest] == [
        (path, len(content), hashlib.sha256(content).hexdigest(), status)
        for path, content, status in [
            ("all.zip", packed, "unpacked"),
            ("all.zip/a/inner.zip", inner, "unpacked"),
            ("all.zip/a/inner.zip/note.txt", note, "read"),
            ("all.zip/a/inner.zip/picture.png", b"\x89PNG", "refused"),
            ("all.zip/b/table.csv", table, "read"),
        ]
    ]
    assert {m["license"] for m in manifest} == {"CC-BY-4.0"}
    assert [q["source"] for q in quarantine] == ["all.zip/a/inner.zip/picture.png"]
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("cp932", ["表示/施設一覧.txt", "会館の案内.txt"]),  # the second byte of 表 is a backslash
        ("cp949", ["안내/주민센터.txt", "이용 요금.txt"]),
        ("utf-8", ["안내/주민센터.txt", "施設一覧.txt"]),
        ("cp437", ["café.txt"]),
    ],
)
def test_names_in_the_code_page_of_the_machine_that_packed_them(collect, raw, encoding, names):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for number, name in enumerate(names):
            file.writestr(f"{number}{'x' * (len(name.encode(encoding)) - 1)}", "a text")
    content = packed.getvalue()
    for number, name in enumerate(names):  # as Windows packs: other separators, no mark of UTF-8
        written = name.encode(encoding) if encoding == "utf-8" else name.replace("/", "\\").encode(encoding)
        content = content.replace(f"{number}{'x' * (len(written) - 1)}".encode(), written)
    (raw / "a.zip").write_bytes(content)
    documents, _, _ = collect()
    assert {d["source"] for d in documents} == {f"a.zip/{name}" for name in names}


def test_what_an_archive_may_not_do_is_refused(collect, raw, tmp_path):
    archive(raw / "names.zip", {"../up.txt": b"x", "/root.txt": b"x", "C:\\drive.txt": b"x", "a/../../b.txt": b"x"})
    with zipfile.ZipFile(raw / "link.zip", "w") as file:
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
    with zipfile.ZipFile(raw / "lzma.zip", "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a.txt", "text")
    plain = archive_bytes({"a.txt": b"text"})
    (raw / "encrypted.zip").write_bytes(
        plain.replace(b"PK\x03\x04\x14\x00\x00\x00", b"PK\x03\x04\x14\x00\x01\x00").replace(
            b"PK\x01\x02\x14\x03\x14\x00\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01\x00"
        )
    )
    damaged = archive_bytes({"a.txt": bytes(range(256)) * 9, "b.txt": b"still read"})
    (raw / "damaged.zip").write_bytes(damaged[:60] + bytes(20) + damaged[80:])
    (raw / "cut.zip").write_bytes(plain[:40])
    archive(raw / "empty.zip", {})
    zeros = archive_bytes({"zeros.txt": bytes(70 << 20)})
    (raw / "bomb.zip").write_bytes(zeros)
    archive(raw / "inner-bomb.zip", {"a.txt": b"still read", "bomb.zip": zeros})
    deep = b"text"
    for _ in range(4):
        deep = archive_bytes({"deep.zip" if deep != b"text" else "a.txt": deep})
    (raw / "deep.zip").write_bytes(deep)
    documents, _, quarantine = collect()
    assert [(d["source"], d["text"]) for d in documents] == [
        ("damaged.zip/b.txt", "still read"),
        ("inner-bomb.zip/a.txt", "still read"),
    ]
    bomb = "unpacks to 73400320 bytes where"
    assert {q["source"]: q["reason"][:31] for q in quarantine} == {
        "bomb.zip": bomb,
        "cut.zip": "not a zip archive: cut short or",
        "damaged.zip/a.txt": "cannot be unpacked: BadZipFile:",
        "deep.zip/deep.zip/deep.zip/deep.zip": "an archive within 3 others is n",
        "empty.zip": "the archive holds no files",
        "encrypted.zip/a.txt": "encrypted: the archive needs a ",
        "inner-bomb.zip/bomb.zip": bomb,
        "link.zip/link.txt": "a link in an archive is not fol",
        "lzma.zip/a.txt": "packed by method 14 of zip, not",
        **{f"names.zip/{n}": "its name leads out of the archi" for n in ("../up.txt", "C:/drive.txt", "a/../../b.txt")},
        "names.zip//root.txt": "its name leads out of the archi",
    }


def test_an_archive_that_lists_too_many_files_is_not_listed(collect, raw, monkeypatch):
    import archive_reader

    monkeypatch.setattr(archive_reader, "MAX_LISTING_BYTES", 500)
    archive(raw / "few.zip", {f"{n}.txt": b"text" for n in range(5)})  # 51 bytes each
    archive(raw / "many.zip", {f"{n}.txt": b"text" for n in range(10)})
    documents, _, (refused,) = collect()
    assert len(documents) == 5
    assert (refused["source"], refused["reason"][:32]) == ("many.zip", "the list of its files takes 510 ")


# --- length


def test_a_long_text_is_split_where_paragraphs_end(collect, raw):
    paragraphs = [f"{n}. " + "ことば。" * 60 for n in range(40)]  # some 244 characters each
    (raw / "long.txt").write_text("\n\n".join(paragraphs), encoding="utf-8")
    (raw / "one-line.md").write_text("# Head\n" + "word " * 500, encoding="utf-8")
    (raw / "short.txt").write_text("a" * 1000, encoding="utf-8")
    (raw / "solid.txt").write_text("b" * 1500, encoding="utf-8")
    documents, _, quarantine = collect(max_document_chars=1000)
    assert quarantine == []
    parts = {
        name: [d for d in documents if d["source"] == name]
        for name in ("long.txt", "one-line.md", "short.txt", "solid.txt")
    }
    assert "\n\n".join(d["text"] for d in parts["long.txt"]) == "\n\n".join(paragraphs)
    assert [d["text"].count("\n\n") for d in parts["long.txt"]] == [3] * 10  # four whole paragraphs in each
    assert [d["page"] for d in parts["long.txt"]] == list(range(1, 11))
    assert " ".join(d["text"] for d in parts["one-line.md"]) == "# Head\n" + ("word " * 500).strip()
    assert {d["title"] for d in parts["one-line.md"]} == {"Head"}
    assert ["page" in d for d in parts["short.txt"]] == [False]
    assert [len(d["text"]) for d in parts["solid.txt"]] == [1000, 500]
    assert all(len(d["text"]) <= 1000 for d in documents)
    assert len({d["id"] for d in documents}) == len(documents)


def test_a_record_that_is_too_long_is_refused_and_the_next_is_read(collect, raw):
    long = "x" * 2000
    (raw / "a.jsonl").write_text(f'{{"text": "one"}}\n{{"text": "{long}"}}\n{{"text": "three"}}\n')
    (raw / "b.csv").write_text(f'Name,Note\none,{long}\ntwo,"{"y" * 600}\n{"y" * 600}"\nthree,short\n')
    (raw / "c.csv").write_text(f"Name{long},Note\r\none,1\r\ntwo,2\r\n")
    documents, _, quarantine = collect(max_document_chars=1000)
    assert [(d["source"], d["text"]) for d in documents] == [
        ("a.jsonl", "one"),
        ("a.jsonl", "three"),
        ("b.csv", "Name: three\nNote: short"),
        ("c.csv", "one: two\n1: 2"),  # the header is gone, the first row takes its place
    ]
    assert [(q["source"], q["line"], q["reason"][-38:]) for q in quarantine] == [
        ("a.jsonl", 2, "longer than max_document_chars=1000"[-38:]),
        ("b.csv", 2, "2): longer than max_document_chars=1000"[-38:]),
        ("b.csv", 3, "4): longer than max_document_chars=1000"[-38:]),
        ("c.csv", 1, "1): longer than max_document_chars=1000"[-38:]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["line.jsonl", "line.csv", "line.txt"])
def test_a_line_of_200_mb_takes_little_memory(root, raw, tmp_path, name):
    with (raw / name).open("wb") as file:
        file.write(b"Name,Note\n")
        for _ in range(200):
            file.write(b"a" * 1_000_000)
        file.write(b'\n{"text": "after"}\nname,after\n')
    command = [sys.executable, str(root / "components" / "collect_documents" / "main.py"), "--raw_data", str(raw)]
    for output in ("documents", "held_out_documents", "manifest", "quarantine"):
        command += [f"--{output}", str(tmp_path / output)]
    environment = {**os.environ, "PYTHONPATH": str(root / "components" / "_shared")}
    # By a small process of its own: a child counts the memory of the one that it was forked from, too.
    measure = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run([sys.executable, "-c", measure, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150 << 10  # KiB
    assert "after" in read(tmp_path / "documents")[-1]["text"]


# --- folders


def test_files_come_in_the_order_of_their_paths_however_deep(load_main, tmp_path):
    load_main("collect_documents")
    from folder_source import files_in_folder

    draw = random.Random(0)
    names = {"/".join("".join(draw.choices("a.B-~가", k=2)) for _ in range(draw.randrange(1, 4))) for _ in range(300)}
    names = {n for n in names if not any(part.startswith(".") for part in n.split("/"))}
    folders = {"/".join(n.split("/")[:i]) for n in names for i in range(1, n.count("/") + 1)}
    for name in names - folders:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    assert [file.source for file in files_in_folder(tmp_path)] == sorted(names - folders)


def test_a_folder_that_cannot_be_listed_is_not_left_out_silently(collect, raw, monkeypatch):
    scandir = os.scandir

    def deny(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    for name in ("closed", "open"):
        (raw / name).mkdir()
        (raw / name / "a.txt").write_text("text")
    monkeypatch.setattr(os, "scandir", deny)
    (document,), _, (refused,) = collect()
    assert document["source"] == "open/a.txt"
    assert refused == {"source": "closed/", "reason": "the folder cannot be listed: Permission denied"}


def test_names_that_a_mac_stores_apart_are_shown_composed(collect, raw):
    (raw / unicodedata.normalize("NFD", "안내.txt")).write_text("월요일은 쉽니다.", encoding="utf-8")
    (document,), (file,), _ = collect()
    assert (document["source"], document["title"], file["path"]) == ("안내.txt", "안내", "안내.txt")


def test_ids_are_unique_over_files_that_are_shown_by_the_same_name(collect, raw):
    for form in ("NFC", "NFD"):
        (raw / unicodedata.normalize(form, "가.txt")).write_text("text", encoding="utf-8")
    documents, _, _ = collect()
    assert len({d["id"] for d in documents}) == 2


# --- the samples, and real documents


def test_the_samples_are_all_read(run_component, root, tmp_path):
    samples = root / "pipelines" / "samples" / "documents"
    outputs = {name: tmp_path / name for name in ("documents", "manifest", "quarantine")}
    result = run_component("collect_documents", raw_data=samples, held_out_documents=tmp_path / "rest", **outputs)
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


def test_held_out_documents_are_whole_and_the_same_each_time(collect, load_main, tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    rows = [f"Hall {number},{number} seats" for number in range(400)]
    (raw / "a.csv").write_text("\n".join(["name,size", *rows]))
    (raw / "b.csv").write_text("\n".join(["name,size", *rows]))  # the same texts under other ids
    split = []
    for _ in range(2):
        documents, _, _ = collect(raw, held_out_fraction=0.25)
        split.append((documents, read(tmp_path / "out" / "held_out_documents")))
    documents, held_out = split[0]
    assert split[0] == split[1]
    assert len(documents) + len(held_out) == 800 and 150 <= len(held_out) <= 250
    assert not {row["text"] for row in documents} & {row["text"] for row in held_out}
    is_held_out = load_main("collect_documents").is_held_out
    pages = [{"sha256": "f", "text": f"page {page}", "page": page} for page in range(50)]
    assert len({is_held_out(page, 0.5) for page in pages}) == 1
    with pytest.raises(UserError, match="leaves no document"):
        collect(one_file(tmp_path), held_out_fraction=0.9)


def one_file(tmp_path):
    """A folder whose only document is held out at 0.9."""
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "a.txt").write_text("A text.")
    return folder
