"""Rules against secrets in files: by the shape that their issuer gives them, and by the name that they stand under."""

import re

from lint_rules.documents import Document
from lint_rules.rule import Found, rule
from pii_detection import secret_keys

SIGNATURE = re.compile(r"[?&]sig=[A-Za-z0-9%+/=_-]{16,}", re.IGNORECASE)
IN_URL = re.compile(r"://[^/\s:@\"']{1,100}:(?![$<{])[^/\s@\"']{1,200}@")
NAMED = re.compile(
    r"(?:password|passwd|passphrase|secret|connection_?string|(?:api|access|account|storage|auth)_?(?:key|token)"
    r"|(?:^|_)(?:key|pwd|pass|pat|sas|token))_?\d*$"
)
# What a sign-in consists of besides its secret.
NOT_SECRET = {"type", "username", "client_id", "tenant_id", "authority_url", "resource_url", "access_key_id"}
SAID = "a secret is written out; revoke it, and sign in by identity or "
IN_CONNECTION = SAID + "give it to az ml connection create by --set"
ELSEWHERE = SAID + "write ${{azureml://connections/NAME/credentials/KEY}}"


@rule()
def secret(document: Document) -> Found:
    """a key, password, token or SAS signature written out, wherever it stands"""
    said = IN_CONNECTION if document.kind == "connection" else ELSEWHERE
    places = [finding.start for finding in secret_keys.find(document.text)]
    places += [match.start() for shape in (SIGNATURE, IN_URL) for match in shape.finditer(document.text)]
    for place in places:
        yield document.text.count("\n", 0, place) + 1, said
    for where, value in document.everything():
        if isinstance(value, dict | list) or not where or not is_literal(value):
            continue
        name, inside = str(where[-1]), where[:-1]
        is_sign_in = "credentials" in inside and name not in NOT_SECRET
        is_place = "environment_variables" in inside or document.kind == "connection"
        if is_sign_in or (is_place and is_secret_name(name)):
            yield where, said


def is_secret_name(name: str) -> bool:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_")
    return bool(NAMED.search(snake.lower()))


def is_literal(value: object) -> bool:
    """A value, not a reference to one and not a place for one."""
    text = str(value).strip()
    is_word = text.lower() in ("", "none", "true", "false")
    return not is_word and not text.startswith(("${{", "$(", "<", "azureml://"))
