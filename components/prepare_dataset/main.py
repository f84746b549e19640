"""Check, deduplicate, decontaminate, mix and split chats so that nothing held out is trained on."""

import tempfile
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from chat_selection import LeftOut, Quarantine, Selection, last, read_chats
from chat_texts import questions
from dataset_report import Statistics, headline, question_type, write_report
from decontamination import GuardedData
from minhash_signatures import sign
from mixture import Mixture, read_weights
from near_duplicates import NearDuplicates
from quality_rules import RULES, chosen_rules
from split_groups import SIDES, Group, assign_sides, choose_evenly, group_keys, split_notes
from stored_signatures import StoredSignatures
from token_lengths import open_lengths

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
OVER = LeftOut("above_max_num_test_items", "above max_num_test_items")
NOT_DRAWN = LeftOut("mixture_weight", "not drawn, by the weight of its origin")


@dataclass(frozen=True)
class Args:
    chats: Path
    train_data: Path
    validation_data: Path
    test_data: Path
    eval_items: Path
    report: Path
    guarded_data: Path | None = None
    earlier_train_data: Path | None = None
    signatures: Path | None = None
    tokenizer: Path | None = None
    near_duplicate_threshold: float = 0.7
    quality_rules: str = "safe"
    mixture_weights: str | None = None
    validation_fraction: float = 0.1
    test_fraction: float = 0.2
    split_by: str = "document"
    max_num_test_items: int | None = None
    max_length: int | None = None
    seed: int = 42
    max_error_fraction: float = 0.0


def run(args: Args) -> dict[str, float]:
    if args.validation_fraction + args.test_fraction >= 1:
        raise UserError("validation_fraction and test_fraction together leave nothing to train on; lower one of them")
    mixture = Mixture(read_weights(args.mixture_weights), args.seed)
    statistics = Statistics(open_lengths(args.tokenizer, args.max_length))
    with tempfile.TemporaryDirectory() as folder, Quarantine(Path(folder) / "quarantine.jsonl") as quarantine:
        selection = select(args, Path(folder), quarantine)
        mixture.check({chat.origin for chat in selection.kept if chat})
        sides, notes = split(args, selection)
        report = write_dataset(args, selection, sides, mixture, statistics, quarantine, notes)

    metrics = {f"data/num_{side}_chats": report["split"][side]["chats"] for side in SIDES}
    metrics |= {f"data/num_{reason}": number for reason, number in report["counts"]["left_out"].items()}
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    print(headline(report))
    for note in report["notes"]:
        print(note)
    lineage.write(args, SPEC, contents=train_contents(report))
    return metrics


def train_contents(report: dict[str, Any]) -> dict[str, Any]:
    """What a model card says of the training data."""
    train = report["split"]["train"]
    origins = {row["origin"]: row["after"] for row in report["mixture"] if row["after"]}
    return {"num_chats": train["chats"], "languages": train["languages"], "origins": origins}


def select(args: Args, folder: Path, quarantine: Quarantine) -> Selection:
    """The first pass over the chats; `folder` takes what does not stay in memory."""
    guarded = GuardedData(args.guarded_data) if args.guarded_data else None
    near = None
    if args.near_duplicate_threshold < 1:
        signer = StoredSignatures(args.signatures) if args.signatures else sign
        near = NearDuplicates(folder, args.near_duplicate_threshold, signer)
    selection = Selection(args.split_by, chosen_rules(args.quality_rules), guarded, near, quarantine)
    selection.choose(args.chats)
    num_refused = quarantine.left_out["refused"]
    try:
        first = f" (the first: {quarantine.first_refused})" if num_refused else ""
        num_read = len(selection.kept) + quarantine.num_unreadable
        records.check_share(num_refused, num_read, args.max_error_fraction, f"chats{first}")
    except UserError:
        with records.whole_folder(args.report) as report:
            quarantine.save(report)
        raise
    return selection


def split(args: Args, selection: Selection) -> tuple[dict[str, str], list[str]]:
    """The side of each group, with notes on what a reader of the split should know."""
    find = selection.groups.find
    votes: dict[str, Counter[str]] = defaultdict(Counter)
    for chat in filter(None, selection.kept):
        votes[find(chat.key)][chat.language] += 1
    trained = trained_groups(args, selection) if args.earlier_train_data else set()
    groups = {
        name: Group(min(count, key=lambda language: (-count[language], language)), count.total(), name in trained)
        for name, count in votes.items()
    }
    sides = assign_sides(groups, args.validation_fraction, args.test_fraction, args.seed)
    shares = {"validation": args.validation_fraction, "test": args.test_fraction}
    wanted = {"train": 1 - sum(shares.values())} | shares
    empty = [side for side in SIDES if wanted[side] > 0 and side not in sides.values()]
    if empty:
        num_chats = sum(group.size for group in groups.values())
        raise UserError(
            f"{args.chats}: {num_chats} usable chats form {len(sides)} groups, too few to split ({' and '.join(empty)} "
            "would be empty); give chats from more documents, set a fraction to 0, or split_by chat"
        )
    return sides, split_notes(groups, sides, wanted)


def trained_groups(args: Args, selection: Selection) -> set[str]:
    """The groups that share a document or a question with what was trained on before."""
    found = set()
    for chat, _, _ in read_chats(args.earlier_train_data, stop_at):
        keys = group_keys(chat["source_ids"], questions(chat), args.split_by)
        found |= {selection.groups.find(key) for key in keys if key in selection.groups}
    return found


def stop_at(refused: records.Refused) -> None:
    raise UserError(f"earlier_train_data {refused}; correct or remove the line")


def write_dataset(
    args: Args,
    selection: Selection,
    sides: dict[str, str],
    mixture: Mixture,
    statistics: Statistics,
    quarantine: Quarantine,
    notes: list[str],
) -> dict[str, Any]:
    """The second pass: each chat goes to its side, or to the quarantine. All outputs appear at the end."""
    over = tests_over_the_limit(args, selection, sides)
    with ExitStack() as files:
        write = {
            side: files.enter_context(records.write_records(path))
            for side, path in zip(SIDES, (args.train_data, args.validation_data, args.test_data), strict=True)
        }
        write_item = files.enter_context(records.write_records(args.eval_items))
        for place, (chat, file, line) in enumerate(read_chats(args.chats, lambda _: None)):
            if why := selection.near_duplicates.get(place) or over.get(place):
                quarantine.leave_out(why, chat, file, line)
            if place in over or not (memory := selection.kept[place]):
                continue
            group = selection.groups.find(memory.key)
            side = sides[group]
            num_copies = mixture.num_copies(chat["id"], chat["origin"]) if side == "train" else 1
            if not num_copies:
                quarantine.leave_out(NOT_DRAWN, chat, file, line)
            for copy in range(num_copies):
                write[side](chat if copy == 0 else chat | {"id": f"{chat['id']}#{copy + 1}"})
            statistics.add(chat, side, group, num_copies)
            if side == "test":
                write_item(as_eval_item(chat, group, args.split_by))
        num_read = len(selection.kept) + quarantine.num_unreadable
        left_out = quarantine.left_out
        report = {
            "counts": {"read": num_read, "kept": num_read - left_out.total(), "left_out": dict(left_out)},
            "parameters": {name: value for name, value in asdict(args).items() if not isinstance(value, Path)},
            "quality_rules": {
                name: {"says": RULES[name].says, "chats": selection.broken_rules[name]}
                for name in chosen_rules(args.quality_rules)
            },
            **statistics.summary(mixture.weights),
            "examples": quarantine.examples,
            "notes": notes,
        }
        with records.whole_folder(args.report) as folder:
            quarantine.save(folder)
            write_report(folder, report)
    return report


def tests_over_the_limit(args: Args, selection: Selection, sides: dict[str, str]) -> dict[int, LeftOut]:
    """By place, the test chats above max_num_test_items; they are not trained on either."""
    if args.max_num_test_items is None:
        return {}
    tests = {
        chat.id: (place, chat.language)
        for place, chat in enumerate(selection.kept)
        if chat and sides[selection.groups.find(chat.key)] == "test"
    }
    languages = {chat_id: language for chat_id, (_, language) in tests.items()}
    kept = choose_evenly(languages, args.max_num_test_items, args.seed)
    return {place: OVER for chat_id, (place, _) in tests.items() if chat_id not in kept}


def as_eval_item(chat: dict[str, Any], group: str, split_by: str) -> dict[str, Any]:
    roles = [message["role"] for message in chat["messages"]]
    answer = last(roles, "assistant")
    return {
        "id": chat["id"],
        "messages": chat["messages"][: last(roles[:answer], "user") + 1],
        "references": [chat["messages"][answer]["content"]],
        "source_ids": chat["source_ids"],
        "slices": {
            "language": chat["language"],
            "question_type": question_type(chat),
            "held_out": "documents" if split_by == "document" and chat["source_ids"] else "questions",
        },
        "cluster": group,
    }


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
