#!/usr/bin/env bash
# Everything that has to hold before a change lands. Flags go to pytest, for example: -m "not slow"
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/python scripts/compile.py --check
.venv/bin/python scripts/catalogue.py --check
.venv/bin/python scripts/lint.py
# As many tests side by side as there are cores, so one thread each; the tests of a file share what it sets up.
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder "$@"
