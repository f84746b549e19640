"""Full-text search in an index of Azure AI Search over its REST interface, signed in without a key."""

import asyncio
import re
from collections.abc import Sequence

import httpx

from slmkit.chat_client import MAX_BACKOFF_SECONDS, MAX_RETRY_AFTER_SECONDS, retry_after_seconds
from slmkit.endpoint_access import checked_url, on_this_machine, sign_in
from slmkit.errors import UserError

API_VERSION = "2024-07-01"
SCOPE = "https://search.azure.com/.default"
MAX_QUERY_CHARS = 2000  # the service takes 1,024 clauses
_INDEX = re.compile(r"[a-z0-9][a-z0-9_-]{0,127}")
_OPERATORS = re.compile(r'[-+|"()*~\\&!^/:\[\]{}?]')  # what the query language would read as more than a word


class AzureSearch:
    """``rows = await AzureSearch(endpoint, index, ...).search(questions, top)``: (document id, text) by rank."""

    def __init__(
        self,
        endpoint: str,
        index: str,
        *,
        id_field: str,
        text_field: str,
        auth: str,
        concurrency: int,
        max_retries: int,
        backoff_seconds: float = 0.5,
    ) -> None:
        shown, _ = checked_url(endpoint)
        if not _INDEX.fullmatch(index):
            raise UserError(f"search_index {index!r} is not the name of an index: lower-case letters, digits, - and _")
        self._url = httpx.URL(
            f"{shown}/indexes('{index}')/docs/search.post.search", params={"api-version": API_VERSION}
        )
        self._sign_in = sign_in(shown, auth, scope=SCOPE)
        self._id_field, self._text_field = id_field, text_field
        self._concurrency, self._max_retries, self._backoff_seconds = concurrency, max_retries, backoff_seconds

    async def search(self, questions: Sequence[str], top: int) -> list[list[tuple[str, str]]]:
        slots = asyncio.Semaphore(self._concurrency)
        async with httpx.AsyncClient(timeout=60.0, trust_env=not on_this_machine(self._url)) as client:

            async def one(question: str) -> list[tuple[str, str]]:
                words = " ".join(_OPERATORS.sub(" ", question)[:MAX_QUERY_CHARS].split())
                if not words:
                    return []
                async with slots:
                    return self._rows(await self._post(client, self._body(words, top)))

            return await asyncio.gather(*map(one, questions))

    def _body(self, words: str, top: int) -> dict[str, object]:
        fields = {"select": f"{self._id_field},{self._text_field}", "searchFields": self._text_field}
        return {"search": words, "queryType": "simple", "searchMode": "any", "top": top, **fields}

    async def _post(self, client: httpx.AsyncClient, body: dict[str, object]) -> httpx.Response:
        for attempt in range(self._max_retries + 1):
            headers = await self._sign_in.headers() if self._sign_in else {}
            try:
                response = await client.post(self._url, json=body, headers=headers)
            except httpx.RequestError as error:
                reason, wait = f"no answer ({type(error).__name__})", None
            else:
                if response.status_code == 200:
                    return response
                reason = f"HTTP {response.status_code} {response.text[:200]}"
                if response.status_code not in (408, 429) and response.status_code < 500:
                    break
                wait = retry_after_seconds(response.headers)
                if wait and wait > MAX_RETRY_AFTER_SECONDS:
                    break
            if attempt < self._max_retries:
                await asyncio.sleep(wait or min(MAX_BACKOFF_SECONDS, self._backoff_seconds * 2**attempt))
        reason = self._sign_in.without_token(reason) if self._sign_in else reason
        raise UserError(
            f"no search at {self._url.copy_with(query=None)}: {reason}; check search_endpoint, search_index, the "
            "fields, and that the identity has the role Search Index Data Reader"
        )

    def _rows(self, response: httpx.Response) -> list[tuple[str, str]]:
        try:
            rows = [(str(row[self._id_field] or ""), row[self._text_field]) for row in response.json()["value"]]
            return [(id, str(text)) for id, text in rows if text]
        except (ValueError, KeyError, TypeError):
            raise UserError(
                f"{self._url.host}: the answer has no rows with {self._id_field} and {self._text_field}; check "
                "search_id_field and search_text_field"
            ) from None
