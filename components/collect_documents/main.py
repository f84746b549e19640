"""Read raw files from a folder or a URL into documents, a manifest of the files and a quarantine of what failed."""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from archive_reader import with_members
from document_ids import document_ids
from document_readers import KINDS
from folder_source import files_in_folder
from pieces import Fault, Piece, RawFile, UnreadableError, too_long
from remote_source import files_at_url
from text_decoding import detect_encoding

from slmkit import cli, lineage, records, textstats, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
LANGUAGE_CHARS = 20_000  # tell the language of the longest text
READABLE = ", ".join([*KINDS, ".zip"])


@dataclass(frozen=True)
class Args:
    documents: Path
    held_out_documents: Path
    manifest: Path
    quarantine: Path
    raw_data: Path | None = None
    raw_data_url: str | None = None
    auth: str = "azure"
    license: str | None = None
    held_out_fraction: float = 0.0
    max_document_chars: int = 1_000_000
    max_error_fraction: float = 0.5


def run(args: Args) -> dict[str, float]:
    files = files_of(args)
    num_refused, num_held_out, statuses, languages = 0, 0, Counter(), Counter()
    with (
        records.write_records(args.documents) as write_document,
        records.write_records(args.held_out_documents) as write_held_out,
    ):
        # These close first: when too much was refused they stay, so that one can see what and why.
        with (
            records.write_records(args.manifest) as write_row,
            records.write_records(args.quarantine) as write_refused,
            document_ids() as document_id,
        ):
            for file in files:
                row = manifest_row(file, args.license)
                for found in read_documents(file, row, document_id, args.max_document_chars):
                    if isinstance(found, Fault):
                        write_refused({"source": row["path"], **_place(found), "reason": found.reason})
                        row["error"] = row["error"] or found.reason
                        num_refused += 1
                    else:
                        held_out = is_held_out(found, args.held_out_fraction)
                        (write_held_out if held_out else write_document)(found)
                        num_held_out += held_out
                        row["documents"] += 1
                        languages[found["language"]] += 1
                if row["documents"]:
                    row["status"] = "partial" if row["error"] else "read"
                write_row(row)
                statuses[row["status"]] += 1
        if not statuses:
            raise UserError(f"{source_of(args)}: the folder holds no files; put documents ({READABLE}) into it")
        records.check_share(
            statuses["refused"], statuses.total(), args.max_error_fraction, f"files in {source_of(args)}"
        )
        if not languages:
            raise UserError(f"{source_of(args)}: no file in it could be read; {args.quarantine} gives the reasons")
        if num_held_out == languages.total():
            raise UserError(
                f"{source_of(args)}: held_out_fraction={args.held_out_fraction:g} leaves no document to work with; "
                "lower it, or give more documents"
            )

    metrics = {
        "data/num_files": statuses.total(),
        "data/num_files_refused": statuses["refused"],
        "data/num_refused": num_refused,
        "data/num_documents": languages.total() - num_held_out,
        "data/num_held_out_documents": num_held_out,
        **{f"data/num_documents_{language}": count for language, count in sorted(languages.items())},
    }
    tracking.log_metrics(metrics)
    by_language = ", ".join(f"{language} {count}" for language, count in languages.most_common())
    held_out = f", {num_held_out} of them held out" if num_held_out else ""
    print(f"{languages.total()} documents ({by_language}) from {statuses.total()} files{held_out}")
    if num_refused:
        print(f"{num_refused} refused, of them {statuses['refused']} whole files; see {args.quarantine}")
    lineage.write(args, SPEC)
    return metrics


def source_of(args: Args) -> Path | str:
    return args.raw_data or args.raw_data_url


def files_of(args: Args) -> Iterator[RawFile]:
    """The files of the one source that is given, with those in archives."""
    if (args.raw_data is None) == (args.raw_data_url is None):
        raise UserError("give either raw_data (a folder) or raw_data_url (a URL of Azure storage), and not both")
    if args.raw_data_url is not None:
        files = files_at_url(args.raw_data_url, args.auth)
    elif args.raw_data.is_dir():
        files = files_in_folder(args.raw_data)
    else:
        raise UserError(f"{args.raw_data}: a file, not a folder; give the folder that holds it")
    return (member for file in files for member in with_members(file))


def manifest_row(file: RawFile, license_name: str | None) -> dict[str, Any]:
    """What the manifest says of a file before it is read."""
    row = {"path": tidy(file.source), "sha256": None, "bytes": None, "media_type": None, "license": license_name}
    return row | {"encoding": None, "documents": 0, "status": "refused", "error": None}


def read_documents(
    file: RawFile, row: dict[str, Any], document_id: Callable[[str, str], str], max_chars: int
) -> Iterator[dict[str, Any] | Fault]:
    """The documents of a file and what is wrong in it; fills in what the manifest's ``row`` says of the file."""
    found_any = False
    for found in _read_file(file, row, max_chars):
        found_any = True
        if isinstance(found, Fault):
            yield found._replace(reason=" ".join(tidy(found.reason).split()))
            continue
        if len(found.text) > max_chars:
            yield Fault(too_long(max_chars), found.line, found.page)
            continue
        text = tidy(found.text)
        if not text:
            yield Fault("no text in it", found.line, found.page)
            continue
        document = {"id": document_id(row["path"], text), "text": text, "source": row["path"], "sha256": row["sha256"]}
        document |= {"media_type": row["media_type"], "language": textstats.language(text[:LANGUAGE_CHARS])}
        if title := " ".join(tidy(found.title).split()):
            document["title"] = title
        yield document | _place(found)
    if not found_any and row["status"] == "refused":
        yield Fault("no text in it")


def _read_file(file: RawFile, row: dict[str, Any], max_chars: int) -> Iterator[Piece | Fault]:
    try:
        if file.path is not None:
            row |= {"sha256": lineage.sha256(file.path), "bytes": file.path.stat().st_size}
        if file.problem:
            raise UnreadableError(file.problem)
        if file.suffix == ".zip":  # the files in it come next
            row |= {"media_type": "application/zip", "status": "unpacked"}
            return
        kind = KINDS.get(file.suffix)
        if not kind:
            raise UnreadableError(f"unknown type {file.suffix or '(no ending)'}; known: {READABLE}")
        row["media_type"] = kind.media_type
        if not row["bytes"]:
            raise UnreadableError("the file is empty")
        row["encoding"] = detect_encoding(file.path) if kind.is_text else None
        yield from kind.read(replace(file, encoding=row["encoding"]), max_chars)
    except UnreadableError as error:
        yield Fault(str(error))
    except Exception as error:  # a damaged file stops its parser in ways that nobody lists; what came before is good
        reason = str(error).replace(str(file.path), row["path"])  # the path may be that of a temporary copy
        yield Fault(f"cannot be read: {type(error).__name__}: {reason}")


def is_held_out(document: dict[str, Any], fraction: float) -> bool:
    """The same answer in every run; the same text, and the pages of one file, stay together."""
    if not fraction:
        return False
    key = document["sha256"] if "page" in document else document["text"]
    return int(records.content_id("held_out", key), 16) < fraction * 16**16


def _place(found: Piece | Fault) -> dict[str, int]:
    return {name: getattr(found, name) for name in ("line", "page") if getattr(found, name)}


_UNTIDY = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]|[ \t]\n|\n\n\n")


def tidy(text: str) -> str:
    """Composed characters (a Mac writes Korean apart), plain line ends, no control characters or lone surrogates."""
    if text.isascii() and not _UNTIDY.search(text):  # most rows of a large table
        return text.strip()
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]", "", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)).strip()


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
