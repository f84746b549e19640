"""Which choice an answer in words states, in English, Japanese and Korean."""

import functools
import re
import string
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# Lists that an answer may count by although the question counts by another.
_LISTS = (string.ascii_uppercase, "アイウエオカキクケコ", "가나다라마바사아자차", "ㄱㄴㄷㄹㅁㅂㅅㅇㅈㅊ")
_CIRCLED = {ord("①") + i: f" {i + 1}番 " for i in range(20)}  # before NFKC makes plain digits of them
_MARKUP = str.maketrans("", "", "*_`$")
_NEAR = 60  # characters around a choice that say what is meant by it

_IS = r"\s*(?:(?:is|was|would\s+be|should\s+be|must\s+be|'s)\s*:?|[:=])\s*(?:(?:option|choice|letter|number)\s+)?"
_BEFORE = re.compile(
    "(?:"
    + "|".join(
        (
            rf"\b(?:answer|choice|option|it|this|that){_IS}",
            r"\banswer\s+",
            r"\b(?:choose|chose|pick|select|go\s+with)\s+(?:(?:option|choice|answer)\s+)?",
            r"boxed\s*",
            r"\b(?:not|n't)\s.{1,40}\b(?:but|rather)(?:\s+rather)?\s+",
            r"(?:答え|解答|回答|正解|正答|答)\s*(?:は|が|:|=|→|として)*\s*[、,]?\s*(?:選択肢|番号|記号)?の?\s*",
            r"(?:では|じゃ)なくて?\s*[、,]?\s*",
            r"(?:정답|해답|답안|답)\s*(?:은|는|이|:|=|→)*\s*(?:선택지|보기)?\s*",
            r"아니(?:라|고)\s*,?\s*",
        )
    )
    + r")[\s(\[{<「『【〈\"'“‘]*$",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"[\s)\]}>」』】〉\"'”’]*(?:"
    r"(?:is|was|must\s+be|seems)\s+(?:the\s+)?(?:most\s+)?(?:correct|right|best|answer|true|appropriate)"
    r"|(?:番|番目)?(?:が|を|こそ)\s*(?:正解|正しい|正答|答え|選|最も|適切)(?!では|じゃ|とは)"
    r"|번?\s*(?:이|가|을|를)?\s*(?:정답|맞|옳|답|선택|고르)(?!\s*(?:이|은|는)?\s*(?:아니|지\s*않)))",
    re.IGNORECASE,
)
_DELIMITER = re.compile(r"\s*(?:番|번)?\s*(?:[)\]}>」』】.:,、。!\"'”’\n]|です|입니다|이다|$)")
_LOWER_CASE_END = re.compile(r"\s*(?:[)\]}.,;:!\"']|$)")
_SPEAKS_ON = re.compile(r"'|\s+[a-z]")  # as after an article


@dataclass(frozen=True)
class _Mention:
    start: int
    end: int
    index: int
    kind: str  # label, text, or other: by the position in another list


def stated_choice(answer: str, choices: Sequence[str], labels: Sequence[str] = ()) -> int | None:
    """The index of the choice; None where the answer states none.

    The last explicit statement counts ("the answer is (B)", 正解はウです, 정답: 3번). Without one it is the label with
    which the answer begins, else the only label in it, else the only choice of which it holds the text. A list other
    than the question's own, such as ア イ ウ for A B C, is understood by position.
    """
    text = _normal(answer)
    mentions = list(_mentions(text, tuple(choices), tuple(labels)))
    if stated := [mention for mention in mentions if _is_stated(text, mention)]:
        return stated[-1].index
    if mentions and mentions[0].kind != "text" and _begins(text, mentions[0]):
        return mentions[0].index
    named = [mention for mention in mentions if mention.kind == "label"]
    if any(_is_no_word(text, mention) for mention in named) and len({mention.index for mention in named}) == 1:
        return named[0].index
    held = {mention.index for mention in mentions if mention.kind == "text"}
    return held.pop() if len(held) == 1 else None


def exact_choice(answer: str, choices: Sequence[str], labels: Sequence[str] = ()) -> int | None:
    """The index of the choice of which the answer is the label and nothing else, or the text where there are none."""
    text = _normal(answer).rstrip(".。 ").strip("()[] ").rstrip(".。")
    names = [_normal(name).rstrip(".。") for name in (labels or choices)]
    return names.index(text) if text in names else None


def _normal(text: str) -> str:
    return unicodedata.normalize("NFKC", text.translate(_CIRCLED)).translate(_MARKUP).strip()


def _is_stated(text: str, mention: _Mention) -> bool:
    before = text[max(0, mention.start - _NEAR) : mention.start]
    return bool(_BEFORE.search(before) or _AFTER.match(text[mention.end : mention.end + _NEAR]))


def _begins(text: str, mention: _Mention) -> bool:
    return not text[: mention.start].strip(" ([{<「『【〈\"'“‘") and bool(_DELIMITER.match(text, mention.end))


def _is_no_word(text: str, mention: _Mention) -> bool:
    """A letter of the alphabet that is no article and no pronoun."""
    name = text[mention.start : mention.end]
    return name.isascii() and name != "I" and not _SPEAKS_ON.match(text, mention.end)


def _mentions(text: str, choices: tuple[str, ...], labels: tuple[str, ...]) -> Iterator[_Mention]:
    """Where labels and texts of choices stand, the longest ones first, and each only as a whole word."""
    forms, pattern = _forms(choices, labels)
    for match in pattern.finditer(text):
        index, kind = forms[match.group().casefold()]
        lower = kind != "text" and match.group().islower() and match.group().isascii()
        if not lower or _LOWER_CASE_END.match(text, match.end()):
            yield _Mention(match.start(), match.end(), index, kind)


@functools.lru_cache(maxsize=64)
def _forms(choices: tuple[str, ...], labels: tuple[str, ...]) -> tuple[dict[str, tuple[int, str]], re.Pattern[str]]:
    """Index and kind of whatever names a choice; the question's own labels count before texts, these before others."""
    forms: dict[str, tuple[int, str]] = {}
    numbers = [str(i + 1) for i in range(len(choices))]
    by_kind = {"label": [labels], "text": [choices], "other": [*_LISTS, numbers] if labels else []}
    for kind, lists in by_kind.items():
        for names in lists:
            for index, name in enumerate(names[: len(choices)]):
                forms.setdefault(_normal(name).casefold(), (index, kind))
    forms.pop("", None)
    longest_first = sorted(forms, key=len, reverse=True)
    alternatives = "|".join(_whole_word(name, is_text=forms[name][1] == "text") for name in longest_first)
    return forms, re.compile(alternatives, re.IGNORECASE)


def _whole_word(name: str, *, is_text: bool) -> str:
    text = re.escape(name)
    if name[0].isascii() or name[-1].isascii():
        return rf"(?<![A-Za-z0-9]){text}(?![A-Za-z0-9]|\.\d|['’][a-z])"
    if is_text:
        return text
    if "가" <= name <= "힣":  # which particles may follow
        return rf"(?<![가-힣A-Za-z0-9]){text}(?:(?![가-힣])|(?=번|입니다|이다|이에요|예요|임|가 |이 |을 |를 ))"
    return rf"(?<![ァ-ヶー]){text}(?![ァ-ヶー])"
