#!/usr/bin/env bash
# Builds what is handed out for x86-64 Linux, into a folder:
#
#   scripts/dist.sh DIRECTORY [dynamic|static|deb…]
#
#   dynamic   a tarball whose program loads, at run time, the kernels that fit the processor
#   static    a tarball of one file that needs glibc and libgcc alone, for processors with AVX2
#   deb       a Debian package of the first
#
# With each come the sampler plugin, manual pages, completions, the licences of all that is inside and a
# bill of materials.
set -euo pipefail

into=$(realpath -m "$1")
shift
cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-target}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
mkdir -p "$into"

command -v patchelf >/dev/null || {
    echo "dist.sh: patchelf is missing; install it" >&2
    exit 1
}

# A tool of cargo's by its name, made with these flags.
tool() {
    command -v "$1" >/dev/null || cargo install --locked "$@"
}

# The licences of all crates and of llama.cpp, which take minutes to find, once for each Cargo.lock.
licences() {
    local out=$target/dist-licences.md
    [ ! "$out" -nt Cargo.lock ] || return 0
    tool cargo-about --features cli
    cargo about generate --offline --fail -c scripts/about.toml scripts/licences.hbs >"$out.part"
    local llama
    llama=$(cargo metadata --format-version 1 --offline | "${PYTHON:-python3}" -c 'import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "llama-cpp-sys-2":
        print(package["manifest_path"].removesuffix("Cargo.toml") + "llama.cpp")')
    {
        printf '\n## llama.cpp\n\n```text\n'
        cat "$llama/LICENSE"
        printf '```\n\nlibgomp.so.1, where it is beside the program: GPL-3.0 with the GCC Runtime Library Exception.\n'
    } >>"$out.part"
    mv "$out.part" "$out"
}

# What goes with each of them: into the folder $1, made by the program $2.
beside() {
    install -d "$1/share/man/man1" "$1/share/bash-completion/completions" \
        "$1/share/zsh/site-functions" "$1/share/fish/vendor_completions.d" "$1/share/doc/aisp-llama"
    "$2" man "$1/share/man/man1"
    "$2" completions bash >"$1/share/bash-completion/completions/aisp-llama"
    "$2" completions zsh >"$1/share/zsh/site-functions/_aisp-llama"
    "$2" completions fish >"$1/share/fish/vendor_completions.d/aisp-llama.fish"
    cp README.md CHANGELOG.md SECURITY.md LICENSE-MIT LICENSE-APACHE "$1/share/doc/aisp-llama/"
    licences
    cp "$target/dist-licences.md" "$1/share/doc/aisp-llama/LICENCES.md"
    tool cargo-cyclonedx
    cargo cyclonedx --format json --override-filename sbom >/dev/null
    mv sbom.json "$1/share/doc/aisp-llama/"
    rm -f python/sbom.json
}

# The sampler plugin, which has no llama.cpp inside, into the folder $1.
plugin() {
    RUSTFLAGS='' cargo rustc --release --lib --no-default-features --features plugin \
        --crate-type cdylib,staticlib --target-dir "$target/dist-plugin"
    scripts/install_plugin.sh "$target/dist-plugin/release" "$1" "$version"
}

# The program with its kernels as libraries, unpacked in the folder $1.
dynamic() {
    local build=$target/dist-dynamic out
    # shellcheck disable=SC2016
    RUSTFLAGS='-C target-cpu=x86-64 -C link-arg=-Wl,-rpath,$ORIGIN/../lib/aisp-llama' \
        cargo build --release --bin aisp-llama --features dynamic-backends --target-dir "$build"
    out=$(find "$build/release/build" -path '*llama-cpp-sys-2-*/out/backends' | head -n 1)
    install -d "$1/bin" "$1/lib/aisp-llama"
    install -m 755 -s "$build/release/aisp-llama" "$1/bin/"
    find "$out" "$(dirname "$out")/lib" -name '*.so*' -exec cp -P {} "$1/lib/aisp-llama/" \;
    strip --strip-unneeded "$1/lib/aisp-llama"/*.so
    # A bare system has no OpenMP; libraries find it beside themselves.
    cp -L "$(cc -print-file-name=libgomp.so.1)" "$1/lib/aisp-llama/"
    find "$1/lib/aisp-llama" -type f -exec patchelf --set-rpath '$ORIGIN' {} \;
    beside "$1" "$1/bin/aisp-llama"
    plugin "$1"
}

static() {
    local build=$target/dist-static
    RUSTFLAGS='-C target-cpu=x86-64-v3' \
        cargo build --release --bin aisp-llama --features static --target-dir "$build"
    install -d "$1/bin"
    install -m 755 -s "$build/release/aisp-llama" "$1/bin/"
    beside "$1" "$1/bin/aisp-llama"
    plugin "$1"
}

# Packs the folder $1, made anew by the function $2.
tarball() {
    local name=aisp-llama-$version-x86_64-linux-$1
    rm -rf "${into:?}/$name"
    "$1" "$into/$name"
    tar -C "$into" --owner=0 --group=0 -czf "$into/$name.tar.gz" "$name"
    echo "$into/$name.tar.gz"
}

[ $# -gt 0 ] || set -- dynamic static deb
for what in "$@"; do
    case $what in
    dynamic | static) tarball "$what" ;;
    deb)
        [ -d "$into/aisp-llama-$version-x86_64-linux-dynamic" ] || tarball dynamic
        tool cargo-deb
        # Where the assets in Cargo.toml are.
        rm -rf dist/root
        mkdir -p dist
        cp -rL "$into/aisp-llama-$version-x86_64-linux-dynamic" dist/root
        rm dist/root/lib/aisp-llama/libgomp.so.1
        gzip -9n dist/root/share/man/man1/*.1
        cargo deb --no-build --no-strip --output "$into/"
        rm -rf dist/root
        ;;
    *)
        echo "dist.sh: no $what; give dynamic, static or deb" >&2
        exit 2
        ;;
    esac
done
