"""How well a classifier tells the texts of two windows apart, and their maximum mean discrepancy (MMD).

Labels come in columns, the observed ones beside permuted ones, and all columns are measured at once: texts are embedded
and the classifier's normal equations solved only once, which makes an exact permutation test cheap. The embedding sees
the texts of both windows and no label; fitted on one of them, it would hold that one's texts better and always alarm
(Lipton et al. 2018, Rabanser et al. 2019).
"""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import diags
from sklearn.utils.extmath import randomized_svd

from slmkit import text_embedding

NUM_DIMENSIONS = 128
NUM_FOLDS = 5
_PENALTY = 0.3  # of the mean variance of a dimension
_TEXT_CHARS = 2_000  # of a text embedded
_BLOCK_CELLS = 2_000_000  # of scores ranked at a time


def embedding(texts: Sequence[str], seed: int) -> np.ndarray:
    """(n, at most NUM_DIMENSIONS): TF-IDF of hashed character n-grams, reduced by SVD, centered."""
    counts = text_embedding.embed([text[:_TEXT_CHARS] for text in texts])
    seen_in = np.bincount(counts.indices, minlength=counts.shape[1])
    weighted = text_embedding.unit_rows(counts @ diags((1 + np.log((1 + len(texts)) / (1 + seen_in))).astype("f4")))
    left, scales, _ = randomized_svd(weighted, min(NUM_DIMENSIONS, len(texts) - 1), random_state=seed)
    kept = scales >= 1e-5 * scales[0]
    reduced = left[:, kept] * scales[kept]
    return (reduced - reduced.mean(axis=0)).astype(np.float32)


def classifier_scores(points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Held-out scores [texts, columns] of ridge regressions on labels of -1 and 1; a text labeled 0 is in both windows.

    The texts are in random order: a fold is a slice of them.
    """
    num, scores = len(points), np.empty(labels.shape, dtype=np.float32)
    penalty = np.diag(np.full(points.shape[1], _PENALTY * np.mean(points**2) * num + 1e-6))
    for fold in range(NUM_FOLDS):
        held_out = np.zeros(num, dtype=bool)
        held_out[num * fold // NUM_FOLDS : num * (fold + 1) // NUM_FOLDS] = True
        train, targets = points[~held_out], labels[~held_out].astype(np.float32)
        weights = np.linalg.solve(train.T @ train + penalty, train.T @ (targets - targets.mean(axis=0)))
        scores[held_out] = points[held_out] @ weights
    return scores


def aucs(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each column, the probability that a text of the current window scores above one of the baseline."""
    found, width = [], max(1, _BLOCK_CELLS // len(scores))
    for start in range(0, scores.shape[1], width):
        part = slice(start, start + width)
        order = np.argsort(scores[:, part], axis=0)
        ranked = np.take_along_axis(labels[:, part], order, axis=0)
        before, now = ranked <= 0, ranked >= 0
        below = np.cumsum(before, axis=0, dtype=np.float32) - 0.5 * (before & now)
        found.append((below * now).sum(axis=0, dtype=np.float64) / (before.sum(axis=0) * now.sum(axis=0)))
    return np.concatenate(found)


def auc_error(scores: np.ndarray, labels: np.ndarray) -> float:
    """The standard error of one AUC (DeLong et al. 1988)."""
    before, now = np.sort(scores[labels <= 0]), np.sort(scores[labels >= 0])

    def share_below(those: np.ndarray, of: np.ndarray) -> np.ndarray:
        return (np.searchsorted(of, those) + np.searchsorted(of, those, side="right")) / (2 * len(of))

    variances = np.var(share_below(now, before), ddof=1), np.var(share_below(before, now), ddof=1)
    return float(np.sqrt(variances[0] / len(now) + variances[1] / len(before)))


def kernel(points: np.ndarray) -> np.ndarray:
    """Gaussian similarities, as wide as the median distance."""
    squares = (points**2).sum(axis=1)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * points @ points.T, 0)
    width = float(np.median(distances[:500, :500]))
    return np.exp(-distances / max(width, 1e-12), dtype=np.float32)


def discrepancies(similarities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each column, the squared MMD as a share of the distance between texts of both windows: 0 alike, 1 apart."""
    before, now = (labels <= 0).astype(np.float32), (labels >= 0).astype(np.float32)
    num_before, num_now = before.sum(axis=0), now.sum(axis=0)
    from_before, from_now = similarities @ before, similarities @ now
    within_before = ((before * from_before).sum(axis=0) - num_before) / (num_before * (num_before - 1))
    within_now = ((now * from_now).sum(axis=0) - num_now) / (num_now * (num_now - 1))
    across = (now * from_before).sum(axis=0) / (num_before * num_now)
    return ((within_before + within_now) / 2 - across) / np.maximum(1 - across, 1e-12)
