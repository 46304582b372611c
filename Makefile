# Every target installs what it needs first. `make` lists them.

# The lab's network namespaces and AF_XDP need root; with sudo, programs keep this environment.
ifeq ($(shell id -u),0)
SUDO :=
else
SUDO := sudo -E
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p' | tr a-z- A-Z_)
# cargo and nextest start the programs that they build through this.
export CARGO_TARGET_$(HOST)_RUNNER := $(SUDO)
endif

# rustup's installer adds this to the PATH of the next login only.
export PATH := $(PATH):$(HOME)/.cargo/bin:/usr/sbin:/sbin

# Crates that must build where there is no operating system: no clock, no thread, no socket.
NO_OS := -p lockstep-wire -p lockstep-plan -p lockstep-core

# Tests have dependencies of their own, which turn on features of those that the programs have too. What is
# built with tests and without them is built twice, with everything that stands on it: so programs are
# built together with tests, and documentation (which has no tests; --examples does the same) as well.

# Draws the figures and writes the pages of results; those of short runs beside these, which root wrote.
REPORT = $(if $(QUICK),$(SUDO)) target/release/lockstep-perf report $(if $(QUICK),--quick)

# Seconds that each fuzz target runs.
FUZZ_SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help deps build deb test test-long gate lint demo bench bench-replicate compare experiments model fuzz

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

deps: ## install what building and testing need (Debian packages, cargo-nextest)
	@scripts/deps.sh

build: deps ## build every program, optimized, into target/release
	cargo build --locked --release --workspace --bins

deb: build ## write the Debian package, into target/debian
	scripts/deb.sh release

test: deps lint gate ## lint, count instructions, then pass every test: units, properties, scenarios in the lab
	cargo build --locked --workspace --bins --tests
	cargo test --locked --quiet --workspace --doc
	cargo nextest run --locked --workspace

test-long: deps ## every test and the ignored ones, with 10,000 cases of each property
	cargo build --locked --workspace --bins --tests
	cargo build --locked --release --package lockstep-ctl --bins
	LOCKSTEP_PROGRAMS=$(CURDIR)/target/release PROPTEST_CASES=10000 cargo nextest run --locked --workspace --profile long --run-ignored all

gate: deps ## count the packet paths' instructions, and fail where one grew, or shrank (UPDATE=1: accept it)
	cargo build --locked --profile gate -p lockstep-counts
	target/gate/lockstep-counts $(if $(UPDATE),update,gate) perf/baseline.json \
		$(if $(UPDATE),,$(if $(SKIP_OTHER_ARCHITECTURES),--skip-other-architectures))

lint: deps ## formatting, clippy, documentation, and the crates that know no operating system
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" \
		cargo doc --locked --quiet --workspace --no-deps --lib --bins --examples
	cargo check --locked --target x86_64-unknown-none $(NO_OS)

demo: deps ## show real HTTP traffic through a virtual IP, and a download whose server is killed
	cargo build --locked --release --workspace --bins
	$(SUDO) target/release/lockstep-demo

bench: deps ## measure the dataplane and the replicator in memory, into perf/results
	cargo build --locked --release -p lockstep-perf
	target/release/lockstep-perf core
	target/release/lockstep-perf session
	$(REPORT)

compare: deps ## measure beside nftables, HAProxy, nginx, and forwarding alone (QUICK=1: briefly)
	cargo build --locked --release -p lockstep-perf -p lockstep-engine -p lockstep-ctl
	$(SUDO) target/release/lockstep-perf compare $(if $(QUICK),--quick); status=$$?; $(REPORT) && exit $$status

bench-replicate: deps ## measure replicated sessions beside HAProxy, into perf/results
	cargo build --locked --release -p lockstep-perf -p lockstep-engine -p lockstep-ctl
	target/release/lockstep-perf session
	$(SUDO) target/release/lockstep-perf replicate
	$(REPORT)

experiments: deps ## repeat the evaluations of the systems that Lockstep follows (QUICK=1: briefly)
	cargo build --locked --release -p lockstep-perf -p lockstep-engine -p lockstep-ctl
	$(SUDO) target/release/lockstep-perf experiments $(if $(QUICK),--quick); status=$$?; $(REPORT) && exit $$status

model: deps ## reckon how many hosts a load takes, and simulate balancers and backends that come and go (QUICK=1)
	cargo build --locked --release -p lockstep-perf
	target/release/lockstep-perf model $(if $(QUICK),--quick)
	$(REPORT)

fuzz: deps ## run each fuzz target for FUZZ_SECONDS (60); needs a nightly toolchain
	scripts/fuzz.sh $(FUZZ_SECONDS)
