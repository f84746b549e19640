"""Decide by a policy whether the candidate of a comparison is promoted."""

import json
from dataclasses import dataclass
from pathlib import Path

import promotion_policy
from promotion_policy import Comparison, Policy, Reason

from slmkit import checked_files, cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
DEFAULT_POLICY = Path(__file__).with_name("policy.yml")


@dataclass(frozen=True)
class Args:
    comparison: Path
    decision: Path
    policy: Path | None = None


def run(args: Args) -> dict[str, float]:
    policy_path = args.policy or DEFAULT_POLICY
    policy = checked_files.load(policy_path, Policy)
    comparison = checked_files.load(args.comparison, Comparison)
    check_fit(policy, comparison)

    reasons = list(promotion_policy.judge(policy, comparison))
    verdict = promotion_policy.verdict(reasons)
    needed = promotion_policy.num_items_needed(policy, comparison) if verdict == "inconclusive" else None
    baseline, candidate = comparison.sides()
    decision = {
        "verdict": verdict,
        "candidate": candidate.name,
        "baseline": baseline.name,
        "reasons": [reason.model_dump() for reason in reasons],
        "num_items_needed": needed,
        "comparison_sha256": lineage.sha256(args.comparison),
        "policy_sha256": lineage.sha256(policy_path),
        "eval_items_sha256": comparison.eval_items_sha256,
        "scores_sha256": {side.name: side.scores_sha256 for side in (baseline, candidate)},
    }
    with records.whole_file(args.decision) as partial:
        partial.write_text(json.dumps(decision, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    metrics = {"gate/promote": float(verdict == "promote")}
    tracking.log_metrics(metrics)
    tracking.set_tags({"verdict": verdict})
    lineage.write(args, SPEC)
    print(summary(policy.superiority.metric, comparison, verdict, reasons, needed))
    return metrics


def check_fit(policy: Policy, comparison: Comparison) -> None:
    wanted, found = policy.superiority, comparison.comparisons[0].metrics
    if wanted.metric not in found:
        raise UserError(f"the policy asks for metric {wanted.metric!r}; the comparison has {', '.join(found)}")
    if comparison.confidence_level < wanted.confidence_level:
        raise UserError(
            f"the policy asks for confidence_level {wanted.confidence_level}, the comparison was made at "
            f"{comparison.confidence_level}; run compare_candidates again with the policy's"
        )


def summary(metric: str, comparison: Comparison, verdict: str, reasons: list[Reason], needed: int | None) -> str:
    """The decision as a person reads it in the log."""
    baseline, candidate = comparison.sides()
    difference = comparison.comparisons[0].metrics[metric]
    rows = [(metric, "score", f"{100 * comparison.confidence_level:g}% interval")]
    for side in (baseline, candidate):
        score = side.metrics[metric]
        rows.append((side.name, f"{score.mean:.1%}", f"{score.low:.1%} to {score.high:.1%}"))
    low, high = f"{100 * difference.low:+.1f}", f"{100 * difference.high:+.1f}"
    rows.append(("difference", f"{100 * difference.difference:+.1f}", f"{low} to {high} points"))
    width = max(len(name) for name, _, _ in rows)
    table = [f"  {name:<{width}}  {score:>7}   {interval}" for name, score, interval in rows]
    rules = [f"  {reason.outcome:<9}  {reason.rule:<21}  {reason.text}" for reason in reasons]
    closing = [f"  About {needed:,} questions like these would decide."] if needed else []
    questions = f"{comparison.num_items:,} questions in {comparison.num_clusters:,} clusters"
    return "\n".join(
        [
            f"{verdict.upper()}: {candidate.name} against {baseline.name}, {questions}",
            comparison.held_out.statement,
            *comparison.warnings,
            "",
            *table,
            "",
            *rules,
            *closing,
        ]
    )


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
