#!/usr/bin/env bash
# The whole loop on this machine: raw documents -> chats -> fine-tuned model -> evaluation -> gate -> registry.
# Flags go to scripts/run.py, for example: --set inputs.raw_data.path=my/documents (a path from where you are)
set -euo pipefail
repository="$(cd "$(dirname "$0")/.." && pwd)"
"$repository/scripts/setup.sh"
exec "$repository/.venv/bin/python" "$repository/scripts/run.py" \
  --file "$repository/pipelines/jobs/demo.yml" --root "$repository/.local" "$@"
