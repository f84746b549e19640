"""What a prepared dataset holds, as report.json and as one HTML page with charts and nothing from outside."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from split_groups import SIDES
from token_lengths import Lengths

REASONS = {
    "refused": "no chat, or an id that another chat has",
    "low_quality": "breaks a rule of quality",
    "duplicate": "the same as another chat",
    "near_duplicate": "nearly the same as another chat",
    "guarded": "repeats guarded data",
    "above_max_num_test_items": "above max_num_test_items",
    "mixture_weight": "not drawn, by the weight of its origin",
}


def question_type(chat: dict[str, Any]) -> str:
    return str((chat.get("tags") or {}).get("question_type") or "unspecified")


class Statistics:
    """What the report says of the chats, gathered while they are written."""

    def __init__(self, lengths: Lengths) -> None:
        self._lengths = lengths
        self._languages = {side: Counter() for side in SIDES}
        self._groups = {side: Counter() for side in SIDES}
        self._kinds: dict[str, Counter[str]] = defaultdict(Counter)
        self._origins: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, chat: dict[str, Any], side: str, group: str, num_copies: int) -> None:
        if side == "train":
            self._origins[chat["origin"]].update(before=1, after=num_copies)
        if num_copies:
            self._languages[side][chat["language"]] += num_copies
            self._groups[side][group] += num_copies
            self._kinds[question_type(chat)][side] += num_copies
            self._lengths.add(chat, side, num_copies)

    def summary(self, weights: Mapping[str, float]) -> dict[str, Any]:
        sizes = [size for groups in self._groups.values() for size in groups.values()]
        return {
            "groups": {"number": len(sizes), "largest_chats": max(sizes, default=0)},
            "split": {
                side: {
                    "chats": self._languages[side].total(),
                    "groups": len(self._groups[side]),
                    "languages": dict(sorted(self._languages[side].items())),
                }
                for side in SIDES
            },
            "mixture": [
                {"origin": origin, "weight": weights.get(origin, 1), "before": row["before"], "after": row["after"]}
                for origin, row in sorted(self._origins.items())
            ],
            "kinds": {kind: dict(row) for kind, row in sorted(self._kinds.items())},
            "lengths": {
                "unit": self._lengths.unit,
                "max_length": self._lengths.max_length,
                "table": self._lengths.summary(),
                "bins": self._lengths.bins(),
            },
        }


def headline(report: Mapping[str, Any]) -> str:
    """The result in one sentence, for the log and on top of the page."""
    counts = report["counts"]
    sizes = ", ".join(f"{side} {report['split'][side]['chats']:,}" for side in SIDES)
    reasons = ", ".join(f"{kind.replace('_', ' ')} {number:,}" for kind, number in counts["left_out"].items() if number)
    left_out = f"; left out: {reasons}" if reasons else ""
    return f"{counts['kept']:,} of {counts['read']:,} chats kept: {sizes}{left_out}"


def write_report(folder: Path, report: Mapping[str, Any]) -> None:
    content = json.dumps(report, ensure_ascii=False, indent=2)
    (folder / "report.json").write_text(content + "\n", encoding="utf-8")
    (folder / "report.html").write_text(render(report), encoding="utf-8")


def render(report: Mapping[str, Any]) -> str:
    """The page of what ``report.json`` says."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
    return environment.get_template("dataset_report.html.j2").render(
        report=report,
        headline=headline(report),
        sides=SIDES,
        funnel=_funnel(report["counts"]),
        languages=_languages(report["split"]),
        tallest=max((sum(bin_[side] for side in SIDES) for bin_ in report["lengths"]["bins"]), default=1) or 1,
        largest_origin=max((max(row["before"], row["after"]) for row in report["mixture"]), default=1) or 1,
        reasons=REASONS,
    )


def _funnel(counts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A bar for what came in, one for each reason where it is cut off, and one for what is kept."""
    rest = num_read = counts["read"]
    rows = [{"label": "read", "chats": num_read, "start": 0.0, "width": 1.0, "kind": "kept"}]
    for kind, number in counts["left_out"].items():
        rest -= number
        start, width = (rest / num_read, number / num_read) if num_read else (0.0, 0.0)
        rows.append({"label": REASONS[kind], "chats": number, "start": start, "width": width, "kind": "lost"})
    share = counts["kept"] / num_read if num_read else 0.0
    return [*rows, {"label": "kept", "chats": counts["kept"], "start": 0.0, "width": share, "kind": "kept"}]


def _languages(split: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sides of each language, and of all."""
    rows = []
    for language in [*sorted({name for side in SIDES for name in split[side]["languages"]}), "all"]:
        numbers = {
            side: split[side]["chats"] if language == "all" else split[side]["languages"].get(language, 0)
            for side in SIDES
        }
        rows.append({"language": language, "numbers": numbers, "total": sum(numbers.values())})
    return rows
