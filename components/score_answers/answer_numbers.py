"""The number that an answer ends with, as written in English, Japanese or Korean, compared exactly."""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

_MARK = "####"  # after which GSM8K writes the answer
_MAX_CHARS = 200  # a runaway answer is no number, and Python refuses to read thousands of digits
_UNITS = {"百": 10**2, "千": 10**3, "万": 10**4, "萬": 10**4, "億": 10**8, "兆": 10**12}
_UNITS |= {"백": 10**2, "천": 10**3, "만": 10**4, "억": 10**8, "조": 10**12}
_MYRIAD = 10**4  # from here on a unit multiplies all that stands before it: 2千万, 3천5백만

# Full-width ASCII and other ways to write a sign; not NFKC, which reads m² as m2 and 2½ as 21/2.
_PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans("\u3000\u2212￥￦", " -¥₩")
_PLAIN |= str.maketrans({"½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}"})
_FRACTION = re.compile(r"(?:(\d) ?)?\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_MINUS = re.compile(r"(?:マイナス|마이너스|minus)\s*(?=[\d.])", re.IGNORECASE)

_DIGITS = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
_UNIT = f"[{''.join(_UNITS)}]"
_PART = re.compile(rf"({_DIGITS})({_UNIT}*)", re.ASCII)
_NUMBER = re.compile(
    r"(?:(?P<minus>(?<![\w)\]])-)|(?<![A-Za-z_\d])(?<!\d\.))"  # neither the 2 of CO2 nor the minus of 5-3
    r"(?:(?:USD|JPY|KRW|EUR|GBP|[$¥₩€£]) ?)?(?P<inner_minus>-)?"
    rf"(?:(?<!/)(?:(?P<whole>\d+) )?(?P<top>\d+)/(?P<bottom>0*[1-9]\d*)(?![\d/])"
    rf"|(?P<digits>{_DIGITS}(?:{_UNIT}+(?!큼)(?: ?{_DIGITS}{_UNIT}+)*(?: ?{_DIGITS})?)?))"  # 2만큼: as much as 2
    r"(?P<percent>\s?(?:%|percent|パーセント|퍼센트))?",
    re.ASCII,
)


@dataclass(frozen=True)
class Number:
    value: Fraction
    is_percent: bool

    def equals(self, other: "Number") -> bool:
        """50% equals 50 (the sign was left out) and 0.5 (it was worked in); 50 does not equal 0.5."""
        if self.is_percent == other.is_percent:
            return self.value == other.value
        percent, plain = (self.value, other.value) if self.is_percent else (other.value, self.value)
        return plain in (percent, percent / 100)


def final_number(text: str) -> Number | None:
    """The first number after the last #### where there is one, else the last number of the text."""
    plain = _MINUS.sub("-", unicodedata.normalize("NFC", text).translate(_PLAIN))  # 만 may come as three jamo
    plain = _FRACTION.sub(lambda match: f"{match[1] + ' ' if match[1] else ''}{match[2]}/{match[3]}", plain)
    _, mark, marked = plain.rpartition(_MARK)
    numbers = list(_NUMBER.finditer(marked))
    found = numbers[0 if mark else -1] if numbers else None
    return _read(found) if found and len(found[0]) <= _MAX_CHARS else None


def _read(found: re.Match[str]) -> Number:
    if found["digits"]:
        value = _with_units(found["digits"])
    else:
        value = int(found["whole"] or 0) + Fraction(int(found["top"]), int(found["bottom"]))
    if found["minus"] or found["inner_minus"]:
        value = -value
    return Number(value, bool(found["percent"]))


def _with_units(digits: str) -> Fraction:
    total = below = Fraction(0)  # below: what stands since the last 万, 億 or 兆
    for number, units in _PART.findall(digits):
        value = Fraction(number.replace(",", ""))
        for unit in map(_UNITS.get, units):
            if unit < _MYRIAD:
                value *= unit
            else:
                total += (below + value) * unit
                below = value = Fraction(0)
        below += value
    return total + below
