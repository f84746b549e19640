"""Direct identifiers in a text: what pii_detection finds, accounts, and names that a word next to them gives away."""

import functools
import re
import unicodedata

from pii_detection import Detector

# Before さん and 氏 stands a role as often as a name.
_ROLES = "お客|皆|患者|学生|職人|業者|大工|奥|運転手|看護師|美容師|農家|利用者|住民|会社員|店員|隣人|親御|同僚|友人"
_SURNAMES = "김이박최정강조윤장임한오서신권황안송류유홍고문양손배백허남심노하곽성차주우구민진지엄채원천방공현함변염여추"
_NAME = re.compile(
    r"(?<![A-Za-z])(?:Mr|Mrs|Ms|Miss|Dr|Prof)\.? [A-Z][a-z]+|\b(?:named|called|name is) [A-Z][a-z]+"
    rf"|名前は|という名前|という名の|(?<![一-鿿])(?!{_ROLES})[一-鿿]{{2,4}}(?:さん|氏)(?![一-鿿])"
    rf"|이름은|(?:이)?라는 이름|(?<![가-힣])[{_SURNAMES}][가-힣]{{1,2}} ?씨(?=[의는가를와도]|에게|\W|\Z)"
)
_ACCOUNT = re.compile(r"https?://\S+|(?<![\w@.])@[A-Za-z0-9_]{3,}")


def found_in(text: str) -> str | None:
    """The kind of the first direct identifier, or None."""
    if findings := _detector().find(text):
        return findings[0].entity_type.lower()
    text = unicodedata.normalize("NFKC", text)
    return "account" if _ACCOUNT.search(text) else "name" if _NAME.search(text) else None


@functools.cache
def _detector() -> Detector:
    return Detector()
