#!/usr/bin/env bash
# Two servers behind one nginx, one of which is killed in the middle of a search: what the client sends
# again is answered by the other one, with the same bytes.
#
#   scripts/failover.sh PROGRAM [FLAG…]
#
# FLAGS are those of `serve`: a model and a reward, where they are not to be the default ones. Needs
# nginx; the client, openai's for Python, goes into the cache folder.
# Exit codes: 0 it was answered, 1 it was not, 2 wrong usage.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/clients
if (($# < 1)); then
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
if ! command -v nginx >/dev/null; then
    echo "failover: no nginx; on Debian: apt-get install nginx" >&2
    exit 2
fi
program=$1
shift

source "$here/packages.sh"
source "$here/serving.sh"
serve "$@"
first=$url
serve "$@"
second=$url
listen=$(python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print("127.0.0.1:%d" % s.getsockname()[1])')
sed "s|@PLACE@|$place|; s|@FIRST@|${first#http://}|; s|@SECOND@|${second#http://}|; s|@LISTEN@|$listen|" \
    "$here/nginx.conf" >"$place/nginx.conf"
nginx -p "$place" -c "$place/nginx.conf" -e "$place/nginx.log" &
started+=($!)
python "$here/failover.py" "http://$listen" "${started[0]}" "$first" "${started[1]}" "$second"
