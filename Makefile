# What each target needs is installed by itself (Debian packages; a Rust toolchain must be there).
# Another PHP: make test PHP_CONFIG=/path/to/php-config; make bench likewise.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CARGO ?= cargo
PHP_CONFIG ?= php-config
# Passed on to `cargo test` or the benchmark: make test ARGS='--test tests fastcgi'
ARGS ?=

.PHONY: help build serve test test-zts test-nts84 conformance conformance-zts bench bench-zts bench-nts84 soak soak-zts soak-opcache php-zts php-nts fuzz model miri asan lint

help:
	@echo 'make serve       run DokuWiki on fe-php and nginx: http://127.0.0.1:8080 (PORT=...)'
	@echo 'make build       compile target/release/fe-php against the PHP of php-config (PHP_CONFIG=...)'
	@echo "make test        run the tests with that PHP; Debian's by default"
	@echo 'make test-zts    run the tests with a ZTS build of PHP (8.4; 8.2 if its source is not to be had)'
	@echo 'make soak-opcache  ten minutes each of OPcache resets and of a full OPcache under load on ZTS'
	@echo 'make test-nts84  run the tests with an NTS build of the same'
	@echo "make conformance php-fpm's own test suite on php-fpm and on fe-php (ARGS='status-basic log-*'); also conformance-zts"
	@echo "make bench       compare with php-fpm: CPU, speed, memory (ARGS='--quick'); also bench-zts, bench-nts84"
	@echo 'make soak        a million requests: does anything grow? also soak-zts'
	@echo 'make php-zts     build that PHP and print its php-config (php-nts likewise)'
	@echo 'make fuzz        fuzz the protocol code, SECONDS=60 for each target (TARGETS=...)'
	@echo 'make model       try every order of the steps by which worker processes share requests, and random schedules'
	@echo 'make miri        run the protocol tests under Miri, on a nightly toolchain (MIRI=...)'
	@echo 'make asan        run tests with AddressSanitizer in csrc/ (ARGS=...)'
	@echo 'make lint        check format, clippy, documentation and scripts'

build:
	scripts/install-deps.sh build
	PHP_CONFIG='$(PHP_CONFIG)' $(CARGO) build --release

serve:
	@PHP_CONFIG='$(PHP_CONFIG)' CARGO='$(CARGO)' exec scripts/serve.sh

# $(call run_cargo,php-config,target directory,arguments of cargo). PHP_FPM is the php-fpm of the same PHP, to compare
# with. The linker flag is for doctests alone, which do not get the rpath that build.rs sets.
define run_cargo
config="$(1)"; prefix=$$("$$config" --prefix); version=$$("$$config" --version | cut -d. -f1,2); \
fpm=$$prefix/sbin/php-fpm; [ ! -x "$$fpm$$version" ] || fpm=$$fpm$$version; \
[ -x "$$fpm" ] || { echo "no php-fpm for $$config ($$fpm)" >&2; exit 1; }; \
echo "using $$config, $$fpm"; \
PHP_CONFIG="$$config" PHP_FPM="$$fpm" CARGO_TARGET_DIR='$(2)' \
RUSTDOCFLAGS="$${RUSTDOCFLAGS-} -C link-arg=-Wl,-rpath,$$prefix/lib" $(CARGO) $(3)
endef
# $(call run_conformance,php-config,target directory). FE_PHP_BIN chooses another program than the one compiled here.
define run_conformance
[ -n "$${FE_PHP_BIN-}" ] || { $(call run_cargo,$(1),$(2),build); }; set -f; \
OUT='$(2)/conformance' FE_PHP_BIN="$${FE_PHP_BIN:-$(2)/debug/fe-php}" scripts/conformance.sh "$(1)" $(ARGS)
endef
TEST = test $(ARGS)
BENCH = bench --bench compare -- $(ARGS)
SOAK = bench --bench compare -- soak $(ARGS)

test:
	@scripts/install-deps.sh test
	@$(call run_cargo,$(PHP_CONFIG),$(or $(CARGO_TARGET_DIR),target),$(TEST))

test-zts:
	@scripts/install-deps.sh test
	@built=$$(scripts/build-php.sh zts | tail -n 1); $(call run_cargo,$$built,target/zts,$(TEST))

# Ten minutes each, one after the other: opcache_reset() once a second, and an OPcache too small for the scripts, under load
# on threads. It prints figures: requests, the longest ones, generations. FE_PHP_LONG_SECONDS sets another time.
soak-opcache:
	@scripts/install-deps.sh test
	@export FE_PHP_LONG_SECONDS=$${FE_PHP_LONG_SECONDS:-600}; built=$$(scripts/build-php.sh zts | tail -n 1); \
	$(call run_cargo,$$built,target/zts,test --test tests -- opcache::resetting opcache::running_out --test-threads 1 --nocapture)

test-nts84:
	@scripts/install-deps.sh test
	@built=$$(scripts/build-php.sh nts | tail -n 1); $(call run_cargo,$$built,target/nts84,$(TEST))

# php-fpm's own test suite, on the stock php-fpm and on fe-php: see scripts/conformance.sh.
conformance:
	@scripts/install-deps.sh conformance
	@$(call run_conformance,$(PHP_CONFIG),$(or $(CARGO_TARGET_DIR),target))

conformance-zts:
	@scripts/install-deps.sh conformance
	@built=$$(scripts/build-php.sh zts | tail -n 1); $(call run_conformance,$$built,target/zts)

bench:
	@scripts/install-deps.sh bench
	@$(call run_cargo,$(PHP_CONFIG),$(or $(CARGO_TARGET_DIR),target),$(BENCH))

bench-zts:
	@scripts/install-deps.sh bench
	@built=$$(scripts/build-php.sh zts | tail -n 1); $(call run_cargo,$$built,target/zts,$(BENCH))

bench-nts84:
	@scripts/install-deps.sh bench
	@built=$$(scripts/build-php.sh nts | tail -n 1); $(call run_cargo,$$built,target/nts84,$(BENCH))

soak:
	@scripts/install-deps.sh bench
	@$(call run_cargo,$(PHP_CONFIG),$(or $(CARGO_TARGET_DIR),target),$(SOAK))

soak-zts:
	@scripts/install-deps.sh bench
	@built=$$(scripts/build-php.sh zts | tail -n 1); $(call run_cargo,$$built,target/zts,$(SOAK))

php-zts:
	@scripts/build-php.sh zts

php-nts:
	@scripts/build-php.sh nts

# What a target prints when it fails says how to reproduce it.
SECONDS ?= 60
TARGETS ?=
fuzz:
	@scripts/install-deps.sh fuzz
	@SECONDS_EACH='$(SECONDS)' CARGO='$(CARGO)' scripts/fuzz.sh $(TARGETS)

# Loom's models of how worker processes share requests, and a simulation: see tests/model/src/lib.rs.
model:
	cd tests/model && $(CARGO) test --locked --release $(ARGS)

# Miri cannot call C, so it runs the tests of the FastCGI code, which has none; the toolchain is fetched by rustup if it is not there.
# It is slow: few random cases, and not every split point.
MIRI ?= nightly-2026-10-30
miri:
	rustup toolchain install --no-self-update --profile minimal --component miri,rust-src $(MIRI)
	MIRIFLAGS=-Zmiri-disable-isolation PROPTEST_CASES=2 CARGO_TARGET_DIR=target/miri $(CARGO) +$(MIRI) \
		miri test --lib -- fastcgi:: --skip every_split_point

ASAN_TESTS = fastcgi:: regression:: isolation:: differential::
asan:
	@scripts/install-deps.sh test
	@scripts/asan.sh $(or $(ARGS),$(ASAN_TESTS))

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings $(CARGO) doc --no-deps
	if command -v shellcheck >/dev/null; then shellcheck scripts/*.sh .ci/run; fi
