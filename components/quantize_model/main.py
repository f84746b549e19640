"""Make a model smaller, measure what that does to size, speed and quality, and keep it only if it is good enough."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import source_model

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

SPEC = Path(__file__).with_name("component.yml")
NOT_PROMOTED, TOO_LARGE_A_DROP = 3, 10  # exit codes


@dataclass(frozen=True, kw_only=True)
class Args:
    model: Path
    eval_items: Path
    quantized_model: Path
    report: Path
    method: str = "onnx-int4"
    group_size: int = 32
    metric: str = "f1"
    max_quality_drop: float = 0.02
    max_new_tokens: int = 64
    num_threads: int | None = None
    decision: Path | None = None


def run(args: Args, spec: Path = SPEC) -> dict[str, float]:
    # Two threads that spin while they wait for each other are slower than one as soon as another step runs beside.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TQDM_DISABLE", "1")  # a step's log shows lines, not bars
    import quantization_report
    import quantized_quality
    import quantizer_log

    items = quantized_quality.read_items(args.eval_items)
    source = source_model.check(args.model)
    if args.decision:
        check_promoted(args.decision, args.model)
    quantize = quantizer(args, source)
    with records.whole_folder(args.quantized_model) as folder, tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch, "quantizer.log")
        with quantizer_log.captured(log):
            quantize(args.model, folder)
        source_model.copy_companions(args.model, folder)
        found = quantized_quality.compare(args, folder, items)
        with records.whole_folder(args.report) as report:
            quantization_report.write(report, found, log)
        metrics = found.metrics()
        tracking.log_metrics(metrics)
        tracking.set_tags({"quantization_method": args.method, "quantization_passed": str(found.passed).lower()})
        print(found.summary())
        if not found.passed:
            raise UserError(
                f"{found.why_not}: the original stays; see {args.report / 'report.html'}", exit_code=TOO_LARGE_A_DROP
            )
    lineage.write(args, spec)
    return metrics


def check_promoted(path: Path, model: Path) -> None:
    """``UserError`` unless the gate has promoted this very model: hours spent on one that stays out are lost."""
    import release_evidence

    decision = release_evidence.read_decision(path)
    release_evidence.check_evaluated(path, decision, model, lineage.sha256(model))
    if decision.verdict != "promote":
        candidate = " ".join(decision.candidate.split())
        raise UserError(
            f"{path}: the verdict on {candidate} is {decision.verdict}; a release takes a promoted model only",
            exit_code=NOT_PROMOTED,
        )


def quantizer(args: Args, source: source_model.Source) -> Callable[[Path, Path], None]:
    """What writes the quantized weights of one folder to another; ``UserError`` if it cannot for this model."""
    if args.method == "onnx-int4":
        import onnx_int4

        onnx_int4.check(source, args.group_size)
        return partial(onnx_int4.quantize, group_size=args.group_size)
    if args.method.startswith("bnb-"):
        import bitsandbytes_weights

        bitsandbytes_weights.check()
        return partial(bitsandbytes_weights.quantize, method=args.method)
    import gptq_weights

    return gptq_weights.prepare(args, source)


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
