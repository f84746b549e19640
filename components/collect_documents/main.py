"""Read a folder of raw files into documents, a manifest of the files and a quarantine of what could not be read."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from document_readers import KINDS, Fault, Piece
from text_decoding import UnreadableError, detect_encoding

from slmkit import cli, lineage, records, textstats, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True)
class Args:
    raw_data: Path
    documents: Path
    manifest: Path
    quarantine: Path
    max_error_fraction: float = 0.5


def run(args: Args) -> dict[str, float]:
    if not args.raw_data.is_dir():
        raise UserError(f"{args.raw_data}: a file, not a folder; give the folder that holds it")
    files = list_files(args.raw_data)
    if not files:
        raise UserError(f"{args.raw_data}: the folder holds no files; put documents ({', '.join(KINDS)}) into it")

    num_refused, statuses, languages = 0, Counter(), Counter()
    with records.write_records(args.documents) as write_document:
        # These two close first: when too much was refused they stay, so that one can see what and why.
        with records.write_records(args.manifest) as write_row, records.write_records(args.quarantine) as write_refused:
            for path in files:
                row = {"path": source_of(path, args.raw_data), "sha256": None, "bytes": None, "media_type": None}
                row |= {"encoding": None, "documents": 0, "status": "refused", "error": None}
                for found in read_documents(path, args.raw_data, row):
                    if isinstance(found, Fault):
                        write_refused({"source": row["path"], **_place(found), "reason": found.reason})
                        row["error"] = row["error"] or found.reason
                        num_refused += 1
                    else:
                        write_document(found)
                        row["documents"] += 1
                        languages[found["language"]] += 1
                if row["documents"]:
                    row["status"] = "partial" if row["error"] else "read"
                write_row(row)
                statuses[row["status"]] += 1
        records.check_share(statuses["refused"], len(files), args.max_error_fraction, f"files in {args.raw_data}")
        if not languages:
            raise UserError(f"{args.raw_data}: no file in it could be read; {args.quarantine} gives the reasons")

    metrics = {
        "data/num_files": len(files),
        "data/num_files_refused": statuses["refused"],
        "data/num_refused": num_refused,
        "data/num_documents": languages.total(),
        **{f"data/num_documents_{language}": count for language, count in sorted(languages.items())},
    }
    tracking.log_metrics(metrics)
    by_language = ", ".join(f"{language} {count}" for language, count in languages.most_common())
    print(f"{languages.total()} documents ({by_language}) from {len(files)} files")
    if num_refused:
        print(f"{num_refused} refused, of them {statuses['refused']} whole files; see {args.quarantine}")
    lineage.write(args, SPEC)
    return metrics


def list_files(folder: Path) -> list[Path]:
    """Every file below the folder in one order on every machine; hidden ones and Office's lock files left out."""
    found = []
    for parent, folders, names in os.walk(folder):
        linked = [name for name in folders if Path(parent, name).is_symlink()]  # os.walk does not enter them
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in [*names, *linked] if not name.startswith((".", "~$"))]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def read_documents(path: Path, folder: Path, row: dict[str, Any]) -> Iterator[dict[str, Any] | Fault]:
    """The documents of a file and what is wrong in it; fills in what the manifest's ``row`` says of the file.

    Ids depend on path and text alone, so that a row put before others does not change theirs.
    """
    seen: Counter[str] = Counter()
    found_any = False
    for found in _read_file(path, folder, row):
        found_any = True
        if isinstance(found, Fault):
            yield found._replace(reason=" ".join(tidy(found.reason).split()))
            continue
        text = tidy(found.text)
        if not text:
            yield Fault("no text in it", found.line, found.page)
            continue
        document_id = records.content_id(row["path"], text)
        seen[document_id] += 1
        if seen[document_id] > 1:
            document_id = records.content_id(row["path"], text, str(seen[document_id]))
        document = {"id": document_id, "text": text, "source": row["path"], "sha256": row["sha256"]}
        document |= {"media_type": row["media_type"], "language": textstats.language(text)}
        if title := " ".join(tidy(found.title).split()):
            document["title"] = title
        yield document | _place(found)
    if not found_any:
        yield Fault("no text in it")


def _read_file(path: Path, folder: Path, row: dict[str, Any]) -> Iterator[Piece | Fault]:
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise UnreadableError("a link that leads out of the folder is not followed")
        if not path.is_file():
            raise UnreadableError("a link to a folder is not followed" if path.is_dir() else "not a regular file")
        row |= {"sha256": lineage.sha256(path), "bytes": path.stat().st_size}
        kind = KINDS.get(path.suffix.lower())
        if not kind:
            raise UnreadableError(f"unknown type {path.suffix or '(no ending)'}; known: {', '.join(KINDS)}")
        row["media_type"] = kind.media_type
        if not row["bytes"]:
            raise UnreadableError("the file is empty")
        row["encoding"] = detect_encoding(path) if kind.is_text else None
        yield from kind.read(path, row["encoding"])
    except UnreadableError as error:
        yield Fault(str(error))
    except Exception as error:  # a damaged file stops its parser in ways that nobody lists; what came before is good
        yield Fault(f"cannot be read: {type(error).__name__}: {error}")


def _place(found: Piece | Fault) -> dict[str, int]:
    return {name: getattr(found, name) for name in ("line", "page") if getattr(found, name)}


def source_of(path: Path, folder: Path) -> str:
    """The path within the folder; bytes in a file name that are not UTF-8 are shown as U+FFFD."""
    return os.fsencode(path.relative_to(folder).as_posix()).decode("utf-8", "replace")


def tidy(text: str) -> str:
    """Composed characters (a Mac writes Korean apart), plain line ends, no control characters or lone surrogates."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = re.sub(r"[\x00-\x08\x0b-\x1f\x7f\ufeff]", "", text)
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE)).strip()


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
