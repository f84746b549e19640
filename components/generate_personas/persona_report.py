"""What was asked, kept and refused, how the personas are spread and how distinct they are, as JSON and as a page."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from k_anonymity import Anonymized

from slmkit import html_report, records, text_embedding, textstats

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_EXAMPLES = 4
REASONS = {
    "wrong_language": "not in the language asked for",
    "direct_identifier": "holds a direct identifier",
    "near_duplicate": "too similar to an earlier one",
    "small_cell": "shares its quasi-identifiers with too few",
    "surplus": "more than asked for",
}
SPREAD = ("origin", "language", "occupation_group", "age_band", "region", "experience", "tone")


def write(
    folder: Path, teacher: str, args: object, counts: Counter[str], anonymized: Anonymized, usage: Mapping[str, float]
) -> dict:
    personas = anonymized.kept
    report = {
        "teacher": teacher,
        "is_model": teacher != "embedded",
        "counts": dict(sorted(counts.items())),
        "k_anonymity": {
            "quasi_identifiers": [part.strip() for part in args.quasi_identifiers.split(",")],
            "min_cell_size": args.min_cell_size,
            "num_cells": len(anonymized.cells),
            "smallest_cell": min(anonymized.cells.values(), default=0),
            "generalized": {name: number for name, number in anonymized.generalized.items() if number},
        },
        "distinctness": distinctness(personas),
        "spread": {name: dict(spread(personas, name).most_common()) for name in SPREAD},
        "usage": usage,
    }
    with records.whole_file(folder / "report.json") as partial:
        partial.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with records.whole_file(folder / "report.html") as partial:
        partial.write_text(render(report, personas, args.num_personas), encoding="utf-8")
    return report


def distinctness(personas: Sequence[Mapping]) -> dict[str, float]:
    """Similarity of each sentence to its nearest other, and the share of different units and pairs of units in all."""
    texts = [persona["persona"] for persona in personas]
    measured = {"mean_nearest_similarity": 0.0, "max_nearest_similarity": 0.0}
    if len(texts) > 1:
        rows = text_embedding.embed(texts)
        others = text_embedding.nearest(rows, rows, 2)[0][:, 1]  # the nearest is itself
        measured = {
            "mean_nearest_similarity": round(float(others.mean()), 4),
            "max_nearest_similarity": round(float(others.max()), 4),
        }
    return measured | {f"distinct_{n}": round(distinct_n(texts, n), 4) for n in (1, 2)}


def distinct_n(texts: Iterable[str], n: int) -> float:
    """Distinct n-grams over all n-grams (Li et al. 2016): of words, of characters in Japanese."""
    grams: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        units = list("".join(text.split())) if textstats.language(text) == "ja" else text.lower().split()
        grams.update(tuple(units[i : i + n]) for i in range(len(units) - n + 1))
    return len(grams) / grams.total() if grams else 0.0


def spread(personas: Iterable[Mapping], name: str) -> Counter[str]:
    def value(persona: Mapping) -> str:
        places = (persona, persona["characteristics"], persona["behavior"])
        return next(place[name] for place in places if name in place) or "left out"

    return Counter(map(value, personas))


def render(report: Mapping, personas: Sequence[Mapping], num_wanted: int) -> str:
    counts, cells, measured = report["counts"], report["k_anonymity"], report["distinctness"]
    no_model = "" if report["is_model"] else html_report.badge("no model: combined from word lists", "warn")
    refused = [[text, counts[name]] for name, text in REASONS.items() if counts.get(name)]
    asked = [
        ["documents read", counts.get("documents", 0)],
        ["documents refused", counts.get("documents_refused", 0)],
        ["documents in other languages", counts.get("documents_in_other_languages", 0)],
        ["requests", counts.get("requests", 0)],
        ["requests that failed", counts.get("requests_failed", 0)],
        ["requests refused by the teacher or a filter", counts.get("requests_filtered", 0)],
    ]
    fields = ", ".join(cells["quasi_identifiers"])
    sections = [
        f"<p>Teacher: {html_report.badge(report['teacher'], 'good' if report['is_model'] else 'warn')} {no_model}</p>",
        "<h2>Personas</h2>",
        html_report.table(
            ["outcome", "personas"],
            [["asked for", num_wanted], ["given", counts.get("candidates", 0)], ["kept", counts["kept"]], *refused],
        ),
        "<h2>Cells of quasi-identifiers</h2>",
        f"<p>Every combination of {escape(fields)} is shared by at least {cells['min_cell_size']} personas."
        " Nothing is said about free text: a sentence may describe a person more closely than these fields do.</p>"
        if cells["min_cell_size"] > 1
        else f"<p>{html_report.badge('k-anonymity is off (min_cell_size is 1)', 'warn')}</p>",
        html_report.table(
            ["", "number"],
            [
                ["cells", cells["num_cells"]],
                ["personas in the smallest cell", cells["smallest_cell"]],
                *([f"personas whose {name} was generalized", number] for name, number in cells["generalized"].items()),
                ["personas refused", counts.get("small_cell", 0)],
            ],
        ),
        "<h2>Distinctness</h2>",
        html_report.table(
            ["of the sentences", "value"], [[name.replace("_", " "), value] for name, value in measured.items()]
        ),
        "<h2>Spread</h2>",
        html_report.chart(_bars(report["spread"]), "Number of personas by each characteristic"),
        "<h2>Examples</h2>",
        html_report.table(
            ["language", "persona", "characteristics", "behavior"], [_example(row) for row in _some(personas)]
        ),
        "<h2>What the teacher was asked</h2>",
        html_report.table(
            ["", "number"], [*asked, *([k.replace("_", " "), v] for k, v in report["usage"].items() if v)]
        ),
    ]
    return html_report.page("Personas", *sections)


def _some(personas: Sequence[Mapping]) -> list[Mapping]:
    """A few of each language and origin."""
    shown: Counter[tuple] = Counter()
    chosen = []
    for persona in personas:
        shown[kind := (persona["language"], persona["origin"])] += 1
        if shown[kind] <= NUM_EXAMPLES:
            chosen.append(persona)
    return sorted(chosen, key=lambda persona: (persona["language"], persona["origin"]))


def _example(persona: Mapping) -> list[str]:
    who = [f"{name}: {value}" for name, value in persona["characteristics"].items() if value]
    how = [
        f"{name}: {value if isinstance(value, str) else '; '.join(value)}"
        for name, value in persona["behavior"].items()
    ]
    return [f"{persona['language']}, {persona['origin']}", persona["persona"], " · ".join(who), " · ".join(how)]


def _bars(spreads: Mapping[str, Mapping[str, int]]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots(2, 3).ravel()
    shown = {name: values for name, values in spreads.items() if name != "region"}  # free text, in any script
    for axis, (name, values) in zip(axes, shown.items(), strict=False):
        axis.barh(list(values)[::-1], list(values.values())[::-1], color="#4a7fb5")
        axis.set_title(name.replace("_", " "), fontsize=9)
        axis.tick_params(labelsize=7)
    for axis in axes[len(shown) :]:
        axis.remove()
    return figure
