#!/usr/bin/env bash
# Six usual clients against a server: plain and searched, streamed and not; and that none of them sends
# a failed search again. Their packages, of pip and npm, go into the cache folder.
#
#   scripts/clients.sh PROGRAM [FLAG…]
#
# FLAGS are those of `serve`: a model and a reward, where they are not to be the default ones.
# Exit codes: 0 all went well, 1 a client did not, 2 wrong usage.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/clients
if (($# < 1)); then
    sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
program=$1
shift

source "$here/packages.sh"
source "$here/serving.sh"
serve --parallel 8 --metrics "$@"
asked=$url
serve --parallel 8 --metrics "$@" --reward command:false
failing=$url

# Node looks for packages beside the program.
cp "$here/node.mjs" "$packages/"
export OPENAI_API_KEY=none LITELLM_LOCAL_MODEL_COST_MAP=True
failed=0
python "$here/python.py" "$asked" model "$failing" || failed=1
node "$packages/node.mjs" "$asked" model "$failing" || failed=1
exit "$failed"
