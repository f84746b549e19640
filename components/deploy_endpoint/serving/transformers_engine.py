"""A model of Transformers in float32, for what has no ONNX build."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines import Engine, Turns, UnusableModelError

if TYPE_CHECKING:
    import torch


class TransformersEngine(Engine):
    def __init__(self, folder: Path, num_threads: int | None = None) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        if num_threads:
            torch.set_num_threads(num_threads)
        try:
            model, found = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # Transformers raises errors of many kinds
            raise UnusableModelError(
                f"{folder}: the model cannot be loaded ({type(error).__name__}: {error})"
            ) from error
        if missing := sorted(found["missing_keys"]):  # for which Transformers draws random numbers
            raise UnusableModelError(f"{folder}: {len(missing)} weights of the model are missing, such as {missing[0]}")
        self._model = model.eval()
        positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        super().__init__(folder, positions or 2**31, model.get_input_embeddings().num_embeddings)
        ends = model.generation_config.eos_token_id
        self._ends = {*(ends if isinstance(ends, list) else [ends]), self._tokenizer.eos_token_id}
        self._turns = Turns()

    def stream(
        self,
        token_ids: Sequence[int],
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
    ) -> Iterator[int]:
        import torch

        random = torch.Generator()
        random.seed() if seed is None else random.manual_seed(seed)
        new, cache = torch.tensor([list(token_ids)], device=self._model.device), None
        for _ in range(max_new_tokens):
            # Around each step and not around them all: the mode belongs to the thread, which has other work between.
            with self._turns, torch.inference_mode():
                out = self._forward(new, past_key_values=cache, use_cache=True, logits_to_keep=1)
                cache = out.past_key_values
                token_id = _next_token(out.logits[0, -1].cpu(), temperature, top_p, random)
            if token_id in self._ends:
                return
            yield token_id
            new = torch.tensor([[token_id]], device=self._model.device)

    def _forward(self, *args: Any, **options: Any) -> Any:
        """One step of the model, by whoever has the turn."""
        return self._model(*args, **options)


def _next_token(logits: "torch.Tensor", temperature: float, top_p: float, random: "torch.Generator") -> int:
    import torch

    if temperature == 0:
        return int(logits.argmax())
    likeliest_first, token_ids = torch.sort((logits / temperature).softmax(-1), descending=True)
    before = likeliest_first.cumsum(-1) - likeliest_first
    likeliest_first[before >= top_p] = 0  # the smallest set of tokens that comes to top_p
    likeliest_first[0] = likeliest_first[0].clamp(min=1e-9)  # which always holds the likeliest
    return int(token_ids[torch.multinomial(likeliest_first, 1, generator=random)])
