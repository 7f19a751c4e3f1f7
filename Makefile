# What the README names. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up dist image test soak fuzz lint fmt bench models onnx-support deny components onnxruntime clients onnx-cases rust target cc redis binaryen mlflow oci-registry

# Host builds name the whole workspace: features are then the same in each, and nothing is built twice.
GUEST_TARGET := wasm32-wasip2
EXAMPLES := $(addprefix --package ,generic-model ab-router iris-classifier diabetes-regressor digits-classifier language-identifier)
say = @printf '\033[1m==> %s\033[0m\n' $(1)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

up: components onnxruntime ## build everything and serve the example application on 127.0.0.1:3000
	$(call say,"building the host (about ten minutes the first time)")
	cargo build --release --locked --workspace --bin spinfer
	$(call say,"serving spin.toml; Ctrl-C ends it")
	./target/release/spinfer up

dist: target cc binaryen onnxruntime ## what to hand out: target/dist/spinfer, a tenth quicker and twice as long to build, and smaller components
	$(call say,"building the host (twenty minutes or more)")
	cargo build --profile dist --locked --workspace --bin spinfer
	$(call say,"building the components")
	./target/dist/spinfer build --optimize

# One that works: docker's client may be there without its daemon.
IMAGE_TOOLS ?= docker podman buildah
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
image: ## container images: spinfer (the host) and spinfer-example, by docker, podman or buildah
	@tool=; for each in $(IMAGE_TOOLS); do $$each version >/dev/null 2>&1 && { tool=$$each; break; }; done; \
	test -n "$$tool" || { echo "No image builder works here (tried: $(IMAGE_TOOLS)): apt-get install buildah"; exit 1; }; \
	test $$tool = docker || format="--format docker"; \
	for target in host example; do \
	  name=spinfer$$(test $$target = host || echo -$$target):$(VERSION); \
	  printf '\033[1m==> building %s with %s (half an hour or more the first time)\033[0m\n' $$name $$tool; \
	  $$tool build $${format:-} --file deploy/Containerfile --target $$target \
	    --build-arg VERSION=$(VERSION) --tag $$name . || exit 1; \
	done

test: target cc onnxruntime clients onnx-cases redis binaryen mlflow oci-registry ## build what the tests need, then run them all
	$(call say,"building the host and the tests (about ten minutes the first time)")
	cargo build --locked --workspace --bin spinfer --tests
	$(call say,"testing")
	@if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --workspace; \
	else \
	  echo "cargo-nextest is not installed: using cargo test, which does not end a test that hangs"; \
	  cargo test --workspace --no-fail-fast; \
	fi
	cargo test --workspace --doc

soak: target cc onnxruntime ## everything a client or a guest can do, for SECONDS_OF_SOAK (600): nothing may grow
	$(call say,"building the host and the soak")
	cargo build --release --locked --workspace --bin spinfer --test e2e
	$(call say,"soaking")
	cargo test --release --locked --workspace --test e2e -- --ignored --nocapture memory_descriptors_and_threads_do_not_grow_for_minutes

# Needs no nightly toolchain: coverage comes from stable flags, and no sanitizer is used.
SECONDS_OF_FUZZ ?= 600
fuzz: cc ## every parser of foreign input, each for SECONDS_OF_FUZZ (600) on inputs that reach new code
	@command -v c++ >/dev/null || { echo "A C++ compiler is missing (libFuzzer is built with it): apt-get install g++"; exit 1; }
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	$(call say,"building the fuzz targets (half an hour the first time)")
	cargo fuzz build --sanitizer none
	@for target in $$(cargo fuzz list); do \
	  printf '\033[1m==> fuzzing %s\033[0m\n' $$target; \
	  mkdir -p fuzz/corpus/$$target; \
	  cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -max_total_time=$(SECONDS_OF_FUZZ) -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1; \
	done

lint: target cc ## formatting and clippy, warnings denied
	$(call say,"formatting")
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path benches/caches/Cargo.toml --check
	$(call say,"clippy: the workspace")
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	$(call say,"clippy: components")
	cargo clippy --target $(GUEST_TARGET) --profile component --target-dir target/components --locked \
	  --package model-sdk $(EXAMPLES) --package probe --package hello-p2 --package hostile --package stores \
	  --package stores-older -- --deny warnings

fmt: ## format the code
	cargo fmt --all

bench: components onnxruntime clients redis ## the figures of benches/RESULTS.md; the loads need wrk
	@command -v wrk >/dev/null || { echo "wrk is missing: apt-get install wrk"; exit 1; }
	$(call say,"building the host and the tools")
	cargo build --release --locked --workspace --bin spinfer --bin compare --bin reference --bin cold --bin fair --bin batching --bin spellings --bin cached --bin routed --bin recording
	$(call say,"the load comparison")
	./target/release/compare
	./target/release/compare --rounds 3 --seconds 3 --version 2
	$(call say,"cold starts and memory (compiles a thousand components the first time)")
	./target/release/cold
	$(call say,"one route saturated and another not")
	./target/release/fair
	./target/release/fair --rows 1
	$(call say,"dynamic batching")
	./target/release/batching
	$(call say,"one question in the spellings of several clients")
	./target/release/spellings
	$(call say,"the response cache, in memory and in a Redis")
	./target/release/cached
	$(call say,"predictions through the A/B router")
	./target/release/routed
	$(call say,"networks through the host against ONNX Runtime")
	target/python/bin/python benches/networks.py
	$(call say,"what the prediction log and drift cost; exports")
	./target/release/recording
	$(call say,"without sockets")
	cargo bench --locked --workspace --bench allocations --bench request
	$(call say,"which cache keeps answers best")
	cargo run --release --locked --manifest-path benches/caches/Cargo.toml --target-dir target/caches

models: ## train the example models again and compare them with what is committed
	@test -x .venv/bin/python || python3 -m venv .venv
	.venv/bin/pip install --quiet --requirement models/requirements.txt
	.venv/bin/python models/train.py --check

onnx-support: target cc onnxruntime onnx-cases ## run the proof of the backends and write what runs: docs/onnx-support.md
	SPINFER_WRITE=1 cargo test --locked --workspace --test onnx-suite

deny: rust ## licences, sources and bans of every dependency
	@command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check bans licenses sources

components: target cc ## build the example components
	$(call say,"building the components")
	cargo build $(EXAMPLES) --target $(GUEST_TARGET) --profile component --target-dir target/components

# Which wheel has the library of this machine, and what it is called there.
WHEEL_PLATFORM := $(shell uname -sm | sed -n -e 's/^Linux x86_64$$/manylinux_2_28_x86_64/p' \
  -e 's/^Linux aarch64$$/manylinux_2_28_aarch64/p' -e 's/^Darwin arm64$$/macosx_14_0_arm64/p')
ONNXRUNTIME := $(if $(findstring macosx,$(WHEEL_PLATFORM)),libonnxruntime.dylib,libonnxruntime.so)

# Beside each binary, where it is found.
onnxruntime: target/onnxruntime/$(ONNXRUNTIME) ## ONNX Runtime's library, from PyPI (15 to 35 MB), for graphs that lean does not cover
	@for profile in debug release dist; do \
	  mkdir -p target/$$profile && ln -sf ../onnxruntime/$(ONNXRUNTIME) target/$$profile/$(ONNXRUNTIME); \
	done

target/onnxruntime/$(ONNXRUNTIME): host/backend-ort/onnxruntime.txt
	$(call say,"fetching ONNX Runtime's library from PyPI")
	@test -n "$(WHEEL_PLATFORM)" || { \
	  echo "PyPI has no ONNX Runtime for this machine. Build its shared library (https://onnxruntime.ai/docs/build)"; \
	  echo "and put it here: target/onnxruntime/$(ONNXRUNTIME)"; exit 1; }
	@python3 -m pip --version >/dev/null 2>&1 || { \
	  echo "Python with pip is missing, by which ONNX Runtime's library is fetched: apt-get install python3-pip"; \
	  echo "A library that is there already (1.31 or later): mkdir -p target/onnxruntime && cp <its file> $@"; exit 1; }
	rm -rf target/onnxruntime && mkdir -p target/onnxruntime
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
	  --implementation cp --python-version 3.11 --abi cp311 --platform $(WHEEL_PLATFORM) \
	  --dest target/onnxruntime --requirement $<
	python3 -c 'import glob, shutil, zipfile; \
	  wheel = zipfile.ZipFile(glob.glob("target/onnxruntime/*.whl")[0]); \
	  name, = [n for n in wheel.namelist() if "capi/libonnxruntime." in n]; \
	  shutil.copyfileobj(wheel.open(name), open("$@", "wb"))'
	rm target/onnxruntime/*.whl

# Installed again when the requirements change.
clients: target/python/installed ## install the stock clients the tests run, and what clients/python needs, from PyPI

target/python/installed: tests/python/requirements.txt
	$(call say,"installing what the tests run on Python (two or three minutes; 1 GB)")
	@command -v python3 >/dev/null || { echo "Python is missing: apt-get install python3 python3-venv"; exit 1; }
	python3 -m venv --clear target/python
	target/python/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Prepared again when a script, a committed graph or a requirement changes; a set is written with its index last.
onnx-cases: target/onnx-cases/prepared ## prepare the cases that hold the backends to ONNX Runtime

target/onnx-cases/prepared: target/python/installed $(wildcard tests/onnx/*.py tests/onnx/exports/exports.json tests/onnx/exports/*.onnx)
	$(call say,"preparing the ONNX cases (half a minute; 60 MB)")
	rm -rf target/onnx-cases
	@for script in standard models kinds; do target/python/bin/python tests/onnx/$$script.py target/onnx-cases || exit 1; done
	touch $@

# Beside the clients, as much of what it needs is there: pip adds to it what is not.
mlflow: target/python-mlflow/installed ## install the MLflow server the tests pull models from, from PyPI

target/python-mlflow/installed: tests/python/requirements-mlflow.txt target/python/installed
	$(call say,"installing MLflow (half a minute; 140 MB)")
	python3 -m venv --clear target/python-mlflow
	target/python-mlflow/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	target/python/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$(target/python-mlflow/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/clients.pth"
	touch $@

# What has to be there. Each says what it does, or what to do.

rust:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs and open a new shell"; exit 1; }
	@rustc --version >/dev/null || { echo "the toolchain of rust-toolchain.toml is missing: rustup toolchain install"; exit 1; }

target: rust
	@if ! rustc --print target-libdir --target $(GUEST_TARGET) 2>/dev/null | xargs test -d; then \
	  printf '==> adding the Rust target %s\n' $(GUEST_TARGET); \
	  rustup target add $(GUEST_TARGET) || { \
	    echo "cannot add it: with rustup, \"rustup target add $(GUEST_TARGET)\"; without, your system's package of that target"; exit 1; }; \
	fi

cc:
	@command -v cc >/dev/null || { echo "A C compiler is missing (Rust links with it): apt-get install gcc"; exit 1; }

sudo := $(shell test "$$(id -u)" = 0 || echo sudo --non-interactive)
redis:
	$(call install,redis-server,redis-server,the tests start some of their own (7 or later))

oci-registry:
	$(call install,docker-registry,docker-registry,the tests start some of their own)

binaryen:
	$(call install,wasm-opt,binaryen,it makes components smaller)

# A program, the package it is in, what it is for.
define install
@command -v $(1) >/dev/null || { \
  echo "==> installing $(2): $(3)"; \
  { $(sudo) apt-get update && $(sudo) apt-get install --yes --no-install-recommends $(2); } >/dev/null || { \
    echo "cannot install it: \"sudo apt-get install $(2)\", or your system's package of it"; exit 1; }; \
}
endef
