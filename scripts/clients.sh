#!/usr/bin/env bash
# Six usual clients against a running server: plain and searched, streamed and not; and that none of
# them sends a failed search again. Their packages go into the cache folder.
#
#   scripts/clients.sh URL MODEL [FAILING_URL]
#
# URL is that of a server without a key, such as http://127.0.0.1:8080; MODEL what it calls its plain
# model; FAILING_URL that of one whose reward fails (--reward command:false), with --metrics, and the
# same model.
# Exit codes: 0 all went well, 1 a client did not, 2 wrong usage.
set -euo pipefail

readonly PYTHON="${PYTHON:-python3}"
readonly HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/clients"
readonly PLACE="${AISP_LLAMA_CLIENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/aisp-llama/clients}"

if (($# < 2 || $# > 3)); then
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi

mkdir -p "$PLACE"
if [[ ! -x $PLACE/venv/bin/llm ]]; then
    "$PYTHON" -m venv "$PLACE/venv"
    "$PLACE/venv/bin/pip" install --quiet openai langchain-openai litellm llm
fi
if [[ ! -d $PLACE/node_modules/@ai-sdk/openai-compatible ]]; then
    (cd "$PLACE" && npm install --no-audit --no-fund --silent openai ai @ai-sdk/openai-compatible)
fi

# Node looks for packages beside the program.
cp "$HERE"/node.mjs "$PLACE"/
failed=0
export PATH="$PLACE/venv/bin:$PATH" NO_PROXY=127.0.0.1,localhost OPENAI_API_KEY=none LITELLM_LOCAL_MODEL_COST_MAP=True
python "$HERE/python.py" "$@" || failed=1
node "$PLACE/node.mjs" "$@" || failed=1
exit "$failed"
