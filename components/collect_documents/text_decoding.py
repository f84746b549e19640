"""Tell the encoding of a text file: Unicode by its marks or by strict decoding, else the most plausible legacy one."""

import codecs
import re
import unicodedata
from pathlib import Path

from pieces import UnreadableError

_MARKS = [  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
]
_LEGACY = ("cp932", "cp949", "euc_jp", "cp1252")  # cp949 contains euc-kr; on a tie the earlier one is taken
_SAMPLE_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_TYPOGRAPHY = frozenset("‘’“”–—…•€£¥§©®°·«»¿¡ºª²³½¼")


def detect_encoding(path: Path) -> str:
    """The Python name of the encoding in which the whole file decodes and reads as plausible text."""
    with path.open("rb") as file:
        head = file.read(_SAMPLE_BYTES)
    for mark, encoding in _MARKS:
        if head.startswith(mark):
            if fault := _fault(path, encoding):
                raise UnreadableError(f"begins with the mark of {encoding} but {fault}")
            return encoding
    if b"\0" in head:
        raise UnreadableError("holds zero bytes: binary, or UTF-16 without a byte-order mark")
    fault = _fault(path, "utf-8")
    if not fault:
        return "utf-8"
    sample = _first_beyond_ascii(path)
    for encoding in sorted(_LEGACY, key=lambda encoding: -plausibility(sample, encoding)):
        if plausibility(sample, encoding) > 0 and not _fault(path, encoding):
            return encoding
    raise UnreadableError(f"no text in UTF-8 ({fault}) nor in {', '.join(_LEGACY)}")


def _fault(path: Path, encoding: str) -> str:
    """Where and why the file does not decode; empty when it does. Reads in chunks: a file may be larger than memory."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with path.open("rb") as file:
        while True:
            chunk = file.read(_CHUNK_BYTES)
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeError as error:
                before = getattr(error, "object", b"")[: getattr(error, "start", 0)]
                line += before.count(b"\n")
                return f"{getattr(error, 'reason', error)} in line {line}"
            if not chunk:
                return ""
            line += chunk.count(b"\n")


def _first_beyond_ascii(path: Path) -> bytes:
    """A sample that begins just before the first byte that is not ASCII, which stands wherever it stands."""
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            if found := re.search(rb"[\x80-\xff]", chunk):
                start = max(found.start() - 1, 0)
                return (chunk[start:] + file.read(_SAMPLE_BYTES))[:_SAMPLE_BYTES]
    return b""


def plausibility(sample: bytes, encoding: str) -> float:
    """How much a sample reads like what people write in this encoding: from -1 to 1, mean over non-ASCII characters.

    The byte ranges of the East Asian encodings overlap, so that decoding without an error proves little. What tells
    them apart: Korean bytes read as Japanese give runs of half-width katakana and rare kanji; Japanese bytes read as
    Korean give syllables outside the 2,350 everyday ones; either read as Western gives letters that touch no ASCII one.
    """
    # A sample may end within a character: what the incremental decoder holds back is left out.
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample)
    except UnicodeDecodeError:
        return -1.0
    scores = [
        _western(text, i) if encoding == "cp1252" else _east_asian(char, encoding)
        for i, char in enumerate(text)
        if char > "\x7f"
    ]
    return sum(scores) / len(scores) if scores else 0.0


def _east_asian(char: str, encoding: str) -> float:
    if "\u3000" <= char <= "\u3002" or "「" <= char <= "』" or "！" <= char <= "～":
        return 0.5  # punctuation and full-width forms that all of them write
    if encoding == "cp949":
        if "가" <= char <= "힣":
            lead, trail = char.encode("cp949")
            return 1.0 if lead >= 0xB0 and trail >= 0xA1 else -1.0
        return 0.0 if "\u4e00" <= char <= "\u9fff" or unicodedata.category(char)[0] in "SP" else -0.5
    if "ぁ" <= char <= "ヿ":
        return 1.0
    if "｡" <= char <= "ﾟ":
        return -0.2
    if "\u4e00" <= char <= "\u9fff":
        return 0.8 if _is_everyday_kanji(char) else -0.5
    return 0.0 if unicodedata.category(char)[0] in "SP" else -0.5


def _is_everyday_kanji(char: str) -> bool:
    """JIS level 1 (rows 16 to 47, about 3,000 characters): what ordinary Japanese is written with."""
    try:
        jis = char.encode("euc_jp")
    except UnicodeEncodeError:
        return False
    return len(jis) == 2 and 0xB0 <= jis[0] <= 0xCF


def _western(text: str, i: int) -> float:
    if text[i] in _TYPOGRAPHY:
        return 0.5
    if not text[i].isalpha():
        return -1.0
    around = text[max(i - 1, 0) : i] + text[i + 1 : i + 2]
    if not any(char.isascii() and char.isalpha() for char in around):
        return -1.0
    return 1.0 if around.isascii() else 0.2
