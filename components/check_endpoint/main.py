"""Check a deployed chat endpoint as its clients will use it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from endpoint_checks.smoke_test import Result

SPEC = Path(__file__).with_name("component.yml")
CHECK_FAILED = 7


@dataclass(frozen=True)
class Args:
    endpoint: Path
    report: Path
    num_requests: int = 20
    concurrency: int = 4
    timeout_seconds: float = 60.0
    max_error_fraction: float = 0.0
    max_p95_seconds: float | None = None


def run(args: Args) -> dict[str, float]:
    import endpoint_report

    from endpoint_checks import smoke_test
    from slmkit import endpoint_access

    endpoint = endpoint_access.read_deployed(args.endpoint)
    signed_in = endpoint_access.sign_in(endpoint.scoring_uri, endpoint.auth)
    result = smoke_test.run(
        smoke_test.Target(
            endpoint.scoring_uri, signed_in.headers if signed_in else {}, endpoint.model, endpoint.adapters
        ),
        args.num_requests,
        args.concurrency,
        args.timeout_seconds,
        max_error_fraction=args.max_error_fraction,
        max_p95_seconds=args.max_p95_seconds,
    )
    content = {"passed": result.passed, "error_fraction": result.error_fraction, **dataclasses.asdict(result)}
    with records.whole_folder(args.report) as partial:
        (partial / "result.json").write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        (partial / "report.html").write_text(endpoint_report.page(endpoint, result), encoding="utf-8")
    metrics = metrics_of(result)
    tracking.log_metrics(metrics)
    tracking.log_artifact(args.report)
    lineage.write(args, SPEC)

    for check in result.checks:
        print(f"{'passed' if check.passed else 'FAILED'}  {check.name:<14}  {check.detail}")
    print(endpoint_report.headline(endpoint, result))
    if failed := [check for check in result.checks if not check.passed]:
        others = f" (and {len(failed) - 1} more, see the report)" if len(failed) > 1 else ""
        raise UserError(
            f"{endpoint.scoring_uri}: {failed[0].name} failed: {failed[0].detail}{others}", exit_code=CHECK_FAILED
        )
    return metrics


def metrics_of(result: "Result") -> dict[str, float]:
    metrics = {
        "release/check_passed": float(result.passed),
        "release/error_fraction": result.error_fraction,
        "release/requests_per_second": result.requests_per_second,
    }
    if result.p50_seconds is not None:
        metrics |= {"release/p50_seconds": result.p50_seconds, "release/p95_seconds": result.p95_seconds}
    return metrics


if __name__ == "__main__":
    run(cli.parse(Args, SPEC))
