"""Check a deployed chat endpoint as its clients will use it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slmkit import cli, lineage, records, tracking
from slmkit.errors import UserError

if TYPE_CHECKING:
    from endpoint_checks.smoke_test import Result

SPEC = Path(__file__).with_name("component.yml")
AZURE_ML_SCOPE = "https://ml.azure.com/.default"
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

    endpoint = read_endpoint(args.endpoint)
    result = smoke_test.run(
        smoke_test.Target(endpoint["scoring_uri"], sign_in(endpoint), endpoint.get("model")),
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
            f"{endpoint['scoring_uri']}: {failed[0].name} failed: {failed[0].detail}{others}", exit_code=CHECK_FAILED
        )
    return metrics


def read_endpoint(path: Path) -> dict[str, Any]:
    try:
        endpoint = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON: {error}") from None
    uri = endpoint.get("scoring_uri") if isinstance(endpoint, dict) else None
    if not isinstance(uri, str) or not uri.startswith(("http://", "https://")):
        raise UserError(f"{path}: no scoring_uri that begins with http; is it the output endpoint of deploy_endpoint?")
    if endpoint.get("auth") not in ("none", "aad_token"):
        raise UserError(f"{path}: auth is {endpoint.get('auth')!r}; this component knows none and aad_token")
    return endpoint


def sign_in(endpoint: dict[str, Any]) -> Any:
    """The headers of each request, or what to ask for them."""
    from slmkit import endpoint_access

    auth = "azure" if endpoint["auth"] == "aad_token" else "none"
    signed_in = endpoint_access.sign_in(endpoint["scoring_uri"], auth, scope=AZURE_ML_SCOPE)
    return signed_in.headers if signed_in else {}


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
