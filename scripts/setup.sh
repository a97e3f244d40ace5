#!/usr/bin/env bash
# Check that everything the build and the model set-up need is installed, and
# install what is missing where that needs no question (apt-get, as root or with
# a password-less sudo). Anywhere else, say exactly what to install.
#
#   scripts/setup.sh tools    for building
#   scripts/setup.sh test     for the tests as well
#   scripts/setup.sh clients  for the clients of the server
#
# Exit codes: 0 all there, 1 something is missing, 2 wrong usage.
set -euo pipefail

readonly PYTHON="${PYTHON:-python3}"
readonly CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/aisp-llama"
# Set once ccache, which is optional, could not be installed: not tried again.
readonly NO_CCACHE="$CACHE/.ccache-not-installable"

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# any_exists FILE...: whether one of the files (unmatched globs included) exists.
any_exists() {
    local file
    for file in "$@"; do
        [[ -e $file ]] && return 0
    done
    return 1
}

# has_libclang_in FOLDER...: a name that bindgen loads; libclang-cpp is another library.
has_libclang_in() {
    local folder
    for folder in "$@"; do
        any_exists "$folder"/libclang.so "$folder"/libclang.so.* \
            "$folder"/libclang-[0-9]*.so "$folder"/libclang-[0-9]*.so.* \
            "$folder"/libclang.dylib && return 0
    done
    return 1
}

# has_builtin_headers_in FOLDER...: clang's own stddef.h, without which libclang parses little.
has_builtin_headers_in() {
    local folder
    for folder in "$@"; do
        any_exists "$folder"/clang/*/include/stddef.h && return 0
    done
    return 1
}

# Folders where libclang is looked for, one a line, likeliest first.
library_folders() {
    printf '%s\n' /usr/lib/llvm-*/lib /usr/lib64/llvm*/lib /usr/lib/llvm*/lib64 \
        /usr/lib/llvm/*/lib64 /usr/lib /usr/lib64 /usr/lib/*-linux-gnu* \
        /usr/local/lib /usr/local/lib64 /usr/local/llvm*/lib \
        /usr/local/opt/llvm*/lib /opt/homebrew/opt/llvm*/lib \
        /Library/Developer/CommandLineTools/usr/lib \
        /Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib
    if have "${LLVM_CONFIG_PATH:-llvm-config}"; then
        "${LLVM_CONFIG_PATH:-llvm-config}" --libdir 2>/dev/null || true
    fi
    if have ldconfig; then
        ldconfig -p 2>/dev/null | sed -n 's|.*=> \(.*\)/libclang[-.][^/]*$|\1|p' || true
    fi
}

# Whether bindgen will find libclang and its headers. LIBCLANG_PATH, a folder or
# a file, replaces the search for the library, as it does for bindgen.
libclang_ready() {
    local folder folders=()
    while IFS= read -r folder; do
        [[ -d $folder ]] && folders+=("$folder")
    done < <(library_folders)
    if [[ -n ${LIBCLANG_PATH:-} ]]; then
        folder=$LIBCLANG_PATH
        [[ -f $folder ]] && folder=$(dirname "$folder")
        has_libclang_in "$folder" || return 1
        folders=("$folder" ${folders[@]+"${folders[@]}"})
    fi
    ((${#folders[@]})) || return 1
    has_libclang_in "${folders[@]}" && has_builtin_headers_in "${folders[@]}"
}

python_version_ok() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null
}

# Version and pip in one start of Python, as each start costs tens of milliseconds.
python_with_pip_ready() {
    "$PYTHON" -c '
import importlib.util, sys
sys.exit(sys.version_info < (3, 9) or importlib.util.find_spec("pip") is None)
' 2>/dev/null
}

# missing_tools PURPOSE: what is missing, one a line, under the names package_name knows.
missing_tools() {
    have "${CC:-cc}" || echo cc
    have "${CXX:-c++}" || echo c++
    have make || echo make
    have cmake || echo cmake
    libclang_ready || echo libclang
    if ! python_with_pip_ready; then
        python_version_ok || echo python3
        echo pip
    fi
    have ccache || echo ccache
    if [[ $1 == clients ]]; then
        have nginx || echo nginx
        have node || echo nodejs
        have npm || echo npm
    fi
    [[ $1 == test ]] || return 0
    # What the tests of the plugin build with, and run under, and what runs shards.
    have pkg-config || echo pkg-config
    have parallel || echo parallel
    [[ $(uname) != Linux ]] || have valgrind || echo valgrind
}

# package_name MANAGER TOOL
package_name() {
    case "$1:$2" in
    apt:cc) echo gcc ;;
    apt:c++) echo g++ ;;
    apt:libclang) echo libclang-dev ;;
    apt:pip) echo python3-pip ;;
    dnf:cc) echo gcc ;;
    dnf:c++) echo gcc-c++ ;;
    dnf:libclang) echo clang-devel ;;
    dnf:pip) echo python3-pip ;;
    dnf:pkg-config) echo pkgconf-pkg-config ;;
    pacman:cc | pacman:c++) echo gcc ;;
    pacman:libclang) echo clang ;;
    pacman:pip) echo python-pip ;;
    pacman:pkg-config | brew:pkg-config) echo pkgconf ;;
    pacman:python3) echo python ;;
    brew:cc | brew:c++ | brew:libclang) echo llvm ;;
    brew:pip | brew:python3) echo python ;;
    *) echo "$2" ;;
    esac
}

# package_names MANAGER TOOL...: on one line, each once.
package_names() {
    local manager=$1 tool name names=''
    shift
    for tool in "$@"; do
        name=$(package_name "$manager" "$tool")
        [[ " $names " == *" $name "* ]] || names="$names $name"
    done
    echo "${names# }"
}

explain_missing() {
    say "missing: $*"
    say "  Debian, Ubuntu   apt-get install $(package_names apt "$@")"
    say "  Fedora           dnf install $(package_names dnf "$@")"
    say "  Arch             pacman -S $(package_names pacman "$@")"
    say "  macOS, Homebrew  brew install $(package_names brew "$@")"
    case " $* " in
    *' libclang '*) say "libclang elsewhere? Set LIBCLANG_PATH to the folder that holds it." ;;
    esac
    case " $* " in
    *' pip '*) say "pip is looked for in $(command -v "$PYTHON" || echo "$PYTHON"); Python must be 3.9 or newer; PYTHON names another." ;;
    esac
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi
}

can_install() {
    have apt-get || return 1
    ((EUID == 0)) || { have sudo && sudo -n true 2>/dev/null; }
}

APT_UPDATED=no
# apt_install PACKAGE...: without questions; refreshes the package lists once.
apt_install() {
    say "installing with apt-get: $*"
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    if [[ $APT_UPDATED == no ]]; then
        as_root "${apt[@]}" update >&2 || say "apt-get update failed; trying with the lists there are"
        APT_UPDATED=yes
    fi
    as_root "${apt[@]}" install -y --no-install-recommends "$@" >&2 </dev/null
}

# required TOOL...: all but ccache, one a line.
required() {
    local tool
    for tool in "$@"; do
        [[ $tool == ccache ]] || echo "$tool"
    done
}

# check_tools PURPOSE: what the build needs, and for `test` the tests, for `clients` those.
check_tools() {
    local purpose=$1 missing needed packages
    if ! have cargo; then
        say "missing: cargo. Install Rust 1.89 or newer with rustup, and have cargo on the PATH."
        return 1
    fi
    read -ra missing <<<"$(missing_tools "$purpose" | tr '\n' ' ')"
    ((${#missing[@]})) || return 0

    read -ra needed <<<"$(required "${missing[@]}" | tr '\n' ' ')"
    if ((${#needed[@]})); then
        if can_install; then
            read -ra packages <<<"$(package_names apt "${needed[@]}")"
            apt_install "${packages[@]}" || say "apt-get could not install everything"
            hash -r
            read -ra missing <<<"$(missing_tools "$purpose" | tr '\n' ' ')"
            read -ra needed <<<"$(required ${missing[@]+"${missing[@]}"} | tr '\n' ' ')"
        fi
        if ((${#needed[@]})); then
            explain_missing "${needed[@]}"
            return 1
        fi
    fi
    offer_ccache
}

# ccache only saves time when llama.cpp is compiled again: never an error.
offer_ccache() {
    have ccache || [[ -e $NO_CCACHE ]] && return 0
    if can_install && apt_install ccache; then
        return 0
    fi
    say "note: without ccache, compiling llama.cpp a second time takes minutes again"
    mkdir -p "$CACHE" && : >"$NO_CCACHE"
}

# The crates for this platform, those of the Python package among them: cargo says nothing of any of
# them without the network while one is missing, and build script and tests ask it for llama.cpp's place.
fetch_crates() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p')
    cargo fetch --quiet --locked --target "$host" ||
        say "note: not all crates could be fetched; cargo will ask for those that it builds"
}

case "${1:-}" in
tools | test | clients)
    check_tools "$1"
    fetch_crates
    ;;
*)
    echo "usage: scripts/setup.sh tools|test|clients" >&2
    exit 2
    ;;
esac
