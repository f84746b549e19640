"""A model of ONNX Runtime GenAI, as quantize_model builds it for CPUs."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from engines import Engine, Turns, UnusableModelError

# What the folder says of search is how somebody sampled once; the request alone says how this endpoint does.
SEARCH = {"num_beams": 1, "top_k": 0, "repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0}

# A prompt is read in parts: each makes a row of the whole vocabulary for each of its tokens, and holds up the others.
CHUNK_TOKENS = 128


class OnnxEngine(Engine):
    def __init__(self, folder: Path, num_threads: int | None = None) -> None:
        import onnxruntime_genai

        self._genai = onnxruntime_genai
        onnxruntime_genai.disable_telemetry_events()
        try:
            settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))["model"]
            config = onnxruntime_genai.Config(str(folder))
            if num_threads:
                session = {"session_options": {"intra_op_num_threads": num_threads}}
                config.overlay(json.dumps({"model": {"decoder": session}}))
            self._model = onnxruntime_genai.Model(config)
            super().__init__(folder, settings["context_length"], settings["vocab_size"])
        except (RuntimeError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise UnusableModelError(f"{folder}: no model of ONNX Runtime GenAI ({error})") from error
        ends = settings["eos_token_id"]
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
        import numpy as np

        sampling = {"do_sample": temperature > 0}
        if temperature > 0:
            sampling |= {"temperature": temperature, "top_p": top_p}
            sampling |= {} if seed is None else {"random_seed": seed % 2**31}
        params = self._genai.GeneratorParams(self._model)
        params.set_search_options(max_length=len(token_ids) + max_new_tokens, **SEARCH, **sampling)
        generator = self._genai.Generator(self._model, params)
        for start in range(0, len(token_ids), CHUNK_TOKENS):
            with self._turns:
                generator.append_tokens(np.array(token_ids[start : start + CHUNK_TOKENS], dtype=np.int32))
        for _ in range(max_new_tokens):
            with self._turns:
                generator.generate_next_token()
                token_id = int(generator.get_next_tokens()[0])
            if token_id in self._ends:
                return
            yield token_id
