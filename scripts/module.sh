#!/usr/bin/env bash
# The Python module as a user gets it: its wheel, in an environment of its own, and its tests. At last
# what a reward in Python costs a candidate, beside the same one in the program.
#
#   scripts/module.sh
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/aisp-llama
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
scripts/wheel.sh "$wheels"

"${PYTHON:-python3}" -m venv "$cache/module"
python=$cache/module/bin/python
"$python" -m pip install --quiet --upgrade pytest numpy
"$python" -m pip install --quiet --force-reinstall --no-deps "$wheels"/*.whl
# Both of them are what was just built.
PATH=$cache/module/bin:$PATH "$python" -P -m pytest -q python/tests
"$python" python/tests/overhead.py
