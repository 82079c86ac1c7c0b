# The verbs of a developer. Everything is built for one named target, statically.
TARGET  := x86_64-unknown-linux-gnu
BINARY  := target/$(TARGET)/release/bitrix-node
CARGO   ?= cargo
# Whole storage nodes, as they are shipped.
STORAGE := BITRIX_NODE=$(CURDIR)/$(BINARY) $(CARGO) test --locked --test tests

.PHONY: help build release run test check fmt lint unit test-storage check-static dependencies bench docs clean

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

build: ## Debug build
	$(CARGO) build --locked

release: ## The executable as it is shipped
	$(CARGO) build --locked --release
	packaging/check-static.sh $(BINARY)

run: release ## A whole demo portal in the foreground; Ctrl-C removes it (needs root)
	$(BINARY) demo

test: dependencies check release ## Everything that CI checks
	$(STORAGE) a_short_round -- --ignored --nocapture

check: fmt lint unit

fmt:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings

unit:
	$(CARGO) test --locked

test-storage: release ## Three storage nodes in network namespaces under faults (needs root, 7 minutes)
	$(STORAGE) storage:: -- --ignored --nocapture --test-threads=1

check-static: ## Is the release executable static?
	packaging/check-static.sh $(BINARY)

dependencies: ## Install what the tests run against (Debian, needs root)
	packaging/test-dependencies.sh

bench: release dependencies ## Requests per second beside nginx, in one session
	tests/bench/front.py $(BINARY)

docs: release ## Completions and man pages into target/docs
	$(BINARY) man target/docs
	for shell in bash zsh fish; do $(BINARY) completion $$shell > target/docs/bitrix-node.$$shell; done

clean: ## Remove what was built
	$(CARGO) clean
