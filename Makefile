# The verbs of a developer. Everything is built for one named target, statically.
TARGET  := x86_64-unknown-linux-gnu
BINARY  := target/$(TARGET)/release/bitrix-node
CARGO   ?= cargo
# Whole storage nodes, as they are shipped.
STORAGE := BITRIX_NODE=$(CURDIR)/$(BINARY) $(CARGO) test --locked --test tests

# The newest load of the storage bench.
STORAGE_LOAD = $$(ls -t target/$(TARGET)/release/deps/storage_load-* | grep -v '\.d$$' | head -1)

SEEDS   ?= 1..301
# Of the cluster under the nemesis; SEED repeats a plan.
NODES   ?= 3
CLUSTER_SECONDS ?= 1800
# Of each fault of the databases.
ROUNDS ?= 2
MINUTES ?= 2

TOOLS    = $(CURDIR)/target/tools/bin
PACKAGES = target/packages
# From where nodes will fetch the release: the folder that `make dist` fills, as a URL.
BASE_URL ?=

# Debian's package modsecurity-crs; `apt download` and `dpkg-deb -x` bring it without an installation.
WAF_DEBIAN ?= /usr/share/modsecurity-crs:/etc/modsecurity/crs
# github.com/summerwind/h2spec, as its makers build it.
H2SPEC ?= h2spec
# No target is a file.
.PHONY: $(shell sed -n 's/^\([a-z0-9-]*\):.*/\1/p' $(firstword $(MAKEFILE_LIST)))

help: ## Show this
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

build: ## Debug build
	$(CARGO) build --locked

release: ## The executable as it is shipped
	$(CARGO) build --locked --release
	packaging/check-static.sh $(BINARY)

run: release ## A whole demo portal in the foreground; Ctrl-C removes it (needs root)
	$(BINARY) demo

test: dependencies check release ## Everything that CI checks
	$(STORAGE) a_short_round -- --ignored --nocapture

test-sim: ## Replica groups, the registry, the election of roles and the council and the order of pushed messages under random faults, by seed (SEED=7, SEEDS=1..1001)
	SEED=$(SEED) SEEDS=$(SEEDS) $(CARGO) test --locked --lib storage::sim -- --nocapture
	SEED=$(SEED) SEEDS=$(SEEDS) $(CARGO) test --locked --lib agent::role::sim_tests -- --nocapture
	SEED=$(SEED) SEEDS=$(SEEDS) $(CARGO) test --locked --release --lib registry::sim -- --nocapture
	SEED=$(SEED) SEEDS=$(SEEDS) $(CARGO) test --locked --release --lib cluster::council::sim_tests -- --nocapture
	SEED=$(SEED) SEEDS=$(SEEDS) $(CARGO) test --locked --release --lib push::order::sim_tests -- --nocapture
	$(CARGO) test --locked --release --lib agent::role::model_tests -- --nocapture --include-ignored

check: fmt lint unit

fmt:
	$(CARGO) fmt --check

lint:
	$(CARGO) clippy --locked --all-targets -- -D warnings

unit:
	$(CARGO) test --locked

test-registry: ## The registry before nfs-ganesha, an independent server (Debian, needs root)
	packaging/test-dependencies.sh nfs-ganesha nfs-ganesha-vfs rpcbind iproute2
	$(CARGO) test --locked --test tests registry::ganesha -- --ignored --nocapture --test-threads 1

test-storage: release ## Three storage nodes in network namespaces under faults (needs root, 7 minutes)
	$(STORAGE) storage:: -- --ignored --nocapture --test-threads=1

test-sessions: release ## PHP's sessions on three caches in network namespaces under faults, and the same with nutcracker (Debian, needs root, 3 minutes)
	packaging/test-dependencies.sh nutcracker
	$(STORAGE) sessions:: -- --ignored --nocapture --test-threads=1

test-push: dependencies-push ## The portal's public client and Chromium pages on a real node, and bad input (Debian, needs root, 5 minutes)
	BITRIX_NODE_CLIENT=$(CURDIR)/target/push-client $(CARGO) test --locked --test tests push -- --include-ignored --nocapture --test-threads=1

test-http3: ## Chromium loads a page over HTTP/3 (Debian, needs root)
	packaging/test-dependencies.sh chromium
	$(CARGO) test --locked --test tests chromium_loads -- --ignored --nocapture

test-tls: ## The front's TLS before testssl.sh (Debian, needs root, 3 minutes)
	packaging/test-dependencies.sh testssl.sh
	$(CARGO) test --locked --test tests testssl_finds -- --ignored --nocapture

test-h2: ## The front's HTTP/2 before h2spec (the program in H2SPEC, 2 minutes)
	H2SPEC=$(H2SPEC) $(CARGO) test --locked --test tests h2spec_passes -- --ignored --nocapture

check-static: ## Is the release executable static?
	packaging/check-static.sh $(BINARY)

dependencies: ## Install what the tests run against (Debian, needs root)
	packaging/test-dependencies.sh

test-nfs-kernel: release dependencies-kernel ## One node and three under a real Linux client, in User-mode Linux (needs root, long)
	tests/kernel/oracle.py $(BINARY)
	tests/kernel/run.py $(BINARY)
	tests/kernel/run.py $(BINARY) --server group
	tests/kernel/mount.py $(BINARY)

test-fuse: release dependencies-kernel ## The FUSE door under PHP, killed processes and failing nodes, also on Linux 6.1 (needs root, 25 minutes)
	tests/fuse/run.py $(BINARY)

test-cluster: release dependencies ## A cluster in network namespaces under a nemesis (SEED=7, NODES=5, CLUSTER_SECONDS=180; needs root, 35 minutes)
	tests/cluster/judge_test.py
	tests/cluster/roll.py $(BINARY)
	tests/cluster/small.py $(BINARY)
	tests/cluster/run.py $(BINARY) --nodes $(NODES) --seconds $(CLUSTER_SECONDS) $(if $(SEED),--seed $(SEED))

test-push-cluster: release dependencies ## The push server on three nodes that are killed, frozen and cut off, 1000 browsers (SEED=7; needs root, 10 minutes)
	tests/cluster/push.py $(BINARY) $(if $(SEED),--seed $(SEED))

test-acme: release ## Certificates from a real directory on one node, and on three of which the issuing one is lost mid-order (Debian, needs root, 8 minutes)
	packaging/test-dependencies.sh pebble openssl python3
	$(CARGO) test --locked --test tests node_cert -- --ignored --nocapture --test-threads=1
	tests/acme/bed.py $(BINARY)

test-galera: release ## Databases that are one Galera cluster, under faults: three, two, two and an arbiter; and as units of systemd (Debian, needs root, 30 minutes)
	packaging/test-dependencies.sh galera-4 galera-arbitrator-4 mariadb-backup socat python3-pymysql
	packaging/test-dependencies-machines.sh
	tests/galera/units.py $(BINARY)
	tests/galera/run.py $(BINARY) --rounds $(ROUNDS)
	tests/galera/two.py $(BINARY) --rounds $(ROUNDS)
	tests/galera/two.py $(BINARY) --rounds $(ROUNDS) --arbiter

test-backup: release dependencies ## A portal that is lost with its machine, or with all three of its Galera cluster, and restored on others to a chosen second, from a folder and from a bucket (Debian, needs root, 20 minutes)
	packaging/test-dependencies-backup.sh target/moto
	tests/backup/run.py $(BINARY)
	tests/backup/run.py $(BINARY) --s3 target/moto/bin/moto_server
	tests/backup/cluster.py $(BINARY)

test-cache: release dependencies-cache ## The cache under memcached's tests and its clients', beside memcached (Debian, needs root, 8 minutes)
	$(CARGO) test --locked --lib cluster_tests::far -- --ignored
	tests/cache/run.py $(BINARY)

test-waf: ## The firewall under the tests of the Core Rule Set (a folder with its repository in WAF_CORPUS, and Debian's in WAF_DEBIAN) and under a portal's requests and answers
	tests/waf/corpus.py $(WAF_CORPUS) > target/waf-cases.jsonl
	WAF_CORPUS=$(WAF_CORPUS) WAF_DEBIAN=$(WAF_DEBIAN) WAF_CASES=$(CURDIR)/target/waf-cases.jsonl $(CARGO) test --locked --release --test tests waf_ -- --ignored --nocapture

dependencies-cache: ## Install what `make test-cache` and `make bench-cache` need (Debian, needs root)
	packaging/test-dependencies-cache.sh

dependencies-push: ## Install what `make test-push` and `make bench-push` need (Debian, needs root)
	packaging/test-dependencies-push.sh

dependencies-waf: ## Bring what `make bench-waf` needs into target/waf-tools (Debian, needs root)
	packaging/test-dependencies-waf.sh

dependencies-kernel: ## Install what the kernel tests and the storage bench need (Debian, needs root)
	packaging/test-dependencies-kernel.sh

test-http-cache: release ## The front's cache under the public suite for HTTP caches (needs Node.js and npm)
	npm install --silent --prefix target/http-cache-tests http-cache-tests@0.4.5
	tests/bench/http_cache.py $(BINARY) target/http-cache-tests

bench: release dependencies ## Requests per second and TLS handshakes beside nginx and haproxy, in one session
	packaging/test-dependencies.sh haproxy openssl
	tests/bench/front.py $(BINARY)

bench-balance: release dependencies ## PHP on the own node, over the mesh, and by nginx, in one session (needs root)
	BITRIX_NODE=$(CURDIR)/$(BINARY) $(CARGO) test --locked --test tests bench_balance -- --ignored --nocapture

bench-storage: release dependencies-kernel ## The storage beside nfs-ganesha, in one session on one disk (needs root)
	$(CARGO) build --locked --release --bench storage_load
	for copies in 1 3; do tests/bench/storage.py $(BINARY) $(STORAGE_LOAD) --copies $$copies || exit 1; done
	tests/bench/storage.py $(BINARY) $(STORAGE_LOAD) --copies 3 --apart --only create,write

bench-cache: release dependencies-cache ## The cache beside memcached and nutcracker: processor time, rates, items kept, in one session (needs root)
	rustc --edition 2024 -O -o target/cache_load tests/bench/cache_load.rs
	tests/bench/cache.py $(BINARY) target/cache_load
	CACHE_LOAD=$(CURDIR)/target/cache_load $(STORAGE) bench_cache_routed -- --ignored --nocapture

bench-push: release dependencies-push ## The push server beside nchan and a server of Node.js with Redis: memory, processor time, fan-out, in one session (needs root; minutes for each of three rounds)
	tests/bench/push.py $(BINARY) target/push-client

bench-waf: release dependencies-waf ## What the firewall costs, and nginx with libmodsecurity on the same requests, in one session (Debian; WAF_CORPUS: a folder of the Core Rule Set 4 beside Debian's)
	tests/bench/waf_samples.py > target/waf-samples.jsonl
	for rules in target/waf-tools/usr/share/modsecurity-crs:target/waf-tools/etc/modsecurity/crs $(WAF_CORPUS); do \
		$(CARGO) bench --locked --bench waf_cost -- target/waf-samples.jsonl $$rules || exit 1; done
	tests/bench/waf.py $(BINARY) target/waf-tools

bench-db: release ## The way to the database beside haproxy, and 1000 connections a second for MINUTES, in one session (Debian, needs root)
	packaging/test-dependencies.sh galera-4 mariadb-backup socat python3-pymysql haproxy
	rustc --edition 2024 -O -o target/db_load tests/bench/db_load.rs
	tests/galera/bench.py $(BINARY) target/db_load --minutes $(MINUTES)

docs: release ## Completions and man pages into target/docs
	$(BINARY) man target/docs
	for shell in bash zsh fish; do $(BINARY) completion $$shell > target/docs/bitrix-node.$$shell; done

stage: docs
	packaging/build-dependencies.sh
	packaging/key.sh >/dev/null
	packaging/stage.sh $(BINARY) target/docs target/signing/release.pem

deb: stage ## Debian package into target/packages
	mkdir -p $(PACKAGES)
	$(TOOLS)/cargo-deb --no-build --no-strip --target $(TARGET) --output $(PACKAGES)/

rpm: stage ## RPM package into target/packages
	mkdir -p $(PACKAGES)
	$(TOOLS)/cargo-generate-rpm --target $(TARGET) --output $(PACKAGES)/

lint-packages: dist ## What lintian, rpmlint and shellcheck say of them; errors of lintian and shellcheck fail
	packaging/lint.sh $(PACKAGES)

dist: deb rpm ## A release to publish: packages, executable, installer, signed (BITRIX_NODE_SIGNING_KEY, BASE_URL)
	packaging/dist.sh $(BINARY) $(PACKAGES) target/dist $(BASE_URL)

test-machines: dist ## Three machines from nothing: install, join, power-off, upgrade, purge (Debian, needs root, 20 minutes)
	packaging/test-dependencies-machines.sh
	tests/machines/run.py target/dist

test-dnf: release ## What `init` installs where dnf is the package tool, with packages made here (Debian, needs root, a minute)
	packaging/test-dependencies.sh dnf createrepo-c rpm galera-4 galera-arbitrator-4 mariadb-backup mariadb-server socat
	tests/machines/dnf.py $(BINARY)

clean: ## Remove what was built
	$(CARGO) clean
