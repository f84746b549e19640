"""Texts of answers in any language made comparable: one form, one cut into tokens, and two ways to compare."""

import collections
import functools
import re
import unicodedata
from collections.abc import Callable

# Scripts that are written without spaces, or (hangul) with spaces that writers put differently: a token a character.
_UNSPACED = "\u1100-\u11ff\u3005\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
_UNSPACED += "\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_TRAILING = " .,;:!?。、"
# What is seen by nobody, as texts from the web carry it: soft hyphens, zero-width spaces, marks of direction.
_INVISIBLE = dict.fromkeys(
    [0xAD, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), 0x2060, *range(0x2066, 0x206A), 0xFEFF]
)


@functools.lru_cache(maxsize=2**17)  # every metric asks for the same texts again
def normalize(text: str) -> str:
    """NFKC, case folded, white space collapsed, what is invisible and punctuation at the end removed (unless there is
    nothing else)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text.translate(_INVISIBLE)).casefold())
    collapsed = " ".join(folded.split())
    return collapsed.rstrip(_TRAILING) or collapsed


def tokens(text: str) -> list[str]:
    """Words, and single characters of Japanese, Chinese and Korean, so that a text in two scripts needs no label."""
    return _TOKEN.findall(normalize(text))


def exact_match(answer: str, reference: str) -> float:
    return float(normalize(answer) == normalize(reference))


def f1(answer: str, reference: str, cut: Callable[[str], list[str]] = tokens) -> float:
    """Harmonic mean of precision and recall over the bags of what a text is cut into."""
    given, wanted = collections.Counter(cut(answer)), collections.Counter(cut(reference))
    common = (given & wanted).total()
    if not common:
        return exact_match(answer, reference)  # "?" against "?": no token on either side, and equal
    return 2 * common / (given.total() + wanted.total())
