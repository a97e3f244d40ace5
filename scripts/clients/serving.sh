# Servers for the scripts that ask some; to be sourced. What was started ends with the script.

place=$(mktemp -d)
started=()

end() {
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    # Nothing is said of those that were killed.
    { wait; } 2>/dev/null
    rm -rf "$place"
}
trap end EXIT

# Starts a server of $program that calls its model `model`, with the flags $@; its address is put into
# `url`, and its number into `started`.
serve() {
    local log=$place/${#started[@]}.log
    "$program" serve --port 0 --alias model "$@" 2>"$log" &
    started+=($!)
    until url=$(sed -n 's/^listening on //p' "$log") && [[ -n $url ]]; do
        kill -0 "${started[-1]}" 2>/dev/null || { cat "$log" >&2; exit 1; }
        sleep 0.1
    done
}
