#!/usr/bin/env bash
# Serve the mounted model by vLLM. A model folder with base/ and adapters/NAME/ is a base model with LoRA adapters.
set -euo pipefail
mounted=${AZUREML_MODEL_DIR:?is not set: the folder where Azure ML mounts the model}

# Azure ML mounts the registered folder under its own name: the model is the mounted folder or the one below it.
model=
for folder in "$mounted" "$mounted"/*/; do
  folder=${folder%/}
  if [[ -f $folder/base/config.json || -f $folder/config.json ]]; then
    model=$folder
    break
  fi
done
if [[ -z $model ]]; then
  echo "$mounted: neither config.json nor base/config.json in it or in a folder below; is it a model folder?" >&2
  exit 3
fi

adapters=()
if [[ -f $model/base/config.json ]]; then
  for config in "$model"/adapters/*/adapter_config.json; do
    [[ -f $config ]] || { echo "$model/adapters: no NAME/adapter_config.json; put the LoRA adapters there" >&2; exit 3; }
    folder=$(dirname "$config")
    adapters+=("$(basename "$folder")=$folder")
  done
  model=$model/base
fi

read -ra extra <<<"${SERVE_ARGS:-}"
set -- "$model" --host 0.0.0.0 --port 8000 --served-model-name "${SERVED_MODEL_NAME:-slm}" "${extra[@]}"
if ((${#adapters[@]})); then
  set -- "$@" --lora-modules "${adapters[@]}"
fi
exec vllm serve "$@"
