"""The history of benchmarks as a page: verdicts of this cycle, changes since the last one, and a chart a benchmark."""

from html import escape

from benchmark_history import Row, comparable, is_share

from slmkit import html_report

COLORS = ("#3b76e0", "#c2413b", "#0f8a5f", "#b7791f", "#7c4dbd", "#1897a6", "#8a8f99", "#d0568f")
KINDS = {"improvement": "good", "regression": "bad"}
HEIGHT = 200
MAX_CYCLES = 24  # of the charts; the history holds all

_STYLE = """<style>
.trend { display: block; width: 100%; overflow: visible; font-size: 12px; margin: .5rem 0 }
.trend text { fill: #666 } .scroll { overflow-x: auto } .key { margin-right: 1rem; white-space: nowrap }
</style>"""


def render(rows: list[Row], cycle: str, champion: str, verdicts: list) -> str:
    cycles = list(dict.fromkeys(row.cycle for row in rows))
    position = cycles.index(cycle)
    last = cycles[position - 1] if position else None
    shown = cycles[-MAX_CYCLES:]
    benchmarks = list(dict.fromkeys(row.benchmark for row in rows if row.cycle in shown))
    names = list(dict.fromkeys(row.candidate for row in rows))
    color = {name: COLORS[i % len(COLORS)] for i, name in enumerate(names)}
    sections = [_STYLE, f"<h2>This cycle against {escape(champion)}</h2>", verdict_table(verdicts, rows, champion)]
    sections += [f"<h2>Since {escape(last)}</h2>" if last else "", changes(rows, cycle, last) if last else ""]
    for benchmark in benchmarks:
        of = [row for row in rows if row.benchmark == benchmark]
        sections += [f"<h2>{escape(benchmark)}</h2>", chart(of, shown, color)]
    return html_report.page(f"Benchmarks, cycle {cycle}", *sections)


def verdict_table(verdicts: list, rows: list[Row], champion: str) -> str:
    """Improvement or regression where Holm's correction over all tests of the comparison leaves a difference."""
    lines = []
    for found in verdicts:
        share = is_share([row for row in rows if row.benchmark == found.benchmark])
        kind = KINDS.get(found.verdict)
        verdict = html_report.badge(found.verdict, kind) if kind else found.verdict
        p_value = "" if found.p_holm is None else f"{found.p_holm:.4f}" if found.p_holm >= 0.0001 else "< 0.0001"
        difference = number(found.mean - found.champion_mean, share, sign=True)
        scores = [number(found.mean, share), number(found.champion_mean, share), difference, p_value, found.metric]
        cells = [escape(found.benchmark), escape(found.candidate), verdict, *map(escape, scores)]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    head = ("benchmark", "candidate", "verdict", "score", champion, "difference", "p (Holm)", "metric")
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="scroll"><table><tr>{header}</tr>\n{body}</table></div>'


def changes(rows: list[Row], cycle: str, last: str) -> str:
    """What each candidate of both cycles scores now and scored then; no difference where the questions changed."""
    before = {(row.candidate, row.benchmark): row for row in rows if row.cycle == last}
    lines, changed = [], set()
    for row in (row for row in rows if row.cycle == cycle):
        then = before.get((row.candidate, row.benchmark))
        share = is_share([row, then] if then else [row])
        if then is None:
            said = "new"
        elif comparable(row, then):
            said = number(row.mean - then.mean, share, sign=True)
        else:
            said = "not comparable"
            changed.add(row.benchmark)
        was = number(then.mean, share) if then else ""
        lines.append((row.benchmark, row.candidate, was, number(row.mean, share), said))
    note = '<p class="note">From one run to another, without a test.</p>'
    if changed:
        note = (
            f'<p class="warn">Since {escape(last)} the eval items or the metric changed '
            f"({escape(', '.join(sorted(changed)))}): the scores of the two cycles are not comparable.</p>"
        )
    return (
        f'{note}<div class="scroll">'
        + html_report.table(("benchmark", "candidate", last, cycle, "change"), lines)
        + "</div>"
    )


def chart(rows: list[Row], cycles: list[str], color: dict[str, str]) -> str:
    """Scores with intervals over the cycles; a line breaks, and a dashed one stands, where the questions changed."""
    rows = [row for row in rows if row.cycle in cycles]
    share = is_share(rows)
    ends = [end for row in rows for end in (row.mean, row.low, row.high) if end is not None]
    margin = 0.08 * (max(ends) - min(ends)) or 0.1 * abs(ends[0]) or 0.1
    low, high = min(ends) - margin, max(ends) + margin
    names = list(dict.fromkeys(row.candidate for row in rows))

    def down(value: float) -> str:
        return f"{HEIGHT * (high - value) / (high - low):.1f}"

    def right(cycle: str, name: str | None = None) -> float:
        shift = 0.0 if name is None else 1.2 * (names.index(name) - (len(names) - 1) / 2)
        return 12 + 84 * (cycles.index(cycle) + 0.5) / len(cycles) + shift * min(1, 8 / len(names) / len(cycles) ** 0.5)

    parts = []
    for i in range(5):
        value = low + (high - low) * i / 4
        parts.append(f'<line x1="11%" x2="100%" y1="{down(value)}" y2="{down(value)}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="10%" y="{float(down(value)) + 4}" text-anchor="end">{number(value, share)}</text>')
    every = -(-len(cycles) // 8)
    for cycle in cycles[::every]:
        parts.append(
            f'<text x="{right(cycle):.2f}%" y="{HEIGHT + 18}" text-anchor="middle">{escape(cycle[:14])}</text>'
        )
    breaks = set()
    for name in names:
        last = None
        for row in sorted((row for row in rows if row.candidate == name), key=lambda row: cycles.index(row.cycle)):
            x = f"{right(row.cycle, name):.2f}%"
            tone, y = f'stroke="{color[name]}"', down(row.mean)
            if last and comparable(row, last):
                before = f'x1="{right(last.cycle, name):.2f}%" y1="{down(last.mean)}"'
                parts.append(f'<line {before} x2="{x}" y2="{y}" {tone} stroke-width="1.5"/>')
            elif last:
                breaks.add((right(row.cycle) + right(last.cycle)) / 2)
            if row.low is not None and row.high is not None:
                parts.append(f'<line x1="{x}" x2="{x}" y1="{down(row.low)}" y2="{down(row.high)}" {tone}/>')
            label = escape(f"{name}, {row.cycle}: {number(row.mean, share)}")
            parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{color[name]}"><title>{label}</title></circle>')
            last = row
    for x in sorted(breaks):
        parts.append(f'<line x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="{HEIGHT}" stroke="#888" stroke-dasharray="4 4"/>')
    metrics = ", ".join(dict.fromkeys(row.metric for row in rows))
    keys = " ".join(
        f'<span class="key"><span style="color:{color[name]}">●</span> {escape(name)}</span>' for name in names
    )
    note = '<p class="note">Dashed: the questions or the metric changed; its two sides are not comparable.</p>'
    picture = f'<svg class="trend" height="{HEIGHT + 30}" role="img" aria-label="{escape(metrics)} by cycle">'
    return f'<p class="note">{escape(metrics)}</p>{picture}{"".join(parts)}</svg><p>{keys}</p>{note if breaks else ""}'


def number(value: float, share: bool, sign: bool = False) -> str:
    if share:
        text = f"{100 * value:+.1f} points" if sign else f"{100 * value:.1f} %"
    else:
        text = f"{value:+,.4g}" if sign else f"{value:,.4g}"
    return text.replace("-", "\N{MINUS SIGN}").replace(" ", "\N{NO-BREAK SPACE}")
