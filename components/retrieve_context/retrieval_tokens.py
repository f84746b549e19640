"""Search terms of a text: words, and of scripts written without spaces overlapping pairs of characters."""

import re
import unicodedata

# Kana, Chinese characters and hangul: a Korean word carries its particle, so that words as a whole seldom meet again.
_PAIRED = "\u3005\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(rf"(?P<paired>[{_PAIRED}]+)|[^\W_{_PAIRED}]+")


def search_terms(text: str) -> list[str]:
    """In the order of the text, NFKC and case folded. A single character between other scripts stands alone."""
    terms = []
    for run in _RUN.finditer(unicodedata.normalize("NFKC", text).casefold()):
        found = run[0]
        if run["paired"] and len(found) > 1:
            terms += [found[i : i + 2] for i in range(len(found) - 1)]
        else:
            terms.append(found)
    return terms
