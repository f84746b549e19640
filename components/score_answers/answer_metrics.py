"""Metrics of one answer against its references, as Hugging Face `evaluate` metrics right for any script."""

import functools
import sys
import tempfile
from collections.abc import Sequence
from typing import ClassVar

import answer_slots
from answer_numbers import final_number
from answer_tokens import morphemes

from slmkit import answer_text


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


class AnswerMetric(evaluate.Metric):
    """A metric that gives each answer a number from 0 to 1 (or several, by `names`): the best over its references."""

    names: tuple[str, ...]
    columns: ClassVar = {
        "predictions": datasets.Value("string"),
        "references": datasets.Sequence(datasets.Value("string")),
    }

    def __init__(self):
        # Nothing is kept: evaluate asks for a folder even when everything stays in memory.
        with tempfile.TemporaryDirectory() as folder:
            super().__init__(keep_in_memory=True, cache_dir=folder)

    def _info(self):
        return evaluate.MetricInfo(description=self.__doc__, citation="", features=datasets.Features(self.columns))

    def _compute(self, **columns: Sequence) -> dict[str, list[float]]:
        scores = [self.best(*row) for row in zip(*(columns[name] for name in self.columns), strict=True)]
        return dict(zip(self.names, map(list, zip(*scores, strict=True)), strict=True))

    def best(self, answer: str, references: Sequence[str], *language: str) -> tuple[float, ...]:
        return max(self.against(answer, reference, *language) for reference in references)

    def against(self, answer: str, reference: str, *language: str) -> tuple[float, ...]:
        raise NotImplementedError


class ExactMatch(AnswerMetric):
    """1 when the normalized answer equals a normalized reference."""

    names = ("exact_match",)

    def against(self, answer, reference):
        return (answer_text.exact_match(answer, reference),)


class Chrf(AnswerMetric):
    """Character n-gram F-score of the normalized texts (chrF2 of sacrebleu, order 6), divided by 100."""

    names = ("chrf",)

    def __init__(self):
        import sacrebleu

        self.chrf = sacrebleu.CHRF()
        super().__init__()

    def best(self, answer, references):
        return (
            self.chrf.sentence_score(answer_text.normalize(answer), [*map(answer_text.normalize, references)]).score
            / 100,
        )


class Numeric(AnswerMetric):
    """1 when the last number of the answer is that of a reference."""

    names = ("numeric",)

    def against(self, answer, reference):
        given, wanted = final_number(answer), final_number(reference)
        return (float(given is not None and wanted is not None and given.equals(wanted)),)


class JsonSlots(AnswerMetric):
    """The share of the reference's JSON leaves that the answer has, and whether both are the same JSON."""

    names = ("json", "json_exact")

    def against(self, answer, reference):
        return answer_slots.slot_accuracy(answer, answer_slots.leaves(reference))


class Patterns(AnswerMetric):
    """The share of the checks that the answer passes, whether it passes all, and each; references play no part."""

    def __init__(self, checks):
        self.checks = checks
        self.names = ("regex", "regex_all", *(f"regex_{check.name}" for check in checks))
        super().__init__()

    def best(self, answer, references):
        passed = [float(check.holds(answer)) for check in self.checks]
        return (sum(passed) / len(passed), min(passed), *passed)


class TokenMetric(AnswerMetric):
    """A metric over tokens, which depend on the language of the item."""

    columns: ClassVar = AnswerMetric.columns | {"languages": datasets.Value("string")}

    def __init__(self, tokenization: str):
        self.spaced = functools.partial(_spaced, by_morphemes=tokenization == "morpheme")
        super().__init__()


@functools.lru_cache(maxsize=2**17)  # for the metrics that need the same tokens, one after the other
def _spaced(text: str, language: str, by_morphemes: bool) -> str:
    """The tokens of a text with a space between them."""
    return " ".join(morphemes(text, language) if by_morphemes else answer_text.tokens(text))


class F1(TokenMetric):
    """Harmonic mean of precision and recall over the bag of tokens."""

    names = ("f1",)

    def against(self, answer, reference, language):
        return (answer_text.f1(answer, reference, lambda text: self.spaced(text, language).split()),)


class Bleu(TokenMetric):
    """Sentence BLEU of sacrebleu (4-grams, exponential smoothing, effective order) over our tokens, divided by 100."""

    names = ("bleu",)

    def __init__(self, tokenization):
        import sacrebleu

        self.bleu = sacrebleu.BLEU(tokenize="none", smooth_method="exp", effective_order=True)
        super().__init__(tokenization)

    def best(self, answer, references, language):
        wanted = [self.spaced(reference, language) for reference in references]
        score = self.bleu.sentence_score(self.spaced(answer, language), wanted).score / 100
        return (min(1.0, score),)  # its logarithms make a perfect one 1.0000000000000004


class Rouge(TokenMetric):
    """F-measures of rouge_score over our tokens, stemmed (Porter) in English only."""

    def __init__(self, tokenization, names):
        from nltk.stem import porter
        from rouge_score import rouge_scorer, tokenizers

        class Spaced(tokenizers.Tokenizer):
            def tokenize(self, text):
                return text.split()

        class Stemmed(tokenizers.Tokenizer):
            stemmer = porter.PorterStemmer()

            def tokenize(self, text):  # short words as they are, like rouge_score
                return [self.stemmer.stem(word) if len(word) > 3 else word for word in text.split()]

        self.names = tuple(names)
        self.scorer = rouge_scorer.RougeScorer(names, tokenizer=Spaced())
        self.english_scorer = rouge_scorer.RougeScorer(names, tokenizer=Stemmed())
        super().__init__(tokenization)

    def best(self, answer, references, language):
        scorer = self.english_scorer if language == "en" else self.scorer
        wanted = [self.spaced(reference, language) for reference in references]
        found = scorer.score_multi(wanted, self.spaced(answer, language))
        return tuple(found[name].fmeasure for name in self.names)


def chosen(metrics: Sequence[str], tokenization: str, checks: Sequence) -> "evaluate.CombinedEvaluations":
    """The metrics by name, for `score`. With the tokenization auto, F1 counts characters of Japanese and Korean, and
    BLEU and ROUGE morphemes."""
    by_phrase = "morpheme" if tokenization == "auto" else tokenization
    made = {
        "exact_match": ExactMatch,
        "f1": lambda: F1("character" if tokenization == "auto" else tokenization),
        "chrf": Chrf,
        "bleu": lambda: Bleu(by_phrase),
        "numeric": Numeric,
        "json": JsonSlots,
        "regex": lambda: Patterns(checks),
    }
    rouge = [name for name in metrics if name.startswith("rouge")]
    wanted = [made[name]() for name in metrics if name in made]
    return evaluate.combine(wanted + ([Rouge(by_phrase, rouge)] if rouge else []))


def score(
    metrics: "evaluate.CombinedEvaluations",
    answers: Sequence[str],
    references: Sequence[Sequence[str]],
    languages: Sequence[str],
) -> dict[str, list[float]]:
    """The scores of each answer: metric -> a number from 0 to 1 an answer."""
    if not answers:  # which evaluate takes for a mistake
        return {name: [] for metric in metrics.evaluation_modules for name in metric.names}
    return metrics.compute(predictions=answers, references=references, languages=languages)
