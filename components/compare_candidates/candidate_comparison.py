"""All numbers of a comparison: candidates against a baseline, by benchmark and by slice, and which one to take."""

import collections
from dataclasses import dataclass
from typing import Any

import candidate_recommendation
import candidate_scores
import no_difference
import numpy as np
from candidate_scores import Candidate
from paired_statistics import PairedScores

MAX_SLICES_A_KEY = 12
FEW_CLUSTERS = 10
ALL = "all"  # the name of the benchmark of questions that name none


@dataclass(frozen=True)
class Settings:
    """How to compare: ``metrics`` is by benchmark, and None as its key stands for all."""

    metrics: dict[str | None, str]
    num_resamples: int
    confidence_level: float
    seed: int
    noninferiority_margin: float

    @property
    def metric(self) -> str:
        return self.metrics.get(None, "score")


def compare(items: dict[str, dict], candidates: list[Candidate], settings: Settings) -> dict[str, Any]:
    """The comparison, less what main.py knows of its files; the first candidate is the baseline of the others."""
    return Comparison(items, candidates, settings).numbers()


class Comparison:
    def __init__(self, items: dict[str, dict], candidates: list[Candidate], settings: Settings):
        self.items, self.candidates, self.settings = items, candidates, settings
        self.ids, self.rows = list(items), list(items.values())
        self.baseline, *self.others = range(len(candidates))
        self.benchmarks = find_benchmarks(items)
        self.clusters, self.warnings = number_clusters(items, self.benchmarks)
        self.primary = primary_metrics(items, self.benchmarks, settings.metrics)
        scored = [np.array(candidate_scores.column(one, self.primary), float) for one in candidates]
        self.scores = np.stack(scored, axis=1)
        self.num_groups, self.groups = 0, {}
        of_items = np.array(list(self.primary.values()))
        self.share_metrics = {name for name in set(of_items) if in_unit_interval(self.scores[of_items == name])}
        if in_unit_interval(self.scores):
            self.share_metrics.add(settings.metric)

    def paired(self, values: np.ndarray, clusters: np.ndarray, strata: np.ndarray | None = None) -> PairedScores:
        """The statistics of some questions, with draws of their own."""
        self.num_groups += 1
        return PairedScores(
            values,
            clusters,
            strata=strata,
            num_resamples=self.settings.num_resamples,
            confidence_level=self.settings.confidence_level,
            seed=self.settings.seed,
            group=self.num_groups,
        )

    def group(self, members: np.ndarray) -> PairedScores:
        """The statistics of a benchmark or a slice; the same questions have the same, by whatever name."""
        key = members.tobytes()
        if key not in self.groups:
            self.groups[key] = self.paired(self.scores[members], self.clusters[members])
        return self.groups[key]

    def numbers(self) -> dict[str, Any]:
        strata = None
        if None not in self.settings.metrics:
            strata = np.empty(len(self.items), int)
            for number, members in enumerate(self.benchmarks.values()):
                strata[members] = number
        overall = self.paired(self.scores, self.clusters, strata)
        if len(self.benchmarks) == 1:
            self.groups[np.arange(len(self.items)).tobytes()] = overall
        candidates, comparisons = self.all_metrics(overall)
        benchmarks = self.all_benchmarks()
        slices = self.all_slices()
        margin, in_points = self.settings.noninferiority_margin, self.settings.metric in self.share_metrics
        recommendation = candidate_recommendation.recommend(candidates, overall, margin, in_points)
        self.warn(overall, benchmarks)
        return {
            "num_items": len(self.items),
            "num_clusters": overall.num_clusters,
            "num_tests": len(benchmarks) * len(self.others),
            "share_metrics": sorted(self.share_metrics),
            "warnings": self.warnings,
            "candidates": candidates,
            "comparisons": comparisons,
            "benchmarks": benchmarks,
            "slices": slices,
            "recommendation": recommendation,
        }

    def all_metrics(self, overall: PairedScores) -> tuple[list[dict], list[dict]]:
        """Every candidate, and every other one against the baseline, in the metric and in those beside it."""
        metric, candidates = self.settings.metric, self.candidates
        first_items = [self.ids[members[0]] for members in self.benchmarks.values()]
        names = candidate_scores.metric_names([one.scores[id] for id in first_items for one in candidates])
        beside = [name for name in names if name != metric]
        statistics = {metric: (overall, 0)}
        if beside:
            wanted = [dict.fromkeys(self.items, name) for name in beside]
            values = np.array([candidate_scores.column(one, of) for of in wanted for one in candidates], float).T
            together = self.paired(values, self.clusters)
            for number, name in enumerate(beside):
                first = number * len(candidates)
                statistics[name] = together, first
                if in_unit_interval(values[:, first : first + len(candidates)]):
                    self.share_metrics.add(name)

        tested = {}
        for scores in dict.fromkeys(scores for scores, _ in statistics.values()):
            mine = [(name, first) for name, (of, first) in statistics.items() if of is scores]
            pairs = [(first + other, first + self.baseline) for _, first in mine for other in self.others]
            keys = [(name, other) for name, _ in mine for other in self.others]
            tested |= dict(zip(keys, scores.tests(pairs), strict=True))
        described = [
            {
                "name": one.name,
                "scores_sha256": one.scores_sha256,
                "model_sha256": one.asked.get("model_sha256"),
                "endpoint": one.asked.get("endpoint"),
                "metrics": {name: scores.mean(first + i) for name, (scores, first) in statistics.items()},
                **candidate_scores.failures(one),
                "num_left_out": one.num_left_out,
                "latency_ms": candidate_scores.latency(one),
                "cost_per_1000": candidate_scores.cost_per_1000(one),
            }
            for i, one in enumerate(candidates)
        ]
        comparisons = [
            {
                "candidate": candidates[other].name,
                "baseline": candidates[self.baseline].name,
                "metrics": {
                    name: scores.difference(first + other, first + self.baseline) | tested[name, other]
                    for name, (scores, first) in statistics.items()
                },
            }
            for other in self.others
        ]
        return described, comparisons

    def all_benchmarks(self) -> list[dict]:
        found = []
        for name, members in self.benchmarks.items():
            scores = self.group(members)
            metric = self.primary[self.ids[members[0]]]
            chance = chance_of([self.rows[i] for i in members]) if all(scores.binary) else None
            part = self.part(scores)
            tests = scores.tests([(other, self.baseline) for other in self.others])
            for other, test in zip(self.others, tests, strict=True):
                effect = scores.minimum_detectable_effect(other, self.baseline)
                part["differences"][self.candidates[other].name] |= test | {"minimum_detectable_effect": effect}
            above = {
                candidate: None if chance is None or mean["low"] is None else mean["low"] > chance
                for candidate, mean in part["means"].items()
            }
            found.append({"benchmark": name, "metric": metric, "chance": chance, "above_chance": above, **part})
        differences = [difference for part in found for difference in part["differences"].values()]
        adjusted = no_difference.holm([difference["p_value"] for difference in differences])
        for difference, p_value in zip(differences, adjusted, strict=True):
            difference["p_holm"] = p_value
        return found

    def all_slices(self) -> list[dict]:
        return [
            {"slice": key, "value": value, **self.part(self.group(members))}
            for (key, value), members in find_slices(self.items).items()
        ]

    def part(self, scores: PairedScores) -> dict[str, Any]:
        """Means and differences of a group of questions."""
        names = [one.name for one in self.candidates]
        return {
            "num_items": len(scores.values),
            "num_clusters": scores.num_clusters,
            "means": {name: scores.mean(i) for i, name in enumerate(names)},
            "differences": {names[other]: scores.difference(other, self.baseline) for other in self.others},
        }

    def warn(self, overall: PairedScores, benchmarks: list[dict]) -> None:
        if overall.num_clusters < FEW_CLUSTERS:
            self.warnings.append(f"Only {overall.num_clusters} clusters of questions: the intervals are rough.")
        for other in self.others:
            difference = overall.difference(other, self.baseline)
            if difference["low"] == difference["high"]:
                name = self.candidates[other].name
                self.warnings.append(f"{name}: nothing varies between documents, so that the interval has no width.")
        for part in benchmarks:
            if len(benchmarks) > 1 and 1 < part["num_clusters"] < FEW_CLUSTERS <= overall.num_clusters:
                self.warnings.append(
                    f"Only {part['num_clusters']} clusters of questions on {part['benchmark']}: its intervals are "
                    "rough, and so are those of the score."
                )
            if guessing := [name for name, above in part["above_chance"].items() if above is False]:
                where = f" on {part['benchmark']}" if len(benchmarks) > 1 else ""
                self.warnings.append(f"Not shown to be better than guessing{where}: {', '.join(guessing)}.")
        shares = {part["metric"] in self.share_metrics for part in benchmarks}
        if None not in self.settings.metrics and len(shares) > 1:
            self.warnings.append(
                "The score is a mean over metrics of different ranges; what has the largest numbers weighs most in it."
            )


def in_unit_interval(values: np.ndarray) -> bool:
    return bool(values.min() >= 0 and values.max() <= 1)


def chance_of(items: list[dict]) -> float | None:
    """The share that guessing gets right, where all questions have choices."""
    choices = [item.get("choices") for item in items]
    if not all(isinstance(texts, list) and texts for texts in choices):
        return None
    return sum(1 / len(texts) for texts in choices) / len(choices)


def find_benchmarks(items: dict[str, dict]) -> dict[str, np.ndarray]:
    """The positions of each benchmark's questions."""
    found = collections.defaultdict(list)
    for position, item in enumerate(items.values()):
        found[str((item.get("slices") or {}).get("benchmark") or ALL)].append(position)
    return {name: np.array(positions) for name, positions in found.items()}


def primary_metrics(
    items: dict[str, dict], benchmarks: dict[str, np.ndarray], metrics: dict[str | None, str]
) -> dict[str, str]:
    """By id, the metric that a question is compared in."""
    ids, found = list(items), dict.fromkeys(items, "")
    for name, members in benchmarks.items():
        metric = metrics[None] if None in metrics else metrics[name]
        found |= dict.fromkeys((ids[i] for i in members), metric)
    return found


def number_clusters(items: dict[str, dict], benchmarks: dict[str, np.ndarray]) -> tuple[np.ndarray, list[str]]:
    """Number the clusters from 0; an item without a cluster is one of its own."""
    names = [("cluster", str(item["cluster"])) if item.get("cluster") else ("item", id) for id, item in items.items()]
    ids, warnings = list(items), []
    parts = {f" of {name}": members for name, members in benchmarks.items() if len(benchmarks) > 1}
    for whose, members in {**parts, "": range(len(items))}.items():
        if len(members) > 1 and len({names[i] for i in members}) == 1:
            for i in members:
                names[i] = ("item", ids[i])
            warnings.append(
                f"All questions{whose} come from one cluster (document): the intervals are over questions, "
                "and say nothing about other documents."
            )
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([numbers[name] for name in names]), warnings


def find_slices(items: dict[str, dict]) -> dict[tuple[str, str], np.ndarray]:
    """The positions in each slice, for every key that tells questions apart; of a key with many values, the largest.

    Benchmarks have statistics of their own.
    """
    by_key = collections.defaultdict(lambda: collections.defaultdict(list))
    for position, item in enumerate(items.values()):
        for key, value in (item.get("slices") or {}).items():
            if value is not None and key != "benchmark":
                by_key[key][str(value)].append(position)
    slices = {}
    for key, by_value in by_key.items():
        largest = sorted(by_value, key=lambda value: (-len(by_value[value]), value))[:MAX_SLICES_A_KEY]
        if len(by_value) > 1:
            slices |= {(key, value): np.array(by_value[value]) for value in largest}
    return slices
