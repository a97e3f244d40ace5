#!/usr/bin/env bash
# Builds the wheel: the Python module with the program beside it.
#
#   scripts/wheel.sh DIRECTORY
#
# The program is built first, so that llama.cpp is compiled once for both.
set -euo pipefail

into=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}

cargo build --release
scripts=python/aisp_llama.data/scripts
mkdir -p "$scripts"
trap 'rm -rf python/aisp_llama.data' EXIT
install -m 755 -s "$target/release/aisp-llama" "$scripts/"
"${PYTHON:-python3}" -m pip wheel --no-deps --wheel-dir "$into" ./python
