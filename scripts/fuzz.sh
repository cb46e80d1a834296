#!/bin/bash
# Runs the fuzz targets of tests/fuzz, two at a time (JOBS), each for SECONDS_EACH seconds (60): all, or those named.
#
#   scripts/fuzz.sh [target ...]
#   scripts/fuzz.sh --reproduce target file
#
# A stable toolchain is enough: libFuzzer comes with the crate libfuzzer-sys, and the coverage it wants is an LLVM pass. It
# starts from tests/fuzz/seeds and keeps what it finds in tests/fuzz/corpus; inputs that fail go to tests/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/../tests/fuzz"

SECONDS_EACH=${SECONDS_EACH:-60}
JOBS=${JOBS:-2}
CARGO=${CARGO:-cargo}
# Not for build scripts and procedural macros, hence --target.
export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
export CARGO_TARGET_DIR=${FUZZ_TARGET_DIR:-$PWD/target}
HOST=$(rustc --print host-tuple)

build() {
    "$CARGO" build --quiet --locked --release --target "$HOST"
}

program() {
    echo "$CARGO_TARGET_DIR/$HOST/release/$1"
}

# Fuzzes one target; prints little unless it fails.
fuzz() {
    local target=$1 log
    mkdir -p "corpus/$target" "artifacts/$target"
    log=artifacts/$target/log
    if "$(program "$target")" -max_total_time="$SECONDS_EACH" -timeout=20 -rss_limit_mb=2048 \
        -artifact_prefix="artifacts/$target/" "corpus/$target" "seeds/$target" >"$log" 2>&1; then
        grep -E 'DONE' "$log" | sed "s/^/$target: /"
        return 0
    fi
    grep -vE '^#[0-9]|^INFO' "$log" | head -n 60
    local input
    input=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    echo "$target FAILED. To reproduce:"
    echo "    scripts/fuzz.sh --reproduce $target tests/fuzz/${input:-seeds/$target/*}"
    if [ -n "$input" ]; then
        echo "    or, elsewhere: base64 -d >input <<<$(base64 -w 0 "$input")"
    fi
    return 1
}

main() {
    case ${1-} in
        --reproduce)
            [ $# = 3 ] || fail "usage: scripts/fuzz.sh --reproduce target file"
            build
            cd ../..
            RUST_BACKTRACE=1 exec "$(program "$2")" "$3"
            ;;
        --fuzz) # one of those below
            fuzz "$2"
            return
            ;;
    esac
    local targets=("$@") target
    if [ $# = 0 ]; then mapfile -t targets < <(basename -a -s .rs targets/*.rs); fi
    for target in "${targets[@]}"; do
        [ -f "targets/$target.rs" ] || fail "there is no target $target in tests/fuzz/targets"
    done
    build
    printf '%s\n' "${targets[@]}" | xargs -P "$JOBS" -I '{}' ../../scripts/fuzz.sh --fuzz '{}'
}

fail() {
    echo "fuzz.sh: $*" >&2
    exit 2
}

main "$@"
