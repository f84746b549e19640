"""gate_promotion: each verdict from numbers worked out by hand, and from simulated evaluations."""

import importlib
import json

import numpy as np
import pytest

HASH = "0" * 64


@pytest.fixture(scope="module")
def policies(load_main):
    load_main("gate_promotion")
    return importlib.import_module("promotion_policy")


def comparison(low, high, difference=None, score=0.6, failed=0.0, num_items=200, latency=(None, None), **more):
    """A comparison of tuned with base whose difference has the interval from low to high."""
    difference = (low + high) / 2 if difference is None else difference

    def candidate(name, mean, p95, failed=0.0):
        return {
            "name": name,
            "scores_sha256": HASH,
            "metrics": {"exact_match": {"mean": mean, "low": mean - 0.05, "high": mean + 0.05}},
            "failed_fraction": failed,
            "latency_ms": p95 and {"p50": p95 / 2, "p95": p95, "num_answers": 9},
        }

    return {
        "metric": "exact_match",
        "num_items": num_items,
        "num_clusters": 50,
        "confidence_level": 0.95,
        "eval_items_sha256": HASH,
        "held_out": {"statement": "Held out from training: documents (200 questions).", "num_items": {}},
        "warnings": [],
        "candidates": [
            candidate("base", score - difference, latency[0]),
            candidate("tuned", score, latency[1], failed),
        ],
        "comparisons": [
            {
                "candidate": "tuned",
                "baseline": "base",
                "metrics": {"exact_match": {"difference": difference, "low": low, "high": high, "p_value": 0.5}},
            }
        ],
    } | more


@pytest.fixture
def gate(tmp_path, run_component):
    def run(found, policy=None):
        (tmp_path / "comparison").write_text(found if isinstance(found, str) else json.dumps(found), encoding="utf-8")
        flags = {"comparison": tmp_path / "comparison", "decision": tmp_path / "decision"}
        if policy is not None:
            (tmp_path / "policy").write_text(policy, encoding="utf-8")
            flags["policy"] = tmp_path / "policy"
        done = run_component("gate_promotion", **flags)
        decision = json.loads(flags["decision"].read_text("utf-8")) if flags["decision"].exists() else None
        return done, decision

    return run


RULES = """
superiority: {metric: exact_match, min_difference: 0.05}
min_score: 0.5
max_failure_fraction: 0.02
min_num_items: 100
max_latency_p95_ratio: 1.5
"""


@pytest.mark.parametrize(
    ("found", "verdict", "outcomes"),
    [
        # superiority, min_score, max_failure_fraction, max_latency_p95_ratio, min_num_items
        (comparison(0.06, 0.2, latency=(100, 150)), "promote", "pass pass pass pass pass"),
        (comparison(0.05, 0.2, latency=(100, 90)), "inconclusive", "undecided pass pass pass pass"),
        (comparison(-0.2, 0.05, latency=(100, 90)), "reject", "fail pass pass pass pass"),
        (comparison(-0.2, 0.06, latency=(100, 90)), "inconclusive", "undecided pass pass pass pass"),
        (comparison(0.1, 0.2, score=0.49, latency=(100, 90)), "reject", "pass fail pass pass pass"),
        (comparison(0.1, 0.2, failed=0.03, latency=(100, 90)), "reject", "pass pass fail pass pass"),
        (comparison(0.1, 0.2, latency=(100, 151)), "reject", "pass pass pass fail pass"),
        (comparison(0.1, 0.2, latency=(None, 90)), "inconclusive", "pass pass pass undecided pass"),
        (comparison(0.1, 0.2, num_items=99, latency=(100, 90)), "inconclusive", "pass pass pass pass undecided"),
        (comparison(0.04, 0.2, failed=0.03, latency=(100, 90)), "reject", "undecided pass fail pass pass"),
    ],
)
def test_verdicts(policies, tmp_path, found, verdict, outcomes):
    import yaml

    policy = policies.Policy.model_validate(yaml.safe_load(RULES))
    reasons = list(policies.judge(policy, policies.Comparison.model_validate(found)))
    assert [reason.outcome for reason in reasons] == outcomes.split()
    assert policies.verdict(reasons) == verdict


@pytest.mark.parametrize(
    ("low", "difference", "high", "num_items", "needed"),
    [
        # low end 0.10 below the estimate, which is 0.05 above the minimum: half the width, so four times 200 questions
        (0.0, 0.10, 0.20, 200, 801),
        # below the minimum it is the upper end that must come down: 0.12 to 0.04 is a third, nine times 200
        (-0.1, 0.01, 0.13, 200, 1801),
        (0.0, 0.05, 0.10, 200, None),  # exactly at the minimum
        (0.06, 0.10, 0.20, 60, 100),  # decided but for min_num_items
    ],
)
def test_questions_needed_by_hand(policies, low, difference, high, num_items, needed):
    policy = policies.Policy.model_validate(
        {"superiority": {"metric": "exact_match", "min_difference": 0.05}, "min_num_items": 100}
    )
    found = policies.Comparison.model_validate(comparison(low, high, difference, num_items=num_items))
    assert policies.num_items_needed(policy, found) == needed


def test_promote_by_the_default_policy(gate):
    done, decision = gate(comparison(0.3, 0.5))
    assert done.returncode == 0, done.stderr
    assert decision["verdict"] == "promote"
    assert (decision["candidate"], decision["baseline"]) == ("tuned", "base")
    assert decision["scores_sha256"] == {"base": HASH, "tuned": HASH}
    assert len(decision["comparison_sha256"]) == len(decision["policy_sha256"]) == 64
    assert decision["num_items_needed"] is None
    superiority = decision["reasons"][0]
    assert (superiority["rule"], superiority["observed"], superiority["threshold"]) == ("superiority", 0.3, 0.05)
    for said in ("PROMOTE: tuned against base, 200 questions", "Held out from training: documents", "+30.0 to +50.0"):
        assert said in done.stdout


@pytest.mark.parametrize(("low", "high", "verdict"), [(-0.02, 0.03, "reject"), (-0.02, 0.3, "inconclusive")])
def test_the_other_verdicts_end_well_too(gate, low, high, verdict):
    done, decision = gate(comparison(low, high))
    assert done.returncode == 0, done.stderr
    assert decision["verdict"] == verdict
    assert verdict.upper() in done.stdout
    assert ("questions like these would decide" in done.stdout) == (verdict == "inconclusive")


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        (
            "superiority: {metric: exact_match}\nmin_scor: 1",
            "unknown key 'min_scor'; known keys: superiority, min_score",
        ),
        (
            "superiority: {metric: f1, min_diff: 1}",
            "unknown key 'superiority.min_diff'; known keys: metric, min_differ",
        ),
        ("superority: {metric: f1}", "unknown key 'superority'"),
        ("min_score: 0.5", "superiority: Field required"),
        ("superiority: {metric: exact_match}\nmin_score: 20", "min_score: Input should be less than or equal to 1"),
        ("superiority: {metric: exact_match}\nmin_score: .nan", "min_score"),
        ("superiority: {metric: exact_match}\nmin_num_items: many", "min_num_items: Input should be a valid integer"),
        ("superiority: {metric: bleu}", "metric 'bleu'; the comparison has exact_match"),
        ("superiority: {metric: exact_match, confidence_level: 0.99}", "the comparison was made at 0.95"),
        ("superiority: [", "cannot be read"),
        ("", "the file: Input should be a valid dictionary"),
    ],
)
def test_a_policy_that_does_not_fit_is_one_line(gate, policy, message):
    done, decision = gate(comparison(0.1, 0.2), policy)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert decision is None


@pytest.mark.parametrize(
    ("found", "message"),
    [("{[", "cannot be read"), ("{}", "num_items: Field required"), ("", "the file: Input should be a valid")],
)
def test_a_comparison_that_does_not_fit_is_one_line(gate, found, message):
    done, decision = gate(found)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert decision is None


def evaluation(rng, base_rate, tuned_rate, num_items):
    """Right or wrong, for questions in documents of four."""
    rows = []
    for name, rate in (("base", base_rate), ("tuned", tuned_rate)):
        right = rng.random(num_items) < rate
        rows.append([{"id": str(n), "candidate": name, "exact_match": float(right[n])} for n in range(num_items)])
    items = [{"id": str(n), "cluster": str(n // 4), "slices": {"held_out": "documents"}} for n in range(num_items)]
    return items, rows


@pytest.mark.parametrize(
    ("base_rate", "tuned_rate", "num_items", "verdict"),
    [
        (0.0, 0.0, 100, "reject"),
        (0.0, 0.01, 100, "reject"),
        (0.5, 0.3, 400, "reject"),
        (0.4, 0.4, 4000, "reject"),  # with 400 the interval would reach above five points, and say inconclusive
        (0.1, 0.6, 100, "promote"),
        (0.4, 0.6, 400, "promote"),
    ],
)
def test_simulated_evaluations(load_main, policies, tmp_path, base_rate, tuned_rate, num_items, verdict):
    """No effect is rejected, a clear one promoted: in at least 18 of 20 evaluations, and never the other way round."""
    import yaml

    compare = load_main("compare_candidates")
    policy = policies.Policy.model_validate(
        yaml.safe_load(load_main("gate_promotion").DEFAULT_POLICY.read_text("utf-8"))
    )
    rng = np.random.default_rng(5)
    (tmp_path / "items").write_text("{}")
    paths = dict.fromkeys(("baseline_scores", "candidate_scores", "comparison", "report"), tmp_path)
    args = compare.Args(**paths, eval_items=tmp_path / "items", num_resamples=999)
    verdicts = []
    for _ in range(20):
        items, rows = evaluation(rng, base_rate, tuned_rate, num_items)
        candidates = [
            compare.Candidate(side[0]["candidate"], HASH, {row["id"]: row for row in side}, None) for side in rows
        ]
        found = compare.compare({item["id"]: item for item in items}, candidates, args)
        reasons = list(policies.judge(policy, policies.Comparison.model_validate(found)))
        verdicts.append(policies.verdict(reasons))
    opposite = {"reject": "promote", "promote": "reject"}[verdict]
    assert opposite not in verdicts
    assert verdicts.count(verdict) >= 18
