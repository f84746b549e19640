"""Embeddings of texts by an OpenAI-compatible endpoint, with the sign-in and the patience of the chat client."""

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import httpx

from slmkit.chat_client import MAX_BACKOFF_SECONDS, MAX_RETRY_AFTER_SECONDS, retry_after_seconds
from slmkit.endpoint_access import Credential, checked_url, on_this_machine, sign_in
from slmkit.errors import UserError

if TYPE_CHECKING:
    import numpy as np

BATCH_SIZE = 128


class EmbeddingEndpoint:
    """``rows = await EmbeddingEndpoint(url, model, auth="azure")(texts)``: a row of length 1 for each text."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        auth: str = "none",
        concurrency: int = 8,
        max_retries: int = 6,
        backoff_seconds: float = 0.5,
        credential: Credential | None = None,
    ) -> None:
        self.base_url, _ = checked_url(base_url)
        url = httpx.URL(self.base_url)
        self._url = url.copy_with(path=f"{url.path.rstrip('/').removesuffix('/embeddings')}/embeddings")
        self._model = model
        self._sign_in = sign_in(self.base_url, auth, credential)
        self._concurrency, self._max_retries = concurrency, max_retries
        self._backoff_seconds = backoff_seconds

    async def __call__(self, texts: Sequence[str]) -> "np.ndarray":
        import numpy as np

        slots = asyncio.Semaphore(self._concurrency)
        async with httpx.AsyncClient(timeout=60.0, trust_env=not on_this_machine(self._url)) as client:

            async def one(batch: Sequence[str]) -> list[list[float]]:
                async with slots:
                    return await self._vectors(client, batch)

            batches = [texts[start : start + BATCH_SIZE] for start in range(0, len(texts), BATCH_SIZE)]
            found = await asyncio.gather(*map(one, batches))
        try:
            rows = np.array([vector for vectors in found for vector in vectors], dtype=np.float32)
            return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
        except (ValueError, TypeError):
            raise UserError(f"{self.base_url}: the embeddings are not vectors of numbers of one length") from None

    async def _vectors(self, client: httpx.AsyncClient, batch: Sequence[str]) -> list[list[float]]:
        for attempt in range(self._max_retries + 1):
            headers = await self._sign_in.headers() if self._sign_in else {}
            try:
                body = {"model": self._model, "input": list(batch)}
                response = await client.post(self._url, json=body, headers=headers)
            except httpx.RequestError as error:
                reason, wait = f"no answer ({type(error).__name__})", None
            else:
                if response.status_code == 200:
                    return self._read(response, len(batch))
                reason = f"HTTP {response.status_code}"
                if response.status_code not in (408, 429) and response.status_code < 500:
                    break
                wait = retry_after_seconds(response.headers)
                if wait and wait > MAX_RETRY_AFTER_SECONDS:
                    break
            if attempt < self._max_retries:
                backoff = min(MAX_BACKOFF_SECONDS, self._backoff_seconds * 2**attempt) * random.uniform(0.5, 1.0)
                await asyncio.sleep(wait or backoff)
        raise UserError(
            f"no embeddings by {self._model!r} from {self.base_url}: {reason}; check embedding_endpoint, "
            "embedding_model and auth, or leave them out to measure without an endpoint"
        )

    def _read(self, response: httpx.Response, num_texts: int) -> list[list[float]]:
        try:
            data = sorted(response.json()["data"], key=lambda item: item["index"])
            vectors = [item["embedding"] for item in data]
        except (ValueError, KeyError, TypeError):
            vectors = []
        if len(vectors) != num_texts:
            raise UserError(f"{self.base_url}: {len(vectors)} embeddings of {num_texts} texts came back")
        return vectors
