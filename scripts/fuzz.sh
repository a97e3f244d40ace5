#!/usr/bin/env bash
# Feeds every parser with what libFuzzer makes, FUZZ_SECONDS each (60), from the corpus in
# fuzz/corpus/TARGET, which grows. FUZZ_TARGETS names the targets, all if not set; FUZZ_FEATURES= (empty)
# leaves out those that need llama.cpp. What breaks is written to fuzz/artifacts.
#
# Stable Rust does: the options below are those of cargo-fuzz without a sanitizer. With the nightly one
# and cargo-fuzz, `cargo +nightly fuzz run TARGET` finds what is wrong with the memory as well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

target=$(rustc -vV | sed -n 's/^host: //p')
folder=${CARGO_TARGET_DIR:-target}/fuzz
flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
flags+=" -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
flags+=" -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1"
targets=${FUZZ_TARGETS:-gguf plugin${FUZZ_FEATURES- texts files}}

build=(cargo build --release --manifest-path fuzz/Cargo.toml --target "$target" --target-dir "$folder")
build+=(--no-default-features --features "${FUZZ_FEATURES-engine}")
for name in $targets; do
    RUSTFLAGS=$flags "${build[@]}" --bin "$name"
    mkdir -p "fuzz/corpus/$name" fuzz/artifacts
    "$folder/$target/release/$name" "fuzz/corpus/$name" -max_total_time="${FUZZ_SECONDS:-60}" \
        -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=600 -max_len=8192 -print_final_stats=1 \
        -artifact_prefix=fuzz/artifacts/ -verbosity=0
done
