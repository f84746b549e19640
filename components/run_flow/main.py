"""Run a prompt flow, each variant of it, over eval items, and name the node at fault for what it gets wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError
from slmkit.resume_log import ResumeLog

if TYPE_CHECKING:
    from flow_evaluation import Evaluation
    from flow_graph import Flow
    from flow_items import Item
    from flow_runs import FlowRuns

SPEC = Path(__file__).with_name("component.yml")
MAX_SHOWN_ERRORS = 5
SETTINGS = ("candidate", "endpoint", "endpoint_model", "prompt_format", "bf16", "max_new_tokens", "seed")


@dataclass(frozen=True)
class Args:
    flow: Path
    eval_items: Path
    candidate: str
    baseline_scores: Path
    baseline_predictions: Path
    candidate_scores: Path
    candidate_predictions: Path
    node_results: Path
    report: Path
    model: Path | None = None
    endpoint: str | None = None
    endpoint_model: str | None = None
    prompt_price: float | None = None
    completion_price: float | None = None
    auth: str = "azure"
    concurrency: int = 8
    prompt_format: str = "chat"
    batch_size: int = 16
    bf16: bool = False
    max_new_tokens: int = 128
    max_num_variants: int = 32
    max_error_fraction: float = 0.05
    seed: int = 0


def run(args: Args) -> dict[str, float]:
    records.check_candidate(args.candidate)
    import flow_evaluation
    import flow_files
    import flow_items
    import flow_report
    from flow_graph import BASELINE

    flow = flow_files.load(args.flow)
    candidates = flow.candidates(args.max_num_variants)
    items = flow_items.read(args.eval_items, flow)
    runs, log = ask(args, flow, items, candidates)
    evaluation = flow_evaluation.evaluate(flow, items, candidates, runs, args.seed)

    others = [name for name in candidates if name != BASELINE]
    write_answers(args, evaluation, [BASELINE], args.baseline_predictions, args.baseline_scores)
    write_answers(args, evaluation, others, args.candidate_predictions, args.candidate_scores)
    write_node_results(args, evaluation)
    settings = {name: getattr(args, name) for name in SETTINGS if getattr(args, name) is not None}
    report = flow_report.write(args.report, evaluation, settings)

    metrics = flow_report.metrics(report)
    tracking.set_tags({"candidate": args.candidate})
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report / "report.html")
    lineage.write(args, SPEC)
    log.forget()
    print(flow_report.headline(report))
    if not others:
        print("the flow has no other variants: candidate_scores and candidate_predictions are empty")
    return metrics


def ask(
    args: Args, flow: "Flow", items: "Mapping[str, Item]", candidates: Mapping[str, Mapping[str, str]]
) -> "tuple[FlowRuns, ResumeLog]":
    """All outcomes; answers are kept as they come, and a second start goes on from them."""
    from flow_runs import FlowRuns

    from model_inference import answer_sources

    prices = answer_sources.Prices(args.prompt_price, args.completion_price)
    with (
        answer_sources.connect(args, prices) as source,
        ResumeLog(args.node_results, [source.identity, args.prompt_price, args.completion_price]) as log,
    ):
        runs = FlowRuns(flow, items, source, log, max_new_tokens=args.max_new_tokens, seed=args.seed)
        runs.run(candidates)
    for traffic in runs.traffic:
        print(
            f"{traffic.node}: {traffic.num_needed} requests, {traffic.num_distinct} different ones, "
            f"{traffic.num_asked} asked now, {traffic.num_failed} without an answer"
        )
    check_errors(runs, args.max_error_fraction)
    return runs, log


def check_errors(runs: "FlowRuns", max_error_fraction: float) -> None:
    """An answer that is not what the node should say is the model's fault and counts in the scores, not here."""
    num_all, num_failed = (sum(getattr(t, name) for t in runs.traffic) for name in ("num_distinct", "num_failed"))
    for error in list(runs.errors.values())[:MAX_SHOWN_ERRORS]:
        print(f"no answer: {error}")
    if num_all and num_failed / num_all > max_error_fraction:
        raise UserError(
            f"{num_failed} of {num_all} requests got no answer, more than max_error_fraction={max_error_fraction} "
            f"(such as: {next(iter(runs.errors.values()))}); start again, and only these are asked again"
        )


def write_answers(args: Args, evaluation: "Evaluation", names: list[str], predictions: Path, scores: Path) -> None:
    """Predictions and scores of final answers, as generate_answers and score_answers would write them."""
    asked = lineage.asked(args)
    with records.write_records(predictions) as write_prediction, records.write_records(scores) as write_score:
        for name in names:
            for id in evaluation.items:
                row = {"id": id, "candidate": f"{args.candidate}.{name}", **asked}
                write_prediction(row | evaluation.prediction(name, id))
                write_score(row | evaluation.final_scores(name, id))


def write_node_results(args: Args, evaluation: "Evaluation") -> None:
    from flow_graph import as_text
    from flow_runs import END_TO_END

    with records.write_records(args.node_results) as write:
        for slot, outcome in evaluation.runs.outcomes.items():
            mode, name, node, id = slot
            row = {"id": id, "candidate": f"{args.candidate}.{name}", "node": node, "mode": mode}
            row["output"] = "" if outcome.error else as_text(outcome.value)
            row["score"] = evaluation.scores.get(slot)
            row["at_fault"] = int(mode == END_TO_END and evaluation.faults[name].get(id) == node)
            write(row | ({"error": outcome.error} if outcome.error else {}))


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
