"""Embeddings of texts are unit rows that tell near from far in every language, and neighbours are the true ones."""

import unicodedata

import numpy as np
import pytest

from slmkit import text_embedding
from slmkit.text_embedding import NUM_FEATURES, embed, nearest

TEXTS = ["The library opens at nine.", "図書館は九時に開きます。", "도서관은 아홉 시에 엽니다."]


def test_rows_have_length_one():
    rows = embed([*TEXTS, ""])
    assert rows.shape == (4, NUM_FEATURES)
    assert np.asarray(rows.multiply(rows).sum(axis=1)).ravel() == pytest.approx([1, 1, 1, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        (TEXTS[0], "The library opens at ten.", "Swimming costs five dollars."),
        (TEXTS[1], "図書館は十時に開きます。", "水泳の料金は五百円です。"),
        (TEXTS[2], "도서관은 열 시에 엽니다.", "수영 요금은 오천 원입니다."),
    ],
)
def test_near_is_nearer_than_far(text, near, far):
    rows = embed([text, near, far])
    similar = (rows @ rows.T).toarray()
    assert similar[0, 1] > 0.4 > similar[0, 2]


def test_width_and_case_do_not_matter():
    rows = embed(["ＡＢＣ Library", "abc library"])
    assert (rows @ rows.T).toarray()[0, 1] == pytest.approx(1, abs=1e-6)


def test_neighbours_are_those_of_all_pairs():
    texts = [f"{word} {number}" for word in ("alpha", "beta", "gamma") for number in range(700)]
    rows = embed(texts)
    similarities, indices = nearest(rows[:1500], rows, k=3)
    everything = (rows[:1500] @ rows.T).toarray()
    assert similarities == pytest.approx(-np.sort(-everything, axis=1)[:, :3], abs=1e-6)
    assert np.take_along_axis(everything, indices, axis=1) == pytest.approx(similarities, abs=1e-6)


def test_more_neighbours_than_there_are():
    rows = embed(TEXTS)
    with pytest.raises(ValueError, match="k=4"):
        nearest(rows, rows, k=4)


def test_similarities_are_those_of_scikit_learn():
    """The same n-grams, damped and normalized alike; what is left is a collision: 1/18 between texts of 18 n-grams."""
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.preprocessing import normalize

    texts = [
        *TEXTS,
        "",
        "a",
        "ab  c\n",
        "ＡＢＣ abc abc abc",
        "図書館",
        "tea " * 50,
        "\U0001f600 \U0001f600",
        "The library",
    ]
    counts = CountVectorizer(
        analyzer="char_wb",
        ngram_range=(2, 4),
        lowercase=False,
        preprocessor=lambda text: unicodedata.normalize("NFKC", text).casefold(),
    ).fit_transform(texts)
    counts = counts.astype(float)
    counts.data = 1 + np.log(counts.data)
    expected = normalize(counts)
    rows = embed(texts)
    assert (rows @ rows.T).toarray() == pytest.approx((expected @ expected.T).toarray(), abs=0.06)


def test_blocks_do_not_matter(monkeypatch):
    texts = [f"{word} {number}" for word in ("library", "図書館") for number in range(20)]
    whole = embed(texts)
    monkeypatch.setattr(text_embedding, "_BLOCK_CHARS", 30)
    assert (embed(texts) != whole).nnz == 0
    assert embed([]).shape == (0, NUM_FEATURES)
