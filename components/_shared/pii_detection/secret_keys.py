"""Keys and passwords of services, by the shapes that their issuers give them."""

import re
from collections.abc import Iterator

from pii_detection.findings import Finding

_FREE = r"(?<![A-Za-z0-9_-])"
_END = r"(?![A-Za-z0-9_-])"
# By a piece that every such key holds (in lower case), which is far cheaper to look for than the key itself.
_SHAPES = {
    "akia": r"(?<![A-Za-z0-9])AKIA[A-Z2-7]{16}(?![A-Za-z0-9])",
    "asia": r"(?<![A-Za-z0-9])ASIA[A-Z2-7]{16}(?![A-Za-z0-9])",
    "gh": rf"{_FREE}gh[pousr]_[A-Za-z0-9]{{36,255}}",
    "github_pat_": rf"{_FREE}github_pat_[A-Za-z0-9_]{{22,255}}",
    "glpat-": rf"{_FREE}glpat-[A-Za-z0-9_-]{{20,64}}",
    "sk-": rf"{_FREE}sk-[A-Za-z0-9_-]{{20,255}}",
    "sk_": rf"{_FREE}[sr]k_(?:live|test)_[A-Za-z0-9]{{16,255}}",
    "xox": rf"{_FREE}xox[abeoprs]-[A-Za-z0-9-]{{10,255}}",
    "hooks.slack.com/": r"(?<=hooks\.slack\.com/services/)[A-Za-z0-9/]{20,255}",
    "aiza": rf"{_FREE}AIza[A-Za-z0-9_-]{{35}}{_END}",
    "hf_": rf"{_FREE}hf_[A-Za-z0-9]{{30,64}}{_END}",
    "npm_": rf"{_FREE}npm_[A-Za-z0-9]{{36}}{_END}",
    "pypi-": rf"{_FREE}pypi-[A-Za-z0-9_-]{{50,512}}",
    "sg.": rf"{_FREE}SG\.[A-Za-z0-9_-]{{16,32}}\.[A-Za-z0-9_-]{{16,64}}{_END}",
    "eyj": rf"{_FREE}eyJ[A-Za-z0-9_-]{{8,8192}}\.eyJ[A-Za-z0-9_-]{{8,8192}}\.[A-Za-z0-9_-]{{0,8192}}",
    "8q~": rf"{_FREE}[A-Za-z0-9_~.-]{{3}}8Q~[A-Za-z0-9_~.-]{{31,34}}(?![A-Za-z0-9_~-])",  # Entra ID client secret
    "==": r"(?<![A-Za-z0-9+/])[A-Za-z0-9+/]{86}==",  # Azure storage, Cosmos DB, Service Bus
    "private key": (
        r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:(?:[^-]|-(?!----)){1,16384}-----END (?:[A-Z]{2,10} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
        r"|[A-Za-z0-9+/=\s]{0,16384})"
    ),
    "key=": r"(?<=Key=)[A-Za-z0-9+/]{32,128}={0,2}",  # AccountKey=, SharedAccessKey=
}
_COMPILED = {piece: re.compile(shape) for piece, shape in _SHAPES.items()}
_NAMED = ("pass", "pwd", "secret", "key", "token", "bearer", "basic", "パスワード", "暗証番号", "비밀번호", "암호")
_PLACEHOLDER = r"(?![0-9a-f]{16}>)"  # <API_KEY:0123456789abcdef>, which a redaction left, is no key
_ASSIGNED = re.compile(
    r"(?:password|passwd|passphrase|pwd|secret|(?:api|access|account|secret)[ _-]?key|(?:access|auth)[ _-]?token"
    r"|パスワード|暗証番号|비밀번호|암호)[\"']?(?:\s{0,3}(?:[:=]|は|is |는 |은 ))\s{0,3}[\"'「]?"
    rf"{_PLACEHOLDER}((?:(?![\"'<>{{}}();,「」])[!-~]){{4,255}})"
    r"|(?:bearer|authorization:\s?basic)\s{1,3}([A-Za-z0-9_~+/.=-]{16,8192})",
    re.IGNORECASE,
)
_MIN_LENGTH = 8


def find(text: str) -> Iterator[Finding]:
    lowered = text.lower()
    for piece, shape in _COMPILED.items():
        if piece in lowered:
            for match in shape.finditer(text):
                yield Finding(*match.span(), "API_KEY", 0.95)
    if any(name in lowered for name in _NAMED):
        for match in _ASSIGNED.finditer(text):
            group = 1 if match[1] else 2
            if _is_secret(match[group]):
                yield Finding(*match.span(group), "API_KEY", 0.7)


def _is_secret(value: str) -> bool:
    """A password is not a word, and a placeholder such as ******** is none."""
    return len(value) >= _MIN_LENGTH and len(set(value)) > 3 and not value.isalpha() and value[0] not in "$%*<["
