"""Decide by a policy whether the candidate of a comparison is promoted."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import audited_data
import compared
import promotion_rules
from compared import Comparison, Evidence, Pair
from promotion_policy import Policy
from promotion_rules import Reason

from slmkit import checked_files, cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
DEFAULT_POLICY = Path(__file__).with_name("policy.yml")
EXIT_CODES = {"promote": 0, "reject": 3, "inconclusive": 4}  # 1 and 2 are errors


@dataclass(frozen=True)
class Args:
    comparison: Path
    decision: Path
    policy: Path | None = None
    candidate: str | None = None
    privacy_decision: Path | None = None
    exit_code_by_verdict: bool = False


def run(args: Args) -> dict[str, float]:
    policy_path = args.policy or DEFAULT_POLICY
    policy = checked_files.load(policy_path, Policy)
    comparison = checked_files.load(args.comparison, Comparison, "is it the output of compare_candidates?")
    if comparison.confidence_level < policy.confidence_level:
        raise UserError(
            f"the policy asks for confidence_level {policy.confidence_level}, the comparison was made at "
            f"{comparison.confidence_level}; run compare_candidates again with the policy's"
        )

    pair = comparison.pair(args.candidate)
    reasons = list(promotion_rules.judge(policy, comparison, pair))
    audited = audited_data.judge(policy.privacy_verdict, args.privacy_decision, args.comparison, pair.candidate)
    reasons += audited
    verdict = promotion_rules.verdict(reasons)
    candidate = comparison.side(pair.candidate)
    needed = [reason.num_items_needed for reason in reasons if reason.num_items_needed]
    decision = {
        "verdict": verdict,
        "candidate": pair.candidate,
        "baseline": pair.baseline,
        "model_sha256": candidate.model_sha256,
        "endpoint": candidate.endpoint,
        "reasons": [reason.model_dump() for reason in reasons],
        "num_items_needed": max(needed) if needed and verdict == "inconclusive" else None,
        "num_items_formula": promotion_rules.FORMULA,
        "comparison_sha256": lineage.sha256(args.comparison),
        "policy_sha256": lineage.sha256(policy_path),
        "privacy_decision_sha256": lineage.sha256(args.privacy_decision) if args.privacy_decision else None,
        "eval_items_sha256": comparison.eval_items_sha256,
        "scores_sha256": {name: comparison.side(name).scores_sha256 for name in (pair.baseline, pair.candidate)},
    }
    with records.whole_file(args.decision) as partial:
        partial.write_text(json.dumps(decision, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")

    metrics = {"gate/promote": float(verdict == "promote")}
    tracking.log_metrics(metrics)
    tracking.set_tags({"verdict": verdict})
    lineage.write(args, SPEC)
    found = compared.look_up(comparison, pair, policy.superiority or policy.guards[0])
    print(summary(comparison, pair, found, verdict, reasons))
    if args.exit_code_by_verdict:
        sys.exit(EXIT_CODES[verdict])
    return metrics


def summary(comparison: Comparison, pair: Pair, found: Evidence, verdict: str, reasons: list[Reason]) -> str:
    """The decision as a person reads it in the log."""
    rows = [(found.where, "score", f"{100 * comparison.confidence_level:g}% interval")]
    for name, score in ((pair.baseline, found.baseline), (pair.candidate, found.candidate)):
        interval = "" if score.low is None else f"{score.low:.1%} to {score.high:.1%}"
        rows.append((name, f"{score.mean:.1%}", interval or "none"))
    of = found.difference
    interval = "none" if of.low is None else f"{100 * of.low:+.1f} to {100 * of.high:+.1f} points"
    rows.append(("difference", f"{100 * of.difference:+.1f}", interval))
    width = max(len(name) for name, _, _ in rows)
    rule_width = max(len(reason.rule) for reason in reasons)
    closing = [
        f"  About {reason.num_items_needed:,} questions like these would decide {reason.rule}"
        + (f" ({reason.where})." if reason.where else ".")
        for reason in reasons
        if verdict == "inconclusive" and reason.num_items_needed
    ]
    return "\n".join(
        [
            f"{verdict.upper()}: {pair.candidate} against {pair.baseline}, {comparison.num_items:,} questions in "
            f"{comparison.num_clusters:,} clusters",
            comparison.held_out.statement,
            *comparison.warnings,
            "",
            *(f"  {name:<{width}}  {score:>7}   {interval}" for name, score, interval in rows),
            "",
            *(f"  {reason.outcome:<9}  {reason.rule:<{rule_width}}  {reason.text}" for reason in reasons),
            *closing,
        ]
    )


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
