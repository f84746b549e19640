"""Stand-ins for personal data: of the same shape, the same for the same value, and never a value that exists."""

import hashlib
import hmac
import re
from collections.abc import Callable

from pii_detection import check_digits, phone_numbers
from pii_detection.plain_text import PlainText

_NOT_A_LETTER = re.compile(r"[^0-9a-z]")
_DIGIT = re.compile(r"\d")
_WIDE = {ord("0") + n: ord("０") + n for n in range(10)}
_NAMES = {"PERSON": ("Person", "人物", "인물"), "LOCATION": ("Place", "場所", "장소")}


_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")


class Pseudonyms:
    """Keyed hashes and stand-ins: they depend on the key, the type and the value, not on how the value is written."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def hash(self, value: str, entity_type: str) -> str:
        """The keyed hash of a value: 16 letters, since digits could look like a number of somebody."""
        return self._digest(value, entity_type)[:16].translate(_LETTERS)

    def stand_in(self, value: str, entity_type: str) -> str:
        plain = PlainText(value).text
        digest = self._digest(value, entity_type)
        if entity_type == "EMAIL_ADDRESS":
            return f"user-{digest[:10]}@example.com"
        if entity_type == "IP_ADDRESS":
            return _ip_address(plain, digest)
        if entity_type in _NAMES:
            return f"{_NAMES[entity_type][_script(plain)]}-{digest[:8]}"
        if entity_type in _INVALID:
            drawn = f"{int(digest, 16):080d}"[-40:]
            if entity_type == "JP_PASSPORT":
                value = "ZZ" + plain[2:]  # no series begins with it
            return _refilled(value, _INVALID[entity_type](plain, "".join(_DIGIT.findall(plain)), drawn))
        return f"user:example-{digest[:16]}" if "://" not in plain and ":" in plain else f"example-{digest[:16]}"

    def _digest(self, value: str, entity_type: str) -> str:
        message = f"{entity_type}\x1f{canonical(value, entity_type)}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, message, hashlib.sha256).hexdigest()


def canonical(value: str, entity_type: str) -> str:
    """The value however it is written: width, separators and, but for secrets, case do not count."""
    plain = PlainText(value).text
    if entity_type in ("API_KEY", "URL_CREDENTIALS"):
        return plain
    if entity_type == "PHONE_NUMBER" and (number := phone_numbers.national(plain)):
        return "+{}{}".format(*number)
    plain = " ".join(plain.casefold().replace("%40", "@").split())
    return _NOT_A_LETTER.sub("", plain) if entity_type in _INVALID else plain


def _script(plain: str) -> int:
    """0 for Latin and other letters, 1 for Japanese, 2 for Korean."""
    return 2 if re.search("[가-힣]", plain) else 1 if re.search("[ぁ-ヿ一-鿿]", plain) else 0


def _ip_address(plain: str, digest: str) -> str:
    if ":" in plain:  # for documentation (RFC 3849)
        return "2001:db8:" + ":".join(digest[place : place + 4] for place in range(0, 24, 4))
    first, *others = bytes.fromhex(digest[:8])  # reserved for future use (RFC 1112)
    return ".".join(map(str, (240 + first % 15, *others)))


def _refilled(value: str, digits: str) -> str:
    """``value`` with other digits, each of the width that the old one had; what is invisible is left out."""
    following = iter(digits)
    new = []
    for char in value:
        plain = PlainText(char).text
        if _DIGIT.search(plain):  # more than one in ⑩
            drawn = "".join(next(following) for _ in _DIGIT.findall(plain))
            new.append(drawn.translate(_WIDE) if "０" <= char <= "９" else drawn)
        elif plain:
            new.append(char)
    return "".join(new)


def _phone_number(plain: str, digits: str, drawn: str) -> str:
    """A number that its plan does not assign: 555 under a North American area code that is none, else a 0 too early."""
    own = len(_DIGIT.findall(phone_numbers.EXTENSION.split(plain)[0]))
    code, national = phone_numbers.national(plain) or (None, digits[:own])
    prefix = digits[: own - len(national)]
    plus = "+" if plain.lstrip("(").startswith("+") else ""
    if code == 1 or (code is None and own == 10 and national[0] not in "01"):
        new = f"{int(drawn[0]) % 8 + 2}9{drawn[1]}555{drawn[2:6]}"
    elif code == 82 and national.startswith("10"):
        new = f"100{drawn[: len(national) - 3]}"  # 010-0 is not given out, though phonenumbers takes it for assigned
    else:
        # 900, because 080-0 is free of charge in Japan, and not, like 090-0, nothing
        for head in (national[:3] + "0", national[:2] + "0", national[:1] + "0", "900", "000"):
            new = f"{head}{drawn}"[: len(national)]
            if not phone_numbers.national(f"{plus}{prefix}{new}"):
                break
    return f"{prefix}{new}{drawn[-len(digits) :]}"[: len(digits)]


def _credit_card(plain: str, digits: str, drawn: str) -> str:
    new = digits[0] + drawn[: len(digits) - 1]
    return _with_wrong_check_digit(new, check_digits.luhn)


def _with_wrong_check_digit(digits: str, check: Callable[[str], bool]) -> str:
    return digits[:-1] + str((int(digits[-1]) + 1) % 10) if check(digits) else digits


_INVALID: dict[str, Callable[[str, str, str], str]] = {
    "PHONE_NUMBER": _phone_number,
    "CREDIT_CARD": _credit_card,
    "IBAN_CODE": lambda plain, digits, drawn: "00" + (drawn * 2)[: len(digits) - 2],
    "JP_MY_NUMBER": lambda plain, digits, drawn: _with_wrong_check_digit(drawn[:12], check_digits.my_number),
    "JP_PASSPORT": lambda plain, digits, drawn: drawn[:7],
    "JP_DRIVER_LICENSE": lambda plain, digits, drawn: "0" + drawn[: len(digits) - 1],  # no prefecture has 00 to 09
    "KR_RRN": lambda plain, digits, drawn: drawn[:2] + "13" + drawn[2:4] + digits[6] + drawn[4:10],
    "KR_FRN": lambda plain, digits, drawn: drawn[:2] + "13" + drawn[2:4] + digits[6] + drawn[4:10],
    "KR_BRN": lambda plain, digits, drawn: _with_wrong_check_digit(drawn[:10], check_digits.brn),
    "US_SSN": lambda plain, digits, drawn: f"9{drawn[:2]}0{int(drawn[2]) % 9 + 1}{drawn[3:7]}",  # nor an ITIN
}
