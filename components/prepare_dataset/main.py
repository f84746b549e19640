"""Check, deduplicate and split chats so that no source document and no question stands on two sides."""

import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dataset_report import Statistics, question_type, render
from split_groups import SIDES, Groups, assign_sides, choose_evenly, group_keys

from slmkit import cli, lineage, records, textstats, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")


@dataclass(frozen=True)
class Args:
    chats: Path
    train_data: Path
    validation_data: Path
    test_data: Path
    eval_items: Path
    report: Path
    guarded_data: Path | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    split_by: str = "document"
    max_num_test_items: int | None = None
    seed: int = 42
    max_error_fraction: float = 0.0


class Kept(NamedTuple):
    """What of a chat is remembered between the two passes over the file."""

    id: str
    language: str
    key: str


def run(args: Args) -> dict[str, float]:
    if args.validation_fraction + args.test_fraction >= 1:
        raise UserError("validation_fraction and test_fraction together leave nothing to train on; lower one of them")
    left_out: Counter[str] = Counter(refused=0, duplicate=0, guarded=0)
    refused: list[records.Refused] = []
    groups = Groups()
    kept = select_chats(args, groups, refused, left_out)
    left_out["refused"] = len(refused)
    num_read = sum(map(bool, kept)) + left_out.total()
    try:
        first = f" (the first: {refused[0]})" if refused else ""
        records.check_share(len(refused), num_read, args.max_error_fraction, f"chats{first}")
    except UserError:
        with records.whole_folder(args.report) as folder:
            write_quarantine(folder, refused)
        raise

    sides, notes = split(args, groups, [chat for chat in kept if chat])
    chosen = {chat.id: sides[groups.find(chat.key)] for chat in kept if chat}
    if args.max_num_test_items is not None:
        tests = {chat.id: chat.language for chat in kept if chat and chosen[chat.id] == "test"}
        over = tests.keys() - choose_evenly(tests, args.max_num_test_items, args.seed)
        left_out["above_max_num_test_items"] = len(over)
        chosen = {chat_id: side for chat_id, side in chosen.items() if chat_id not in over}

    statistics = Statistics()
    with ExitStack() as files:
        write = {
            side: files.enter_context(records.write_records(path))
            for side, path in zip(SIDES, (args.train_data, args.validation_data, args.test_data), strict=True)
        }
        write_item = files.enter_context(records.write_records(args.eval_items))
        for (chat, _), memory in zip(read_chats(args.chats, lambda _: None), kept, strict=True):
            if not memory or memory.id not in chosen:
                continue
            side, group = chosen[memory.id], groups.find(memory.key)
            write[side](chat)
            statistics.add(chat, side, group)
            if side == "test":
                write_item(as_eval_item(chat, group, args.split_by))
        counts = {"read": num_read, "kept": len(chosen), "left_out": dict(left_out)}
        settings = {name: getattr(args, name) for name in ("split_by", "validation_fraction", "test_fraction", "seed")}
        report = {"counts": counts, **settings, **statistics.summary(), "notes": notes}
        with records.whole_folder(args.report) as folder:
            write_quarantine(folder, refused)
            content = json.dumps(report, ensure_ascii=False, indent=2)
            (folder / "report.json").write_text(content + "\n", encoding="utf-8")
            (folder / "report.html").write_text(render(report), encoding="utf-8")

    metrics = {f"data/num_{side}_chats": report["split"][side]["chats"] for side in SIDES}
    metrics |= {f"data/num_{reason}": number for reason, number in left_out.items()}
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    sizes = ", ".join(f"{side} {report['split'][side]['chats']}" for side in SIDES)
    reasons = ", ".join(f"{reason.replace('_', ' ')} {number}" for reason, number in left_out.items() if number)
    print(f"{counts['kept']} of {counts['read']} chats kept: {sizes}" + (f"; left out: {reasons}" if reasons else ""))
    for note in notes:
        print(note)
    lineage.write(args, SPEC)
    return metrics


def read_chats(
    path: Path, refuse: Callable[[records.Refused], None]
) -> Iterator[tuple[dict[str, Any], Callable[[str], None]]]:
    """Each well-formed chat with its missing fields filled in, and a function that refuses it for a reason."""

    def refuse_for(record: dict[str, Any], file: str, line: int, reason: str) -> None:
        text = json.dumps(record, ensure_ascii=False, default=str)[:200]
        refuse(records.Refused(file, line, reason, text))

    for record, file, line in records.read_located(path, refuse):
        refuse_this = partial(refuse_for, record, file, line)
        try:
            yield complete(record), refuse_this
        except ValueError as error:
            refuse_this(str(error))


def complete(record: dict[str, Any]) -> dict[str, Any]:
    """The chat with id, origin, source_ids and language, which plain training data do not have."""
    records.check_chat(record)
    messages = record["messages"]
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise ValueError("no assistant turn: there is nothing to learn from it")
    if "user" not in roles[: _last(roles, "assistant")]:
        raise ValueError("no user turn before the last assistant turn")
    source_ids = record.get("source_ids") or []
    if not isinstance(source_ids, list) or not all(isinstance(source, str) for source in source_ids):
        raise ValueError("'source_ids' is not a list of document ids")
    if not isinstance(record.get("tags") or {}, dict):
        raise ValueError("'tags' is not an object")
    filled = {
        "id": str(record.get("id") or records.content_id(json.dumps(messages, ensure_ascii=False, sort_keys=True))),
        "messages": messages,
        "origin": record.get("origin") or "supplied",
        "source_ids": source_ids,
        "language": str(record.get("language") or textstats.language("\n".join(m["content"] for m in messages))),
    }
    return filled | {name: value for name, value in record.items() if name not in filled}


def _last(roles: list[str], role: str) -> int:
    return len(roles) - 1 - roles[::-1].index(role)


def normalize(text: str) -> str:
    """What two texts have in common that differ in width, letter case or white space only."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def questions(chat: dict[str, Any]) -> list[str]:
    return [normalize(message["content"]) for message in chat["messages"] if message["role"] == "user"]


def select_chats(
    args: Args, groups: Groups, refused: list[records.Refused], left_out: Counter[str]
) -> list[Kept | None]:
    """First pass: link what belongs together; None stands for a chat that is left out."""
    guarded = guarded_questions(args.guarded_data) if args.guarded_data else set()
    seen: set[str] = set()
    content_of: dict[str, str] = {}
    kept: list[Kept | None] = []
    for chat, refuse in read_chats(args.chats, refused.append):
        content = records.content_id(*(f"{m['role']}\n{normalize(m['content'])}" for m in chat["messages"]))
        asked = questions(chat)
        if content_of.setdefault(chat["id"], content) != content:
            refuse(f"the id {chat['id']!r} already stands for another chat")
            kept.append(None)
            continue
        keys = group_keys(chat["source_ids"], asked, args.split_by)
        groups.link(keys)  # also for a duplicate: its documents say the same as those of the chat that stays
        if content in seen:
            left_out["duplicate"] += 1
            kept.append(None)
        elif guarded.intersection(asked):
            left_out["guarded"] += 1
            kept.append(None)
        else:
            kept.append(Kept(chat["id"], chat["language"], keys[0]))
        seen.add(content)
    return kept


def guarded_questions(path: Path) -> set[str]:
    """The last user turns of eval items or chats: what they ask, examples before it aside."""
    found = set()
    for item, file, line in records.read_located(path):
        try:
            records.check_chat(item)
            found.add(questions(item)[-1])
        except (ValueError, IndexError) as error:
            reason = "no user turn" if isinstance(error, IndexError) else error
            raise UserError(f"guarded_data {file}:{line}: {reason}; correct or remove the line") from None
    return found


def split(args: Args, groups: Groups, kept: list[Kept]) -> tuple[dict[str, str], list[str]]:
    """The side of each group, with notes on what a reader of the split should know."""
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for chat in kept:
        votes[groups.find(chat.key)][chat.language] += 1
    languages = {group: min(count, key=lambda name: (-count[name], name)) for group, count in votes.items()}
    sides = assign_sides(languages, args.validation_fraction, args.test_fraction, args.seed)
    wanted = {"train": 1.0, "validation": args.validation_fraction, "test": args.test_fraction}
    empty = [side for side in SIDES if wanted[side] > 0 and side not in sides.values()]
    if empty:
        raise UserError(
            f"{args.chats}: {len(kept)} usable chats form {len(sides)} groups, too few to split ({' and '.join(empty)} "
            "would be empty); give chats from more documents, set a fraction to 0, or split_by chat"
        )
    present = {(languages[group], side) for group, side in sides.items()}
    notes = [
        f"{language}: no chats in {side}, too few groups"
        for language in sorted(set(languages.values()))
        for side in SIDES
        if wanted[side] > 0 and (language, side) not in present
    ]
    return sides, notes


def as_eval_item(chat: dict[str, Any], group: str, split_by: str) -> dict[str, Any]:
    roles = [message["role"] for message in chat["messages"]]
    answer = _last(roles, "assistant")
    return {
        "id": chat["id"],
        "messages": chat["messages"][: _last(roles[:answer], "user") + 1],
        "references": [chat["messages"][answer]["content"]],
        "slices": {
            "language": chat["language"],
            "question_type": question_type(chat),
            "held_out": "documents" if split_by == "document" and chat["source_ids"] else "questions",
        },
        "cluster": group,
    }


def write_quarantine(folder: Path, refused: list[records.Refused]) -> None:
    with records.write_records(folder / "quarantine.jsonl") as write:
        for item in refused:
            write(asdict(item))


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
