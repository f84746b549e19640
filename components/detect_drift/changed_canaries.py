"""Canaries whose answers turned from right to wrong since the baseline, with both answers, for people to look at."""

from typing import Any

from baseline_identity import same_questions
from drift_snapshot import Canary, Snapshot

MAX_EXAMPLES = 8


def changed_canaries(baseline: Snapshot, current: Snapshot) -> dict[str, Any]:
    """How many canaries in their original wording got worse and better; of the worse, the clearest of each language."""
    pairs = [
        (before, after)
        for before, after in zip(*same_questions(baseline.canaries, current.canaries), strict=True)
        if before.edit is None and before.repeat == 0
    ]
    worse = sorted(
        (pair for pair in pairs if pair[1].score < pair[0].score),
        key=lambda pair: (pair[1].failed, pair[1].score - pair[0].score, pair[0].id),
    )
    ranked, rank_in_language = [], {}
    for pair in worse:
        language = pair[0].slices.get("language")
        rank = rank_in_language[language] = rank_in_language.get(language, 0) + 1
        ranked.append((rank, len(ranked), pair))
    return {
        "num_canaries": len(pairs),
        "num_worse": len(worse),
        "num_better": sum(after.score > before.score for before, after in pairs),
        "examples": [example(*pair) for _, _, pair in sorted(ranked, key=lambda one: one[:2])[:MAX_EXAMPLES]],
    }


def example(before: Canary, after: Canary) -> dict[str, Any]:
    """What stands before the last paragraph of a question is its context."""
    context, _, question = before.question.strip().rpartition("\n\n")
    return {
        "language": before.slices.get("language") or "und",
        "slices": [value for key, value in before.slices.items() if key != "held_out"],
        "context": context,
        "question": question,
        "references": before.references,
        "answers": [("then", before), ("now", after)],
    }
