# The packages of the clients, into the cache folder; to be sourced. Puts their folder into `packages`.

packages=${AISP_LLAMA_CLIENTS:-${XDG_CACHE_HOME:-$HOME/.cache}/aisp-llama/clients}
mkdir -p "$packages"
if [[ ! -x $packages/venv/bin/llm ]]; then
    "${PYTHON:-python3}" -m venv "$packages/venv"
    "$packages/venv/bin/pip" install --quiet openai langchain-openai litellm llm
fi
if [[ ! -d $packages/node_modules/@ai-sdk/openai-compatible ]]; then
    (cd "$packages" && npm install --no-audit --no-fund --silent openai ai @ai-sdk/openai-compatible)
fi
export PATH="$packages/venv/bin:$PATH" NO_PROXY=127.0.0.1,localhost
