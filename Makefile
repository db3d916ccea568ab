# `make help` lists what there is.

CARGO ?= cargo
CONFIG ?= config/local.toml
TARGET := $(or $(CARGO_TARGET_DIR),target)

# What lints and tests are made from. Always the same selection: with another one dependencies get other features, and
# hundreds of them are built again. For the same reason the program under test is built by `program`, and named to the tests.
TESTED := --workspace --features dropgate-backends/server-tests,dropgate-workers/server-tests
UNDER_TEST := DROPGATE_BIN=$(abspath $(TARGET))/debug/dropgate DROPGATE_EXAMPLES=$(abspath $(TARGET))/debug/examples

.DEFAULT_GOAL := help
.PHONY: help run build check fmt fmt-check lint schemas deny embedded test-deps services services-stop test test-unit test-e2e program test-servers test-servers-given test-full bench chaos clients fuzz

help: ## list the targets
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

run: build ## build what is missing and run everything in one process, data under ./data
	@exec $(TARGET)/debug/dropgate run --config $(CONFIG)

build: ## build the program
	$(CARGO) build --locked -p dropgate

check: ## everything that CI runs: format, lints, schemas, licences and advisories, tests
	@scripts/timed format $(MAKE) --no-print-directory fmt-check
	@scripts/timed lints $(MAKE) --no-print-directory lint
	@scripts/timed schemas $(MAKE) --no-print-directory schemas
	@scripts/timed licences $(MAKE) --no-print-directory deny
	@scripts/timed 'embedded build' $(MAKE) --no-print-directory embedded
	@$(MAKE) --no-print-directory test

fmt: ## format the code
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml

fmt-check:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check

lint: ## clippy on everything, warnings are errors
	$(CARGO) clippy --locked $(TESTED) --all-targets -- -D warnings
	$(CARGO) clippy --locked $(TESTED) --test e2e --test cluster -- -D warnings

schemas: ## the published JSON Schemas and examples are those of the code
	$(CARGO) test --locked -q $(TESTED) --test published

deny: ## licences, sources, bans and advisories of everything we depend on
	@scripts/deny

embedded: ## the program without the features of a cluster carries none of their SDKs
	@scripts/embedded

test-deps: ## install the servers and clients that tests talk to
	@scripts/test-deps

services: ## install and start the real servers of the cluster, for working by hand; prints their addresses
	@scripts/services start
	@scripts/services env

services-stop: ## end what `make services` started
	@scripts/services stop

test: ## every test that ends in minutes, with the real servers and clients it needs
	@scripts/timed 'test servers and clients' $(MAKE) --no-print-directory test-deps
	@scripts/timed 'unit tests' $(MAKE) --no-print-directory test-unit
	@scripts/timed 'end-to-end tests' $(MAKE) --no-print-directory test-e2e
	@scripts/timed 'tests on real servers' $(MAKE) --no-print-directory test-servers

# The end-to-end and the cluster tests have `test = false` in their manifest: they run only where they are named.
test-unit: ## unit, property and conformance tests: no servers
	$(CARGO) test --locked $(TESTED) -- --skip servers::

test-e2e: program ## the program with real clients
	$(UNDER_TEST) $(CARGO) test --locked $(TESTED) --test e2e

program:
	$(CARGO) build --locked $(TESTED) --bin dropgate --example consumer

test-servers: ## adapters and a cluster on the real servers they are for
	@scripts/services run -- $(MAKE) --no-print-directory test-servers-given

# The same on servers that run already, named by DROPGATE_TEST_* variables.
test-servers-given: program
	@scripts/timed 'adapters on real servers' $(CARGO) test --locked $(TESTED) --lib servers::
	@$(UNDER_TEST) scripts/timed 'a cluster on real servers' $(CARGO) test --locked $(TESTED) --test cluster -- --test-threads=1

test-full: check ## everything, the long tests included
	@scripts/timed 'embedded build' $(CARGO) check --locked -p dropgate --no-default-features
	@scripts/timed 'more clients' scripts/test-deps --full
	@$(UNDER_TEST) scripts/timed 'long tests' $(CARGO) test --locked $(TESTED) --test e2e -- --ignored
	@DROPGATE_MODEL_SEQUENCES=20000 scripts/timed 'the tree, longer' \
		$(CARGO) test --locked $(TESTED) --test sftp the_tree_agrees_with_a_simple_reference
	@scripts/timed fuzzing $(MAKE) --no-print-directory fuzz
	@$(UNDER_TEST) DROPGATE_CLUSTER_UPLOADS=2000 scripts/timed 'a cluster, longer' scripts/services run -- \
		$(CARGO) test --locked $(TESTED) --test cluster -- --test-threads=1 --include-ignored

clients: program ## every client through every case; with UPDATE_CLIENTS=1 docs/clients.md is written anew
	@scripts/test-deps --full
	$(UNDER_TEST) $(CARGO) test --locked $(TESTED) --test e2e clients:: -- --include-ignored

bench: test-deps ## compare with OpenSSH, and with rclone to Azurite and MinIO, on this machine; writes BENCH.md
	$(CARGO) build --locked --release -p dropgate
	@scripts/services run azurite minio -- $(CARGO) bench --locked -p dropgate-integration-tests

chaos: test-deps program ## kill the program again and again under load, then check every promise: make chaos KILLS=500 SEED=7
	$(UNDER_TEST) DROPGATE_CHAOS_KILLS=$(or $(KILLS),200) DROPGATE_CHAOS_MINUTES=60 $(if $(SEED),DROPGATE_CHAOS_SEED=$(SEED)) \
		$(CARGO) test --locked $(TESTED) --test e2e nothing_acknowledged_is_lost_over_fifty_kills -- --nocapture

fuzz: ## every fuzz target for SECONDS (60) each
	@scripts/fuzz $(or $(SECONDS),60)
