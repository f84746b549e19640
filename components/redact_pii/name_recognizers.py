"""Finds names and addresses by what the user names: Presidio with spaCy models, or Azure AI Language."""

import importlib.util
import re
import time
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import httpx

from pii_detection import Detector, Finding, merge
from slmkit import azure_identity
from slmkit.endpoint_access import AZURE_SCOPE, on_this_machine
from slmkit.errors import UserError

Text = tuple[str, str]  # a text and its language


class NameRecognizer(Protocol):
    languages: frozenset[str]

    def find_all(self, texts: Sequence[Text]) -> list[list[Finding]]:
        """PERSON and LOCATION in each text; raises when any of them could not be examined."""
        ...


class NamedDetector:
    """A detector that also gives the names which were recognized beforehand, many texts at a time."""

    def __init__(self, detector: Detector, recognizer: NameRecognizer) -> None:
        self._detector = detector
        self._recognizer = recognizer
        self._names: dict[str, list[Finding]] = {}

    def recognize(self, texts: Sequence[Text]) -> None:
        wanted = [text for text in dict.fromkeys(texts) if text[1] in self._recognizer.languages and text[0].strip()]
        names = self._recognizer.find_all(wanted)
        self._names = {text: found for (text, _), found in zip(wanted, names, strict=True)}

    def find(self, text: str) -> list[Finding]:
        return merge([*self._detector.find(text), *self._names.get(text, ())])


# GiNZA names more than a hundred kinds of things; these are persons and what an address is made of.
_SPACY_KINDS = {
    **dict.fromkeys(("PERSON", "PER", "Person"), "PERSON"),
    **dict.fromkeys(("GPE", "LOC", "FAC", "Postal_Address", "Province", "City", "County"), "LOCATION"),
    **dict.fromkeys(("GPE_Other", "Domestic_Region", "Station", "Location_Other"), "LOCATION"),
}
_AZURE_KINDS = {"Person": "PERSON", "Address": "LOCATION"}
# What follows the name of a district in a Japanese address, and which models leave out.
_HOUSE_NUMBER = re.compile(r"\d+(?:(?:丁目|番地?|号|[-－ー−の])\d*)*")


class Presidio:
    """Presidio's spaCy recognizer with an installed model for each language."""

    def __init__(self, models: dict[str, str]) -> None:
        for package in ("presidio_analyzer", "spacy", *models.values()):
            # Looked for here, because spaCy would download a model that is absent.
            if importlib.util.find_spec(package) is None:
                raise UserError(
                    f"name_recognizer presidio needs the package {package}: run the component in environments/privacy, "
                    "with the spaCy model of each language installed"
                )
        engines = import_module("presidio_analyzer.nlp_engine")
        self._engine = engines.SpacyNlpEngine(
            [{"lang_code": language, "model_name": model} for language, model in models.items()],
            engines.NerModelConfiguration(model_to_presidio_entity_mapping=_SPACY_KINDS),
        )
        self._engine.load()
        self.languages = frozenset(models)

    def find_all(self, texts: Sequence[Text]) -> list[list[Finding]]:
        return [self._find(*text) for text in texts]

    def _find(self, text: str, language: str) -> list[Finding]:
        artifacts = self._engine.process_text(text, language)
        found = []
        for entity, score in zip(artifacts.entities, artifacts.scores, strict=True):
            end = entity.end_char
            if entity.label_ == "LOCATION" and (house := _HOUSE_NUMBER.match(text, end)):
                end = house.end()
            if entity.label_ in ("PERSON", "LOCATION"):
                found.append(Finding(entity.start_char, end, entity.label_, float(score)))
        return found


class AzureAILanguage:
    """The PII detection of an Azure AI Language resource, for names and addresses."""

    languages = frozenset(("en", "ja", "ko", "zh", "und"))
    _BATCH = 5  # documents a request may hold
    _MAX_CHARS = 5120  # of a document
    _OVERLAP = 120  # so that a name across a cut is whole on one side
    _MAX_RETRIES = 6
    _MAX_WAIT_SECONDS = 120

    def __init__(self, endpoint: str, transport: httpx.BaseTransport | None = None, credential: Any = None) -> None:
        url = httpx.URL(endpoint)
        if url.scheme != "https" and not on_this_machine(url):
            raise UserError(f"language_endpoint {endpoint!r} is not like https://NAME.cognitiveservices.azure.com")
        self._credential = credential or azure_identity.default_credential()
        self._client = httpx.Client(base_url=url, transport=transport, timeout=60)

    def find_all(self, texts: Sequence[Text]) -> list[list[Finding]]:
        pieces = [
            (number, start, text[start : start + self._MAX_CHARS], language)
            for number, (text, language) in enumerate(texts)
            for start in range(0, len(text), self._MAX_CHARS - self._OVERLAP)
        ]
        found: list[list[Finding]] = [[] for _ in texts]
        for first in range(0, len(pieces), self._BATCH):
            batch = pieces[first : first + self._BATCH]
            for (number, start, _, _), entities in zip(batch, self._ask(batch), strict=True):
                for entity in entities:
                    if kind := _AZURE_KINDS.get(entity["category"]):
                        begin = start + entity["offset"]
                        found[number].append(
                            Finding(begin, begin + entity["length"], kind, float(entity["confidenceScore"]))
                        )
        return found

    def _ask(self, batch: Sequence[tuple[int, int, str, str]]) -> list[list[dict[str, Any]]]:
        """The entities of each piece; a piece that the service could not examine is an error."""
        documents = [
            {"id": str(place), "text": text} | ({} if language == "und" else {"language": language})
            for place, (_, _, text, language) in enumerate(batch)
        ]
        body = {
            "kind": "PiiEntityRecognition",
            "parameters": {
                "piiCategories": list(_AZURE_KINDS),
                "stringIndexType": "UnicodeCodePoint",
                "loggingOptOut": True,
            },
            "analysisInput": {"documents": documents},
        }
        results = self._post(body)["results"]
        by_id = {document["id"]: document["entities"] for document in results["documents"]}
        if missing := [document["id"] for document in documents if document["id"] not in by_id]:
            reasons = {error["id"]: error["error"].get("code", "") for error in results.get("errors", [])}
            raise RuntimeError(
                f"Azure AI Language did not examine a text: {reasons.get(missing[0], 'no reason given')}"
            )
        return [by_id[document["id"]] for document in documents]

    def _post(self, body: dict[str, Any]) -> dict[str, Any]:
        for attempt in range(self._MAX_RETRIES + 1):
            token = self._credential.get_token(AZURE_SCOPE).token
            response = self._client.post(
                "/language/:analyze-text",
                params={"api-version": "2023-04-01"},
                json=body,
                headers={"Authorization": f"Bearer {token}"},
            )
            if response.status_code == 200:
                return response.json()
            if response.status_code in (401, 403, 404):
                raise UserError(
                    f"{self._client.base_url} answered {response.status_code}: check language_endpoint, and that the "
                    "identity of the compute has the role Cognitive Services User"
                )
            if response.status_code != 429 and response.status_code < 500:
                break
            wait = response.headers.get("Retry-After", "")
            time.sleep(min(float(wait) if wait.isdigit() else 2**attempt, self._MAX_WAIT_SECONDS))
        raise RuntimeError(f"Azure AI Language answered {response.status_code}")


def load(name: str, spacy_models: str, language_endpoint: str | None) -> NameRecognizer | None:
    """The recognizer that the inputs name; ``UserError`` when it cannot work, before anything is written."""
    if name == "none":
        return None
    if name == "azure_ai_language":
        if not language_endpoint:
            raise UserError("name_recognizer azure_ai_language needs language_endpoint")
        return AzureAILanguage(language_endpoint)
    models = dict(part.strip().partition("=")[::2] for part in spacy_models.split(",") if part.strip())
    if not models or not all(models.values()):
        raise UserError(f"spacy_models {spacy_models!r} is not like en=en_core_web_lg,ja=ja_ginza")
    return Presidio(models)
