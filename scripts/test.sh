#!/usr/bin/env bash
# Everything that has to hold before a change lands. Flags go to pytest, for example: -m "not slow"
set -euo pipefail
cd "$(dirname "$0")/.."
./scripts/setup.sh
.venv/bin/ruff check .
.venv/bin/ruff format --check --quiet .
.venv/bin/python scripts/catalogue.py --check
.venv/bin/python scripts/lint.py
# One process more than there are cores, since some tests wait, so one thread each (which nproc would take for one core).
# The tests of a file share what it sets up; the longest come first.
workers=$(($(env -u OMP_NUM_THREADS nproc) + 1))
export OMP_NUM_THREADS=1
exec .venv/bin/python -m pytest --numprocesses $workers --dist loadfile --no-loadscope-reorder "$@"
