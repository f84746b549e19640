"""Rules against what changes under a file that does not: image tags, and models and environments by a label."""

import re
from collections.abc import Iterator
from pathlib import Path

from lint_rules.documents import Document
from lint_rules.paths import local_path
from lint_rules.rule import Found, rule

REGISTERED = re.compile(r"azureml:(?!//)[^:@/\s]+:[^:@/\s]+|\S*/(?:environments|models)/[^/\s]+/versions/[^/\s]+")
FROM = re.compile(r"[ \t]*FROM\s+(?:--\S+\s+)*(?P<image>\S+)(?:\s+AS\s+(?P<stage>\S+))?", re.IGNORECASE)


@rule("environment", "online_deployment", "batch_deployment", "component", "job")
def floating_image(document: Document) -> Found:
    """an image without a tag or with :latest, in the file or in its Dockerfile"""
    for where, value in document.everything():
        if where and where[-1] == "image" and isinstance(value, str) and is_floating(value):
            yield where, f"{value!r:.120} changes under its name; write a dated tag or a digest"
    folder = document.at("build", "path")
    context = local_path(document, "path", folder) if isinstance(folder, str) else None
    name = document.at("build", "dockerfile_path") or "Dockerfile"
    if context and isinstance(name, str):
        for image in floating_bases(context / name):
            yield ("build",), f"{name} is built FROM {image!r:.120}, which changes; write a dated tag or a digest"


@rule("online_deployment", "batch_deployment")
def unpinned_asset(document: Document) -> Found:
    """a deployment whose model or environment is not a registered one with its version"""
    for key in ("environment", "model"):
        value = document.at(key)
        if isinstance(value, str) and not REGISTERED.fullmatch(value):
            yield (key,), f"{value!r:.80} is no registered version; write azureml:NAME:VERSION"


@rule("component", "job")
def unpinned_environment(document: Document) -> Found:
    """an environment by a label such as @latest"""
    for where, value in document.everything():
        if where and where[-1] == "environment" and isinstance(value, str) and re.search(r"@\w+$", value):
            yield where, f"{value!r:.80} changes under its name; write azureml:NAME:VERSION"


def is_floating(image: str) -> bool:
    if "@sha256:" in image or "$" in image:
        return False
    _, _, tag = image.rpartition("/")[2].partition(":")
    return tag in ("", "latest")


def floating_bases(dockerfile: Path) -> Iterator[str]:
    try:
        text = dockerfile.read_text(encoding="utf-8", errors="replace")
    except (OSError, ValueError):
        return  # that it is not there is another rule's finding
    stages = {"scratch"}
    for match in filter(None, map(FROM.match, text.splitlines())):
        if match["image"] not in stages and is_floating(match["image"]):
            yield match["image"]
        stages.add(match["stage"])
