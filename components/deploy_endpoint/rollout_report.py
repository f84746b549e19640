"""The rollout as a page to look at: the decision, the stages, who answered when, and how well."""

import dataclasses
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Any

from rollout import Plan, Record, shares
from rollout_target import Counts, Target

from slmkit import html_report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLORS = {"blue": "#3b76c4", "green": "#3c9d63"}  # of the deployments of that name, whichever is the old one
OTHER_COLOR = "#8a8f98"
EXAMPLE = '{"messages": [{"role": "user", "content": "Hello"}], "stream": true}'
_STYLE = """<style>
.stages { display: flex; gap: .4rem; flex-wrap: wrap; list-style: none; padding: 0; margin: 1.2rem 0 }
.stages li { flex: 1 1 6rem; border-radius: .5rem; padding: .6rem .8rem; background: #eef0f2; color: #555 }
.stages li.passed { background: #d9f2df; color: #14532d } .stages li.failed { background: #fbdcdc; color: #7f1d1d }
.stages li.stopped { background: #fdf0cd; color: #713f12 } .stages b { display: block; font-size: 1.05rem }
pre { background: #f5f6f7; border-radius: .4rem; padding: .7rem .9rem; overflow-x: auto; font-size: 13px }
.lead { font-size: 1.15rem }
</style>"""


def page(name: str, record: Record, plan: Plan, target: Target) -> str:
    rolled_out = record.state == "rolled_out"
    badge = html_report.badge("rolled out" if rolled_out else "traffic as before", "good" if rolled_out else "bad")
    parts = [_STYLE, f'<p class="lead">{badge} {escape(headline(record))}</p>', stages(record, plan)]
    if any("green" in sample for sample in record.samples):
        parts.append(
            html_report.chart(timeline(record, plan), f"Traffic, failures and p95 over time. {headline(record)}")
        )
    if record.endpoint:
        parts += ["<h2>Try it</h2>", f"<pre>{escape(curl(record.endpoint.scoring_uri, target.auth))}</pre>"]
    parts += ["<h2>Stages</h2>", stage_table(record)]
    if record.smoke_test is not None:
        rows = [
            (check.name, "passed" if check.passed else "FAILED", check.detail) for check in record.smoke_test.checks
        ]
        parts += ["<h2>Smoke test</h2>", html_report.table(("check", "outcome", "detail"), rows)]
    if record.logs:
        log = "\n".join(record.logs)
        parts += [f"<h2>Last lines of the log of {escape(record.green or '')}</h2>", f"<pre>{escape(log)}</pre>"]
    started = datetime.fromtimestamp(record.started_at, UTC)
    parts.append(f'<p class="note">Started {started:%Y-%m-%d %H:%M:%S} UTC, {record.seconds:.1f} s.</p>')
    return html_report.page(f"Rollout of {name}", *parts)


def headline(record: Record) -> str:
    if record.nothing_to_do:
        return f"{record.green} served this model to all requests already; nothing was changed."
    if record.state == "rolled_out":
        return f"{record.green} answers all requests" + (f" in place of {record.blue}." if record.blue else ".")
    return f"{record.failure or 'The rollout was stopped'}. The traffic is {shares(record.after.live)}."


def stages(record: Record, plan: Plan) -> str:
    """The way from start to 100 % as a strip, with what was not reached in gray."""
    steps = {step.name: step for step in record.steps}
    planned = ["start", "smoke test"]
    if record.blue:
        planned += ["mirror"] * bool(plan.mirror_percent) + [f"{percent} %" for percent in plan.traffic_steps]
    cells = []
    for name in [] if record.nothing_to_do else planned:
        step = steps.get(name)
        said = f"{step.outcome}, {step.ended_seconds - step.began_seconds:.1f} s" if step else "not reached"
        cells.append(f'<li class="{step.outcome if step else ""}"><b>{escape(name)}</b>{said}</li>')
    return f'<ol class="stages">{"".join(cells)}</ol>' if cells else ""


def timeline(record: Record, plan: Plan) -> "Figure":
    """Three panels over one time axis: shares of the traffic, failures in percent, p95."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.4))
    traffic, failures, latency = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3, 2, 2]})
    last = record.samples[-1]
    samples = [*record.samples, {**last, "seconds": 1.04 * last["seconds"]}]  # so that the way it ended can be seen
    times = [sample["seconds"] for sample in samples]
    lanes = [("blue", f"{record.blue} (old)", record.blue), ("green", f"{record.green} (new)", record.green)]
    colors = {role: COLORS.get(name, OTHER_COLOR) for role, _, name in lanes}
    live = [[sample["live"].get(name, 0) for sample in samples] for _, _, name in lanes]
    labels = [label for _, label, _ in lanes]
    traffic.stackplot(times, live, labels=labels, colors=list(colors.values()), alpha=0.75, linewidth=0)
    copied = [sum(sample["mirror"].values()) for sample in samples]
    if any(copied):
        traffic.plot(times, copied, color=colors["green"], linestyle="--", label="mirrored to the new one")
    traffic.set(ylabel="traffic, %", ylim=(0, 100))
    for role, label, _ in lanes:
        seen = [sample for sample in record.samples if role in sample and sample[role]["num_requests"]]
        at = [sample["seconds"] for sample in seen]
        failed = [100 * sample[role]["num_failed"] / sample[role]["num_requests"] for sample in seen]
        failures.plot(at, failed, color=colors[role], label=label)
        p95 = [sample[role]["p95_seconds"] for sample in seen]
        latency.plot(at, [float("nan") if value is None else value for value in p95], color=colors[role])
    allowed = 100 * plan.limits.max_error_fraction
    failures.axhline(allowed, color="#b45309", linestyle=":", label="allowed")
    failures.set(ylabel="failed, %")
    failures.set_ylim(bottom=0, top=max(4 * allowed, failures.get_ylim()[1]))
    latency.set(ylabel="p95, s", xlabel="seconds since the start")
    latency.set_ylim(bottom=0)
    if plan.limits.max_p95_seconds is not None:
        latency.axhline(plan.limits.max_p95_seconds, color="#b45309", linestyle=":")
    for step in record.steps:
        if step.outcome == "failed":
            for axes in (traffic, failures, latency):
                axes.axvline(step.ended_seconds, color="#b91c1c", linewidth=1.5)
    for axes in (traffic, failures, latency):
        axes.spines[["top", "right"]].set_visible(False)
    for axes in (traffic, failures):
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    return figure


def stage_table(record: Record) -> str:
    head = ("stage", "outcome", "new: requests", "failed", "p95, s", "old: requests", "failed", "p95, s", "probes", "")
    rows = [
        (step.name, step.outcome, *_cells(step.green), *_cells(step.blue), step.num_probes or "", step.detail)
        for step in record.steps
    ]
    return html_report.table(head, rows)


def _cells(counts: Counts) -> tuple[object, ...]:
    if not counts.num_requests:
        return "", "", ""
    return counts.num_requests, counts.num_failed, "" if counts.p95_seconds is None else counts.p95_seconds


def curl(scoring_uri: str, auth: str) -> str:
    lines = [f"curl -N {scoring_uri}", "  -H 'Content-Type: application/json'", f"  -d '{EXAMPLE}'"]
    if auth == "aad_token":
        sign_in = "$(az account get-access-token --resource https://ml.azure.com --query accessToken -o tsv)"
        lines.insert(1, f'  -H "Authorization: Bearer {sign_in}"')
    return " \\\n".join(lines)


def as_json(record: Record, plan: Plan) -> dict[str, Any]:
    """All that the page shows, and each look that was taken."""
    said = dataclasses.asdict(dataclasses.replace(record, endpoint=None, smoke_test=None))
    said |= {"plan": dataclasses.asdict(plan), "smoke_test": None}
    if record.smoke_test is not None:
        said["smoke_test"] = dataclasses.asdict(record.smoke_test)
    del said["endpoint"]
    return said
