"""Keys and values of a batch that rows leave and enter while it runs.

All rows end in the same column, so a short row has unused columns on its left, as in a left-padded batch. A new token
is written in place, where `transformers.DynamicCache` copies all that it holds for each.
"""

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

SPARE_COLUMNS = 64


class BatchCache(Cache):
    """The next forward sees and extends ``rows`` from column ``first`` to ``end``.

    ``sliding_windows`` has the window of each layer, or None for a layer that attends to everything.
    """

    def __init__(self, sliding_windows: list[int | None], max_rows: int) -> None:
        self.max_rows, self.capacity = max_rows, 0
        self.rows = slice(0, max_rows)
        self.first = self.end = 0
        super().__init__(layers=[_Layer(self, window) for window in sliding_windows])

    def reserve(self, width: int, more: int) -> None:
        """Have ``width`` columns before ``end`` and ``more`` after it."""
        if self.end >= width and self.end + more <= self.capacity:
            return
        held = self.end - self.first
        width = max(width, held)
        self.capacity = width + more + SPARE_COLUMNS
        for layer in self.layers:
            layer.move(slice(self.first, self.end), slice(width - held, width))
        self.first, self.end = width - held, width

    def place(self, row: int, prefix: "BatchCache", length: int) -> None:
        """Copy the first tokens that ``prefix`` holds in its one row to the columns of ``row`` before ``end``."""
        for layer, other in zip(self.layers, prefix.layers, strict=True):
            layer.place(row, slice(self.end - length, self.end), other, slice(prefix.first, prefix.first + length))

    def overwrite(self, row: int, by: int) -> None:
        for layer in self.layers:
            layer.overwrite(row, by)


class _Layer(CacheLayerMixin):
    def __init__(self, batch: BatchCache, sliding_window: int | None) -> None:
        super().__init__()
        self._batch, self._window, self.is_sliding = batch, sliding_window, sliding_window is not None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = self._zeros(key_states), self._zeros(value_states)
        self.is_initialized = True

    def _zeros(self, like: torch.Tensor) -> torch.Tensor:
        # Not just any content, because what is masked takes part in the product with the weight 0.
        return like.new_zeros(self._batch.max_rows, like.shape[1], self._batch.capacity, like.shape[3])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        batch, first = self._batch, self._first_seen()
        end = batch.end + key_states.shape[2]
        self.keys[batch.rows, :, batch.end : end] = key_states
        self.values[batch.rows, :, batch.end : end] = value_states
        return self.keys[batch.rows, :, first:end], self.values[batch.rows, :, first:end]

    def _first_seen(self) -> int:
        if self._window is None:
            return self._batch.first
        return max(self._batch.first, self._batch.end + 1 - self._window)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        first = self._first_seen()
        return self._batch.end + query_length - first, first - self._batch.first

    def get_seq_length(self) -> int:
        return self._batch.end - self._batch.first

    def get_max_length(self) -> int:
        return -1

    def move(self, source: slice, target: slice) -> None:
        if self.is_initialized:
            keys, values = self.keys, self.values
            self.lazy_initialization(keys, values)
            self.keys[:, :, target], self.values[:, :, target] = keys[:, :, source], values[:, :, source]

    def place(self, row: int, target: slice, other: "_Layer", source: slice) -> None:
        if not self.is_initialized:
            self.lazy_initialization(other.keys, other.values)
        self.keys[row, :, target] = other.keys[0, :, source]
        self.values[row, :, target] = other.values[0, :, source]

    def overwrite(self, row: int, by: int) -> None:
        columns = slice(self._batch.first, self._batch.end)
        self.keys[row, :, columns] = self.keys[by, :, columns]
        self.values[row, :, columns] = self.values[by, :, columns]
