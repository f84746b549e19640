"""Personal numbers in runs of digits: groups of digits between spaces, hyphens and other separators."""

import functools
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from pii_detection import check_digits, context, phone_numbers
from pii_detection.findings import Finding

RUN = re.compile(r"[0-9](?:[ \t\r\n\-().ー/·・･]{0,3}[0-9])+")
_GROUP = re.compile(r"[0-9]+")
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IP_ADDRESS = re.compile(rf"(?<![A-Za-z0-9_.])(?:{_OCTET}\.){{3}}{_OCTET}(?![0-9A-Za-z_]|\.[0-9])")
_PRODUCT = re.compile(r"[A-Za-z]/\Z")
_LABEL_BEFORE = re.compile(r"[A-Za-z0-9_]\Z|[A-Za-z0-9][-_#./]\Z")  # as in part numbers: AB1234, AB-1234
_LABEL_AFTER = re.compile(r"[-_]?[A-Za-z0-9_]")
_NOT_DIALLED = re.compile(  # dates, spans of years, decimals
    r"(?:19|20)\d\d\D{1,3}[01]?\d\D{1,3}[0-3]?\d(?!\d)|[0-3]?\d\D[0-3]?\d\D(?:19|20)\d\d(?!\d)"
    r"|(?:19|20)\d\d\D{1,3}(?:19|20)\d\d(?!\d)|(?:19|20)\d{6}(?!\d)|\d+\.\d+(?!\.?\d)"
)
_BROKEN = re.compile(r"[^\-ー]\s*\n")  # a line ends, and not after a hyphen
_PASSPORT_LETTERS = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\Z")
_MIN_LENGTH = 7  # of a run that can hold a personal number
_JOINS = ("-", ".", "ー")  # between digits that belong together
_MIN_SPACED = 9  # digits, each by itself: 0 9 0 1 2 3 ...
_MAX_GROUPS = 7
_MAX_DIGITS = 19
_MAX_NATIONAL = 12  # digits of a telephone number without a country code
_CLOSE, _FAR = 30, 80  # characters to the word that says what a number is
_CARD_SHAPES = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3), (4, 4, 4, 4, 2), (4, 4, 4, 4, 1)}


class Number(NamedTuple):
    """Neighboring groups of a run, as a candidate."""

    text: str
    start: int
    end: int
    digits: str
    lengths: tuple[int, ...]
    whole: bool  # nothing else in the run
    labelled: bool  # by letters right before or after it, as part numbers are

    def near(self, kind: str, reach: int = 1000) -> bool:
        """Whether a word for ``kind`` stands near."""
        distance = context.distance(kind, self.text, self.start, self.end)
        return distance is not None and distance <= reach


def find(text: str, kinds: frozenset[str], regions: tuple[str, ...]) -> Iterator[Finding]:
    place = 0
    while run := RUN.search(text, place):
        start, place = run.span()
        if start >= 2 and text[start - 1].isalpha() and text[start - 1].isascii():
            if "IBAN_CODE" in kinds and (end := _end_of_iban(text, start - 2)):
                yield Finding(start - 2, end, "IBAN_CODE", 1.0)
                place = end
                continue
            if "JP_PASSPORT" in kinds and (end := _end_of_passport(text, start)):
                yield Finding(start - 2, end, "JP_PASSPORT", 0.9)
                place = end
                continue
        if place - start < _MIN_LENGTH:
            continue
        if text.count(".", start, place) >= 3:
            for match in _IP_ADDRESS.finditer(text, start, place):
                if "IP_ADDRESS" in kinds and _is_ip_address(text, match):
                    yield Finding(*match.span(), "IP_ADDRESS", 0.95)
                yield from _numbers(text, start, match.start(), kinds, regions)
                start = match.end()
        yield from _numbers(text, start, place, kinds, regions)


@functools.cache
def _iban_pattern(length: int) -> re.Pattern:
    return re.compile(rf"(?:[A-Za-z0-9][ \n-]{{0,2}}){{{length - 1}}}[A-Za-z0-9](?![A-Za-z0-9])")


def _end_of_iban(text: str, start: int) -> int | None:
    length = check_digits.IBAN_LENGTHS.get(text[start : start + 2].upper())
    if not length or (start and text[start - 1].isascii() and text[start - 1].isalnum()):
        return None
    match = _iban_pattern(length).match(text, start)
    if match and check_digits.iban(re.sub(r"[ \n-]", "", match.group()).upper()):
        return match.end()
    return None


def _end_of_passport(text: str, start: int) -> int | None:
    group = _GROUP.match(text, start)
    if group.end() - start != 7 or not _PASSPORT_LETTERS.search(text, max(0, start - 3), start):
        return None
    return group.end() if context.distance("JP_PASSPORT", text, start - 2, group.end()) is not None else None


def _is_ip_address(text: str, match: re.Match) -> bool:
    start, end = match.span()
    if context.is_version(text, start) or (
        _PRODUCT.search(text, max(0, start - 2), start) and text[end - 2 : end] == ".0"
    ):
        return False
    small = all(int(part) < 10 for part in match.group().split("."))
    return not small or context.distance("IP_ADDRESS", text, start, end) is not None


def _numbers(text: str, start: int, end: int, kinds: frozenset[str], regions: tuple[str, ...]) -> Iterator[Finding]:
    """The personal numbers in one run, the longest first at each group."""
    groups = [group.span() for group in _GROUP.finditer(text, start, end)]
    gaps = ["", *(text[one[1] : other[0]] for one, other in pairwise(groups)), ""]  # before each group, and at the end
    if _MIN_SPACED <= len(groups) <= _MAX_DIGITS and all(stop - begin == 1 for begin, stop in groups):
        spaced = _candidate(text, start, groups[-1][1], (len(groups),), whole=True)
        yield from filter(None, [_classify(spaced, kinds, regions)])
        return
    first = 0
    while first < len(groups):
        lengths: list[int] = []
        stretches = []
        if gaps[first] not in _JOINS:
            for last in range(first, min(first + _MAX_GROUPS, len(groups))):
                lengths.append(groups[last][1] - groups[last][0])
                if sum(lengths) > _MAX_DIGITS or lengths.count(1) > 2:
                    break
                if sum(lengths) >= _MIN_LENGTH and gaps[last + 1] not in _JOINS:
                    stretches.append((last, tuple(lengths)))
        for last, shape in reversed(stretches):
            if len(shape) == 1 and "/" in (gaps[first], gaps[last + 1]):
                continue
            whole = first == 0 and last == len(groups) - 1
            if finding := _classify(_candidate(text, groups[first][0], groups[last][1], shape, whole), kinds, regions):
                yield finding
                first = last
                break
        first += 1


def _candidate(text: str, start: int, end: int, lengths: tuple[int, ...], whole: bool) -> Number:
    labelled = len(lengths) == 1 and bool(
        _LABEL_BEFORE.search(text, max(0, start - 2), start) or _LABEL_AFTER.match(text, end)
    )
    return Number(text, start, end, "".join(_GROUP.findall(text, start, end)), lengths, whole, labelled)


def _classify(number: Number, kinds: frozenset[str], regions: tuple[str, ...]) -> Finding | None:
    """What the number is, by the check that speaks for it most; a word that is nearer wins between equals."""
    found = []
    for kind, check in _CHECKS.get(len(number.digits), ()):
        if kind in kinds and (score := check(number)):
            found.append((score, -(context.distance(kind, number.text, number.start, number.end) or 0), kind))
    if found:
        score, _, kind = max(found)
        return Finding(number.start, number.end, kind, score)
    return _phone_number(number, regions) if "PHONE_NUMBER" in kinds else None


def _credit_card(number: Number) -> float:
    if not check_digits.luhn(number.digits) or (len(number.digits) == 13 and check_digits.barcode(number.digits)):
        return 0
    if number.labelled:
        return 0
    shaped = number.lengths in _CARD_SHAPES or (len(number.lengths) == 1 and len(number.digits) >= 14)
    if shaped and check_digits.issuer(number.digits):
        return 0.9
    possible = shaped or len(number.lengths) == 1 or (number.whole and max(number.lengths) <= 6)
    return 0.8 if possible and number.digits[0] in "234569" and number.near("CREDIT_CARD") else 0


def _my_number(number: Number) -> float:
    shaped = not number.labelled and number.lengths in ((12,), (4, 4, 4)) and check_digits.my_number(number.digits)
    return 0.95 if shaped and number.near("JP_MY_NUMBER") else 0


def _driver_license(number: Number) -> float:
    shaped = (
        not number.labelled and number.lengths in ((12,), (4, 4, 4), (2, 2, 6, 2)) and "10" <= number.digits[:2] <= "97"
    )
    return 0.9 if shaped and number.near("JP_DRIVER_LICENSE") else 0


def _resident(kind: str, sexes: str, check: Callable[[str], bool]) -> Callable[[Number], float]:
    """RRN and FRN: numbers since October 2020 have no check digit, so that a word near has to speak for them."""

    def score(number: Number) -> float:
        digits = number.digits
        if number.lengths not in ((6, 7), (13,)) or digits[6] not in sexes or not check_digits.birth_date(digits):
            return 0
        if number.near(kind):
            return 0.95
        if number.labelled or (len(number.lengths) == 1 and check_digits.barcode(digits)):
            return 0  # the barcodes of Korean goods begin with 880, as if someone were born in 1988
        return 0.9 if check(digits) else 0

    return score


def _business(number: Number) -> float:
    if number.lengths not in ((3, 2, 5), (10,)) or not check_digits.brn(number.digits):
        return 0
    if number.near("KR_BRN"):
        return 0.95
    return 0.85 if not number.labelled and len(number.lengths) == 3 else 0


def _social_security(number: Number) -> float:
    if number.lengths not in ((3, 2, 4), (9,)) or not check_digits.social_security(number.digits):
        return 0
    if number.near("US_SSN"):
        return 0.95
    hyphens = number.text[number.start + 3] == "-" == number.text[number.end - 5]
    return 0.85 if not number.labelled and len(number.lengths) == 3 and hyphens else 0


_CARD = ("CREDIT_CARD", _credit_card)
_CHECKS: dict[int, tuple[tuple[str, Callable[[Number], float]], ...]] = {
    9: (("US_SSN", _social_security),),
    10: (("KR_BRN", _business),),
    12: (("JP_MY_NUMBER", _my_number), ("JP_DRIVER_LICENSE", _driver_license), _CARD),
    13: (
        ("KR_RRN", _resident("KR_RRN", "123490", check_digits.rrn)),
        ("KR_FRN", _resident("KR_FRN", "5678", check_digits.frn)),
        _CARD,
    ),
    **dict.fromkeys(range(14, 20), (_CARD,)),
}


def _phone_number(number: Number, regions: tuple[str, ...]) -> Finding | None:
    text, digits, lengths = number.text, number.digits, number.lengths
    if len(digits) > 17:
        return None
    start = number.start
    opened = text[start - 1 : start] == "(" and ")" in text[start : number.end]
    start -= opened
    if text[start - 1 : start] == "+":
        start -= 1
        if text[start - 1 : start] == "(" and ")" in text[start : number.end]:
            start -= 1
        shaped = len(lengths) > 1 or number.near("PHONE_NUMBER")
        if 8 <= len(digits) <= 15 and (score := phone_numbers.international(digits, shaped=shaped)):
            return _with_extension(text, start, number.end, score)
    named = number.near("PHONE_NUMBER", 1)  # Tel0312345678
    if number.labelled and not named:
        return None
    certainty = phone_numbers.certainty(digits, lengths, regions)
    if certainty == "sure":
        return _with_extension(text, start, number.end, 0.85)
    if number.near("PHONE_NUMBER", _FAR if certainty else _CLOSE) and _could_be_dialled(number, certainty, named):
        return _with_extension(text, start, number.end, 0.6)
    return None


def _could_be_dialled(number: Number, certainty: str | None, named: bool) -> bool:
    """Whether digits near a word such as "tel" may be a number, most likely of another country."""
    text, start, end = number.text, number.start, _with_extension(number.text, number.start, number.end, 0).end
    if _BROKEN.search(text, start, number.end) or _NOT_DIALLED.match(text, start):
        return False
    if not named and (_LABEL_BEFORE.search(text, max(0, start - 2), start) or _LABEL_AFTER.match(text, end)):
        return False
    return bool(certainty) or (len(number.digits) <= _MAX_NATIONAL and number.lengths not in ((12,), (4, 4, 4)))


def _with_extension(text: str, start: int, end: int, score: float) -> Finding:
    extension = phone_numbers.EXTENSION.match(text, end)
    return Finding(start, extension.end() if extension else end, "PHONE_NUMBER", score)
