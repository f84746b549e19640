"""Collect what an endpoint was asked and answered in a window of time, free of personal data."""

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import collection_window
import log_files
import logged_chat
import pydantic
from log_files import REQUESTS, RESPONSES
from log_rows import Row
from request_pairs import RequestPairs
from traffic_records import Columns, Located, TrafficRecords, chat_key
from traffic_redaction import TrafficRedaction

from slmkit import checked_files, cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
MAX_ID_LENGTH = 100
NOT_COLLECTED = "the traffic of this endpoint is not collected; set collect_traffic of deploy_endpoint"


@dataclass(frozen=True)
class Args:
    records: Path
    window: Path
    quarantine: Path
    traffic: Path | None = None
    endpoint: Path | None = None
    window_name: str | None = None
    window_start: str | None = None
    window_end: str | None = None
    window_hours: float | None = None
    earlier_window: Path | None = None
    period: Path | None = None
    exclude_items: Path | None = None
    endpoint_model: str | None = None
    settle_seconds: float = 0.0
    prompt_column: str | None = None
    output_column: str | None = None
    max_rows: int | None = None
    seed: int = 0
    action: str = "mask"
    entity_types: str = "all"
    regions: str = "US,JP,KR"
    max_error_fraction: float = 0.01


def run(args: Args) -> dict[str, float]:
    now = time.time()
    window = collection_window.read(args, now)
    excluded = excluded_chats(args.exclude_items) if args.exclude_items else frozenset()
    folder = folder_of(args)
    redaction = TrafficRedaction(args.action, args.entity_types, args.regions)
    pairs = RequestPairs(window.holds)
    found = TrafficRecords(window, now, Columns(args.prompt_column, args.output_column), excluded, args.endpoint_model)
    with records.write_records(args.records) as write:
        with records.write_records(args.quarantine) as note:  # is kept where the checks below refuse the records
            refuse = Quarantine(note)
            periods = log_files.periods(folder, window, refuse) if folder else ()
            exchanges = pairs.of(periods, refuse)
            sample = found.sample(found.of(exchanges, refuse), args.max_rows, args.seed)
            written = write_redacted(sample, redaction, write, refuse)
        counts = {
            "num_rows": written["kept"],
            "num_malformed": refuse.num_rows - found.num_not_chats - refuse.num_unusable,
            "num_unusable": refuse.num_unusable,
            "num_not_chats": found.num_not_chats,
            "num_duplicates": pairs.num_duplicates + found.num_duplicates,
            "num_outside": pairs.num_outside + found.num_outside,
            "num_unpaired": pairs.num_unpaired,
            "num_other_models": found.num_other_models,
            "num_excluded": found.num_excluded,
            "num_sampled_out": found.num_sampled_out,
            "num_dropped": written["dropped"],
        }
        num_found = sum(counts.values())
        records.check_share(counts["num_malformed"], num_found, args.max_error_fraction, "rows of the log")
        if reason := why_unusable(counts, pairs):
            raise UserError(f"{folder}: {reason}")

    start = found.earliest if window.start is None else window.start
    content = {
        "name": window.name,
        "start": None if start is None else collection_window.iso(start),
        "end": collection_window.iso(window.end),
        "status": "ok" if counts["num_rows"] else "no_data",
        "reason": None if counts["num_rows"] else why_empty(counts) if folder else NOT_COLLECTED,
        "num_found": num_found,
        **counts,
        "num_unmatched_responses": pairs.num_unmatched,
        "max_clock_skew_seconds": found.max_clock_skew_seconds,
        "latency_resolution_seconds": found.latency_resolution_seconds,
        "redaction": {"action": args.action, "num_findings": redaction.num_findings},
    }
    with records.whole_file(args.window) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    metrics = {f"monitor/{name}": float(count) for name, count in {"num_found": num_found, **counts}.items()}
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.window)
    # Without the folder: its hash would take reading all of it, and it grows on.
    lineage.write(dataclasses.replace(args, traffic=None), SPEC, {"window": content})
    print(summary(content))
    return metrics


class EndpointFile(pydantic.BaseModel):
    collected_traffic: str | None = None


class Quarantine:
    """Where what cannot be used stood, and why: never what it says."""

    def __init__(self, write: Callable[[dict[str, Any]], None]) -> None:
        self._write, self.num_rows, self.num_unusable = write, 0, 0

    def __call__(self, file: str, line: int, reason: str, *, damaged: bool = True) -> None:
        """``damaged`` is a fault of the log; a client may send what no log can hold."""
        self.num_rows += 1
        self.num_unusable += not damaged
        self._write({"source": file, "line": line, "reason": reason})


def folder_of(args: Args) -> Path | None:
    """Where the logs are; None where the endpoint keeps none."""
    if args.traffic is not None:
        return args.traffic
    if args.endpoint is None:
        raise UserError("give one of the inputs traffic (a folder of logs) and endpoint (the JSON of deploy_endpoint)")
    said = checked_files.load(args.endpoint, EndpointFile, "is it the output endpoint of deploy_endpoint?")
    if said.collected_traffic and "://" in said.collected_traffic:
        raise UserError(f"{args.endpoint}: the traffic is in {said.collected_traffic}; give it as the input traffic")
    return Path(said.collected_traffic) if said.collected_traffic else None


def excluded_chats(items: Path) -> frozenset[int]:
    """The chats of eval items, as TrafficRecords knows them."""
    keys = set()
    for item, where, line in records.read_located(items):
        try:
            keys.add(chat_key(logged_chat.messages_of({"messages": item.get("messages")}, None)))
        except logged_chat.NotAChatError as error:
            raise UserError(f"{where}:{line}: {error}; exclude_items takes eval items") from None
    return frozenset(keys)


def write_redacted(
    located: Iterable[Located], redaction: TrafficRedaction, write: Callable[[dict[str, Any]], None], refuse: Quarantine
) -> Counter[str]:
    """How many were kept and dropped; what cannot be examined or written is refused."""
    written: Counter[str] = Counter()
    ids: set[int] = set()
    for record, row in located:
        try:
            record["id"] = id_of(record["id"], row, ids, redaction)
            if (clean := redaction.redacted(record)) is None:
                written["dropped"] += 1
                continue
            write(clean)
        except OSError:
            raise
        except Exception as error:  # whatever the detection raises; its message may quote the text
            refuse(row.file, row.line, f"{type(error).__name__} while personal data were taken out of it")
        else:
            written["kept"] += 1
    return written


def id_of(key: str, row: Row, ids: set[int], redaction: TrafficRedaction) -> str:
    """The key that the log knows it by, or one of its place: clients choose some keys, twice or with their data."""
    usable = 0 < len(key) <= MAX_ID_LENGTH and key.isprintable() and hash(key) not in ids
    if not usable or redaction.finds(key):
        key = records.content_id(row.file, str(row.line), key)
    ids.add(hash(key))
    return key


def why_unusable(counts: dict[str, int], pairs: RequestPairs) -> str | None:
    """What no log of an endpoint that works looks like, and must not pass for a quiet week."""
    if counts["num_rows"] or counts["num_dropped"]:
        return None
    if counts["num_not_chats"]:
        return (
            f"none of {counts['num_not_chats']} requests is a chat; name the columns by prompt_column and output_column"
        )
    if counts["num_unpaired"]:
        return f"{counts['num_unpaired']} requests without a response; switch on the collection response as well"
    if pairs.num_unmatched:
        return f"{pairs.num_unmatched} responses without a request; switch on the collection request as well"
    if pairs.num_other and not counts["num_excluded"] + counts["num_other_models"]:
        return (
            f"{pairs.num_other} rows, all of other collections than {', '.join((*REQUESTS, *RESPONSES))}; "
            "collect the requests and responses by these names"
        )
    return None


def why_empty(counts: dict[str, int]) -> str:
    if counts["num_dropped"]:
        return f"all {counts['num_dropped']} chats hold personal data and were dropped"
    if counts["num_other_models"]:
        return f"no chat with this model in the window; {counts['num_other_models']} are with others"
    if counts["num_outside"]:
        return f"no chat in the window; {counts['num_outside']} lie just outside"
    return "no chat in the window"


def summary(window: dict[str, Any]) -> str:
    span = f"{window['start'] or 'the beginning'} to {window['end']}"
    left_out = {name: count for name, count in window.items() if name.startswith("num_") and count}
    told = ", ".join(f"{count:,} {name.removeprefix('num_').replace('_', ' ')}" for name, count in left_out.items())
    said = f"{window['num_rows']:,} chats" if window["status"] == "ok" else f"NO DATA: {window['reason']}"
    found = window["redaction"]["num_findings"]
    return f"{window['name']} ({span}): {said}\n{told or 'nothing was found'}; {found:,} findings of personal data"


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
