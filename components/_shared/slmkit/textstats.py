"""Language and sentences of a text in English, Japanese or Korean, from its characters alone."""

import re

_URL = re.compile(r"(?:https?://|www\.)[!-~]+")
_KANA = re.compile(r"[ぁ-ゖァ-ヺー-ヿｦ-ﾟ]")
_HANGUL = re.compile(r"[가-힣ᄀ-ᇿㄱ-ㆎ]")
_HAN = re.compile(r"[一-鿿㐀-䶿豈-﫿々〇]")
_LATIN = re.compile(r"[A-Za-zÀ-ÖØ-öø-ɏＡ-Ｚａ-ｚ]")
_LETTER = re.compile(r"[^\W\d_]")
_CHINESE_ONLY = re.compile(r"[你她們這嗎呢吧沒]")
# A Latin word takes three to four times the letters of a Japanese or Korean one: names in Latin script
# must not turn a Japanese text into an English one.
_EAST_ASIAN_WEIGHT = 4


def language(text: str) -> str:
    """`en`, `ja`, `ko`, `zh`, or `und` when there are no letters or those of none of these.

    Scripts decide: kana is Japanese, hangul is Korean, Latin script is taken for English. Han without kana (names,
    addresses) is Japanese when JIS X 0208 can write every character and none of them is a Chinese function word;
    otherwise Chinese.
    """
    text = _URL.sub(" ", text)
    if text.isascii():  # most rows of a large English table
        return "en" if _LATIN.search(text) else "und"
    kana, hangul, han, latin = (len(script.findall(text)) for script in (_KANA, _HANGUL, _HAN, _LATIN))
    east_asian = kana + hangul + han
    other = len(_LETTER.findall(text)) - east_asian - latin
    if other > max(east_asian, latin) or not (east_asian or latin):
        return "und"
    if east_asian * _EAST_ASIAN_WEIGHT < latin:
        return "en"
    if hangul > kana and 4 * hangul >= han:
        return "ko"
    if 10 * kana >= han:
        return "ja"
    return "ja" if _written_in_japan("".join(_HAN.findall(text))) else "zh"


def _written_in_japan(han: str) -> bool:
    try:
        han.encode("shift_jis")
    except UnicodeEncodeError:
        return False
    return not _CHINESE_ONLY.search(han)


_CLOSERS = "」』）】〕〉》］”’\"')\\]"
_STOP = re.compile(rf"(?P<stop>[。！？｡．.!?]+)(?P<closers>[{_CLOSERS}]*)|\n")
_DATE = r"(?<!\d)\d{2,4}\. ?\d{1,2}\. ?\d{1,2}\."  # 2024. 7. 22.
_WHOLE = re.compile(  # a stop within one of these, but for its end, ends nothing
    rf"(?:{_DATE}(?P<date>))|{_URL.pattern}|「[^「」\n]*」|『[^『』\n]*』|（[^（）\n]*）|\([^()\n]*\)|“[^“”\n]*”"
)
_EAST_ASIAN = re.compile("|".join(script.pattern for script in (_KANA, _HANGUL, _HAN)))
_QUOTED_ON = re.compile(r"と(?:言|い|思|話|述|答|尋|聞|叫|書|呼|、)|って|라고|이라고|라는|하고")  # 「はい。」と言った
_FOLLOWING = re.compile(r"\s*(\S?)")
_LAST_WORD = re.compile(r"(?<![A-Za-z.])[A-Za-z][A-Za-z.]*\Z")
_NEVER_LAST = re.compile(r"dr|mr|mrs|ms|prof|st|mt|rev|gen|sen|rep|gov|e\.g|i\.e|vs|cf|approx|dept")
_BEFORE_A_NUMBER = re.compile(r"nos?|figs?|vol|pp?|ch|sec|eq|art")
_LAST_BEFORE_A_CAPITAL = re.compile(r"inc|ltd|co|corp|jr|sr|etc|al|u\.s|u\.k|a\.m|p\.m|ph\.d")


def sentences(text: str) -> list[str]:
    """The sentences of a text, each a stripped slice of it, in order; nothing but white space is left out."""
    found, start = [], 0
    whole = [(match.start(), match.end() + (match["date"] is not None)) for match in _WHOLE.finditer(text)]
    whole.reverse()
    for match in _STOP.finditer(text):
        while whole and whole[-1][1] <= match.start():
            whole.pop()
        within = bool(whole) and whole[-1][0] <= match.start() and match.end() < whole[-1][1]
        if match.group() == "\n" or (not within and _ends(text, start, match)):
            found.append(text[start : match.end()].strip())
            start = match.end()
    found.append(text[start:].strip())
    return [sentence for sentence in found if sentence]


def _ends(text: str, start: int, match: re.Match) -> bool:
    """Whether the sentence that begins at `start` ends with this stop."""
    stop, at, end = match["stop"], match.start(), match.end()
    if end == len(text):
        return True
    quoted = match["closers"] or stop[0] in "！？!?"
    if quoted and _QUOTED_ON.match(text, end):
        return False
    if stop[0] in "。！？｡．":
        return not (stop == "．" and text[at - 1 : at].isdigit() and text[end].isdigit())  # ３．５
    if not text[end].isspace():  # 3.5, example.com, Yahoo!ニュース; but 입니다.그리고
        return bool(_EAST_ASIAN.match(text, at - 1) and _EAST_ASIAN.match(text, end))
    following = _FOLLOWING.match(text, end)[1]
    if following.islower() and (match["closers"] or len(stop) > 1):  # "Really?" he said; well... maybe
        return False
    return stop != "." or not _abbreviated(text[max(start, at - 16) : at].lstrip(), at - start, following)


def _abbreviated(before: str, length: int, following: str) -> bool:
    """Whether the dot after `before` belongs to an abbreviation, an initial or the number of a list item."""
    if before.isdigit():
        return length <= 8
    word = _LAST_WORD.search(before)
    if not word:
        return False
    word = word.group()
    if len(word) == 1 and word.isupper():
        return word != "I"
    word = word.lower()
    if _BEFORE_A_NUMBER.fullmatch(word):
        return following.isdigit()
    if _LAST_BEFORE_A_CAPITAL.fullmatch(word):
        return following.islower() or following.isdigit()
    return bool(_NEVER_LAST.fullmatch(word))
