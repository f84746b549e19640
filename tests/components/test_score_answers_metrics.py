"""score_answers: each metric against an independent reference or a value worked out by hand."""

import importlib
import json
import math
import time
from fractions import Fraction

import pytest
import sacrebleu
from rouge_score import rouge_scorer

from slmkit import records
from slmkit.errors import UserError

ANSWERS = {
    "en": ("The running dogs quickly jumped over three fences.", "A dog ran and jumps over the three big fences"),
    "ja": ("東京タワーは港区にあります。", "東京タワーは東京都港区芝公園にあります。"),
    "ko": ("서울역에서 친구를 만났습니다.", "친구를 서울역 앞에서 만났습니다."),
}
# What MeCab gives by hand-checked segmentation; the reference scores below are computed from these words.
MORPHEMES = {
    "ja": ("東京 タワー は 港 区 に あり ます", "東京 タワー は 東京 都 港 区 芝 公園 に あり ます"),
    "ko": ("서울역 에서 친구 를 만났 습니다", "친구 를 서울역 앞 에서 만났 습니다"),
}


@pytest.fixture(scope="module")
def module(load_main):
    load_main("score_answers")
    return importlib.import_module


@pytest.fixture(scope="module")
def metrics(module):
    return module("answer_metrics")


def one(metrics, names, answer, references, language="en", tokenization="auto", checks=()):
    columns = metrics.score(metrics.chosen(names, tokenization, checks), [answer], [references], [language])
    return {name: column[0] for name, column in columns.items()}


@pytest.mark.parametrize("language", MORPHEMES)
def test_morphemes(module, language):
    for text, words in zip(ANSWERS[language], MORPHEMES[language], strict=True):
        assert module("answer_tokens").morphemes(text, language) == words.split()


def test_morphemes_of_odd_texts(module):
    morphemes = module("answer_tokens").morphemes
    assert morphemes("", "ja") == [] and morphemes("？！", "ja") == []
    assert morphemes("東京\0大阪", "ja") == ["東京", "大阪"]  # a NUL ends no text
    assert morphemes("你好", "zh") == ["你", "好"]


@pytest.mark.parametrize("language", MORPHEMES)
def test_bleu_is_that_of_sacrebleu_over_morphemes(metrics, language):
    given, wanted = MORPHEMES[language]
    expected = sacrebleu.sentence_bleu(given, [wanted], tokenize="none", smooth_method="exp").score / 100
    answer, reference = ANSWERS[language]
    assert one(metrics, ["bleu"], answer, [reference], language)["bleu"] == pytest.approx(expected)
    assert 0 < expected < 1


def test_bleu_by_hand(metrics):
    # Unigrams 3 of 3, bigrams 1 of 2, trigrams 0 of 1 (smoothed to 1/2), no 4-grams; 3 tokens against 4.
    expected = (1 * (1 / 2) * (1 / 2)) ** (1 / 3) * math.exp(1 - 4 / 3)
    assert one(metrics, ["bleu"], "a b d", ["a b c d"])["bleu"] == pytest.approx(expected)
    assert one(metrics, ["bleu"], "a b", ["a b"])["bleu"] == pytest.approx(1)  # effective order: no 3-grams, no 0
    # Both references count together, as BLEU has it: each unigram is in one of them.
    assert one(metrics, ["bleu"], "a b", ["a x", "y b"])["bleu"] == pytest.approx((1 * 1 / 2) ** 0.5)


def test_rouge_is_that_of_rouge_score_in_english(metrics):
    names = ["rouge1", "rouge2", "rougeL"]
    answer, reference = ANSWERS["en"]
    expected = rouge_scorer.RougeScorer(names, use_stemmer=True).score(reference, answer)
    found = one(metrics, names, answer, [reference])
    assert found == {name: pytest.approx(expected[name].fmeasure) for name in names}
    assert found["rouge1"] > one(metrics, names, answer, [reference], language="fr")["rouge1"]  # stems: dogs, jumped


def test_rouge_by_hand_in_japanese_and_korean(metrics):
    names = ["rouge1", "rouge2", "rougeL"]
    # ja: 8 and 12 morphemes, all 8 in common; of 7 and 11 bigrams 東京タワー タワーは 港区 にあり あります; order kept.
    found = one(metrics, names, *[ANSWERS["ja"][0], [ANSWERS["ja"][1]], "ja"])
    assert found == {
        "rouge1": pytest.approx(2 * 8 / 20),
        "rouge2": pytest.approx(2 * 5 / 18),
        "rougeL": pytest.approx(2 * 8 / 20),
    }
    # ko: 6 and 7, all 6 in common; bigrams 친구를, 만났습니다; in order at most 서울역 에서 만났 습니다 (4).
    found = one(metrics, names, *[ANSWERS["ko"][0], [ANSWERS["ko"][1]], "ko"])
    assert found == {
        "rouge1": pytest.approx(2 * 6 / 13),
        "rouge2": pytest.approx(2 * 2 / 11),
        "rougeL": pytest.approx(2 * 4 / 13),
    }


def test_each_rouge_takes_its_own_best_reference(metrics):
    # rouge1: "b a" has both words; rouge2: "a b c c c c" has the bigram (1 of 1 and of 5).
    found = one(metrics, ["rouge1", "rouge2"], "a b", ["b a", "a b c c c c"])
    assert found == {"rouge1": 1, "rouge2": pytest.approx(2 * 1 / (1 + 5))}


def test_tokenization_is_chosen(metrics):
    answer, reference = "佐藤直樹氏", "佐藤 直樹"
    by = {how: one(metrics, ["f1"], answer, [reference], "ja", how)["f1"] for how in ("auto", "character", "morpheme")}
    assert by["auto"] == by["character"] == pytest.approx(8 / 9)
    assert by["morpheme"] == pytest.approx(2 * 2 / 5)  # 佐藤 直樹 氏
    bleu = {how: one(metrics, ["bleu"], *ANSWERS["ja"][:1], [ANSWERS["ja"][1]], "ja", how) for how in by}
    assert bleu["auto"] == bleu["morpheme"] != bleu["character"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16 - 3 - 4 = 9 eggs, 9 * $2 = $18.\n#### 18", 18),
        ("#### 72\n\nQuestion: Tom has 5", 72),  # the model went on asking
        ("The answer is 72.", 72),
        ("\\boxed{72}", 72),
        ("$1,200.50", "1200.5"),
        ("USD72", 72),
        ("１２３", 123),
        ("３，４５０円", 3450),
        ("3万5千円", 35_000),
        ("2億3千5百万人", 235_000_000),
        ("1千万", 10_000_000),
        ("3.5万", 35_000),
        ("2만 5천원", 25_000),
        ("2만5000원", 25_000),
        ("3\u1106\u1161\u11ab", 30_000),  # 만 in conjoining jamo
        ("1억 2,000만 원", 120_000_000),
        ("2만큼 크다", 2),
        ("答えは-5です", -5),
        ("−７", -7),
        ("-$5", -5),
        ("$-5", -5),
        ("マイナス3度", -3),
        ("5-3", 3),
        ("COVID-19", 19),
        ("- 5", 5),  # a list item
        ("1/2", "1/2"),
        ("1 1/2", "3/2"),
        ("2½", "5/2"),
        ("-\\frac{3}{4}", "-3/4"),
        ("2024/7/22", 22),
        ("3/0", 0),  # no fraction
        ("50%", 50),
        ("72 m²", 72),
        ("no CO2", None),
        ("", None),
        ("9" * 5000, None),
    ],
)
def test_the_final_number(module, text, value):
    found = module("answer_numbers").final_number(text)
    assert (found and found.value) == (None if value is None else Fraction(value))


@pytest.mark.parametrize("text", ["1,", "1 ", "3万", "1/", "-", "$ ", "9", "1 1/", "#", ".5", "1,111", "\\frac{1}"])
def test_no_text_takes_long_to_find_the_number_in(module, text):
    started = time.process_time()
    module("answer_numbers").final_number(text * 20_000)
    assert time.process_time() - started < 10  # a quadratic search would take minutes


def test_numeric(metrics):
    def numeric(answer, *references):
        return one(metrics, ["numeric"], answer, references)["numeric"]

    assert numeric("so it is 30,000 yen", "3万円") == 1
    assert numeric("72.0", "#### 72") == 1
    assert numeric("about 71", "#### 72") == 0
    assert numeric("I do not know", "72") == 0
    assert numeric("8", "7", "8") == 1
    assert [numeric(answer, "50%") for answer in ("50 %", "50", "0.5", "5000", "0.5%")] == [1, 1, 1, 0, 0]
    assert numeric("0.5", "50") == 0


@pytest.mark.parametrize(
    ("answer", "share", "exact"),
    [
        ('{"name": "Sato", "age": 8, "tags": ["a", "b"]}', 1, 1),
        ('```json\n{"tags": ["a", "b"], "age": 8.0, "name": "Sato"}\n```', 1, 1),
        ('{"name": "ＳＡＴＯ.", "age": 8, "tags": ["a", "b"]}', 1, 0),  # equal as exact_match has it
        ('{"name": "Sato", "age": 8, "tags": ["a", "b"], "more": 1}', 1, 0),
        ('{"name": "Sato", "age": "8", "tags": ["b", "a"]}', 1 / 4, 0),
        ('{"name": "Sato", "age": true}', 1 / 4, 0),
        ("Sato, 8", 0, 0),
        ("", 0, 0),
        ("[" * 100_000, 0, 0),
        ("```" + " " * 200_000 + "x", 0, 0),  # a quadratic search would take minutes
        ("9" * 10_000, 0, 0),
        ("NaN", 0, 0),
    ],
)
def test_json(metrics, answer, share, exact):
    reference = '{"name": "Sato", "age": 8, "tags": ["a", "b"]}'
    assert one(metrics, ["json"], answer, [reference]) == {"json": share, "json_exact": exact}


def test_json_empty_containers_and_scalars_are_leaves(metrics):
    def share(answer, reference):
        return one(metrics, ["json"], answer, [reference])["json"]

    assert share('{"a": [], "b": null}', '{"a": [], "b": null}') == 1
    assert share('{"a": [1], "b": null}', '{"a": [], "b": null}') == 1 / 2
    assert share("1", "true") == 0


CHECKS = """
patterns:
  - {name: polite, pattern: '(です|ます)。?$', must: match}
  - {name: no_apology, pattern: '(?i)sorry', must: not_match}
"""


def test_patterns(metrics, module, tmp_path):
    (tmp_path / "checks").write_text(CHECKS, encoding="utf-8")
    checks = module("answer_patterns").read_checks(tmp_path / "checks")
    both = one(metrics, ["regex"], "東京です。", ["x"], checks=checks)
    assert both == {"regex": 1, "regex_all": 1, "regex_polite": 1, "regex_no_apology": 1}
    half = one(metrics, ["regex"], "東京だ", ["x"], checks=checks)
    assert half == {"regex": 1 / 2, "regex_all": 0, "regex_polite": 0, "regex_no_apology": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("patterns: []", "at least 1 item"),
        ("patterns: [{name: a, pattern: '(', must: match}]", "not a regular expression"),
        ("patterns: [{name: a, pattern: x, must: maybe}]", "'match' or 'not_match'"),
        ("patterns: [{name: a, pattern: x, must: match, flags: i}]", "unknown key 'patterns.0.flags'"),
        ("patterns: [{name: a, pattern: x, must: match}, {name: a, pattern: y, must: match}]", "a name of its own"),
        ("- a", "the file"),
    ],
)
def test_a_file_of_patterns_that_is_wrong(module, tmp_path, text, message):
    (tmp_path / "checks").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="checks:1") as error:
        module("answer_patterns").read_checks(tmp_path / "checks")
    assert message in str(error.value)


def test_a_catastrophic_pattern_is_an_error_in_time(module, monkeypatch):
    patterns = module("answer_patterns")
    monkeypatch.setattr(patterns, "TIMEOUT_SECONDS", 0.2)
    check = patterns.PatternCheck(name="slow", pattern=r"^(a|aa)+$", must="match")
    with pytest.raises(UserError, match="pattern 'slow' took more than"):
        check.holds("a" * 60 + "b")
    with pytest.raises(UserError, match="answer_pattern took more than"):
        patterns.AnswerPattern(r"(a|aa)+$").find("a" * 60 + "b")


@pytest.mark.parametrize(
    ("pattern", "output", "found"),
    [
        (r"答え[:：]\s*(\S+)", "答え：ア\nいや、答え: イ", "イ"),
        (r"[A-D]", "A or B", "B"),
        (r"Answer: (\w+)", "no idea", None),
        (r"Answer:( \w+)?", "Answer:", None),
    ],
)
def test_answer_pattern(module, pattern, output, found):
    assert module("answer_patterns").AnswerPattern(pattern).find(output) == found


def item(id, reference, **slices):
    return {"id": id, "messages": [{"role": "user", "content": "?"}], "references": [reference], "slices": slices}


@pytest.fixture
def score(tmp_path, run_component):
    def run(outputs, items, **flags):
        rows = [{"id": id, "candidate": "c", **({"output": o} if o else {"error": "x"})} for id, o in outputs.items()]
        for name, content in (("predictions", rows), ("eval_items", items)):
            with records.write_records(tmp_path / name) as write:
                for row in content:
                    write(row)
        paths = {name: tmp_path / name for name in ("predictions", "eval_items", "scores")}
        done = run_component("score_answers", **paths, **flags)
        return done, list(records.read_records(paths["scores"])) if paths["scores"].exists() else None

    return run


def test_every_metric_at_once(score, tmp_path):
    (tmp_path / "patterns").write_text(CHECKS, encoding="utf-8")
    every = "exact_match,f1,chrf,bleu,rouge1,rouge2,rougeL,numeric,json,regex"
    items = [item("right", "5", language="ja"), item("other", "7"), item("failed", "5"), item("missing", "5")]
    outputs = {"right": "答え: 5", "other": "7 と思います", "failed": None}
    flags = {"metrics": every, "patterns": tmp_path / "patterns", "answer_pattern": r"答え: (\d+)"}
    done, (right, other, failed, missing) = score(outputs, items, **flags)
    assert done.returncode == 0, done.stderr
    names = [*every.split(","), "json_exact", "regex_all", "regex_polite", "regex_no_apology"]
    assert set(right) == {"id", "candidate", "failed", *names}
    assert [right[name] for name in every.split(",")[:-1]] == pytest.approx([1, 1, 1, 1, 1, 0, 1, 1, 1])
    assert right["regex"] == 1 / 2
    # What is not in the form asked for, failed or is missing gets 0, a check that no text must match included.
    for row, is_failed in ((other, 0), (failed, 1), (missing, 1)):
        assert {name: row[name] for name in names} == dict.fromkeys(names, 0) and row["failed"] == is_failed
    assert "not in the form of answer_pattern and scored 0: 1" in done.stdout


TEXTS = ["", " ", "?", "a b", "漢字かな", "서울 3만", '{"a": 1}', "½ \x00 \u200d", "5" * 400, "😀"]


@pytest.mark.parametrize("language", ["en", "ja", "ko", "zh", "und", "Klingon"])
def test_scores_are_shares_and_an_answer_equal_to_its_reference_has_them_all(metrics, language):
    names = ["exact_match", "f1", "chrf", "bleu", "rouge1", "rouge2", "rougeL", "numeric"]
    pairs = [(answer, [reference]) for answer in TEXTS for reference in TEXTS if reference.strip()]
    chosen = metrics.chosen(names, "auto", [])
    columns = metrics.score(chosen, *map(list, zip(*pairs, strict=True)), [language] * len(pairs))
    assert set(columns) == set(names)
    assert all(0 <= value <= 1 + 1e-9 for column in columns.values() for value in column)
    same = metrics.score(metrics.chosen(names, "auto", []), ["東京 is 3"], [["東京 is 3"]], [language])
    assert {name: column[0] for name, column in same.items()} == {name: pytest.approx(1) for name in names}


def test_all_failed(score):
    done, rows = score({"a": None}, [item("a", "5")], metrics="f1,json,rouge1")
    assert done.returncode == 0, done.stderr
    assert rows == [{"id": "a", "candidate": "c", "f1": 0, "json": 0, "json_exact": 0, "rouge1": 0, "failed": 1}]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"metrics": "f1,bleurt"}, "metrics: 'bleurt' is not one of exact_match"),
        ({"metrics": ","}, "metrics is empty"),
        ({"metrics": "regex"}, "regex and the input patterns go together"),
        ({"metrics": "numeric"}, "eval_items:1: numeric needs a number in the reference 'Tokyo' of item 'a'"),
        ({"metrics": "json"}, "eval_items:1: json needs JSON in the reference 'Tokyo' of item 'a'"),
        ({"answer_pattern": "("}, "answer_pattern '(': not a regular expression"),
    ],
)
def test_what_cannot_be_scored_is_one_line(score, flags, message):
    done, rows = score({"a": "x"}, [item("a", "Tokyo")], **flags)
    assert done.returncode == 1 and rows is None
    assert message in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_language_of_an_item(load_main):
    language = load_main("score_answers").language
    assert language(item("a", "東京です", language="ko")) == "ko"
    assert language(item("a", "x", language="ja-JP")) == "ja"
    assert language(item("a", "서울입니다")) == "ko"


def test_the_light_metrics_import_no_tokenizer(load_main, tmp_path, run_component):
    """The demo scores with the default metrics, and needs none of the other libraries."""
    block = "import sys\nfor name in ('fugashi', 'mecab_ko', 'rouge_score', 'nltk'): sys.modules[name] = None\n"
    (tmp_path / "sitecustomize.py").write_text(block, encoding="utf-8")
    for name, row in (
        ("predictions", {"id": "a", "candidate": "c", "output": "東京"}),
        ("eval_items", item("a", "東京", language="ja")),
    ):
        (tmp_path / name).write_text(json.dumps(row), encoding="utf-8")
    import slmkit

    shared = str(next(iter(slmkit.__path__)) + "/..")
    paths = {name: tmp_path / name for name in ("predictions", "eval_items", "scores")}
    done = run_component("score_answers", **paths, env={"PYTHONPATH": f"{tmp_path}:{shared}"})
    assert done.returncode == 0, done.stderr


def test_the_answers_of_gsm8k_are_read(module, root):
    """All 1,319 of the test set: the marked answer always, and the last number of the working out nearly always."""
    path = root.parent / "shared" / "data" / "benchmarks" / "gsm8k-test.jsonl"
    if not path.is_file():
        pytest.skip(f"GSM8K is not at {path}")
    final_number = module("answer_numbers").final_number
    num_last = 0
    rows = list(records.read_records(path))
    for row in rows:
        working, _, marked = row["answer"].rpartition("#### ")
        assert final_number(row["answer"]).value == Fraction(marked.replace(",", "")), row
        last = final_number(working)
        num_last += last is not None and last.value == Fraction(marked.replace(",", ""))
    assert len(rows) == 1319 and num_last / len(rows) > 0.95
