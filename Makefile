# Slipway. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help deps deps-build deps-run deps-test deps-bench deps-bench-supervisor build run test torture-bus bench bench-bus bench-supervisor \
    fuzz format lint clean

# Debian packages, by what needs them. The counter sample compiles C on the host; that is why the tests want a compiler.
PACKAGES_build := git libsodium-dev libsqlite3-dev libzmq3-dev zlib1g-dev
PACKAGES_run := $(PACKAGES_build) curl haproxy python3
PACKAGES_test := $(PACKAGES_run) bind9-dnsutils gcc jq libc6-dev python3-zmq skopeo strace supervisor
PACKAGES_bench := $(PACKAGES_run) e2fsprogs gcc libc6-dev libhiredis-dev libnats-dev librabbitmq-dev nats-server python3-zmq \
    rabbitmq-server redis-server
PACKAGES_bench-supervisor := $(PACKAGES_build) gcc libc6-dev python3 runit s6 supervisor

# Where `make run` keeps the suite, and the copy of the sample app that it pushes.
export SLIPWAY_HOME ?= $(if $(filter 0,$(shell id -u)),/var/lib/slipway,$(HOME)/.slipway)
SAMPLE ?= $(HOME)/slipway-hello
SLIPWAY := $(CURDIR)/.build/debug/slipway
OWN := Package.swift Services Shared Tests

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 18

deps: deps-test ## Install the Debian packages that are missing, if any

deps-build deps-run deps-test deps-bench deps-bench-supervisor: deps-%:
	@command -v swift >/dev/null || { echo "Swift 6.2 or later is not installed: see https://www.swift.org/install/linux/" >&2; exit 1; }
	@missing=""; for package in $(PACKAGES_$*); do \
	    [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null || true)" = installed ] || missing="$$missing $$package"; done; \
	if [ -n "$$missing" ]; then \
	    command -v apt-get >/dev/null || { echo "this is not Debian; install what corresponds to:$$missing" >&2; exit 1; }; \
	    as_root=""; if [ "$$(id -u)" != 0 ]; then \
	        command -v sudo >/dev/null || { echo "as root, run: apt-get install$$missing" >&2; exit 1; }; as_root=sudo; fi; \
	    echo "installing:$$missing"; \
	    $$as_root apt-get update -qq; \
	    $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	fi

# Always with the tests: SwiftPM links every program anew when it changes between the two modes.
build: deps-build ## Compile everything, debug
	@swift build --build-tests

run: deps-run build ## Start the suite here, deploy the sample app, say how to push a change
	@$(SLIPWAY) status >/dev/null 2>&1 || $(SLIPWAY) up --detach
	@$(SLIPWAY) app show hello >/dev/null 2>&1 || fresh=1; \
	if [ ! -d "$(SAMPLE)/.git" ]; then \
	    mkdir -p "$(SAMPLE)"; cp -R Tests/Fixtures/apps/hello/. "$(SAMPLE)/"; cd "$(SAMPLE)"; git init -q -b main; git add -A; \
	    git -c user.name=Slipway -c user.email=slipway@localhost commit -q -m "hello v1"; \
	fi; \
	cd "$(SAMPLE)"; \
	if [ -n "$${fresh:-}" ] || ! git remote get-url slipway >/dev/null 2>&1; then \
	    git remote remove slipway 2>/dev/null || true; $(SLIPWAY) app create hello; \
	fi; \
	git push slipway main; \
	said="$$($(SLIPWAY) wait hello 2>&1)" || { echo "$$said" >&2; exit 1; }; \
	echo; \
	curl -fsS --max-time 10 "http://hello.localhost:$$(($${SLIPWAY_PORT_BASE:-7700} + 80))/"; \
	echo; \
	echo "The sample app is in $(SAMPLE). To change it and see the change live:"; \
	echo; \
	echo "    cd $(SAMPLE) && echo v2 > VERSION && git commit -qam v2 && git push slipway main"; \
	echo; \
	echo "The suite keeps its files in $(SLIPWAY_HOME). To stop it: $(SLIPWAY) down"

# One test after another: many start real programs, and a machine with two cores should not be asked for more.
test: deps-test ## Compile and run all tests
	@swift build --build-tests
	@log=$$(mktemp); trap 'rm -f "$$log"' EXIT; \
	swift test --skip-build --no-parallel 2>&1 | tee "$$log" || { \
	    echo; echo "What failed:"; grep -aE -A 12 '^✘ Test .* recorded an issue|error: ' "$$log" | cut -c1-600 | tail -n 120; exit 1; }

# SEED=… repeats choices; ROUNDS=… and SECONDS_EACH=… make it shorter or longer; SCENARIOS="kill soak" runs those alone.
torture-bus: deps-test build ## Break the bus for an hour or more, and judge
	@SLIPWAY_BIN="$${SLIPWAY_BIN:-$(CURDIR)/.build/debug}" /usr/bin/python3 Tests/Torture/torture.py $${SCENARIOS:-long} --long

bench: deps-run ## Measure the way from push to live, memory and start (release build)
	@swift build -c release --scratch-path .build-release
	@python3 Tests/Benchmarks/first-light.py --bin .build-release/release

# ROUNDS=… (5), ONLY=1,2,6 (rows), WORK=DIR (on the disk to be measured), SCALE=0.2 (of the numbers of events), LOG_GIB=… (10).
bench-bus: deps-bench ## Measure the bus beside NATS, Redis and RabbitMQ
	@for product in slipway-bus slipway-bus-plain slipway; do swift build -c release --scratch-path .build-release --product $$product; done
	@/usr/bin/python3 Tests/Benchmarks/bus.py --bin .build-release/release

# ROUNDS=… (5), WHAT=idle,start,crash,tail,rpc,log,many, SLIPWAY_BENCH=DIR (where the peers' scripts are).
bench-supervisor: deps-bench-supervisor ## Measure the supervisor beside supervisord, runit and s6
	@swift build -c release --scratch-path .build-release --product slipway-supervisord
	@/usr/bin/python3 Tests/Benchmarks/supervisor.py --bin .build-release/release

# FUZZ: seconds for the codec; FUZZ_MESSAGES: messages for the router.
fuzz: deps-test ## Throw random bytes at the wire's codec (libFuzzer) and random messages at the bus's router
	@Tests/Fuzz/fuzz.sh $(or $(FUZZ),60)
	@swift build --build-tests
	@SLIPWAY_FUZZ=$(or $(FUZZ_MESSAGES),10000000) swift test --skip-build --filter FuzzTests

format: ## Lay out our own sources
	@swift format format --in-place --parallel --recursive $(OWN)

lint: ## Complain about layout and doubtful code
	@swift format lint --strict --parallel --recursive $(OWN)

clean: ## Remove what was built
	@rm -rf .build .build-release
