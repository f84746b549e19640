"""Telephone numbers by the numbering plans of the regions, from the metadata of phonenumbers."""

import functools
import re

# How national numbers are grouped in writing, by region; other groupings need a word such as "tel" near them.
_EAST_ASIAN_SHAPES = {(2, 4, 4), (3, 3, 4), (3, 4, 4), (2, 3, 4), (4, 2, 4), (5, 1, 4), (4, 3, 3), (4, 2, 3), (3, 8)}
SHAPES = {
    "JP": _EAST_ASIAN_SHAPES,
    "KR": _EAST_ASIAN_SHAPES,
    "US": {(3, 3, 4), (1, 3, 3, 4), (3, 7)},
}
_NOT_A_DIGIT = re.compile(r"\D")
_INTERNATIONAL_PREFIXES = ("00", "010", "011", "001", "002")
EXTENSION = re.compile(r"\s{0,2}(?:x|ext\.?|extension|内線|내선)[\s:.]{0,2}[0-9]{1,6}(?![0-9])", re.IGNORECASE)
_MOBILE = {"JP": ("070", "080", "090", "050"), "KR": ("010",), "US": ()}


@functools.lru_cache(maxsize=16384)
def parsed(number: str, region: str | None = None) -> tuple[int, str] | None:
    """Country code and national number of what a plan assigns: +digits, or digits as dialled within ``region``."""
    import phonenumbers

    try:
        found = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        return None
    # In Japan 010 is dialled before a country code, so that a Korean number would be one of Nigeria.
    if region and found.country_code != phonenumbers.country_code_for_region(region):
        return None
    return (found.country_code, found.national_number) if phonenumbers.is_valid_number(found) else None


def international(digits: str, *, shaped: bool) -> float:
    """The score of digits after a +: high when a plan assigns them, lower when it could and they look like a number."""
    import phonenumbers

    if parsed(f"+{digits}"):
        return 0.95
    try:
        return 0.7 if shaped and phonenumbers.is_possible_number(phonenumbers.parse(f"+{digits}")) else 0
    except phonenumbers.NumberParseException:
        return 0


def national(number: str) -> tuple[int, str] | None:
    """``parsed`` by the first of the regions whose plan assigns the number, with the digits of the national part."""
    number = EXTENSION.split(number)[0]
    if number.lstrip("(").startswith("+"):
        found = parsed(number)
    else:
        digits = _NOT_A_DIGIT.sub("", number)
        found = next(filter(None, (parsed(digits, region) for region in SHAPES if _begins(digits, region))), None)
    return (found[0], str(found[1])) if found else None


def _begins(digits: str, region: str) -> bool:
    """Whether digits begin as they are dialled in ``region``: with 0, but for North America."""
    return digits[0] in "123456789" if region == "US" else digits[0] == "0"


def certainty(digits: str, lengths: tuple[int, ...], regions: tuple[str, ...]) -> str | None:
    """``sure`` for digits grouped as a number of one of the regions is written, ``likely`` when only the digits fit."""
    grouped = len(lengths) > 1
    outcome = None
    for region in regions:
        if not (9 <= len(digits) <= 12 and _begins(digits, region) and parsed(digits, region)):
            continue
        if digits.startswith(_MOBILE.get(region, ())) and len(digits) == 11:
            return "sure"
        if region == "KR" and len(digits) == 12:  # personal numbers, 050X-XXXX-XXXX
            outcome = "sure" if digits.startswith("050") and grouped else outcome
        elif grouped and lengths in SHAPES.get(region, ()):
            return "sure"
        else:
            outcome = "likely"
    if grouped and 10 <= len(digits) <= 17 and _with_country_code(digits, lengths):
        return "sure"
    return outcome


def _with_country_code(digits: str, lengths: tuple[int, ...]) -> bool:
    """A number for dialling from abroad whose + was left out, or was written as the prefix of a region."""
    for prefix in _INTERNATIONAL_PREFIXES:
        if digits.startswith(prefix) and len(digits) - len(prefix) >= 10 and parsed(f"+{digits[len(prefix) :]}"):
            return True
    codes = {2: ("81", "82"), 1: ("1",)}.get(lengths[0], ())
    return digits.startswith(codes) and len(lengths) >= 3 and parsed(f"+{digits}")
