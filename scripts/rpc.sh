#!/usr/bin/env bash
# Whether a model that is spread over two RPC servers on loopback answers as it does here, and what it costs.
#
#   scripts/rpc.sh [PROGRAM]
#
# Without a program one is built with GGML_RPC=ON, in a target folder of its own.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/aisp-llama
model=$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf
if [ $# -gt 0 ]; then
    program=$(realpath "$1")
else
    GGML_RPC=ON cargo build --release --bin aisp-llama --target-dir "${CARGO_TARGET_DIR:-target}/rpc"
    program=$(realpath "${CARGO_TARGET_DIR:-target}/rpc/release/aisp-llama")
fi

work=$(mktemp -d)
servers=()
stop() {
    [ ${#servers[@]} -eq 0 ] || kill "${servers[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap stop EXIT
for port in 50152 50153; do
    "$program" rpc-server --port "$port" -t 1 >/dev/null 2>"$work/$port" &
    servers+=($!)
done
for port in 50152 50153; do
    for _ in $(seq 100); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then break; fi
        sleep 0.1
    done
done

answer() {
    "$program" run -m "$model" --reward 'rule:words=8..12' --samples 8 --iterations 3 -n 24 -s 1 -t 1 --json --candidates 24 \
        -p "Write one sentence about the sea." "$@"
}
for logits in rows graph recompute; do
    answer --logits "$logits" >"$work/here" 2>/dev/null
    answer --logits "$logits" --rpc 127.0.0.1:50152,127.0.0.1:50153 >"$work/there" 2>/dev/null
    python3 - "$logits" "$work/here" "$work/there" <<'PY'
import json
import sys

logits, here, there = sys.argv[1], *(json.load(open(path)) for path in sys.argv[2:])
texts = [[c["text"] for c in run["candidates"]] for run in (here, there)]
same = sum(a == b for a, b in zip(*texts))
seconds = [run["timings"]["total_seconds"] for run in (here, there)]
print(f"--logits {logits}: {same} of {len(texts[0])} candidates have the same text; "
      f"{seconds[1] / seconds[0]:.2f} of the time here")
assert here["response"] == there["response"], (here["response"], there["response"])
PY
done
