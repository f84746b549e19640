"""Make the canaries of a monitor: eval items to ask again and again, and in other words of the same meaning."""

import collections
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import canary_choice
import prompt_edits
import question_part

from slmkit import cli, lineage, records, textstats, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
Item = dict[str, Any]


@dataclass(frozen=True)
class Args:
    eval_items: Path
    canary_items: Path
    report: Path
    num_canaries: int = 100
    edits: str = "whitespace,punctuation,politeness,order,synonyms"
    num_variants: int = 2
    num_repeats: int = 2
    seed: int = 0


def run(args: Args) -> dict[str, float]:
    edits = parse_edits(args.edits)
    items = read_items(args.eval_items)
    canaries = canary_choice.choose(items, args.num_canaries, args.seed)
    rows: dict[str, Item] = {}
    counts = {edit: collections.Counter(applied=0, not_applicable=0) for edit in edits}
    examples: dict[tuple[str, str], dict[str, str]] = {}
    for item in canaries:
        language = language_of(item)
        for repeat in range(args.num_repeats):
            add(rows, item, f":r{repeat}" if repeat else "", edit=None, repeat=repeat)
        for edit, text in variants(item, language, edits, args, counts):
            turn = {**item["messages"][-1], "content": text}
            messages = [*item["messages"][:-1], turn]
            add(rows, {**item, "messages": messages}, f":{edit}", edit=edit, repeat=0)
            example = {"original": item["messages"][-1]["content"], "edited": text}
            examples.setdefault((edit, language), {"edit": edit, "language": language, "id": item["id"], **example})
    num_varied = len({row["canary_id"] for row in rows.values() if row["edit"]})
    with records.write_records(args.canary_items) as write:
        for row in rows.values():
            write(row)
    metrics = {
        "canaries/num_canaries": len(canaries),
        "canaries/num_rows": len(rows),
        "canaries/num_with_variants": num_varied,
        "canaries/num_clusters": len(set(map(canary_choice.cluster, canaries))),
    }
    report = {
        "num_items": len(items),
        **{name.partition("/")[2]: value for name, value in metrics.items()},
        "strata": strata(items, canaries),
        "edits": counts,
        "examples": list(examples.values()),
    }
    with records.whole_file(args.report) as partial:
        partial.write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    tracking.log_metrics(metrics)
    lineage.write(args, SPEC)
    print(
        f"{len(canaries)} canaries of {len(items)} items, {len(rows)} prompts to ask; {num_varied} in other words too"
    )
    return metrics


def parse_edits(text: str) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if unknown := [name for name in names if name not in prompt_edits.EDITS]:
        raise UserError(f"edits: {unknown[0]!r} is not one of {', '.join(prompt_edits.EDITS)}")
    if not names:
        raise UserError("edits is empty: name at least one of them; without variants, set num_variants to 0")
    return names


def read_items(path: Path) -> list[Item]:
    items: dict[str, Item] = {}
    for item, source, line in records.read_located(path):
        where, id = f"{source}:{line}", item.get("id")
        if not isinstance(id, str) or not id or id in items:
            raise UserError(f"{where}: 'id' is missing, empty or not unique ({id!r:.80}); give each item its own")
        try:
            records.check_chat(item)
            records.check_slices(item)
        except ValueError as error:
            raise UserError(f"{where}: eval item {id[:80]!r}: {error}") from None
        if item["messages"][-1]["role"] != "user":
            raise UserError(f"{where}: eval item {id[:80]!r} does not end with the user's turn, so it asks nothing")
        items[id] = item
    if not items:
        raise UserError(f"{path}: no eval items to take canaries from")
    return list(items.values())


def language_of(item: Item) -> str:
    """What the item states (ja, or ja-JP), else the language of its question."""
    stated = (item.get("slices") or {}).get("language")
    return str(stated).partition("-")[0].lower() if stated else textstats.language(item["messages"][-1]["content"])


def variants(
    item: Item, language: str, edits: list[str], args: Args, counts: dict[str, collections.Counter]
) -> list[tuple[str, str]]:
    """Edited last turns by the names of their edits: as many as wanted that differ from the original and each other."""
    text = item["messages"][-1]["content"]
    instructions = "\n".join(turn["content"] for turn in item["messages"] if turn["role"] == "system")
    prompt = question_part.find(text, instructions)
    rng = random.Random(f"{args.seed} {item['id']}")
    found: dict[str, str] = {}
    for edit in rng.sample(edits, len(edits)) if args.num_variants else []:
        edited = prompt_edits.apply(edit, prompt, language, rng) if prompt else None
        if edited is None or edited in found.values():
            counts[edit]["not_applicable"] += 1
        else:
            counts[edit]["applied"] += 1
            found[edit] = edited
        if len(found) == args.num_variants:
            break
    return list(found.items())


def add(rows: dict[str, Item], item: Item, suffix: str, *, edit: str | None, repeat: int) -> None:
    id = item["id"] + suffix
    if id in rows:
        raise UserError(f"two canaries would have the id {id[:80]!r}; rename the eval item whose id ends in {suffix!r}")
    named = {"canary_id": item["id"], "edit": edit, "repeat": repeat, "cluster": canary_choice.cluster(item)}
    rows[id] = {**item, "id": id, **named}


def strata(items: list[Item], canaries: list[Item]) -> list[dict[str, Any]]:
    available, chosen = (collections.Counter(map(canary_choice.stratum, some)) for some in (items, canaries))
    return [{"slices": dict(name), "num_items": num, "num_canaries": chosen[name]} for name, num in available.items()]


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
