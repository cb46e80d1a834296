#!/bin/bash
# Runs php-fpm's own test suite (sapi/fpm/tests of PHP's source), as it is, with the stock php-fpm and with fe-php, as
# root and as an ordinary user. Exits with 1 if fe-php fails a test that the stock php-fpm passes.
#
#   FE_PHP_BIN=target/debug/fe-php scripts/conformance.sh PHP_CONFIG [TEST...]
#
# TEST is a name, with wildcards or without: status-basic 'log-*'. All of them is the default.
#
#   OUT=DIR      where table.txt and the logs of failures go (default: target/conformance)
#   MINUTES=20   the time a run of the suite may take
#   STOCK=0      run the stock php-fpm again, rather than take its results from ~/.cache/fe-php
#
# Each run has a network and processes of its own (namespaces), where the machine allows that: the tests use fixed
# ports, and leave processes behind when they fail. PHP's settings are its defaults, as where PHP's developers run the
# suite: an empty php.ini, with the extensions that the distribution loads.
set -euo pipefail
export LC_ALL=C.UTF-8
umask 022

HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/php-source.sh
. "$HERE/php-source.sh"
TIMEOUT=40 # seconds that a test may be silent; none that passes is, for so long
NOBODY=nobody
AS_NOBODY=(setpriv --reuid="$NOBODY" --regid="$(id -g "$NOBODY")" --clear-groups)
ISOLATE=(unshare --mount --net --pid --fork --mount-proc --kill-child)
RUNNING= # the run that goes on
# What of PHP's source the tests need.
PARTS=(run-tests.php sapi/fpm/tests ext/standard/tests/misc/browscap.ini 'ext/dom/*.h')
# Extensions that tests load, and a distribution may lack: built from the same source.
EXTENSIONS=(dl_test zend_test pcntl)

say() {
    echo "conformance.sh: $*" >&2
}

fail() {
    say "$*"
    exit 2
}

# Runs a step with its output in the log; shows the log's end if it fails.
quietly() {
    echo "+ $*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 </dev/null || {
        tail -n 40 "$LOG" >&2
        fail "failed: $* (the whole log: $LOG)"
    }
}

# The directory of the newest suite for PHP $VERSION in the cache.
cached_suite() {
    find "$CACHE" -maxdepth 1 -name "fpm-tests-$VERSION.*" | sort -V | tail -n 1 | grep .
}

# Sets SUITE: run-tests.php and sapi/fpm/tests of the PHP under test, from Debian's source package of the same X.Y.
fetch_suite() {
    local candidate tar new
    SUITE=$(cached_suite) && return
    lock_sources
    for candidate in "${CANDIDATES[@]}"; do
        [ "${candidate#* }" = "php$VERSION" ] || continue
        say "fetching the source of php$VERSION from Debian ${candidate% *}"
        (download_sources "${candidate% *}" "php$VERSION") ||
            fail "php$VERSION cannot be had from Debian ${candidate% *}"
        tar=$(tarball "php$VERSION")
        new=$CACHE/fpm-tests.new
        rm -rf "$new"
        mkdir "$new"
        quietly tar -C "$new" --strip-components=1 --wildcards -xf "$tar" \
            "${PARTS[@]/#/*/}" "${EXTENSIONS[@]/#/*/ext/}"
        mv "$new" "$CACHE/fpm-tests-$(basename "$tar" | sed 's/^[^_]*_//; s/\.orig\.tar.*//')"
    done
    unlock_sources
    SUITE=$(cached_suite) || fail "no test suite for PHP $VERSION: Debian's archive has ${CANDIDATES[*]}"
}

# Sets EXTENSION_DIR: the extensions of the PHP under test (links), and those of EXTENSIONS that it lacks.
build_extensions() {
    local name new key
    key=$(sha256sum "$PHP" | cat - <(echo "$SUITE $PREFIX") | sha256sum | cut -c 1-16)
    EXTENSION_DIR=$CACHE/fpm-extensions-$key
    [ ! -d "$EXTENSION_DIR" ] || return 0
    say "building extensions that the tests load: ${EXTENSIONS[*]}"
    new=$EXTENSION_DIR.new
    rm -rf "$new"
    mkdir "$new"
    find "$("$CONFIG" --extension-dir)" -name '*.so' -exec ln -s -t "$new" {} +
    for name in "${EXTENSIONS[@]}"; do
        [ ! -e "$new/$name.so" ] || continue
        cp -r "$SUITE/ext/$name" "$new/build"
        (
            cd "$new/build"
            quietly "${CONFIG%-config}ize"
            quietly ./configure -q --with-php-config="$CONFIG" "--enable-${name//_/-}" \
                CFLAGS="-O2 $(pkg-config --cflags libxml-2.0) -I$SUITE" # zend_test wants headers of libxml2 and ext/dom
            quietly make
        )
        cp "$new/build/modules/$name.so" "$new/"
        rm -rf "$new/build"
    done
    mv "$new" "$EXTENSION_DIR"
}

# The tests to run, by their file names, into TESTS.
select_tests() {
    local pattern found
    TESTS=()
    for pattern in "${@:-*}"; do
        mapfile -t found < <(cd "$SUITE/sapi/fpm/tests" && compgen -G "${pattern%.phpt}.phpt")
        [ "${#found[@]}" != 0 ] || fail "no test is called $pattern"
        TESTS+=("${found[@]}")
    done
    mapfile -t TESTS < <(printf '%s\n' "${TESTS[@]}" | sort -u)
}

# Puts a php-fpm, and the php that drives the tests, where the tests look for them. Each test gets a session of its own:
# where there is no pid file, it sends its signal to process 0, which is its process group.
contestant() {
    mkdir -p "$WORK/$1"/{cli,fpm}
    cp "$PHP" "$WORK/$1/cli/real-php"
    # shellcheck disable=SC2016 # for that shell to expand
    printf '#!/bin/sh\nexec setsid "%s" "$@"\n' "$WORK/$1/cli/real-php" >"$WORK/$1/cli/php"
    chmod 755 "$WORK/$1/cli/php"
    cp "$2" "$WORK/$1/fpm/php-fpm"
}

# In the mount namespace of a run: makes the PHP under test readable for other users. It may lie in root's home.
show_prefix() {
    local part hidden=
    for part in ${PREFIX//\// }; do
        hidden+=/$part
        "${AS_NOBODY[@]}" test -x "$hidden" || break
    done
    ! "${AS_NOBODY[@]}" test -r "$PREFIX/lib" || return 0
    mkdir -p "$WORK/prefix"
    mount --bind "$PREFIX" "$WORK/prefix"
    mount -t tmpfs -o mode=755 tmpfs "$hidden"
    mkdir -p "$PREFIX"
    mount --bind "$WORK/prefix" "$PREFIX"
}

# The run itself, in its namespaces: inside ROOT|USER COMMAND...
inside() {
    local who=$1
    shift
    if [ -n "${ISOLATED-}" ]; then
        ip link set lo up
        [ "$who" = root ] || show_prefix
        # PHPRC says the same, but one test gives php-fpm an environment of its own.
        [ -z "$FPM_INI" ] || mount --bind "$WORK/ini/php.ini" "$FPM_INI"
    fi
    [ "$who" = root ] || [ "$(id -u)" != 0 ] || set -- "${AS_NOBODY[@]}" "$@"
    # In a namespace, this shell is its init, and waits for orphans.
    if [ -n "${ISOLATED-}" ]; then "$@"; else exec "$@"; fi
}

# Can this process make namespaces?
can_isolate() {
    [ "$(id -u)" = 0 ] && "${ISOLATE[@]}" ip link set lo up 2>/dev/null
}

# run CONTESTANT root|user RESULTS TEST...: writes a line "name<TAB>RESULT" for each test into RESULTS, and what the
# failed ones said into RESULTS.log.
run() {
    local contestant=$1 who=$2 results=$3 dir command=() env test status=0
    shift 3
    dir=$(mktemp -d "$WORK/run.XXXX")
    cp -r "$SUITE"/. "$dir"
    : >"$dir/results"
    [ "$who" = root ] || [ "$(id -u)" != 0 ] || chown -R "$NOBODY:" "$dir"
    chmod 755 "$dir"
    env=(PATH="$PATH" LC_ALL=C HOME="$dir" TMPDIR=/tmp NO_INTERACTION=1 NO_COLOR=1 PHPRC="$WORK/ini"
        TEST_FPM_EXTENSION_DIR="$WORK/extensions" RUN_RESOURCE_HEAVY_TESTS=1 FPM_RUN_RESOURCE_HEAVY_TESTS=1)
    [ "$who" = user ] || env+=(TEST_FPM_RUN_AS_ROOT=1)
    # With the end of unshare, --kill-child ends everything in the namespaces; it blocks milder signals. The shell has
    # what it runs in the background ignore two signals.
    command=(env --chdir="$dir" --default-signal=INT --default-signal=QUIT ISOLATED="$ISOLATED" WORK="$WORK"
        PREFIX="$PREFIX" FPM_INI="$FPM_INI" timeout --foreground --signal=KILL "$((MINUTES * 60))")
    [ -z "$ISOLATED" ] || command+=("${ISOLATE[@]}")
    command+=("$BASH" "$HERE/conformance.sh" --inside "$who" env -i "${env[@]}" "$WORK/$contestant/cli/php"
        "$dir/run-tests.php" -p "$WORK/$contestant/cli/php" -d "extension_dir=$WORK/extensions"
        -q --set-timeout "$TIMEOUT" -W "$dir/results" "${@/#/$dir/sapi/fpm/tests/}")
    "${command[@]}" >"$dir/output" 2>&1 </dev/null &
    RUNNING=$!
    wait "$RUNNING" || status=$?
    RUNNING=
    # A warning says that the test passed at run-tests' own second try, or that it was expected to fail (XFAIL).
    { grep -l '^--XFAIL--' "$dir"/sapi/fpm/tests/*.phpt || true; } | awk -F '\t' -v OFS='\t' '
        !results {xfail[$1]; next}
        {if ($1 == "WARNED" && !($2 in xfail)) $1 = "PASSED"
         sub(/.*\//, "", $2); sub(/\.phpt$/, "", $2); print $2, $1}' - results=1 "$dir/results" >"$results"
    [ -s "$results" ] || { # e.g. a php that does not start
        tail -n 20 "$dir/output" >&2
        fail "the suite did not run ($contestant, $who)"
    }
    [ "$status" != 137 ] || say "$contestant, $who: stopped after $MINUTES minutes"
    for test in "${@%.phpt}"; do
        # A test that the time did not suffice for is not in the results.
        grep -q "^$test"$'\t' "$results" || printf '%s\tNOT RUN\n' "$test" >>"$results"
        log_failure "$contestant" "$who" "$dir/sapi/fpm/tests/$test" >>"$results.log"
    done
    rm -rf "$dir"
}

# What test $3 says of its failure, if it has failed.
log_failure() {
    local file
    for file in "$3.diff" "$3.out"; do
        [ -s "$file" ] || continue
        printf '======== %s: %s (%s, %s)\n' "${file##*.}" "$(basename "$3")" "$1" "$2"
        cat "$file"
        echo
    done
}

# Ends a run that goes on when a signal comes.
# shellcheck disable=SC2317 # called by traps
stop() {
    [ -z "$RUNNING" ] || pkill -KILL -P "$RUNNING" || true
    exit "$1"
}

passed() {
    awk -F '\t' '$2 == "PASSED" {print $1}' "$1"
}

# suite CONTESTANT root|user RESULTS TEST...: as `run`, but what fails is run once more, and the second result counts.
suite() {
    local results=$3 again
    run "$@"
    mapfile -t again < <(awk -F '\t' '$2 ~ /^(FAILED|BORKED|LEAKED)$/ {print $1 ".phpt"}' "$results")
    if [ "$1" = fe-php ] && [ "${#again[@]}" -gt 0 ]; then
        # Those which the stock php-fpm does not pass need no second chance.
        mapfile -t again < <(comm -12 <(printf '%s\n' "${again[@]}" | sort) \
            <(passed "$WORK/stock-$2" | sed 's/$/.phpt/' | sort))
    fi
    # So many failures are no chance.
    [ "${#again[@]}" -gt 0 ] && [ "${#again[@]}" -le 40 ] || return 0
    run "$1" "$2" "$results.again" "${again[@]}"
    passed "$results.again" | sed "s/^/conformance.sh: passed only at the second try ($1, $2): /" >&2
    awk -F '\t' -v OFS='\t' 'NR == FNR {second[$1] = $2; next} $1 in second {$2 = second[$1]} {print}' \
        "$results.again" "$results" >"$results.new"
    mv "$results.new" "$results"
    mv "$results.again.log" "$results.log" # of the second run: it shows what fails for good
}

# The stock php-fpm's results for all tests, which change only with its files and the suite, are kept.
stock() {
    local who=$1 key kept
    key=$(sha256sum "$STOCK_FPM" "$PHP" "$HERE/conformance.sh" | cut -d ' ' -f 1 |
        cat - <(echo "$SUITE $ISOLATED") | sha256sum | cut -c 1-16)
    kept=$CACHE/fpm-stock/$key-$who
    if [ "${STOCK-1}" = 0 ] || [ ! -f "$kept" ]; then
        suite stock "$who" "$WORK/stock-$who" "${TESTS[@]}"
        [ "${#TESTS[@]}" = "$(find "$SUITE/sapi/fpm/tests" -name '*.phpt' | wc -l)" ] || return 0
        ! grep -q 'NOT RUN' "$WORK/stock-$who" || return 0
        mkdir -p "$CACHE/fpm-stock"
        cp "$WORK/stock-$who.log" "$kept.log"
        cp "$WORK/stock-$who" "$kept.new"
        mv "$kept.new" "$kept"
    fi
    printf '%s\n' "${TESTS[@]%.phpt}" |
        awk -F '\t' 'NR == FNR {wanted[$1]; next} $1 in wanted' - "$kept" >"$WORK/stock-$who"
    cp "$kept.log" "$WORK/stock-$who.log"
}

result_of() {
    [ ! -f "$2" ] || awk -F '\t' -v test="$1" '$1 == test {print tolower($2)}' "$2"
}

# Prints the table; sets BEHIND to what fe-php fails and the stock php-fpm passes, EXCUSED to what of it is listed.
compare() {
    local test who stock ours row cells
    BEHIND=()
    EXCUSED=()
    row='%-52s %-11s %-11s %-11s %-11s\n'
    # shellcheck disable=SC2059 # the format is ours
    printf "$row" test stock/root fe-php/root stock/user fe-php/user
    for test in "${TESTS[@]%.phpt}"; do
        cells=()
        for who in root user; do
            stock=$(result_of "$test" "$WORK/stock-$who")
            ours=$(result_of "$test" "$WORK/fe-php-$who")
            cells+=("${stock:--}" "${ours:--}")
            if [ "$stock" = passed ] && [ "$ours" != passed ]; then
                if excuse "$test"; then EXCUSED+=("$test ($who)"); else BEHIND+=("$test ($who)"); fi
            fi
        done
        # shellcheck disable=SC2059
        printf "$row" "$test" "${cells[@]}"
    done
    for who in "${WHO[@]}"; do
        printf '%s: of %d, stock php-fpm passes %d, fe-php %d\n' "$who" "${#TESTS[@]}" \
            "$(passed "$WORK/stock-$who" | wc -l)" "$(passed "$WORK/fe-php-$who" | wc -l)"
    done
}

# Is this test among those which threads must do differently? (name, blank, reason)
excuse() {
    [ -n "$DIFFERENCES" ] && grep -q "^$1 " "$DIFFERENCES"
}

main() {
    local who
    if [ $# = 0 ] || [ -z "${FE_PHP_BIN-}" ]; then
        fail "usage: FE_PHP_BIN=... scripts/conformance.sh PHP_CONFIG [TEST...]"
    fi
    [ -x "$FE_PHP_BIN" ] || fail "$FE_PHP_BIN is no program: set FE_PHP_BIN"
    CONFIG=$(command -v "$1") || fail "$1 is no program"
    shift
    MINUTES=${MINUTES:-20}
    OUT=${OUT:-target/conformance}
    PREFIX=$("$CONFIG" --prefix)
    VERSION=$("$CONFIG" --version | cut -d . -f 1,2)
    PHP=$PREFIX/bin/php
    [ ! -x "$PHP$VERSION" ] || PHP=$PHP$VERSION
    STOCK_FPM=$PREFIX/sbin/php-fpm
    [ ! -x "$STOCK_FPM$VERSION" ] || STOCK_FPM=$STOCK_FPM$VERSION
    if [ ! -x "$PHP" ] || [ ! -x "$STOCK_FPM" ]; then fail "no php or php-fpm of $CONFIG ($PHP, $STOCK_FPM)"; fi
    DIFFERENCES=
    [ "$("$PHP" -nr 'echo PHP_ZTS;')" = 0 ] || DIFFERENCES=$HERE/../tests/conformance/zts-differences.txt
    mkdir -p "$CACHE" "$OUT"
    LOG=$CACHE/conformance.log
    : >"$LOG"
    fetch_suite
    build_extensions
    select_tests "$@"

    WORK=$(mktemp -d /tmp/fe-fpm.XXXX)
    trap 'rm -rf --one-file-system "$WORK"' EXIT
    trap 'stop 130' INT
    trap 'stop 143' TERM HUP
    chmod 755 "$WORK"
    mkdir "$WORK/ini"
    : >"$WORK/ini/php.ini"
    cp -r "$EXTENSION_DIR" "$WORK/extensions"
    contestant stock "$STOCK_FPM"
    contestant fe-php "$FE_PHP_BIN"
    ISOLATED=
    FPM_INI=$("$STOCK_FPM" -i 2>/dev/null | sed -n 's/^Loaded Configuration File => \(\/.*\)/\1/p')
    if can_isolate; then ISOLATED=1; else say "no namespaces here: the tests use the machine's own ports"; fi
    WHO=(user)
    [ "$(id -u)" != 0 ] || WHO=(root user)

    for who in "${WHO[@]}"; do
        stock "$who"
        suite fe-php "$who" "$WORK/fe-php-$who" "${TESTS[@]}"
        cp "$WORK/stock-$who.log" "$OUT/stock-$who.log"
        cp "$WORK/fe-php-$who.log" "$OUT/fe-php-$who.log"
    done
    compare >"$OUT/table.txt"
    cat "$OUT/table.txt"
    echo "what failed tests say, and the stock php-fpm's: $(cd "$OUT" && pwd)/{fe-php,stock}-*.log"
    [ "${#EXCUSED[@]}" = 0 ] || printf 'different with threads: %s\n' "${EXCUSED[@]}"
    [ -n "$(for who in "${WHO[@]}"; do passed "$WORK/stock-$who"; done)" ] ||
        fail "the stock php-fpm passes none of these tests: nothing is compared"
    if [ "${#BEHIND[@]}" != 0 ]; then
        echo "fe-php is behind in ${#BEHIND[@]}:"
        (IFS=, && echo "${BEHIND[*]}") | sed 's/,/, /g' | fold --spaces --width=110 | sed 's/^/    /'
        exit 1
    fi
    echo "fe-php passes every test that the stock php-fpm passes"
}

if [ "${1-}" = --inside ]; then
    shift
    inside "$@"
else
    main "$@"
fi
exit
