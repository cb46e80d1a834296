#!/bin/bash
# Builds PHP with the embed SAPI from Debian's source package; the last line printed is its php-config.
#
#   scripts/build-php.sh zts|nts
#
# Debian's own libphp is NTS and, on Debian 12, PHP 8.2. This gives fe-php the other builds it supports: PHP 8.4, or the
# next of $CANDIDATES when Debian's archive has no such source to give (a mirror may list a version and lack its files).
# The result lies in ~/.cache/fe-php/php-<version>-<zts|nts>-<hash of this recipe>/ and is reused; remove it to build
# afresh, with the newest source.
set -euo pipefail
export LC_ALL=C.UTF-8
umask 022

APCU=php-apcu # of the same Debian release as PHP's source

CONFIGURE=(
    --enable-embed=shared --enable-fpm --enable-cli --disable-cgi --disable-phpdbg
    --enable-opcache
    --enable-calendar --enable-exif --enable-gd --with-jpeg --enable-intl --enable-mbstring
    --enable-pcntl --enable-shmop --enable-sockets --enable-sysvmsg --enable-sysvsem --enable-sysvshm
    --with-curl --with-gettext --with-openssl --with-zlib
    --without-pear
) # ctype, dom, fileinfo, iconv, pdo_sqlite, phar, posix, session, simplexml, sqlite3, tokenizer, xml* are defaults
# Within libphp.so, calls go straight to their functions, as in php-fpm's own program; else each would take the way round by
# the procedure linkage table, so that somebody could replace the function, which nobody does.
FLAGS=(CFLAGS='-O2 -fno-semantic-interposition' CXXFLAGS=-O2 LDFLAGS='-Wl,-Bsymbolic-functions')
RECIPE=1 # raise it when something else below changes the result

HERE=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/php-source.sh
. "$HERE/php-source.sh"

say() {
    echo "build-php.sh: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

# Runs a step with its output in the log; shows the log's end if it fails.
quietly() {
    echo "+ $*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 </dev/null || {
        tail -n 40 "$LOG" >&2
        fail "failed: $* (the whole log: $LOG)"
    }
}

# Downloads the tarballs of the first candidate that Debian's archive has.
fetch_sources() {
    local candidate
    lock_sources
    for candidate in "${CANDIDATES[@]}"; do
        # A subshell, for a step that fails ends it.
        if (download_sources "${candidate% *}" "${candidate#* }" "$APCU"); then
            PHP=${candidate#* }
            PHP_TAR=$(tarball "$PHP")
            APCU_TAR=$(tarball "$APCU")
            unlock_sources
            return
        fi
        say "the source of ${candidate#* } cannot be had from Debian ${candidate% *}"
    done
    fail "no PHP source could be downloaded (the whole log: $LOG)"
}

write_ini() {
    local etc=$1/etc
    mkdir -p "$etc/conf.d"
    cp "$2/php.ini-production" "$etc/php.ini"
    printf '%s\n' 'zend_extension=opcache' 'opcache.memory_consumption=128' >"$etc/conf.d/10-opcache.ini"
}

build_apcu() {
    local config_m4
    mkdir "$WORK/apcu"
    quietly tar -C "$WORK/apcu" -xf "$APCU_TAR"
    config_m4=$(find "$WORK/apcu" -name config.m4 | head -n 1)
    cd "$(dirname "$config_m4")"
    quietly "$PREFIX/bin/phpize"
    quietly ./configure -q --with-php-config="$PREFIX/bin/php-config" --enable-apcu "${FLAGS[@]}"
    quietly make -j"$JOBS"
    quietly make install
    echo 'extension=apcu' >"$PREFIX/etc/conf.d/20-apcu.ini"
}

build() {
    local threads=()
    [ "$KIND" = nts ] || threads=(--enable-zts)
    "$HERE/install-deps.sh" php-build
    say "building PHP ($KIND), which takes some minutes; log: $LOG"
    fetch_sources
    PREFIX=$CACHE/php-$(basename "$PHP_TAR" | sed "s/^${PHP}_//; s/\.orig\.tar.*//")-$KIND-$HASH
    # The prefix is compiled in, so installation goes to the final place; the stamp says that it is complete.
    rm -rf "$WORK" "$PREFIX"
    mkdir -p "$WORK/php"
    quietly tar -C "$WORK/php" --strip-components=1 -xf "$PHP_TAR"
    cd "$WORK/php"
    quietly ./configure -q --prefix="$PREFIX" --with-config-file-path="$PREFIX/etc" \
        --with-config-file-scan-dir="$PREFIX/etc/conf.d" "${threads[@]}" "${CONFIGURE[@]}" "${FLAGS[@]}"
    quietly make -j"$JOBS"
    quietly make install
    write_ini "$PREFIX" "$WORK/php"
    build_apcu
    quietly "$PREFIX/bin/php" -r 'extension_loaded("apcu") && function_exists("opcache_get_status") || exit(1);'
    cd "$CACHE"
    rm -rf "$WORK"
    touch "$PREFIX/.complete"
}

# The newest complete build of this recipe, if there is one.
finished() {
    local stamp
    stamp=$(find "$CACHE" -maxdepth 2 -path "$CACHE/php-*-$KIND-$HASH/.complete" | sort -V | tail -n 1)
    [ -n "$stamp" ] && PREFIX=$(dirname "$stamp")
}

main() {
    KIND=${1-}
    case $KIND in
        zts | nts) ;;
        *) fail "usage: scripts/build-php.sh zts|nts" ;;
    esac
    JOBS=${JOBS:-$(nproc)}
    HASH=$(printf '%s\n' "$RECIPE" "${CANDIDATES[@]}" "$APCU" "${CONFIGURE[@]}" "${FLAGS[@]}" | sha256sum | cut -c 1-10)
    WORK=$CACHE/build-$KIND-$HASH
    LOG=$CACHE/build-$KIND-$HASH.log
    mkdir -p "$CACHE"
    if ! finished; then
        exec 9>"$WORK.lock"
        flock --nonblock 9 || {
            say "another process is building this PHP; waiting for it"
            flock 9
        }
        if ! finished; then
            : >"$LOG"
            build
        fi
    fi
    echo "$PREFIX/bin/php-config"
}

main "$@"
exit
