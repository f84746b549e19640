"""E-mail addresses, IPv6 addresses, and credentials in URLs."""

import ipaddress
import re
from collections.abc import Iterator

from pii_detection import context
from pii_detection.findings import Finding

# Also as it is written to hide from programs: taro[at]example[dot]com
_AT = re.compile(r"@|%40|&#(?:64|x40);|\s?[\[(]\s?at\s?[\])]\s?", re.IGNORECASE)
_DOT = r"(?:\.|\s?[\[(](?:dot|\.)[\])]\s?)"
_MAX_LOCAL = 64
_LOCAL = re.compile(r"[A-Za-z0-9À-ԯ._%+'-]+\Z")
_LOCAL_IN_SCRIPT = re.compile(r"(?:[一-鿿々]+|[ぁ-ゖ]+|[ァ-ヺー]+|[가-힣]+)\Z")
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}{_DOT}){{1,8}}(?:[A-Za-z]{{2,24}}|xn--[A-Za-z0-9-]{{2,59}})(?![A-Za-z0-9-])")
_IDN_LABEL = r"[^\W_](?:[\w-]{0,61}[^\W_])?"
_IDN_TOP = (
    r"[A-Za-z]{2,24}(?![A-Za-z0-9-])|テスト|みんな|コム|セール|ファッション|クラウド|グーグル|ストア|ポイント|世界|中国|中國|公司"
    r"|网络|香港|台灣|한국|닷컴|닷넷|삼성|테스트|рф|дети|онлайн|сайт"
)
_IDN_DOMAIN = re.compile(rf"(?:{_IDN_LABEL}\.){{1,8}}?(?:{_IDN_TOP})")
_FILE_SUFFIXES = frozenset(["png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "html", "pdf"])

_COLONS = re.compile(r"::|:[0-9A-Fa-f]{1,4}:")
_ADDRESS_BEFORE = re.compile(r"[0-9A-Za-z_:.]{0,45}\Z")
_ADDRESS_AFTER = re.compile(r"[0-9A-Za-z_:.]*")
_MAX_ADDRESS = 45

_USER_INFO = re.compile(r"://((?![/?#@:])[!-~]{0,64}?:(?:(?![/?#\"<>])[!-~]){1,256})@")
_PASSWORD_BEFORE = re.compile(r"://[!-~]*:\Z")
_SECRET_PARAMETER = re.compile(
    r"[?&#](?:[a-z0-9_.-]{0,24}(?:token|secret|passw(?:or)?d|pwd|signature|credential|api[_-]?key|access[_-]?key"
    r"|subscription-key)|sig|session(?:_?id)?|jwt)=((?:(?![&#\"'<>{}])[!-~]){8,})"
    r"|[?&#](?:key|code|auth)=((?:(?![&#\"'<>{}])[!-~]){16,})",
    re.IGNORECASE,
)


def find_emails(text: str) -> Iterator[Finding]:
    for at in _AT.finditer(text):
        start, place = at.span()
        domain = _DOMAIN.match(text, place) or _IDN_DOMAIN.match(text, place)
        if not domain or domain.group().rpartition(".")[2].lower() in _FILE_SUFFIXES:
            continue
        before = text[max(0, start - _MAX_LOCAL) : start]
        local = _LOCAL.search(before) or _LOCAL_IN_SCRIPT.search(before)
        name = local.group().lstrip(".'%-") if local else ""
        if name and not _PASSWORD_BEFORE.search(before, 0, len(before) - len(name)):
            yield Finding(start - len(name), domain.end(), "EMAIL_ADDRESS", 0.95)


def find_ipv6(text: str) -> Iterator[Finding]:
    place = 0
    while colons := _COLONS.search(text, place):
        start = _ADDRESS_BEFORE.search(text, max(place, colons.start() - _MAX_ADDRESS), colons.start()).start()
        place = _ADDRESS_AFTER.match(text, colons.start()).end()
        address = text[start:place].rstrip(".")
        if address.endswith(":") and not address.endswith("::"):
            address = address[:-1]
        if len(address) <= _MAX_ADDRESS and _is_ipv6(text, start, address):
            yield Finding(start, start + len(address), "IP_ADDRESS", 0.95)


def _is_ipv6(text: str, start: int, address: str) -> bool:
    if "::" not in address and address.count(":") not in (6, 7):
        return False
    digits = address.replace(":", "")
    if not any(digit.isdigit() for digit in digits):
        return False  # std::end
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    # 1::2 is also a slice in a program
    return len(digits) >= 4 or context.distance("IP_ADDRESS", text, start, start + len(address)) is not None


def find_url_credentials(text: str) -> Iterator[Finding]:
    for match in _USER_INFO.finditer(text):
        yield Finding(*match.span(1), "URL_CREDENTIALS", 1.0)
    for match in _SECRET_PARAMETER.finditer(text):
        yield Finding(*match.span(1 if match[1] else 2), "URL_CREDENTIALS", 0.95)
