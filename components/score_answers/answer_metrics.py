"""Exact match, F1 and chrF of one answer against its references, as Hugging Face `evaluate` metrics for any script."""

import collections
import re
import sys
import tempfile
import unicodedata
from collections.abc import Sequence


def _import_evaluate():
    """`evaluate` uses transformers only for pipelines, and takes it as optional: without it, 1 s instead of 5."""
    if "transformers" in sys.modules:
        import evaluate

        return evaluate
    sys.modules["transformers"] = None  # what makes Python raise ImportError at `import transformers`
    try:
        import evaluate
    finally:
        del sys.modules["transformers"]
    return evaluate


evaluate = _import_evaluate()
import datasets  # noqa: E402  (evaluate imports it too)

# Scripts that are written without spaces, or (hangul) with spaces that writers put differently: a token a character.
_UNSPACED = "\u1100-\u11ff\u3005\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
_UNSPACED += "\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_TRAILING = " .,;:!?。、"


def normalize(text: str) -> str:
    """NFKC, case folded, white space collapsed, punctuation at the end removed (unless there is nothing else)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    collapsed = " ".join(folded.split())
    return collapsed.rstrip(_TRAILING) or collapsed


def tokens(text: str) -> list[str]:
    """Words, and single characters of Japanese, Chinese and Korean, so that a text in two scripts needs no label."""
    return _TOKEN.findall(normalize(text))


def exact_match(answer: str, reference: str) -> float:
    return float(normalize(answer) == normalize(reference))


def f1(answer: str, reference: str) -> float:
    given, wanted = collections.Counter(tokens(answer)), collections.Counter(tokens(reference))
    common = (given & wanted).total()
    if not common:
        return exact_match(answer, reference)  # "?" against "?": no token on either side, and equal
    return 2 * common / (given.total() + wanted.total())


class AnswerMetric(evaluate.Metric):
    """A metric that gives a number an answer: the best over its references."""

    def __init__(self):
        # Nothing is kept: evaluate asks for a folder even when everything stays in memory.
        with tempfile.TemporaryDirectory() as folder:
            super().__init__(keep_in_memory=True, cache_dir=folder)

    def _info(self):
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.__doc__,
            citation="",
            features=datasets.Features({"predictions": text, "references": datasets.Sequence(text)}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, list[float]]:
        return {self.name: [self.best(*pair) for pair in zip(predictions, references, strict=True)]}

    def best(self, answer: str, references: Sequence[str]) -> float:
        raise NotImplementedError


class ExactMatch(AnswerMetric):
    """1 when the normalized answer equals a normalized reference."""

    def best(self, answer, references):
        return max(exact_match(answer, reference) for reference in references)


class F1(AnswerMetric):
    """Harmonic mean of precision and recall over the bag of tokens."""

    def best(self, answer, references):
        return max(f1(answer, reference) for reference in references)


class Chrf(AnswerMetric):
    """Character n-gram F-score of the normalized texts (chrF2 of sacrebleu, order 6), divided by 100."""

    def __init__(self):
        import sacrebleu

        self.chrf = sacrebleu.CHRF()
        super().__init__()

    def best(self, answer, references):
        wanted = [normalize(reference) for reference in references]
        return self.chrf.sentence_score(normalize(answer), wanted).score / 100


def score(answers: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, list[float]]:
    """The scores of each answer: metric -> a number from 0 to 1 an answer."""
    metrics = evaluate.combine([ExactMatch(), F1(), Chrf()])
    return metrics.compute(predictions=answers, references=references)
