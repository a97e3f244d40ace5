# `make demo` and `make test` work from a fresh clone; `make help` lists the rest.
#
# Models, packages and build output live in one cache folder outside the
# checkout: $XDG_CACHE_HOME/aisp-llama, else ~/.cache/aisp-llama.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/aisp-llama
CARGO_TARGET_DIR ?= $(CACHE)/target
PYTHON ?= python3
export CARGO_TARGET_DIR DESTDIR PYTHON

# What `make demo` runs; both can be set on the command line.
DEMO_PROMPT ?= Write one sentence reviewing a movie about a lost dog.
DEMO_ARGS ?= --samples 16 --iterations 8 -n 32 -s 1
export DEMO_PROMPT

# What the film-review head says of itself.
HEAD_DESCRIPTION := 'sentiment of film reviews, response alone; not a preference or helpfulness model'

# Looked up when a recipe runs, as the set-up may just have installed ccache.
with_ccache = if command -v ccache >/dev/null 2>&1; then \
	export CMAKE_C_COMPILER_LAUNCHER="$${CMAKE_C_COMPILER_LAUNCHER:-ccache}" \
	       CMAKE_CXX_COMPILER_LAUNCHER="$${CMAKE_CXX_COMPILER_LAUNCHER:-ccache}"; fi;

# Where `make install` puts the sampler plugin.
PREFIX ?= /usr/local
DESTDIR ?=
PLUGIN := --release --lib --no-default-features --features plugin
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)

.DEFAULT_GOAL := help
.PHONY: help demo test damaged storm soak clients module fuzz sanitize miri deny build bench performance lint \
	plugin install install-program wheel setup tools head figures

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

demo: setup ## set up, build, and answer one prompt plainly, by best-of-n, and aligned
	@$(with_ccache) cargo build --release
	@for method in greedy best-of-n search; do \
		echo; echo "== $$method: $$DEMO_PROMPT"; \
		"$(CARGO_TARGET_DIR)/release/aisp-llama" run --method $$method -p "$$DEMO_PROMPT" \
			$(DEMO_ARGS) || exit; \
	done

test: ## set up with the test models as well, and run all tests
	@scripts/setup.sh test
	@"$(PYTHON)" scripts/fetch_models.py --for test
	@$(with_ccache) cargo test --release
	cargo test $(PLUGIN)

build: tools ## build the program
	@$(with_ccache) cargo build --release

damaged: tools ## run the program on some 1,500 damaged models, and count how it ends
	@$(with_ccache) AISP_LLAMA_DAMAGED=all cargo test --release --test cli damaged::whatever -- --nocapture

storm: tools ## run the program with 10,000 random command lines and 2,000 random inputs
	@$(with_ccache) AISP_LLAMA_STORM=all cargo test --release --test cli storm:: -- --nocapture

soak: ## kill comparisons, watch memory, rubbish for a server: an hour; SOAK_MINUTES of each, 20 if not set
	@$(with_ccache) cargo test --release --test soak -- --test-threads 1 --nocapture
	@$(with_ccache) SOAK_MINUTES="$${SOAK_MINUTES:-20}" cargo test --release --test server soak -- --nocapture

clients: setup build ## six usual clients against the server, and two servers behind nginx
	@scripts/setup.sh clients
	scripts/clients.sh "$(CARGO_TARGET_DIR)/release/aisp-llama" --samples 4 --iterations 3
	scripts/failover.sh "$(CARGO_TARGET_DIR)/release/aisp-llama"

module: setup build ## build the Python wheel, and test it in an environment of its own
	@$(with_ccache) scripts/module.sh

fuzz: tools ## feed every parser with what a fuzzer makes, FUZZ_SECONDS each, 60 if not set
	@$(with_ccache) scripts/fuzz.sh

sanitize: ## misuse the C interface under sanitizers; needs nightly Rust with rust-src
	@for sanitizer in address thread; do \
		$(with_ccache) AISP_LLAMA_SANITIZER=$$sanitizer \
			cargo test --release --test plugin misuse:: -- --skip leak || exit; \
	done

# Left out is what only counts, or copies, at great length.
miri: ## interpret the tests of what has no llama.cpp; needs nightly Rust with miri
	MIRIFLAGS='-Zmiri-deterministic-floats -Zmiri-disable-isolation' cargo +nightly miri test --lib --no-default-features -- \
		gguf:: control:: --skip the_gain_is_that_of_a_simulation \
		--skip a_linear_reward_is_explained_and_noise_is_not --skip training_beats_the_constant \
		--skip arrays_longer_than_a_read_chunk

deny: ## check licences, advisories and sources of the dependencies; needs cargo-deny and GitHub
	cargo deny check

bench: setup ## run the benchmarks
	@$(with_ccache) cargo bench --bench aisp

performance: tools ## measure what generation costs, into docs/performance.md; an idle machine's hour
	@"$(PYTHON)" scripts/fetch_models.py --for figures
	@$(with_ccache) cargo bench --bench performance

lint: tools ## check format, clippy and documentation, without warnings
	cargo fmt --check
	@$(with_ccache) cargo clippy --release --all-targets -- -D warnings
	cargo clippy $(PLUGIN) -- -D warnings
	@cp Cargo.lock fuzz/Cargo.lock
	@$(with_ccache) cargo clippy --release --manifest-path fuzz/Cargo.toml -- -D warnings
	@$(with_ccache) RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps

plugin: ## build the sampler plugin, a library without llama.cpp inside
	cargo rustc $(PLUGIN) --crate-type cdylib,staticlib --target-dir "$(CARGO_TARGET_DIR)/plugin"

install-program: build ## install the program under PREFIX, with its manual pages and completions
	@scripts/install_program.sh "$(CARGO_TARGET_DIR)/release/aisp-llama" "$(PREFIX)"

wheel: tools ## build the Python wheel, the program inside, into dist/
	@$(with_ccache) PYTHON="$(PYTHON)" scripts/wheel.sh dist

install: plugin ## install the sampler plugin under PREFIX, with its headers
	@scripts/install_plugin.sh "$(CARGO_TARGET_DIR)/plugin/release" "$(PREFIX)" "$(VERSION)"

figures: tools ## run every comparison that docs/ shows, some hours on two cores
	@"$(PYTHON)" scripts/fetch_models.py --for figures
	@$(with_ccache) cargo build --release --bins --example theory --example pre_logits
	@scripts/figures.sh "$(CARGO_TARGET_DIR)/release/aisp-llama"

setup: tools ## install missing tools, fetch the demo's models
	@"$(PYTHON)" scripts/fetch_models.py --for demo

tools: ## check the build tools, install missing ones where possible
	@scripts/setup.sh tools

head: build ## train the film-review reward head again, build the reward model
	@"$(PYTHON)" scripts/film_reviews.py --data "$(CACHE)/training/reviews.jsonl" \
		--backbone "$(CACHE)/training/minilm-f16.gguf"
	"$(CARGO_TARGET_DIR)/release/aisp-llama" reward train -m "$(CACHE)/training/minilm-f16.gguf" \
		--data "$(CACHE)/training/reviews.jsonl" --reward-text '{response}' \
		--description $(HEAD_DESCRIPTION) -o scripts/film_review_head.safetensors
	@"$(PYTHON)" scripts/fetch_models.py --for demo
