"""Rules for what jobs run on and read from: clusters that cost nothing at rest, closed networks, no keys."""

import re

from lint_rules.documents import Document
from lint_rules.endpoints import opted_in
from lint_rules.rule import Found, is_count, rule

VM_SIZE = re.compile(r"(?:Standard|Basic)_[A-Z]{1,3}\d+(?:-\d+)?[a-z]*(?:_[A-Za-z0-9]+)*", re.IGNORECASE)
MIN_IDLE_SECONDS, MAX_IDLE_SECONDS = 60, 14_400
HOST = re.compile(r"(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}", re.IGNORECASE)
RULE_TYPES = ("fqdn", "private_endpoint", "service_tag")
OUTBOUND = ("managed_network", "outbound_rules")
# By the key: its form, and what to write.
NAMES = {
    "name": (re.compile(r"[A-Za-z0-9_]{1,255}"), "letters, digits and _"),
    "account_name": (re.compile(r"[a-z0-9]{3,24}"), "3 to 24 small letters and digits"),
    "container_name": (re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"), "3 to 63 small letters, digits and -"),
    "filesystem": (re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"), "3 to 63 small letters, digits and -"),
}


@rule("compute", "online_deployment")
def vm_size(document: Document) -> Found:
    """a VM size that has not the form of Azure's names"""
    for key in ("size", "instance_type"):
        value = document.at(key)
        if isinstance(value, str) and not VM_SIZE.fullmatch(value):
            yield (key,), f"{value!r:.60} is no VM size; write one such as Standard_NC24ads_A100_v4"


@rule("compute")
def idle_cost(document: Document) -> Found:
    """a cluster with nodes that stay without work, without the tag allow_idle_nodes"""
    least, idle = document.at("min_instances"), document.at("idle_time_before_scale_down")
    if is_count(least) and least > 0 and not opted_in(document, "allow_idle_nodes"):
        yield (
            ("min_instances",),
            f"{least} nodes are paid for day and night; write 0, or the tag allow_idle_nodes: "
            '"true" where that is meant',
        )
    if idle is not None and not (is_count(idle) and MIN_IDLE_SECONDS <= idle <= MAX_IDLE_SECONDS):
        yield (
            ("idle_time_before_scale_down",),
            f"{idle!r:.20}; write seconds, {MIN_IDLE_SECONDS} to {MAX_IDLE_SECONDS}",
        )


@rule("compute")
def open_node(document: Document) -> Found:
    """a cluster with nodes on the public internet, which is the default, without the tag allow_public_nodes"""
    if str(document.at("type")).lower() != "amlcompute" or opted_in(document, "allow_public_nodes"):
        return
    for key in ("ssh_public_access_enabled", "enable_node_public_ip"):
        if document.at(key) is not False:
            yield (key,), f'write {key}: false, or the tag allow_public_nodes: "true" where an open node is meant'


@rule("workspace")
def managed_network(document: Document) -> Found:
    """a hub or workspace from which jobs reach all of the internet, without the tag allow_internet_outbound"""
    if str(document.at("kind")).lower() == "project":
        if "managed_network" in document.content:
            yield ("managed_network",), "a project has the network of its hub; write it there"
        return
    mode = str(document.at("managed_network", "isolation_mode")).lower()
    if mode != "allow_only_approved_outbound" and not opted_in(document, "allow_internet_outbound"):
        yield (
            ("managed_network", "isolation_mode"),
            "jobs can send what they read anywhere; write allow_only_approved_outbound, or the tag "
            'allow_internet_outbound: "true" where that is meant',
        )


@rule("workspace")
def outbound_rule(document: Document) -> Found:
    """an outbound rule that opens nothing, or everything"""
    rules = document.at(*OUTBOUND)
    names: set[str] = set()
    for index, each in enumerate(rules if isinstance(rules, list) else []):
        settings = each if isinstance(each, dict) else {}
        type_, name, destination = (settings.get(key) for key in ("type", "name", "destination"))
        if type_ not in RULE_TYPES:
            yield (*OUTBOUND, index), f"type {type_!r:.40}; write one of {', '.join(RULE_TYPES)}"
        elif type_ == "fqdn" and not HOST.fullmatch(str(destination)):
            yield (
                (*OUTBOUND, index, "destination"),
                f"{destination!r:.80} is no host; write one such as huggingface.co or *.hf.co",
            )
        if str(name) in names:
            yield (*OUTBOUND, index, "name"), f"{name!r:.60} is the name of two rules, and the last one wins"
        names.add(str(name))


@rule("workspace")
def datastore_keys(document: Document) -> Found:
    """a hub or workspace that opens its own storage by key, without the tag allow_key_auth"""
    mode = document.at("system_datastores_auth_mode")
    is_project = str(document.at("kind")).lower() == "project"  # it has the storage of its hub
    if not is_project and mode != "identity" and not opted_in(document, "allow_key_auth"):
        yield (
            ("system_datastores_auth_mode",),
            f'{mode!r:.40}: by the account key; write identity, or the tag allow_key_auth: "true" where that is meant',
        )


@rule("datastore")
def datastore_name(document: Document) -> Found:
    """a name of a datastore, account or container that Azure does not take"""
    for key, (form, wanted) in NAMES.items():
        value = document.at(key)
        if isinstance(value, str) and not form.fullmatch(value):
            yield (key,), f"{value!r:.80}; write {wanted}"


@rule("registry")
def registry_location(document: Document) -> Found:
    """a registry that is not replicated to its own location"""
    places = document.at("replication_locations")
    names = [place.get("location") for place in places if isinstance(place, dict)] if isinstance(places, list) else []
    if document.at("location") not in names:
        yield ("replication_locations",), f"without {document.at('location')!r:.40}, where the registry is; add it"


@rule("connection")
def connection_endpoint(document: Document) -> Found:
    """a connection whose endpoint is asked without TLS"""
    for key in ("azure_endpoint", "endpoint", "target"):
        value = document.at(key)
        if isinstance(value, str) and value.lower().startswith("http:"):
            yield (key,), f"{value!r:.80}: whoever listens reads tokens and texts; write https"
