"""Which reader takes a file, by the ending of its name."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from html_reader import read_html
from office_reader import read_docx, read_pptx
from pdf_reader import read_pdf
from pieces import Fault, Piece, RawFile
from table_reader import read_csv
from text_reader import read_jsonl, read_markdown, read_text
from workbook_reader import read_xlsx


class Kind(NamedTuple):
    """What the ending of a name stands for."""

    media_type: str
    read: Callable[[RawFile, int], Iterator[Piece | Fault]]
    is_text: bool = True


_OFFICE = "application/vnd.openxmlformats-officedocument"
KINDS = {
    ".csv": Kind("text/csv", read_csv),
    ".tsv": Kind("text/tab-separated-values", read_csv),
    ".jsonl": Kind("application/jsonl", read_jsonl),
    ".md": Kind("text/markdown", read_markdown),
    ".txt": Kind("text/plain", read_text),
    ".html": Kind("text/html", read_html),
    ".htm": Kind("text/html", read_html),
    ".docx": Kind(f"{_OFFICE}.wordprocessingml.document", read_docx, is_text=False),
    ".pptx": Kind(f"{_OFFICE}.presentationml.presentation", read_pptx, is_text=False),
    ".xlsx": Kind(f"{_OFFICE}.spreadsheetml.sheet", read_xlsx, is_text=False),
    ".pdf": Kind("application/pdf", read_pdf, is_text=False),
}
