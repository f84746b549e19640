"""What is guaranteed, to whom, and what is not, as one page."""

import math
from html import escape

import gaussian_accounting
from privacy_ledger import Ledger, Run

from slmkit import html_report


def render(ledger: Ledger, run: Run, num_texts: int, teacher: str, num_candidates: int) -> str:
    epsilon = ledger.epsilon()
    own_mu = gaussian_accounting.mu_of([(run.rounds_spent, run.sigma)])
    replaced = gaussian_accounting.epsilon_of(ledger.mu() * gaussian_accounting.REPLACE_SENSITIVITY, ledger.delta)
    # The best a test of "was this person in the data" can do: the sum of its two error rates is at least this.
    least_errors = math.erfc(ledger.mu() / 2 / math.sqrt(2))
    rows = [
        ["Data set", ledger.dataset],
        ["Protects the presence of", ledger.unit],
        ["Epsilon, all runs in the ledger", f"{epsilon:.4g}"],
        ["Delta", f"{ledger.delta:g}"],
        ["Epsilon if a record is replaced rather than left out", f"{replaced:.4g}"],
        ["Epsilon of this run alone", f"{gaussian_accounting.epsilon_of(own_mu, ledger.delta):.4g}"],
        ["Noise (sigma) on the votes, each round", f"{run.sigma:.4g}"],
        ["Rounds paid for in this run", run.rounds_spent],
        ["mu, all runs in the ledger", f"{ledger.mu():.4g}"],
    ]
    runs = [[r.id, f"{r.sigma:.4g}", r.rounds_spent, "yes" if r.finished else "no"] for r in ledger.runs]
    return html_report.page(
        "Private synthesis",
        f"<p>{num_texts:,} texts by {escape(teacher)}, chosen among public candidates "
        f"(up to {num_candidates:,} a round) by the noised votes of private records.</p>",
        "<h2>What is guaranteed</h2>",
        html_report.table(["", ""], rows),
        f"<p>Whoever sees the texts, knows all other records and wants to tell whether {escape(ledger.unit)} "
        "was among the private data, errs: the shares of false alarms and of misses add up to at least "
        f"{100 * least_errors:.0f} %. (100 % is blind guessing.) Nothing done with the texts later changes that.</p>",
        "<h2>What is not</h2><ul>"
        "<li>Facts that are true of many records are learned: that is the purpose. They may say something about a "
        "person who belongs to that group.</li>"
        "<li>Where a person has several records and no person_field was given, the person is protected less than a "
        "record is.</li>"
        "<li>What the teacher itself memorized in its training, and the public topics, are outside the guarantee.</li>"
        "<li>Other uses of the same data, and runs whose ledger was not handed on, are not counted.</li>"
        "<li>How long the step took, and what the platform records of its inputs (size, hash), is not protected.</li>"
        "</ul>",
        "<h2>Ledger</h2>",
        html_report.table(["Run", "sigma", "Rounds paid for", "Finished"], runs),
    )
