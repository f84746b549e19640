"""Check digits of cards, bank accounts and national identity numbers, each over a string of ASCII digits."""

import calendar

# Length of the account number by country, from the SWIFT IBAN registry.
IBAN_LENGTHS = {
    code: length
    for length, codes in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL SD FK",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK MN",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC SM MR",
        28: "AL AZ BY CY DO GT HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for code in codes.split()
}
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_RRN_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
_BRN_WEIGHTS = (1, 3, 7, 1, 3, 7, 1, 3)


def luhn(digits: str) -> bool:
    """Payment cards (ISO/IEC 7812)."""
    values = [int(digit) for digit in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def issuer(digits: str) -> bool:
    """Whether a card network gives out numbers with this beginning and length."""
    length, two, three, four = len(digits), int(digits[:2]), int(digits[:3]), int(digits[:4])
    if digits[0] == "4":
        return length in (13, 16, 19)  # Visa
    if 51 <= two <= 55 or 2221 <= four <= 2720 or 2200 <= four <= 2204:
        return length == 16  # Mastercard, Mir
    if two in (34, 37) or four in (1800, 2131):
        return length == 15  # American Express, old JCB
    if 3528 <= four <= 3589 or four == 6011 or 644 <= three <= 659 or two in (60, 62, 81, 82):
        return 16 <= length <= 19  # JCB, Discover, UnionPay, RuPay
    if 300 <= three <= 305 or three == 309 or two in (36, 38, 39):
        return 14 <= length <= 19  # Diners Club
    return (two == 50 or 56 <= two <= 69) and 12 <= length <= 19  # Maestro


def iban(code: str) -> bool:
    """ISO 13616: upper case, no spaces."""
    if IBAN_LENGTHS.get(code[:2]) != len(code) or code[2:4] in ("00", "01", "99"):
        return False
    return int("".join(str(int(letter, 36)) for letter in code[4:] + code[:4])) % 97 == 1


def barcode(digits: str) -> bool:
    """EAN-13 and ISBN-13."""
    return (sum(map(int, digits[::2])) + 3 * sum(map(int, digits[1::2]))) % 10 == 0


def my_number(digits: str) -> bool:
    """Japanese individual number: 11 digits and a check digit (Ministry of Internal Affairs, Ordinance 85 of 2014)."""
    total = sum(int(digit) * (n + 1 if n <= 6 else n - 5) for n, digit in enumerate(reversed(digits[:11]), start=1))
    return int(digits[11]) == (0 if total % 11 <= 1 else 11 - total % 11)


def rrn(digits: str) -> bool:
    """Korean resident registration number as issued until October 2020."""
    return int(digits[12]) == (11 - _weighted(digits, _RRN_WEIGHTS) % 11) % 10


def frn(digits: str) -> bool:
    """Korean foreigner registration number as issued until October 2020."""
    return int(digits[12]) == (13 - _weighted(digits, _RRN_WEIGHTS) % 11) % 10


def brn(digits: str) -> bool:
    """Korean business registration number."""
    last = int(digits[8]) * 5
    return (_weighted(digits, _BRN_WEIGHTS) + last // 10 + last + int(digits[9])) % 10 == 0


def _weighted(digits: str, weights: tuple[int, ...]) -> int:
    return sum(int(digit) * weight for digit, weight in zip(digits, weights, strict=False))


def birth_date(digits: str) -> bool:
    """Whether a Korean number begins with a day of the century that its seventh digit names."""
    century = {"9": 1800, "0": 1800, "1": 1900, "2": 1900, "5": 1900, "6": 1900}.get(digits[6], 2000)
    month, day = int(digits[2:4]), int(digits[4:6])
    return 1 <= month <= 12 and 1 <= day <= calendar.monthrange(century + int(digits[:2]), month)[1]


def social_security(digits: str) -> bool:
    """Ranges that the US Social Security Administration gives out since 2011."""
    area = digits[:3]
    return area not in ("000", "666") and area[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"
