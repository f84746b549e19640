"""The page that says whether an endpoint may be relied on, and how fast it answers."""

from html import escape
from typing import TYPE_CHECKING

from slmkit import html_report

if TYPE_CHECKING:
    from endpoint_checks.smoke_test import Result
    from slmkit.endpoint_access import DeployedEndpoint

MEANING = {
    "chat_schema": "Answers have OpenAI's form, with a token count that adds up.",
    "streaming": "Text arrives while it is made, and is the text that comes without streaming.",
    "unicode_ja": "Japanese goes in and comes out whole.",
    "unicode_ko": "Korean goes in and comes out whole.",
    "malformed_body": "What is no chat is refused with 4xx, and the endpoint goes on.",
    "adapters": "Each LoRA adapter answers by its name, and a name that is none's is refused.",
    "concurrency": "Several clients at a time are all answered.",
    "latency": "The slowest twentieth of the answers is fast enough.",
}


def headline(endpoint: "DeployedEndpoint", result: "Result") -> str:
    num_passed = sum(check.passed for check in result.checks)
    times = f"p50 {result.p50_seconds:.2f} s, p95 {result.p95_seconds:.2f} s, " if result.seconds else ""
    return (
        f"{endpoint.name or endpoint.scoring_uri}: {num_passed} of {len(result.checks)} checks passed; "
        f"{times}{result.num_failed} of {result.num_requests} timed requests failed"
    )


def page(endpoint: "DeployedEndpoint", result: "Result") -> str:
    badge = html_report.badge("passed", "good") if result.passed else html_report.badge("failed", "bad")
    about = [
        (name.replace("_", " "), value)
        for name in ("scoring_uri", "deployment", "model", "target", "auth")
        if (value := getattr(endpoint, name))
    ]
    return html_report.page(
        f"Endpoint {endpoint.name or ''}".strip(),
        f"<p>{badge} {escape(headline(endpoint, result))}.</p>",
        *("<h2>Checks</h2>", check_table(result)),
        *("<h2>Times</h2>", times(result)),
        *("<h2>Endpoint</h2>", html_report.table(["property", "value"], about)),
    )


def check_table(result: "Result") -> str:
    rows = [
        f"<tr><td>{html_report.badge(*(('passed', 'good') if check.passed else ('failed', 'bad')))}</td>"
        f'<td>{escape(check.name)}<br><span class="note">{escape(MEANING[check.name])}</span></td>'
        f"<td>{escape(check.detail)}</td></tr>"
        for check in result.checks
    ]
    return "<table><tr><th></th><th>check</th><th>what was seen</th></tr>\n" + "\n".join(rows) + "\n</table>"


def times(result: "Result") -> str:
    if not result.seconds:
        return "<p>Nothing was answered.</p>"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.4), layout="constrained")
    axes = figure.subplots()
    axes.hist(result.seconds, bins=min(40, max(5, len(result.seconds) // 2)), color="#4a7fb5")
    axes.axvline(result.p50_seconds, color="#2e7d4f", label=f"p50 {result.p50_seconds:.2f} s")
    axes.axvline(result.p95_seconds, color="#b5524a", label=f"p95 {result.p95_seconds:.2f} s")
    axes.set(xlabel="seconds to the whole answer, of up to 16 tokens", ylabel="requests", xlim=(0, None))
    axes.legend()
    said = f"{result.requests_per_second:.1f} requests per second."
    return f"<p>{said}</p>" + html_report.chart(figure, f"Histogram of the times; {said}")
