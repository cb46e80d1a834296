#!/bin/bash
# Runs integration tests on a build whose C code has gcc's AddressSanitizer and UndefinedBehaviorSanitizer, and fails when
# these report anything, also where a test does not look: in workers, in the pool process, at its end.
#
#   scripts/asan.sh filter ...        (PHP_CONFIG and PHP_FPM as for `cargo test`)
#
# PHP itself is not instrumented, but its calls of malloc, memcpy and the like are checked, and all memory is malloc's with
# USE_ZEND_ALLOC=0. There is no memory_limit then. Leaks are not looked for: PHP keeps some memory for life.
set -euo pipefail
cd "$(dirname "$0")/.."

# The first measures memory, and freed memory is kept for a while here; the others run into memory_limit.
SKIP=(--skip regression::a_script_that_logs_goes_no_faster_than_its_client
      --skip isolation::children::a_forked_child_neither_answers_nor_breaks_the_connection
      --skip isolation::leftovers::nothing_is_left_when_a_script_ends_badly
      --skip differential::errors)
REPORTS=$(mktemp -d)
trap 'rm -rf "$REPORTS"' EXIT
chmod 777 "$REPORTS" # for workers of another user

export FE_PHP_SANITIZE=1 USE_ZEND_ALLOC=0
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/asan
# The library preloaded comes before the sanitizer's, which is as it has to be.
export ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=1:verify_asan_link_order=0:log_path=$REPORTS/asan
export UBSAN_OPTIONS=print_stacktrace=1:log_path=$REPORTS/ubsan
status=0
"${CARGO:-cargo}" test --quiet --locked --test tests --no-run
gcc -shared -fPIC -O1 -Wall -o "$REPORTS/no_deepbind.so" tests/support/no_deepbind.c
LD_PRELOAD=$REPORTS/no_deepbind.so "${CARGO:-cargo}" test --locked --test tests -- "$@" "${SKIP[@]}" || status=$?

for report in "$REPORTS"/*san.*; do
    [ -e "$report" ] || continue
    echo "=== $(basename "$report")"
    cat "$report"
    status=1
done
exit "$status"
