#!/usr/bin/env bash
# The whole loop on this machine: raw documents -> chats -> fine-tuned model -> evaluation -> gate -> registry.
# Flags go to scripts/run.py, for example: --set inputs.raw_data.path=my/documents
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
exec .venv/bin/python scripts/run.py --file pipelines/jobs/demo.yml "$@"
