"""Rules for endpoints: who can reach them, who can sign in, and where the traffic goes."""

import re

from lint_rules.documents import Document
from lint_rules.rule import Found, is_count, rule

NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,30}[A-Za-z0-9]")
MAX_MIRROR = 50


@rule("online_endpoint")
def public_network(document: Document) -> Found:
    """an endpoint on the public internet without the tag allow_public_network"""
    if "compute" in document.content or "kubernetes" in str(document.at("$schema")).lower():
        return  # the cluster's network decides
    is_open = str(document.at("public_network_access")).lower() != "disabled"
    if is_open and not opted_in(document, "allow_public_network"):
        yield (
            ("public_network_access",),
            "the endpoint is open to the internet; write public_network_access: disabled, or the tag "
            'allow_public_network: "true" where that is meant',
        )


@rule("online_endpoint")
def key_auth(document: Document) -> Found:
    """an endpoint with keys, which do not expire, without the tag allow_key_auth"""
    mode = document.at("auth_mode")
    if mode in (None, "key") and not opted_in(document, "allow_key_auth"):
        yield (
            ("auth_mode",),
            f"{'without auth_mode' if mode is None else 'with auth_mode: key'} whoever has the key gets in, for ever; "
            'write auth_mode: aad_token, or the tag allow_key_auth: "true" where that is meant',
        )


@rule("online_endpoint", "batch_endpoint", "online_deployment", "batch_deployment")
def endpoint_name(document: Document) -> Found:
    """a name of an endpoint or deployment that Azure does not take"""
    for key in ("name", "endpoint_name"):
        name = document.at(key)
        if isinstance(name, str) and not NAME.fullmatch(name):
            yield (key,), f"{name!r:.60}: write 3 to 32 letters, digits and -, a letter first and no - last"


@rule("online_endpoint")
def traffic(document: Document) -> Found:
    """traffic that does not sum to 0 or 100"""
    shares = document.mapping("traffic")
    for name, share in shares.items():
        if not is_count(share) or not 0 <= share <= 100:
            yield ("traffic", name), f"{share!r:.20} is no whole percentage; write one from 0 to 100"
            return
    if (total := sum(shares.values())) not in (0, 100):
        yield ("traffic",), f"the traffic sums to {total} %; make it 100, or 0 before the first rollout"


@rule("online_endpoint")
def mirror_traffic(document: Document) -> Found:
    """mirror traffic over 50 %, to two deployments, or to one that has traffic already"""
    shares = document.mapping("mirror_traffic")
    if len(shares) > 1:
        names = ", ".join(map(str, shares))
        yield ("mirror_traffic",), f"to {len(shares)} deployments ({names}); Azure mirrors to one: name only that"
    for name, share in shares.items():
        if not is_count(share) or not 0 <= share <= MAX_MIRROR:
            yield ("mirror_traffic", name), f"{share!r:.20} % is mirrored; write a whole number from 0 to {MAX_MIRROR}"
        elif share and document.mapping("traffic").get(name):
            yield ("mirror_traffic", name), f"{name} has live traffic; mirror to a deployment that has none"


def opted_in(document: Document, tag: str) -> bool:
    return document.at("tags", tag) == "true"
