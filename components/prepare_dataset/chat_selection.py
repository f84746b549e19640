"""Choose the chats that are worth training and testing on, and link those that must stay on one side."""

import json
import shutil
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from chat_texts import asked_and_answered, questions
from decontamination import GuardedData
from near_duplicates import NearDuplicates
from quality_rules import RULES, broken_rule
from split_groups import Groups, group_keys

from slmkit import records, textstats
from slmkit.ngrams import normalize

_NUM_EXAMPLES = 5
_EXAMPLE_CHARACTERS = 500
_ENOUGH_TO_TELL_A_LANGUAGE = 10_000


class Kept(NamedTuple):
    """What of a chat is remembered between the two passes over the file."""

    id: str
    language: str
    origin: str
    key: str


class LeftOut(NamedTuple):
    kind: str
    reason: str
    repeats: str = ""  # the text that it has in common with another chat or with guarded data


class Quarantine:
    """Everything that is left out, with file, line and reason, written as it is found."""

    def __init__(self, path: Path):
        self._path, self._file = path, path.open("w", encoding="utf-8")
        self.left_out: Counter[str] = Counter(refused=0, low_quality=0, duplicate=0, near_duplicate=0, guarded=0)
        self.num_unreadable = 0
        self.first_refused: records.Refused | None = None
        self.examples: dict[str, list[dict[str, str]]] = {}

    def __enter__(self) -> "Quarantine":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _write(self, row: records.Refused) -> None:
        self._file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")

    def refuse_record(self, row: records.Refused) -> None:
        """A record that is no chat."""
        self.num_unreadable += 1
        self.left_out["refused"] += 1
        self.first_refused = self.first_refused or row
        self._write(row)

    def leave_out(self, why: LeftOut, chat: dict[str, Any], file: str, line: int) -> None:
        row = refused(chat, file, line, why.reason)
        self.left_out[why.kind] += 1
        self._write(row)
        if why.kind == "refused":
            self.first_refused = self.first_refused or row
        shown = self.examples.setdefault(why.kind, [])
        if len(shown) < _NUM_EXAMPLES:
            text = "\n→ ".join(_end(message["content"]) for message in chat["messages"][-2:])
            shown.append({"reason": why.reason, "chat": text, "repeats": _end(why.repeats)})

    def save(self, folder: Path) -> None:
        self._file.flush()
        shutil.copyfile(self._path, folder / "quarantine.jsonl")


def _end(text: str) -> str:
    """The end of a long text: there stands the question, behind its context."""
    return text if len(text) <= _EXAMPLE_CHARACTERS else "… " + text[-_EXAMPLE_CHARACTERS:]


class Selection:
    """The first pass: what is kept of the well-formed chats, in the order of the file."""

    def __init__(
        self,
        split_by: str,
        rules: Sequence[str],
        guarded: GuardedData | None,
        near_duplicates: NearDuplicates | None,
        quarantine: Quarantine,
    ):
        self.groups = Groups()
        self.kept: list[Kept | None] = []  # None for a chat that is left out
        self.near_duplicates: dict[int, LeftOut] = {}  # by its place in `kept`
        self.broken_rules: Counter[str] = Counter()
        self._split_by, self._rules, self._guarded, self._near = split_by, rules, guarded, near_duplicates
        self._quarantine = quarantine
        self._content_of: dict[str, int] = {}
        self._first_of: dict[int, str] = {}
        self._places = array("Q")  # in `kept`, of what was given to near_duplicates

    def choose(self, chats: Path) -> None:
        for chat, file, line in read_chats(chats, self._quarantine.refuse_record):
            why = self._why_not(chat)
            if why is None:
                key = self.groups.find(group_keys(chat["source_ids"], questions(chat), self._split_by)[0])
                if self._near:
                    self._places.append(len(self.kept))
                    self._near.add(*asked_and_answered(chat))
                language, origin, key = map(sys.intern, (chat["language"], chat["origin"], key))
                self.kept.append(Kept(chat["id"], language, origin, key))
            else:
                self.kept.append(None)
                self._quarantine.leave_out(why, chat, file, line)
        if self._near:
            self._leave_out_near_duplicates(self._near)
            self._near.close()
        self._content_of, self._first_of = {}, {}

    def _why_not(self, chat: dict[str, Any]) -> LeftOut | None:
        if rule := broken_rule(chat, self._rules):
            self.broken_rules[rule] += 1
            return LeftOut("low_quality", f"{rule}: {RULES[rule].says}")
        content = int(records.content_id(*(f"{m['role']}\n{normalize(m['content'])}" for m in chat["messages"])), 16)
        if self._content_of.setdefault(chat["id"], content) != content:
            return LeftOut("refused", f"the id {chat['id']!r} already stands for another chat")
        # Also for a duplicate: its documents say the same as those of the chat that stays.
        self.groups.link(group_keys(chat["source_ids"], questions(chat), self._split_by))
        if content in self._first_of:
            return LeftOut("duplicate", f"the same as {self._first_of[content]!r}")
        self._first_of[content] = chat["id"]
        if self._guarded and (found := self._guarded.found_in(chat)):
            return LeftOut("guarded", "repeats guarded data", found)
        return None

    def _leave_out_near_duplicates(self, near: NearDuplicates) -> None:
        """Near duplicates stay on one side, and of those that are alike the first stays."""
        for cluster in near.clusters():
            chats = {number: self.kept[self._places[number]] for number in cluster}
            self.groups.link([chat.key for chat in chats.values()])
            for number, stays in cluster.items():
                if number != stays:
                    self.kept[self._places[number]] = None
                    shown = "\n→ ".join(near.sides(stays)) if len(self.near_duplicates) < _NUM_EXAMPLES else ""
                    why = LeftOut("near_duplicate", f"a near duplicate of {chats[stays].id!r}", shown)
                    self.near_duplicates[self._places[number]] = why


def read_chats(path: Path, refuse: Callable[[records.Refused], None]) -> Iterator[tuple[dict[str, Any], str, int]]:
    """Each well-formed chat with its missing fields filled in, its file and its line."""
    for record, file, line in records.read_located(path, refuse):
        try:
            chat = complete(record)
        except ValueError as error:
            refuse(refused(record, file, line, str(error)))
        else:
            yield chat, file, line


def refused(record: dict[str, Any], file: str, line: int, reason: str) -> records.Refused:
    return records.Refused(file, line, reason, json.dumps(record, ensure_ascii=False, default=str)[:200])


def complete(record: dict[str, Any]) -> dict[str, Any]:
    """The chat with id, origin, source_ids and language, which plain training data do not have."""
    records.check_chat(record)
    messages = record["messages"]
    roles = [message["role"] for message in messages]
    if "assistant" not in roles:
        raise ValueError("no assistant turn: there is nothing to learn from it")
    if "user" not in roles[: last(roles, "assistant")]:
        raise ValueError("no user turn before the last assistant turn")
    source_ids = record.get("source_ids") or []
    if not isinstance(source_ids, list) or not all(isinstance(source, str) for source in source_ids):
        raise ValueError("'source_ids' is not a list of document ids")
    if not isinstance(record.get("tags") or {}, dict):
        raise ValueError("'tags' is not an object")
    filled = {
        "id": str(record.get("id") or records.content_id(json.dumps(messages, ensure_ascii=False, sort_keys=True))),
        "messages": messages,
        "origin": str(record.get("origin") or "supplied"),
        "source_ids": source_ids,
        "language": str(record.get("language") or _language(messages)),
    }
    return filled | {name: value for name, value in record.items() if name not in filled}


def _language(messages: list[dict[str, Any]]) -> str:
    return textstats.language("\n".join(message["content"] for message in messages)[:_ENOUGH_TO_TELL_A_LANGUAGE])


def last(roles: list[str], role: str) -> int:
    return len(roles) - 1 - roles[::-1].index(role)
