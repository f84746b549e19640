"""gate_promotion as a step: what it writes, says and ends with, and what it refuses."""

import json
import math

import pytest

from tests.components.test_gate_promotion import HASH, comparison, difference, several


@pytest.fixture(scope="module")
def gate(load_main):
    return load_main("gate_promotion")


@pytest.fixture
def decide(tmp_path, run_component):
    """Run the component: the process and its decision."""

    def run(found, policy=None, **flags):
        (tmp_path / "comparison").write_text(found if isinstance(found, str) else json.dumps(found), encoding="utf-8")
        flags |= {"comparison": tmp_path / "comparison", "decision": tmp_path / "decision"}
        if policy is not None:
            (tmp_path / "policy").write_text(policy, encoding="utf-8")
            flags["policy"] = tmp_path / "policy"
        done = run_component("gate_promotion", **flags)
        decision = json.loads(flags["decision"].read_text("utf-8")) if flags["decision"].exists() else None
        return done, decision

    return run


def test_the_rule_that_wants_most_decides_how_many(decide):
    policy = """
    guards: [{benchmark: gsm8k, margin: 0.05}, {margin: 0.01}]
    min_num_items: 300
    """
    done, decision = decide(several(), policy)
    needed = {reason["where"]: reason["num_items_needed"] for reason in decision["reasons"]}
    # In gsm8k the difference -0.02 lies 0.03 above -0.05, the lower half is 0.06: 100 * 4 * 2.0432
    assert needed == {"numeric in gsm8k": 818, "exact_match": None, None: 300}
    assert decision["num_items_needed"] == 818
    assert "About 818 questions like these would decide non_inferiority (numeric in gsm8k)." in done.stdout


def test_promote_by_the_default_policy(decide):
    done, decision = decide(comparison(0.3, 0.5))
    assert done.returncode == 0, done.stderr
    assert decision["verdict"] == "promote"
    assert (decision["candidate"], decision["baseline"]) == ("tuned", "base")
    assert decision["scores_sha256"] == {"base": HASH, "tuned": HASH}
    assert len(decision["comparison_sha256"]) == len(decision["policy_sha256"]) == 64
    assert decision["privacy_decision_sha256"] is None
    assert decision["num_items_needed"] is None
    superiority = decision["reasons"][0]
    assert (superiority["rule"], superiority["observed"], superiority["threshold"]) == ("superiority", 0.3, 0.05)
    for said in ("PROMOTE: tuned against base, 200 questions", "Held out from training: documents", "+30.0 to +50.0"):
        assert said in done.stdout


def test_the_policy_file_explains_rules_that_hold(gate, tmp_path):
    """What is commented out in policy.yml is a policy too."""
    text = gate.DEFAULT_POLICY.read_text(encoding="utf-8")
    start = text.index("# guards:")
    lines = [line.removeprefix("# ").split("  #")[0] for line in text[start:].splitlines()]
    (tmp_path / "policy.yml").write_text(text[:start] + "\n".join(lines), encoding="utf-8")
    policy = gate.checked_files.load(tmp_path / "policy.yml", gate.Policy)
    unset = {name for name, field in gate.Policy.model_fields.items() if getattr(policy, name) == field.default}
    assert unset <= {"confidence_level", "privacy_verdict"}


@pytest.mark.parametrize(
    ("low", "high", "verdict", "code"),
    [(0.1, 0.3, "promote", 0), (-0.02, 0.03, "reject", 3), (-0.02, 0.3, "inconclusive", 4)],
)
def test_exit_codes_are_asked_for(decide, tmp_path, low, high, verdict, code):
    done, decision = decide(comparison(low, high))
    assert done.returncode == 0, done.stderr
    assert decision["verdict"] == verdict
    assert verdict.upper() in done.stdout
    assert ("questions like these would decide" in done.stdout) == (verdict == "inconclusive")

    for output in ("decision", "decision.lineage.json"):
        (tmp_path / output).unlink()
    done, decision = decide(comparison(low, high), exit_code_by_verdict="true")
    assert (done.returncode, done.stderr.replace("tracking: no open MLflow run, metrics are only printed\n", "")) == (
        code,
        "",
    )
    assert decision["verdict"] == verdict
    assert json.loads((tmp_path / "decision.lineage.json").read_text("utf-8"))["component"] == "gate_promotion"


def three_candidates():
    found = comparison(0.1, 0.3)
    found["candidates"].append(found["candidates"][1] | {"name": "other"})
    worse = {"candidate": "other", "baseline": "base", "metrics": {"exact_match": difference(-0.3, -0.1)}}
    found["comparisons"].append(worse)
    return found


def test_the_decision_is_on_a_model(decide):
    found = comparison(0.3, 0.5)
    _, decision = decide(found)  # of a comparison that was made before scores said it
    assert (decision["model_sha256"], decision["endpoint"]) == (None, None)
    base, tuned = found["candidates"]
    base |= {"model_sha256": None, "endpoint": "https://h/v1"}
    tuned |= {"model_sha256": "a" * 64, "endpoint": None}
    _, decision = decide(found)
    assert (decision["model_sha256"], decision["endpoint"]) == ("a" * 64, None)


def test_what_is_no_hash_is_refused(decide, tmp_path):
    found = comparison(0.3, 0.5)
    found["candidates"][1]["model_sha256"] = "<b>"
    done, decision = decide(found)
    assert (done.returncode, decision) == (1, None)
    assert "candidates.1.model_sha256: String should match pattern" in done.stderr


@pytest.mark.parametrize(("candidate", "verdict"), [("tuned", "promote"), ("other", "reject")])
def test_one_of_several_candidates(decide, candidate, verdict):
    _, decision = decide(three_candidates(), candidate=candidate)
    assert (decision["candidate"], decision["verdict"]) == (candidate, verdict)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({}, "several candidates; set candidate to one of tuned, other"),
        ({"candidate": "third"}, "candidate 'third' is not in the comparison; there: tuned, other"),
    ],
)
def test_the_candidate_must_be_one_of_them(decide, flags, message):
    done, decision = decide(three_candidates(), **flags)
    assert (done.returncode, decision) == (1, None)
    assert message in done.stderr


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("superiority: {metric: f1, min_diff: 1}", ":1: unknown key 'superiority.min_diff'; known keys: metric, bench"),
        ("superiority: {}\nmin_scor: 1", ":2: unknown key 'min_scor'; known keys: superiority, guards"),
        ("guards:\n  - margin: 0.1\n  - {margn: 1}", ":3: unknown key 'guards.1.margn'; known keys: metric, benchmark"),
        ("superority: {metric: f1}", "unknown key 'superority'"),
        ("min_num_items: 5", "no rule of evidence; set superiority, guards or both"),
        ("guards: [{margin: 1}]", "guards.0.margin: Input should be less than 1"),  # which everything keeps
        ("superiority: {min_difference: -1}", "superiority.min_difference: Input should be greater than or equal to 0"),
        ("superiority: {min_difference: 0.5}\nsuperiority: {}", "the key 'superiority' stands twice"),
        ("guards: [{margin: 0}]", "guards.0.margin: Input should be greater than 0"),
        ("guards: [{margin: .1, benchmark: a, slice: {b: c}}]", "benchmark or slice, not both"),
        ("guards: [{margin: .1, slice: {a: b, c: d}}]", "guards.0.slice: Dictionary should have at most 1 item"),
        ("superiority: {}\nfloors: [{min_score: 20}]", ":2: floors.0.min_score: Input should be less than or equal"),
        ("superiority: {}\nfloors: [{min_score: .nan}]", "floors.0.min_score"),
        ("superiority: {}\nfloors: [{min_score: 0.1, statistic: median}]", "Input should be 'mean' or 'low'"),
        ("superiority: {}\nmin_num_items: many", "min_num_items: Input should be a valid integer"),
        ("superiority: {}\nmax_cost_ratio: .inf", "max_cost_ratio"),
        ("superiority: {}\nprivacy_verdict: maybe", "Input should be 'required' or 'if_given'"),
        ("superiority: {metric: bleu}", "metric 'bleu'; the comparison has exact_match"),
        ("guards: [{benchmark: mmlu, margin: .1}]", "benchmark 'mmlu'; the comparison has jcommonsenseqa, gsm8k"),
        ("guards: [{slice: {language: en}, margin: .1}]", "has language=ja, language=ko, grade=7"),
        ("guards: [{benchmark: gsm8k, metric: f1, margin: .1}]", "metric 'f1' in gsm8k; it was compared by numeric"),
        ("{confidence_level: 0.99, superiority: {}}", "the comparison was made at 0.95"),
        ("superiority: [", "cannot be read"),
        ("", "the file: Input should be a valid dictionary"),
    ],
)
def test_a_policy_that_does_not_fit_is_one_line(gate, tmp_path, policy, message):
    (tmp_path / "policy").write_text(policy, encoding="utf-8")
    (tmp_path / "comparison").write_text(json.dumps(several()), encoding="utf-8")
    args = gate.Args(tmp_path / "comparison", tmp_path / "decision", policy=tmp_path / "policy")
    with pytest.raises(gate.UserError) as error:
        gate.run(args)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert not args.decision.exists()


def candidate_twice(found):
    found["candidates"].append(found["candidates"][1] | {"failed_fraction": 0.9})


def pair_twice(found):
    found["comparisons"].append({**found["comparisons"][0], "metrics": {"exact_match": difference(-0.3, -0.1)}})


def with_itself(found):
    found["comparisons"][0]["baseline"] = "tuned"


def upside_down(found):
    found["comparisons"][0]["metrics"]["exact_match"] |= {"low": 0.5, "high": 0.1}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (candidate_twice, "a candidate stands twice among base, tuned, tuned"),
        (pair_twice, "a candidate stands twice among tuned, tuned"),
        (with_itself, "tuned is compared with itself"),
        (upside_down, "exact_match: low is above high"),
        (lambda found: found.update(num_items=0), "num_items: Input should be greater than 0"),
        (lambda found: found.update(num_clusters=0), "num_clusters: Input should be greater than 0"),
        (lambda found: found["candidates"][1].update(failed_fraction=-1), "failed_fraction: Input should be greater"),
    ],
)
def test_a_comparison_that_contradicts_itself_promotes_nothing(gate, tmp_path, damage, message):
    found = comparison(0.1, 0.3)
    damage(found)
    (tmp_path / "comparison").write_text(json.dumps(found), encoding="utf-8")
    args = gate.Args(tmp_path / "comparison", tmp_path / "decision")
    with pytest.raises(gate.UserError, match=message):
        gate.run(args)
    assert not args.decision.exists()


def test_above_chance_without_multiple_choice(decide):
    done, decision = decide(comparison(0.1, 0.3), "{superiority: {}, above_chance: true}")
    assert (done.returncode, decision) == (1, None)
    assert "no benchmark of the comparison is of multiple choice" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ("{[", "cannot be read"),
        ("{}", "metric: Field required (found {}); is it the output of compare_candidates?"),
        ("", "the file: Input should be a valid"),
        (json.dumps(comparison(0.1, 0.2) | {"confidence_level": math.nan}), "confidence_level"),
    ],
)
def test_a_comparison_that_does_not_fit_is_one_line(decide, found, message):
    done, decision = decide(found)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert decision is None
