#!/usr/bin/env bash
# Feed every parser with what libFuzzer makes, FUZZ_SECONDS each (60), from the inputs that fuzz/seeds.py
# writes and from fuzz/corpus/TARGET, which grows. FUZZ_TARGETS names the targets, all if not set; with
# FUZZ_FEATURES= (empty) only those that need no llama.cpp. What breaks is kept in fuzz/artifacts.
#
# Stable Rust does: the options below are those of cargo-fuzz without a sanitizer. FUZZ_SANITIZER=address
# takes the nightly one, and finds what is wrong with the memory as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly SECONDS_EACH=${FUZZ_SECONDS:-60}
readonly FEATURES=${FUZZ_FEATURES-engine}
readonly SANITIZER=${FUZZ_SANITIZER:-}
host=$(rustc -vV | sed -n 's/^host: //p')
folder=${CARGO_TARGET_DIR:-target}/fuzz$SANITIZER
targets=${FUZZ_TARGETS:-$(sed -n 's/^name = "\([a-z]*\)"$/\1/p' fuzz/Cargo.toml)}
[[ -n $FEATURES ]] || targets=${FUZZ_TARGETS:-gguf plugin}

# The processor's own instructions, as in .cargo/config.toml: the llama.cpp of the program's own build.
flags="-Ctarget-cpu=native --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
flags+=" -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1"
build=(cargo)
if [[ -n $SANITIZER ]]; then
    build+=(+nightly)
    flags+=" -Zsanitizer=$SANITIZER"
fi
build+=(build --release --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$folder")
build+=(--no-default-features --features "$FEATURES")
for name in $targets; do
    build+=(--bin "$name")
done
# The versions that the program is built of.
cp Cargo.lock fuzz/Cargo.lock
RUSTFLAGS=$flags "${build[@]}"

seeds=$(mktemp -d)
trap 'rm -rf "$seeds"' EXIT
"${PYTHON:-python3}" fuzz/seeds.py "$seeds"
# Where there is a disk in memory, files need not go to the other one.
[[ -n ${TMPDIR:-} || ! -w /dev/shm ]] || export TMPDIR=/dev/shm
mkdir -p fuzz/artifacts
failed=()
for name in $targets; do
    mkdir -p "fuzz/corpus/$name"
    echo "== $name"
    "$folder/$host/release/$name" "fuzz/corpus/$name" "$seeds/$name" -max_total_time="$SECONDS_EACH" \
        -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=600 -max_len=8192 -print_final_stats=1 \
        -artifact_prefix="fuzz/artifacts/$name-" -verbosity=0 -print_funcs=0 || failed+=("$name")
done
if ((${#failed[@]})); then
    echo "fuzz: ${failed[*]}: see fuzz/artifacts" >&2
    exit 1
fi
