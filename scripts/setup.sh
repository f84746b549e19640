#!/usr/bin/env bash
# Makes .venv with the pinned packages, once; called by demo.sh and test.sh, harmless to call again.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
  echo "setup.sh: error: $python was not found; install Python 3.11, 3.12 or 3.13, or set PYTHON to its path" >&2
  exit 1
fi
if ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'; then
  echo "setup.sh: error: $("$python" --version) found; Python 3.11, 3.12 or 3.13 is needed: set PYTHON to its path" >&2
  exit 1
fi

lock=scripts/requirements.txt
wanted="$("$python" --version) $(cksum <"$lock")"
if [ "$(cat .venv/installed 2>/dev/null || true)" = "$wanted" ]; then
  exit 0
fi

echo "setup.sh: installing the pinned packages into .venv (once, a few minutes)"
[ -x .venv/bin/python ] || "$python" -m venv --clear .venv
# torch first and alone: a package that needs it would else pull in another build of it.
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$(grep '^torch==' "$lock")"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$lock"
echo "$wanted" >.venv/installed
