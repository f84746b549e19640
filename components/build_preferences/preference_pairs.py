"""Which two answers of a question make a pair, and which pairs are held out."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from slmkit.records import content_id

if TYPE_CHECKING:
    from main import Args

Pair = dict[str, Any]
PAIRED = "made a pair"
REFERENCE = "reference"


class Answer(NamedTuple):
    candidate: str
    text: str
    score: float


def pairs_of(item: dict[str, Any], answers: Sequence[Answer], args: "Args") -> tuple[list[Pair], str]:
    """The pairs of a question, the widest margins first, and what came of it."""
    good = [answer for answer in answers if answer.score >= args.min_chosen_score]
    if not answers:
        return [], "no answer to compare"
    if not good and args.use_reference:
        good = [Answer(REFERENCE, item["references"][0].strip(), 1.0)]
    if not good:
        return [], "no answer reaches min_chosen_score"
    if len({*good, *answers}) == 1:
        return [], "one answer only"
    both = [(chosen, rejected, round(chosen.score - rejected.score, 9)) for chosen in good for rejected in answers]
    wide = [found for found in both if found[2] > 0 and found[2] >= args.min_margin and found[0].text != found[1].text]
    if not wide:
        return [], "all scores equal" if len({answer.score for answer in answers}) == 1 else "margin below min_margin"
    # Among equal margins a draw, which neither the order of the files nor the names of the candidates decide.
    wide.sort(key=lambda found: (-found[2], content_id(str(args.seed), item["id"], found[0].text, found[1].text)))
    return [_pair(item, chosen, rejected) for chosen, rejected, _ in wide[: args.max_pairs_per_prompt]], PAIRED


def _pair(item: dict[str, Any], chosen: Answer, rejected: Answer) -> Pair:
    return {
        "id": content_id(item["id"], chosen.text, rejected.text),
        "prompt": item["messages"],
        "chosen": [{"role": "assistant", "content": chosen.text}],
        "rejected": [{"role": "assistant", "content": rejected.text}],
        "chosen_score": chosen.score,
        "rejected_score": rejected.score,
        "chosen_candidate": chosen.candidate,
        "rejected_candidate": rejected.candidate,
        "question_id": item["id"],
        "cluster": str(item.get("cluster") or content_id(*(message["content"] for message in item["messages"]))),
        **({"source_ids": item["source_ids"]} if item.get("source_ids") else {}),
    }


def held_out_clusters(pairs: Sequence[Pair], validation_fraction: float, seed: int) -> set[str]:
    """Clusters drawn until their pairs are the share that is wanted; one cluster at least stays to be trained on.

    One that would miss the share by more than it helps is passed over, and where all are that large, the smallest is
    held out.
    """
    sizes = Counter(pair["cluster"] for pair in pairs)
    wanted = validation_fraction * len(pairs)
    held_out: set[str] = set()
    if wanted == 0 or len(sizes) < 2:
        return held_out
    order = sorted(sizes, key=lambda name: content_id(str(seed), name))
    for name in order[:-1]:
        if sum(sizes[other] for other in held_out) + sizes[name] / 2 <= wanted:
            held_out.add(name)
    return held_out or {min(order, key=sizes.__getitem__)}
