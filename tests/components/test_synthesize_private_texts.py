"""Private synthesis: accounting by numeric integration, the noise, one vote each, no private text anywhere, a kill."""

import collections
import importlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit import records
from tests.chat_endpoint import completion


@pytest.fixture(scope="module")
def module(load_main):
    """A module of the component by name."""
    load_main("synthesize_private_texts")
    return importlib.import_module


def integrated_delta(epsilon, mu):
    """The hockey-stick divergence of N(mu, 1) from N(0, 1), as an integral and not by the formula."""
    from scipy.integrate import quad

    crossing = epsilon / mu + mu / 2  # above it the first density is more than e^epsilon times the second

    def excess(x):
        return math.exp(-((x - mu) ** 2) / 2) - math.exp(epsilon - x * x / 2)

    return quad(excess, crossing, crossing + 40, points=[mu] if crossing < mu else None, epsabs=0)[0] / math.sqrt(
        2 * math.pi
    )


# -- accounting


def test_the_check_value(module):
    """T=5, sigma=2 sqrt(2), delta=1e-5 gives epsilon=3.34."""
    accounting = module("gaussian_accounting")
    assert round(accounting.epsilon_of(accounting.mu_of([(5, 2 * math.sqrt(2))]), 1e-5), 2) == 3.34


@pytest.mark.parametrize("mu", [0.1, 0.5, 1.0, 2.5])
@pytest.mark.parametrize("epsilon", [0.01, 0.5, 2.0, 6.0])
def test_delta_is_that_of_numeric_integration(module, mu, epsilon):
    expected = integrated_delta(epsilon, mu)
    if expected > 1e-200:
        assert math.exp(module("gaussian_accounting").log_delta(epsilon, mu)) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=100, deadline=None)
@given(epsilon=st.floats(1e-3, 500), log10_delta=st.floats(-300, -1), num_rounds=st.integers(1, 1000))
def test_sigma_and_epsilon_are_inverse_and_never_too_little(module, epsilon, log10_delta, num_rounds):
    accounting, delta = module("gaussian_accounting"), 10**log10_delta
    sigma = accounting.sigma_for(epsilon, delta, num_rounds)
    reached = accounting.epsilon_of(accounting.mu_of([(num_rounds, sigma)]), delta)
    assert reached == pytest.approx(epsilon, rel=1e-6)
    assert accounting.log_delta(reached, accounting.mu_of([(num_rounds, sigma)])) <= math.log(delta)


def test_rounds_and_runs_compose(module):
    accounting = module("gaussian_accounting")
    assert accounting.mu_of([(4, 2.0)]) == 1.0
    assert accounting.mu_of([(3, 1.0), (4, 0.5), (1, 0.4472135955)]) == pytest.approx(math.sqrt(3 + 16 + 5))
    assert accounting.epsilon_of(0.0, 1e-5) == 0.0


# -- votes and noise


def test_the_noise_is_a_rounded_gaussian(module):
    from scipy import stats

    votes = module("private_votes")
    drawn = np.array([votes.rounded_gaussian(3.0) for _ in range(40_000)])
    assert drawn.dtype.kind == "i"
    # A rounded Gaussian has the variance sigma^2 + 1/12; 5 standard errors.
    assert drawn.mean() == pytest.approx(0, abs=5 * 3 / 200)
    assert drawn.var() == pytest.approx(9 + 1 / 12, rel=5 * math.sqrt(2 / 40_000))
    edges = np.arange(-9, 10)
    observed = [(drawn <= -9).sum(), *((drawn == k).sum() for k in edges[1:-1]), (drawn >= 9).sum()]
    cumulative = stats.norm.cdf(edges[:-1] + 0.5, scale=3)
    expected = np.diff(np.concatenate([[0], cumulative, [1]])) * len(drawn)
    assert stats.chisquare(observed, expected).pvalue > 1e-6


def test_the_noise_follows_no_seed(module):
    votes = module("private_votes")
    runs = []
    for _ in range(2):
        random.seed(1)
        np.random.seed(1)
        runs.append([votes.rounded_gaussian(1000.0) for _ in range(8)])
    assert runs[0] != runs[1]


TOPICS = {
    "library": "library card and overdue book",
    "payment": "invoice and direct debit",
    "school": "timetable lesson",
}


def write(path, texts, **fields):
    with records.write_records(path) as write_row:
        for number, text in enumerate(texts):
            write_row({"id": str(number), "text": text, **{name: values[number] for name, values in fields.items()}})
    return path


def counts(module, path, person_field=None):
    votes = module("private_votes")
    return votes._counts(votes.Voters(path, person_field)._rows, list(TOPICS.values()))


def test_a_record_more_or_less_is_one_vote_more_or_less(module, tmp_path):
    texts = ["my library card", "an overdue book", "the invoice", "", "lesson timetable", "zzz"]
    every = counts(module, write(tmp_path / "all", texts))
    assert every.sum() == len(texts) and every[:2].tolist() >= [2, 1]
    for left_out in range(len(texts)):
        rest = counts(module, write(tmp_path / "rest", texts[:left_out] + texts[left_out + 1 :]))
        difference = every - rest
        assert sorted(difference.tolist()) == [0, 0, 1]
        assert np.linalg.norm(difference) == module("gaussian_accounting").SENSITIVITY


def test_a_person_with_many_records_has_one_vote(module, tmp_path):
    texts = ["my library card", "overdue book", "library card again", "the invoice", "the direct debit"]
    path = write(tmp_path / "all", texts, user=["a", "a", "a", "b", 7])
    assert counts(module, path, "user").tolist() == [1, 2, 0]
    assert counts(module, path).tolist() == [3, 2, 0]


def test_no_record_at_all_is_like_any_other_number(module, tmp_path):
    assert counts(module, write(tmp_path / "none", [])).tolist() == [0, 0, 0]


# -- the component


def private_texts(module, num, seed=3, mix=(("library", 0.8), ("payment", 0.2))):
    """Texts of a private mix of topics, each with a canary."""
    grammar, chooser = module("public_grammar"), random.Random(seed)
    topics = chooser.choices(*zip(*mix, strict=True), k=num)
    words = grammar.words()["en"]
    return [f"{grammar.random_text(topic, words, chooser)} secretcanary{k}" for k, topic in enumerate(topics)]


def topic_shares(module, texts):
    topics = module("public_grammar").words()["en"]["topics"]
    found = collections.Counter(max(topics, key=lambda t: sum(word in text for word in topics[t])) for text in texts)
    return {topic: found[topic] / len(texts) for topic in topics}


def distance(shares, mix=(("library", 0.8), ("payment", 0.2))):
    """Total variation."""
    return sum(abs(shares[topic] - dict(mix).get(topic, 0)) for topic in shares) / 2


BUDGET = {"dataset": "inbox", "delta": 1e-6, "min_num_records": 1000, "num_texts": 40, "num_rounds": 3}


@pytest.fixture
def synthesize(tmp_path, run_component, module):
    def run(texts=None, name="out", **flags):
        private = tmp_path / "private"
        if not private.exists():
            write(private, texts if texts is not None else private_texts(module, 1500))
        outputs = {port: tmp_path / name / port for port in ("documents", "report", "ledger")}
        return run_component(
            "synthesize_private_texts", private_documents=private, **{**BUDGET, **flags}, **outputs
        ), outputs

    return run


def read(outputs):
    return list(records.read_records(outputs["documents"])), json.loads(outputs["ledger"].read_text("utf-8"))


def test_with_a_loose_epsilon_the_topics_are_the_private_ones(synthesize, module):
    done, outputs = synthesize(epsilon=20, selection="sample")
    assert done.returncode == 0, done.stderr
    documents, ledger = read(outputs)
    assert len(documents) == 40 and {d["origin"] for d in documents} == {"private_evolution"}
    assert len({d["id"] for d in documents}) == 40
    shares = topic_shares(module, [d["text"] for d in documents])
    assert distance(dict.fromkeys(shares, 1 / 6)) == pytest.approx(2 / 3)  # before any vote
    assert distance(shares) < 0.33  # 40 texts: a standard error of 0.06
    assert ledger["epsilon"] == pytest.approx(20) and ledger["unit"] == "one record"
    page = (outputs["report"] / "report.html").read_text("utf-8")
    assert "What is guaranteed" in page and "What is not" in page
    assert sorted(p.name for p in outputs["report"].iterdir()) == ["lineage.json", "report.html"]


def test_with_a_tiny_epsilon_they_are_not(synthesize, module):
    done, outputs = synthesize(epsilon=0.005, num_rounds=1, min_num_records=10**9)
    assert done.returncode == 0, done.stderr
    assert distance(topic_shares(module, [d["text"] for d in read(outputs)[0]])) > 0.38  # 0.67, standard error 0.07


def test_nothing_private_is_sent_written_or_said(synthesize, module, serve, tmp_path):
    """An endpoint that answers in canned words: whatever of a private record came to it or lies anywhere is a leak."""
    texts = private_texts(module, 300)
    numbers = iter(range(10**6))
    endpoint = serve(lambda number, body: completion(f"Public text number {next(numbers)} on a book or an invoice."))
    done, _outputs = synthesize(
        texts,
        sigma=1,
        num_texts=20,
        num_rounds=2,
        num_variations=2,
        min_num_records=200,
        teacher=endpoint.url,
        teacher_model="m",
        auth="none",
    )
    assert done.returncode == 0, done.stderr
    assert len(endpoint.bodies) == 40 + 20
    written = {p: p.read_text("utf-8") for p in tmp_path.rglob("*") if p.is_file() and p.name != "private"}
    assert len(written) >= 6  # three outputs with their lineage
    said = [json.dumps(endpoint.bodies, ensure_ascii=False), done.stdout, done.stderr, *written.values()]
    import hashlib

    private = (tmp_path / "private").read_bytes()
    for text in said:
        assert "secretcanary" not in text
        assert hashlib.sha256(private).hexdigest() not in text, "a hash is a function of every record"
        for record in texts:
            assert record[:40] not in text
        assert "300" not in text, "the number of records is private"


@pytest.mark.slow
def test_runs_over_the_same_data_add_up(synthesize, module):
    done, first = synthesize(epsilon=1, name="first")
    assert done.returncode == 0, done.stderr
    done, second = synthesize(epsilon=1, name="second", previous_ledger=first["ledger"])
    assert done.returncode == 0, done.stderr
    ledger = read(second)[1]
    accounting = module("gaussian_accounting")
    sigma = accounting.sigma_for(1, 1e-6, 3)
    assert ledger["mu"] == pytest.approx(math.sqrt(6) / sigma)
    assert integrated_delta(ledger["epsilon"], ledger["mu"]) == pytest.approx(1e-6, rel=1e-4)
    assert 1 < ledger["epsilon"] < 2, "less than the sum"
    done, third = synthesize(epsilon=1, name="third", previous_ledger=second["ledger"], max_total_epsilon=1.6)
    assert done.returncode == 1 and not third["ledger"].exists() and not third["documents"].exists()
    assert "above max_total_epsilon=1.6; nothing was spent" in done.stderr
    # A run that is started again at the same place is a new one: the first stays in the ledger.
    done, again = synthesize(epsilon=1, name="first")
    assert len(read(again)[1]["runs"]) == 2
    done, _ = synthesize(epsilon=1, name="other", dataset="mails", previous_ledger=first["ledger"])
    assert (
        done.returncode == 1 and "the ledger is of one record of 'inbox', not of one record of 'mails'" in done.stderr
    )


def test_the_target_itself_is_within_the_budget(synthesize):
    assert synthesize(epsilon=1, max_total_epsilon=1)[0].returncode == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"epsilon": 0}, "epsilon=0 must be above 0"),
        ({"epsilon": -1}, "epsilon=-1 must be above 0"),
        ({"sigma": 0}, "sigma=0 must be above 0"),
        ({"epsilon": 1, "delta": 0}, "delta=0 must lie between 0 and 1"),
        ({"epsilon": 1, "delta": 1}, "delta=1 must lie between 0 and 1"),
        ({}, "give either epsilon"),
        ({"epsilon": 1, "sigma": 1}, "give either epsilon"),
        ({"epsilon": 1, "max_total_epsilon": 0}, "max_total_epsilon=0 must be above 0"),
        ({"sigma": 4, "min_num_records": 100}, "100 records give 2.5 votes to each of 40 texts, the noise is sigma=4"),
        ({"sigma": 4, "min_num_records": 100}, "Have 160 records, or ask for 25 texts"),
        ({"sigma": 1, "languages": "en,xx"}, "languages: 'xx' is not one of en, ja, ko"),
        ({"sigma": 1, "person_field": "user"}, "has no 'user' (person_field)"),
    ],
)
def test_what_is_refused_is_one_line_and_costs_nothing(synthesize, flags, message):
    done, outputs = synthesize(["a", "b"], **flags)
    assert done.returncode == 1 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not outputs["ledger"].exists() and not outputs["documents"].exists()


def test_no_round_is_bad_usage(synthesize):
    done, _ = synthesize(["a"], sigma=1, num_rounds=0)
    assert done.returncode == 2 and "num_rounds: 0 is below the minimum 1" in done.stderr


@pytest.mark.parametrize("line", ["{", '{"id": "1"}', '{"text": 5}'])
def test_a_bad_private_record_is_refused_without_its_place(synthesize, tmp_path, line):
    (tmp_path / "private").write_text('{"text": "fine"}\n' * 41 + line + "\n")
    done, outputs = synthesize(sigma=1)
    assert done.returncode == 1 and "a record cannot be read" in done.stderr
    assert "42" not in done.stderr and not outputs["ledger"].exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "not a ledger"),
        ('{"dataset": "inbox", "unit": "one record", "delta": 1e-6, "runs": [{"id": "a"}]}', "not a ledger"),
        (
            '{"dataset": "inbox", "unit": "one record", "delta": 1e-6,'
            ' "runs": [{"id": "a", "sigma": -1, "num_rounds": 1, "rounds_spent": 1}]}',
            "a run without a positive sigma",
        ),
    ],
)
def test_a_damaged_ledger_is_refused(synthesize, tmp_path, content, message):
    (tmp_path / "ledger").write_text(content)
    done, _ = synthesize(["a"], sigma=1, previous_ledger=tmp_path / "ledger")
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        ("en: {scenario: mails, topics: []}", "scenario is a text, and topics a list"),
        ("en: {scenario: mails, keywords: [a]}", "'en' needs exactly scenario and topics"),
        ("ja: {scenario: mails, topics: [a]}", "'en' needs exactly scenario and topics"),
        ("[", "cannot be read"),
    ],
)
def test_topics_that_do_not_fit_are_one_line(synthesize, tmp_path, topics, message):
    (tmp_path / "topics.yml").write_text(topics)
    done, _ = synthesize(["a"], sigma=1, public_topics=tmp_path / "topics.yml")
    assert done.returncode == 1 and message in done.stderr and len(done.stderr.splitlines()) == 1


def test_japanese_and_korean(synthesize):
    done, outputs = synthesize(["도서관 대출 카드", "図書館の貸出カード"] * 50, sigma=1, languages="ja,ko")
    assert done.returncode == 0, done.stderr
    assert {d["language"] for d in read(outputs)[0]} == {"ja", "ko"}


# -- a kill


def test_a_killed_run_goes_on_without_drawing_noise_twice(synthesize, module, serve, tmp_path, root):
    """Killed in its second round, it keeps the first round's noised votes, and the ledger has no round more."""
    release = []

    def reply(number, body):
        while number >= 12 and not release:  # the first variation of the second round
            time.sleep(0.02)
        return completion(f"Public text {number} on the library card.")

    endpoint = serve(reply)
    flags = {"sigma": 2, "num_texts": 4, "num_variations": 3, "num_rounds": 2, "min_num_records": 100}
    flags |= {"dataset": "inbox", "delta": 1e-6, "teacher": endpoint.url, "teacher_model": "m", "auth": "none"}
    outputs = {port: tmp_path / "out" / port for port in ("documents", "report", "ledger")}
    private = write(tmp_path / "private", private_texts(module, 200))
    command = [sys.executable, root / "components" / "synthesize_private_texts" / "main.py"]
    for name, value in {"private_documents": private, **flags, **outputs}.items():
        command += [f"--{name}", str(value)]
    environment = {**os.environ, "PYTHONPATH": str(root / "components" / "_shared")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(endpoint.bodies) < 13 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ledger = json.loads(outputs["ledger"].read_text())
    assert [(run["rounds_spent"], run["finished"]) for run in ledger["runs"]] == [(1, False)]
    kept = (outputs["report"] / "rounds.jsonl").read_text().splitlines()
    assert len(kept) == 2 and not outputs["documents"].exists()

    release.append(True)
    done, _ = synthesize(**flags)
    assert done.returncode == 0, done.stderr
    documents, ledger = read(outputs)
    assert [(run["rounds_spent"], run["finished"]) for run in ledger["runs"]] == [(2, True)]
    first_round = {text for _, text in json.loads(kept[1])["candidates"]}
    assert {d["text"] for d in documents} & first_round, "texts of the first round can still be chosen"
    assert not (outputs["report"] / "rounds.jsonl").exists()


def test_a_round_that_was_paid_and_lost_counts(module, tmp_path):
    """Between the ledger and the noised votes: the round is paid again, and refused where the budget has no room."""
    ledgers = module("privacy_ledger")
    ledger = ledgers.Ledger("inbox", "one record", 1e-6, [ledgers.Run("a", 2.0, 2, rounds_spent=2)])
    ledger.spend(ledger.runs[0], tmp_path / "ledger", None)
    assert ledgers.read(tmp_path / "ledger").mu() == pytest.approx(math.sqrt(3) / 2)
    with pytest.raises(ledgers.UserError, match="above max_total_epsilon"):
        ledger.spend(ledger.runs[0], tmp_path / "ledger", ledger.epsilon())
    assert ledgers.read(tmp_path / "ledger").runs[0].rounds_spent == 3


def test_a_cut_line_is_a_lost_round(module, tmp_path):
    so_far = module("rounds_so_far").RoundsSoFar(tmp_path / "rounds", "p")
    so_far.add([("en", "a\u2028b")], [3])  # which Python takes for the end of a line
    with (tmp_path / "rounds").open("a") as file:
        file.write('{"candidates": [["en", "b"')
    again = module("rounds_so_far").RoundsSoFar(tmp_path / "rounds", "p")
    assert again.run_id == so_far.run_id and again.rounds == [{"candidates": [["en", "a\u2028b"]], "votes": [3]}]
    assert module("rounds_so_far").RoundsSoFar(tmp_path / "rounds", "other").run_id != so_far.run_id
