"""Finds personal data and secrets in English, Japanese and Korean text by shape, check digit and nearby words."""

import re
from collections.abc import Collection, Iterator

from pii_detection import internet_addresses, number_runs, secret_keys
from pii_detection.findings import ENTITY_TYPES, Finding, merge
from pii_detection.plain_text import PlainText

_DIGIT = re.compile(r"\d")
_NUMBERS = frozenset(ENTITY_TYPES) - {"EMAIL_ADDRESS", "URL_CREDENTIALS", "API_KEY"}
_AT_SIGNS = ("@", "%40", "&#", "at]", "at)", "AT]", "AT)")
REGIONS = ("US", "JP", "KR")


class Detector:
    """Finds the chosen kinds; ``regions`` are those whose telephone numbers are known without a country code."""

    def __init__(self, entity_types: Collection[str] = ENTITY_TYPES, regions: Collection[str] = REGIONS) -> None:
        import phonenumbers

        if unknown := [kind for kind in entity_types if kind not in ENTITY_TYPES]:
            raise ValueError(f"{unknown[0]!r} is not one of {', '.join(ENTITY_TYPES)}")
        if unknown := [region for region in regions if region not in phonenumbers.SUPPORTED_REGIONS]:
            raise ValueError(f"{unknown[0]!r} is not the code of a region, such as JP")
        self.entity_types = tuple(kind for kind in ENTITY_TYPES if kind in entity_types)
        self.regions = tuple(regions)
        self._kinds = frozenset(self.entity_types)

    def find(self, text: str) -> list[Finding]:
        """What is in ``text``, in order and without overlaps, at its places in the text as given."""
        plain = PlainText(text)
        found = list(self._candidates(plain.text))
        if not found:
            return found
        return merge(Finding(*plain.span(start, end), kind, score) for start, end, kind, score in found)

    def _candidates(self, text: str) -> Iterator[Finding]:
        kinds = self._kinds
        if "EMAIL_ADDRESS" in kinds and any(sign in text for sign in _AT_SIGNS):
            yield from internet_addresses.find_emails(text)
        if "URL_CREDENTIALS" in kinds and ("=" in text or "://" in text):
            yield from internet_addresses.find_url_credentials(text)
        if "API_KEY" in kinds:
            yield from secret_keys.find(text)
        if not kinds.isdisjoint(_NUMBERS) and _DIGIT.search(text):
            if "IP_ADDRESS" in kinds and text.count(":") >= 2:
                yield from internet_addresses.find_ipv6(text)
            yield from number_runs.find(text, kinds, self.regions)
