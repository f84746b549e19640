"""The audit: overlaps by brute force, intervals and ranks by hand, verdicts, and nothing private in what is written."""

import importlib
import json
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slmkit import checked_files, records
from slmkit.errors import UserError


@pytest.fixture(scope="module")
def module(load_main):
    """A module of the component by name."""
    load_main("audit_privacy")
    return importlib.import_module


def spans(text, sources, n, min_common):
    """By brute force: the n-grams of a text that a source holds, how many are no boilerplate, and the longest span."""
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    in_sources = {gram: sum(gram in source for source in sources) for gram in grams}
    own = [gram for gram in grams if in_sources[gram] < min_common]
    longest = 0
    for i in range(len(text)):
        for j in range(i + n, len(text) + 1):
            inner = [text[k : k + n] for k in range(i, j - n + 1)]
            if all(in_sources[gram] < min_common for gram in inner) and any(text[i:j] in s for s in sources):
                longest = max(longest, j - i)
    return sum(in_sources[gram] > 0 for gram in own), len(own), longest


short_texts = st.lists(st.text("abc", max_size=14), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None)
@given(sources=short_texts, texts=short_texts, n=st.integers(1, 4), min_common=st.integers(2, 4))
def test_overlap_is_that_of_brute_force(module, sources, texts, n, min_common):
    overlap, windows = module("verbatim_overlap"), module("text_windows")
    asked = windows.Texts(texts)
    found = overlap.SourceIndex(windows.Texts(sources), n, min_common).overlap(asked)
    for k, text in enumerate(texts):
        copied, own, longest = spans(text, sources, n, min_common)
        assert found.longest[k] == longest
        assert found.share[k] == pytest.approx(copied / own if own else 0)
        if longest:
            words = asked.text(int(found.at[k]), longest)
            assert words in text and words in sources[found.source[k]]


def test_overlap_in_blocks_is_that_in_one(module, monkeypatch):
    overlap, windows = module("verbatim_overlap"), module("text_windows")
    chooser = random.Random(4)
    sources, texts = (["".join(chooser.choices("abcde", k=60)) for _ in range(50)] for _ in range(2))
    texts = [t + s[10:40] for t, s in zip(texts, sources, strict=True)]
    index = overlap.SourceIndex(windows.Texts(sources), 5, 99)
    whole = index.overlap(windows.Texts(texts))
    monkeypatch.setattr(overlap, "_BLOCK_CHARS", 200)
    monkeypatch.setattr(overlap, "_PAIRS_AT_ONCE", 7)
    parts = index.overlap(windows.Texts(texts))
    assert (whole.longest >= 30).all()
    for name in ("share", "longest", "at", "source"):
        assert np.array_equal(getattr(whole, name), getattr(parts, name)), name


def test_boilerplate_of_the_sources_and_of_held_out_texts_by_hand(module):
    overlap, windows = module("verbatim_overlap"), module("text_windows")
    sources = windows.Texts(["phone: 12345", "phone: 67890", "phone: 24680", "fax: abcdef"])
    texts = windows.Texts(["phone: 12345", "fax: abcdef"])
    plain = overlap.SourceIndex(sources, 4, 9).overlap(texts)
    assert plain.longest.tolist() == [12, 11]
    # "phon" ... "ne: " (4 n-grams) stand in three sources; "e: 1" is the first that is no boilerplate
    three = overlap.SourceIndex(sources, 4, 3).overlap(texts)
    assert three.longest.tolist() == [len("e: 12345"), 11]
    assert three.share.tolist() == [1.0, 1.0]
    held_out = overlap.SourceIndex(windows.Texts(["fax: 1", "fax: 2", "fax: 3"]), 4, 3).common()  # "fax:" and "ax: "
    both = overlap.SourceIndex(sources, 4, 3, held_out).overlap(texts)
    assert both.longest.tolist() == [8, len("x: abcdef")]


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(st.text("abか가\U0001f600", max_size=9), min_size=1, max_size=5), n=st.integers(1, 9))
def test_windows_are_equal_where_their_characters_are(module, texts, n):
    windows = module("text_windows").Texts(texts)
    positions, hashes = windows.windows(n)
    grams = [text[i : i + n] for text in texts for i in range(len(text) - n + 1)]
    assert [windows.text(int(at), n) for at in positions] == grams
    assert len(set(hashes.tolist())) == len(set(grams))


def test_an_n_gram_in_very_many_places_ends_in_time(module):
    overlap, windows = module("verbatim_overlap"), module("text_windows")
    same = windows.Texts(["a" * 5_000])
    found = overlap.SourceIndex(same, 24, 5).overlap(same)
    assert found.longest.tolist() == [5_000]


def test_what_looks_the_same_is_the_same(module):
    plain = module("text_windows").plain
    assert plain("Ｔｅｌ．\u3000ＡＢ\n１２\0x") == "tel. ab 12 x"


# -- personal data


@pytest.mark.parametrize(
    ("real", "synthetic", "number"),
    [
        ("Mail anna.lee@corp.example today.", "Write to Anna.Lee@Corp.example", 1),
        ("Mail anna.lee@corp.example today.", "Write to joanna.lee@corp.example", 0),  # another address
        ("Mail anna.lee@corp.example today.", "It is anna.lee@corp.example.", 1),
        ("電話番号は03-1234-5678です。", "電話：０３－１２３４－５６７８まで", 1),
        ("My card: 4111 1111 1111 1111", "code 4111 1111 1111 1111, no word near it", 1),
        ("My card: 4111 1111 1111 1111", "code 94111 1111 1111 11115", 0),
        ("Mail help@corp.example today.", "Mail help@corp.example today.", 0),  # allowed below
        ("nothing here", "anna.lee@corp.example", 0),
    ],
)
def test_personal_data_that_reappear(module, real, synthetic, number):
    values = module("personal_data").PersonalData(["help@corp.example"])
    found = values.compare([real], ["first", synthetic])
    assert found.reappearing.total() == number
    assert found.texts == ({1} if number else set())


def test_examples_are_masked_and_short(module):
    values = module("personal_data").PersonalData()
    shown = values.masked("Reach anna.lee@corp.example in room 417, " + "x" * 100, 60)
    assert shown.startswith("Reach <EMAIL_ADDRESS> in room ###, xxx") and len(shown) == 62


# -- attacks and canaries


def test_intervals_are_those_of_the_literature(module):
    rates = module("attack_rates")
    # Newcombe 1998 (Statistics in Medicine 17:873), table II, 56/70 against 48/80, method 10
    won = [np.arange(70) < 56, np.arange(80) < 48]
    found = rates.attack(*won, 0.95)
    assert (round(found.advantage, 4), round(found.low, 4), round(found.high, 4)) == (0.2, 0.0524, 0.3339)
    # Wilson 1927 at no success: z^2 / (n + z^2)
    none = rates.rate(0, 300, 0.95)
    assert none.low == 0 and none.high == pytest.approx(1.959964**2 / (300 + 1.959964**2), rel=1e-5)


@pytest.mark.parametrize(
    ("low", "high", "holds"), [(-0.02, 0.1, True), (0.11, 0.2, False), (0.05, 0.2, None), (-0.2, 0.01, True)]
)
def test_an_attack_is_judged_by_its_whole_interval(module, low, high, holds):
    rates = module("attack_rates")
    some = rates.rate(1, 10, 0.95)
    assert rates.Attack(some, some, 0.05, low, high).holds(0.1) is holds


def test_singling_out_by_hand(module):
    rates, windows = module("attack_rates"), module("text_windows")
    source = ["red apple pie", "green apple pie", "blue moon"]
    control = ["red wine sauce", "blue cheese"]
    synthetic = windows.Texts(["the apple pie", "blue moon rise", "the wine sauce"])
    # "apple pie" stands in two real records; " moon" in one; " wine" in one held-out record
    won, chance = rates.singled_out(source, control, synthetic, 5)
    assert won.tolist() == [False, False, True]
    assert chance.tolist() == [True, False]


def test_copies_are_linked_and_inferred_and_strangers_are_not(module):
    rates, words = module("attack_rates"), Words(1)
    source, control = ([words.text() for _ in range(120)] for _ in range(2))
    neighbors = rates.Neighbors(source)
    linked, inferred = neighbors.attack(source)
    assert linked.mean() > 0.95 and inferred.mean() > 0.95
    linked, inferred = neighbors.attack(control)
    assert linked.mean() < 0.1 and 0.3 < inferred.mean() < 0.7


def test_exposure_of_canaries(module):
    canary, windows = module("canary_exposure"), module("text_windows")
    chooser = random.Random(8)
    secrets = [(str(k), canary.like("0000-0000-0000", chooser)) for k in range(60)]
    noise = [canary.like("0000-0000-0000", chooser) for _ in range(400)]
    found = canary.expose(secrets, windows.Texts(["the code is " + secrets[0][1], *noise]))
    assert found[0].verbatim and found[0].exposure == 10  # first of 1,024
    others = [c.exposure for c in found[1:]]
    assert not any(c.verbatim for c in found[1:])
    # Where ranks are random, an exposure is exponential with mean 1 / ln 2 and this standard error.
    assert np.mean(others) == pytest.approx(canary.EXPECTED, abs=4 * canary.EXPECTED / len(others) ** 0.5)


def test_a_secret_of_the_same_form(module):
    like = module("canary_exposure").like("ab-12-가あ漢", random.Random(0))
    assert like[0].islower() and like[2] == "-" and like[3:5].isdigit() and like[5] == "-"
    assert "가" <= like[6] <= "힣" and "ぁ" <= like[7] <= "ゖ" and "一" <= like[8] <= "龥"


# -- the component


class Words:
    """Texts of made-up words, which share nothing but by chance."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        syllables = [c + v for c in "bcdfghklmnprst" for v in "aeiou"]
        self.words = ["".join(self.rng.choices(syllables, k=self.rng.randint(2, 4))) for _ in range(3000)]

    def text(self, num=50):
        return " ".join(self.rng.choices(self.words, k=num))


def write(path, rows):
    with records.write_records(path) as write_row:
        for number, row in enumerate(rows):
            row = {"text": row} if isinstance(row, str) else row
            write_row({"id": f"{path.name}{number}", **row})
    return path


@pytest.fixture
def audit(tmp_path, run_component):
    def run(real, synthetic, held_out=None, policy=None, **flags):
        flags |= {
            "real_data": write(tmp_path / "real", real),
            "synthetic_data": write(tmp_path / "synthetic", synthetic),
        }
        if held_out:
            flags["held_out_data"] = write(tmp_path / "held_out", held_out)
        if policy is not None:
            flags["policy"] = tmp_path / "policy.yml"
            flags["policy"].write_text(policy, encoding="utf-8")
        outputs = {name: tmp_path / name for name in ("report", "decision", "approved_data")}
        done = run_component("audit_privacy", **flags, **outputs)
        decision = json.loads(outputs["decision"].read_text("utf-8")) if outputs["decision"].exists() else None
        return done, decision

    return run


def outcomes(decision):
    return {reason["rule"]: reason["outcome"] for reason in decision["reasons"]}


def test_records_of_their_own_pass(audit, tmp_path):
    words = Words(2)
    real, held_out, synthetic = ([words.text() for _ in range(200)] for _ in range(3))
    done, decision = audit(real, synthetic, held_out)
    assert done.returncode == 0, done.stderr
    assert decision["verdict"] == "pass" and decision["reasons_to_fail"] == []
    found = outcomes(decision)
    assert {found[rule] for rule in ("personal_data", "verbatim", "singling_out", "linkability")} == {"pass"}
    assert found["guarantee"] == found["canaries"] == found["personas"] == "not_judged"
    assert done.stdout.startswith("PASS")
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "There is no formal guarantee" in page and "names and addresses: not covered" in page


def test_copies_fail_with_exit_code_1_after_the_report_and_leave_nothing_private_in_it(audit, tmp_path):
    words = Words(3)
    real, held_out, synthetic = ([words.text() for _ in range(150)] for _ in range(3))
    real[5] += " Call 415-555-2671 or write to zoe.quill@corp.example <b>"
    copies = [text[:170] + " " + words.text(20) for text in real[:30]]
    done, decision = audit(real, [*synthetic, *copies, real[5][-60:]], held_out)
    assert done.returncode == 1 and "the verdict is fail" in done.stderr.splitlines()[-1]
    assert decision["verdict"] == "fail" and len(decision["reasons_to_fail"]) >= 3
    found = outcomes(decision)
    assert found["personal_data"] == found["verbatim"] == found["singling_out"] == "fail"
    copied = next(reason for reason in decision["reasons"] if reason["rule"] == "verbatim")
    assert copied["observed"] == pytest.approx(30 / 181)
    written = [p for p in tmp_path.rglob("*") if p.is_file() and p.name not in ("real", "synthetic", "held_out")]
    assert {"report.html", "report.json", "decision"} <= {p.name for p in written}
    shown = "".join(p.read_text("utf-8") for p in written) + done.stdout + done.stderr
    for private in ("415-555-2671", "zoe.quill", "4155552671"):
        assert private not in shown
    for text in real[:30]:
        assert text[40:90] not in shown, "an example shows 40 characters at most"


def test_a_failing_verdict_can_let_the_pipeline_go_on(audit):
    done, decision = audit(["my mail is zoe@corp.example"], ["zoe@corp.example"], stop_on_fail="false")
    assert done.returncode == 0 and decision["verdict"] == "fail"


GROUNDED = {"origin": "coverage_seed", "source_ids": ["real0"], "language": "en"}


def chat(text, **fields):
    return {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "yes"}], **fields}


def test_quoting_on_purpose_is_said_and_not_judged_but_personal_data_are(audit):
    text = Words(4).text()
    done, decision = audit([text], [chat(text, **GROUNDED)])
    assert done.returncode == 0, done.stderr
    assert "1 records quote their source: handle the data set as confidentially" in decision["handling"]
    assert outcomes(decision)["verbatim"] == "pass" and outcomes(decision)["singling_out"] == "not_judged"
    # The same copy counts when the record names no source, or is of another origin.
    for unnamed in ({**GROUNDED, "source_ids": []}, {**GROUNDED, "origin": "persona"}):
        assert outcomes(audit([text], [chat(text, **unnamed)])[1])["verbatim"] == "fail"
    text += " zoe@corp.example"
    assert outcomes(audit([text], [chat(text, **GROUNDED)])[1])["personal_data"] == "fail"


def test_a_quote_of_another_record_than_the_one_it_names_is_judged(audit):
    words = Words(8)
    real = [words.text(), words.text()]
    own, other = (chat(text, **GROUNDED) for text in real)
    _, decision = audit(real, [own] * 9 + [other])
    check = next(reason for reason in decision["reasons"] if reason["rule"] == "verbatim")
    assert (check["observed"], check["outcome"]) == (0.1, "fail")
    assert "1 of them copy" in check["text"]


def test_only_what_passed_is_handed_on(audit, tmp_path):
    words = Words(9)
    fresh = chat(words.text(), id="a", tags={"kept": "as it is"})
    audit([words.text()], [fresh])
    assert list(records.read_records(tmp_path / "approved_data")) == [fresh]
    real = words.text()
    audit([real], [fresh, chat(real)], stop_on_fail="false")
    assert (tmp_path / "approved_data").read_bytes() == b""


def test_japanese_copies_are_shorter(audit):
    real = "公民館の集会室は午前九時から午後十時まで利用でき、予約は三か月前の一日から窓口か電話で受け付けます。"
    assert outcomes(audit([real], ["質問です。" + real[:42]])[1])["verbatim"] == "fail"
    assert outcomes(audit([real], ["質問です。" + real[:38]])[1])["verbatim"] == "pass"


def test_a_rule_that_must_be_judged_fails_when_it_cannot_be(audit):
    words = Words(5)
    done, decision = audit([words.text()], [words.text()], policy="must_be_judged: [linkability, guarantee]")
    assert done.returncode == 1
    assert [text.split(",")[0] for text in decision["reasons_to_fail"]] == [
        "The policy wants linkability judged",
        "The policy wants guarantee judged",
    ]


def persona(group, age):
    return {"language": "ko", "characteristics": {"occupation_group": group, "age_band": age, "region": None}}


def test_persona_cells_by_hand(audit, tmp_path):
    personas = write(tmp_path / "personas", [persona("office", "25_34")] * 3 + [persona("retired", "65_or_over")])
    words = Words(6)
    done, decision = audit([words.text()], [words.text()], personas=personas)
    check = next(reason for reason in decision["reasons"] if reason["rule"] == "personas")
    assert (check["observed"], check["outcome"], done.returncode) == (0.25, "fail", 1)
    assert "4 personas fall into 2 combinations" in check["text"] and "shared by 1, and 25.0 %" in check["text"]


LEDGER = {"dataset": "shop", "unit": "one person", "epsilon": 3.0, "delta": 1e-6}


@pytest.mark.parametrize(
    ("origins", "ledger", "outcome"),
    [
        (["private_evolution"] * 2, LEDGER, "pass"),
        (["private_evolution"] * 2, LEDGER | {"epsilon": 11.0}, "fail"),
        (["private_evolution"] * 2, LEDGER | {"delta": 1e-3}, "fail"),
        (["private_evolution", "persona"], LEDGER, "not_judged"),
    ],
)
def test_the_ledger(audit, tmp_path, origins, ledger, outcome):
    (tmp_path / "ledger").write_text(json.dumps(ledger))
    words = Words(7)
    rows = [{"text": words.text(), "origin": origin} for origin in origins]
    _, decision = audit([words.text()], rows, ledger=tmp_path / "ledger")
    assert outcomes(decision)["guarantee"] == outcome


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("verbatm: {}", "unknown key 'verbatm'; known keys: must_be_judged, personal_data, verbatim"),
        ("verbatim: {max_copied: 1}", "unknown key 'verbatim.max_copied'; known keys: span_chars, ngram_chars"),
        (
            "verbatim: {span_chars: {latin: 80, ko: 2}}",
            "unknown key 'verbatim.span_chars.ko'; known keys: latin",
        ),
        ("verbatim: {span_chars: {latin: 10, east_asian: 40}}", "span_chars.latin is below ngram_chars.latin"),
        ("must_be_judged: [names]", "must_be_judged.0"),
        ("attacks: {confidence_level: 95}", "attacks.confidence_level: Input should be less than 1"),
        ("[", "cannot be read"),
        ("", "the file: Input should be a valid dictionary"),
    ],
)
def test_a_policy_that_does_not_fit_is_one_line(module, tmp_path, policy, message):
    (tmp_path / "policy.yml").write_text(policy)
    with pytest.raises(UserError, match=r"policy\.yml") as refused:
        checked_files.load(tmp_path / "policy.yml", module("privacy_policy").Policy)
    assert message in " ".join(str(refused.value).split())


def test_the_policy_that_is_shipped_states_the_defaults(load_main, module):
    """Its numbers can be left out of a policy of one's own; the origins that may quote cannot."""
    policy = module("privacy_policy")
    shipped = checked_files.load(load_main("audit_privacy").DEFAULT_POLICY, policy.Policy).model_dump()
    assert "coverage_seed" in shipped["verbatim"].pop("intended_copying")
    default = policy.Policy().model_dump()
    assert default["verbatim"].pop("intended_copying") == []
    assert shipped == default


@pytest.mark.parametrize(
    ("port", "content", "message"),
    [
        ("synthetic_data", '{"id": "1"}', "synthetic_data:1: neither a chat (messages) nor a document (text)"),
        ("synthetic_data", '{"messages": [{"role": "boss", "content": "x"}]}', "unknown role 'boss'"),
        ("synthetic_data", "", "no records; an audit without them shows nothing"),
        ("real_data", "{", "real_data:1: not JSON"),
        (
            "ledger",
            '{"dataset": "x", "unit": "y", "epsilon": "3", "delta": 1}',
            "epsilon is missing or of another",
        ),
        ("ledger", "[]", "not a JSON object"),
        ("canaries", '{"id": "c", "secret": "ab"}', "canaries:1: a canary needs id and secret"),
        ("canaries", "", "no canaries"),
    ],
)
def test_bad_input_is_one_line_and_no_output(tmp_path, run_component, port, content, message):
    flags = {"real_data": '{"text": "a"}', "synthetic_data": '{"text": "b"}', port: content}
    for name, text in flags.items():
        (tmp_path / name).write_text(text)
        flags[name] = tmp_path / name
    outputs = {name: tmp_path / name for name in ("report", "decision", "approved_data")}
    done = run_component("audit_privacy", **flags, **outputs)
    assert done.returncode == 1 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "decision").exists() and not (tmp_path / "report" / "report.html").exists()


def test_recall_of_the_detector_is_shown_by_data_set(module):
    measured = {"generated": {"n": 1200, "recall": 0.987, "precision": 1.0}, "other": {"n": 8, "recall": 0.5}}
    report = module("audit_report")
    assert report._recall(measured) == "99 % of 1,200 (generated), 50 % of 8 (other)"
    assert report._recall({}) == "not measured"


def test_canaries_and_the_redaction_report_reach_the_page(audit, tmp_path):
    words = Words(9)
    canaries = write(tmp_path / "canaries", [{"secret": "7391-8842"}, {"secret": "5512-0937"}])
    (tmp_path / "redaction").mkdir()
    redaction = {"gaps": ["fields not examined: <notes>"], "findings": {"EMAIL_ADDRESS": {"en": 4, "ko": 3}}}
    (tmp_path / "redaction" / "report.json").write_text(json.dumps(redaction))
    done, decision = audit(
        [words.text()],
        [words.text() + " code 7391-8842"],
        canaries=canaries,
        redaction_report=tmp_path / "redaction",
    )
    assert done.returncode == 1 and outcomes(decision)["canaries"] == "fail"
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "fields not examined: &lt;notes&gt;" in page
    assert "7391" not in page + json.dumps(decision)
