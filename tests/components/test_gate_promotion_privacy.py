"""gate_promotion and the verdict of audit_privacy: required or not, passed or failed, and of which data."""

import json

import pytest

from slmkit import lineage
from slmkit.errors import UserError
from tests.components.test_gate_promotion import comparison


@pytest.fixture
def decide(load_main, tmp_path):
    """The decision on a candidate that is better than the baseline."""
    main = load_main("gate_promotion")

    def run(policy, privacy_decision=None):
        (tmp_path / "comparison").write_text(json.dumps(comparison(0.1, 0.3)), encoding="utf-8")
        (tmp_path / "policy").write_text(policy, encoding="utf-8")
        paths = {name: tmp_path / name for name in ("comparison", "decision", "policy")}
        main.run(main.Args(**paths, privacy_decision=privacy_decision))
        return json.loads(paths["decision"].read_text("utf-8"))

    return run


AUDITED, OTHER = "a" * 64, "b" * 64


def audit(tmp_path, verdict="pass", sha256=AUDITED):
    reasons = [] if verdict == "pass" else ["11 values of the real data reappear."]
    found = {"verdict": verdict, "reasons_to_fail": reasons, "synthetic_data_sha256": sha256, "reasons": []}
    (tmp_path / "privacy").write_text(json.dumps(found), encoding="utf-8")
    return tmp_path / "privacy"


def entry(component, candidate=None, **inputs):
    parameters = {"candidate": candidate} if candidate else {}
    return {"component": component, "version": "1", "inputs": inputs, "parameters": parameters}


def made(lineage=None):
    return {"sha256": OTHER} | ({"lineage": lineage} if lineage else {})


def tuned_on(made_from, base_model=None):
    """The lineage of a model that was tuned on what was made from ``made_from``."""
    dataset = entry("prepare_dataset", chats={"sha256": made_from}) if made_from else None
    return entry("finetune_model", train_data=made(dataset), base_model=made(base_model))


def scores_of(candidate, model):
    answers = entry("generate_answers", candidate, model=made(model))
    return made(entry("score_answers", predictions=made(answers)))


def keep_lineage(tmp_path, made_from, **more):
    """The lineage of a comparison of a model that was tuned on what was made from ``made_from``."""
    model = made_from if isinstance(made_from, dict) else tuned_on(made_from)
    compared = entry("compare_candidates", candidate_scores=scores_of("tuned", model), **more)
    (tmp_path / "comparison.lineage.json").write_text(json.dumps(compared), encoding="utf-8")


def privacy(decision):
    return next((reason for reason in decision["reasons"] if reason["rule"] == "privacy_verdict"), None)


@pytest.mark.parametrize(
    ("rule", "verdict", "promoted"),
    [
        ("if_given", None, "promote"),
        ("if_given", "pass", "promote"),
        ("if_given", "fail", "reject"),
        ("required", None, "reject"),
        ("required", "pass", "promote"),
        ("required", "fail", "reject"),
    ],
)
def test_the_privacy_verdict(decide, tmp_path, rule, verdict, promoted):
    given = audit(tmp_path, verdict) if verdict else None
    decision = decide(f"{{superiority: {{}}, privacy_verdict: {rule}}}", given)
    assert decision["verdict"] == promoted
    if verdict:
        assert decision["privacy_decision_sha256"] == lineage.sha256(given)
        said = "11 values of the real data reappear" if verdict == "fail" else "not checked: that it was of the cand"
        assert said in privacy(decision)["text"]
    elif rule == "required":
        assert "wire the output decision of audit_privacy" in privacy(decision)["text"]
    else:
        assert privacy(decision) is None


@pytest.mark.parametrize(
    ("made_from", "outcome", "text"),
    [
        (AUDITED, "pass", "stand in the lineage of what was trained on"),
        (OTHER, "fail", "of other data (SHA-256 aaaaaaaaaaaaaaaa) than the training data were made from"),
        (None, "pass", "not checked"),  # a training file from elsewhere: nobody knows what it was made from
    ],
)
def test_the_audit_must_be_of_the_data_in_the_lineage(decide, tmp_path, made_from, outcome, text):
    keep_lineage(tmp_path, made_from)
    decision = decide("superiority: {}", audit(tmp_path))
    assert privacy(decision)["outcome"] == outcome
    assert text in privacy(decision)["text"]


def test_an_audit_of_another_candidate_s_data_is_none(decide, tmp_path):
    """The baseline, and another candidate of the same comparison, were trained on what was audited."""
    others = {
        "baseline_scores": scores_of("base", tuned_on(AUDITED)),
        "candidate_scores": made(
            entry(
                "combine_records",
                records_1=scores_of("other", tuned_on(AUDITED)),
                records_2=scores_of("tuned", tuned_on(OTHER)),
            )
        ),
    }
    compared = entry("compare_candidates", **others)
    (tmp_path / "comparison.lineage.json").write_text(json.dumps(compared), encoding="utf-8")
    assert privacy(decide("superiority: {}", audit(tmp_path)))["outcome"] == "fail"


def test_an_audit_of_what_the_base_was_trained_on_earlier_is_none(decide, tmp_path):
    keep_lineage(tmp_path, tuned_on(OTHER, base_model=tuned_on(AUDITED)))
    assert privacy(decide("superiority: {}", audit(tmp_path)))["outcome"] == "fail"
    keep_lineage(tmp_path, tuned_on(AUDITED, base_model=tuned_on(OTHER)))
    assert privacy(decide("superiority: {}", audit(tmp_path)))["outcome"] == "pass"


@pytest.mark.parametrize(("preferences", "outcome"), [(AUDITED, "pass"), (OTHER, "fail")])
def test_preferences_are_trained_on_too(decide, tmp_path, preferences, outcome):
    pairs = made(entry("build_preferences", chats={"sha256": preferences}))
    keep_lineage(tmp_path, entry("align_model", train_preferences=pairs, base_model=made(tuned_on(AUDITED))))
    assert privacy(decide("superiority: {}", audit(tmp_path)))["outcome"] == outcome


def test_the_audited_file_itself_may_be_what_was_trained_on(decide, tmp_path):
    keep_lineage(tmp_path, None)
    decision = decide("superiority: {}", audit(tmp_path, sha256=OTHER))
    assert "stand in the lineage" in privacy(decision)["text"]


@pytest.mark.parametrize("content", ['{"verdict": "promote"}', '{"verdict": "maybe", "reasons_to_fail": []}', "x: ["])
def test_what_is_no_audit_is_one_line(decide, tmp_path, content):
    (tmp_path / "privacy").write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=str(tmp_path / "privacy")) as error:
        decide("superiority: {}", tmp_path / "privacy")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "decision").exists()
