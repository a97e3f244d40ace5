#!/usr/bin/env bash
# Installs the program with its manual pages and completions.
#
#   scripts/install_program.sh PROGRAM PREFIX
#
# $DESTDIR goes in front of PREFIX where files are written, for packages.
set -euo pipefail

program=$1
root=${DESTDIR:-}$2

install -d "$root/bin" "$root/share/man/man1" "$root/share/bash-completion/completions" \
    "$root/share/zsh/site-functions" "$root/share/fish/vendor_completions.d"
install -m 755 "$program" "$root/bin/aisp-llama"
"$program" man "$root/share/man/man1"
"$program" completions bash >"$root/share/bash-completion/completions/aisp-llama"
"$program" completions zsh >"$root/share/zsh/site-functions/_aisp-llama"
"$program" completions fish >"$root/share/fish/vendor_completions.d/aisp-llama.fish"
