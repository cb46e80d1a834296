#!/bin/bash
# Installs the Debian packages that a group of tasks needs, and only those that are missing.
#
#   scripts/install-deps.sh build|serve|test|bench|conformance|fuzz|php-build ...
#
# Installing a package here starts no daemon, enables none at boot, and leaves Xdebug switched off.
set -euo pipefail

# What compiling fe-php against Debian's own libphp takes.
BUILD=(gcc libc6-dev make pkg-config libclang-dev php-cli php-dev libphp-embed)
# ... and what `make serve` runs: php-fpm brings the php.ini of the server, DokuWiki is the application.
SERVE=("${BUILD[@]}" php-fpm php-apcu php-curl php-gd php-intl php-mbstring php-sqlite3 php-xml
       dokuwiki nginx curl ca-certificates)
# ... and what the tests drive: front ends, applications, extensions.
TEST=("${SERVE[@]}" apache2 caddy haproxy lighttpd mediawiki
      php-igbinary php-imagick php-redis php-xdebug python3-prometheus-client shellcheck)
# ... and what the comparison with php-fpm makes load with.
BENCH=("${TEST[@]}" wrk php-symfony-framework-bundle)
# What php-fpm's own tests need: the stock php-fpm and its CLI, and programs that the tests or scripts/conformance.sh call.
CONFORMANCE=("${BUILD[@]}" php-fpm acl iproute2 libxml2-dev procps util-linux xz-utils debian-archive-keyring)
# What scripts/fuzz.sh compiles libFuzzer with.
FUZZ=(gcc g++ libc6-dev)
# What scripts/build-php.sh needs to compile PHP from Debian's source package.
PHP_BUILD=(autoconf gcc g++ libc6-dev make pkg-config xz-utils
           libcurl4-openssl-dev libicu-dev libjpeg-dev libonig-dev libpng-dev libsqlite3-dev
           libssl-dev libxml2-dev zlib1g-dev)

STATE=/var/lib/fe-php-install
POLICY=/usr/sbin/policy-rc.d
SAVED=$POLICY.fe-php-saved
MARK='# written by fe-php scripts/install-deps.sh'

fail() {
    echo "install-deps.sh: $*" >&2
    exit 1
}

# Names of installed packages, with the virtual ones they provide.
installed() {
    dpkg-query --show --showformat '${db:Status-Abbrev}\t${Package}, ${Provides}\n' |
        sed -n 's/^.i[^\t]*\t//p' | tr ',' '\n' | sed 's/(.*//; s/ //g; /^$/d' | sort -u
}

# Those of the packages named that are not there. (`libjpeg-dev` and the like may be virtual.)
missing() {
    local have
    have=$(installed)
    comm -23 <(printf '%s\n' "$@" | sort -u) - <<<"$have"
}

# Our policy-rc.d goes, the one that was there (if any) comes back.
restore_policy() {
    if [ -f "$POLICY" ] && grep -qxF "$MARK" "$POLICY"; then rm -f "$POLICY"; fi
    if [ -e "$SAVED" ] || [ -L "$SAVED" ]; then mv -f "$SAVED" "$POLICY"; fi
}

# Keeps maintainer scripts from starting services (exit 101: "action forbidden by policy").
forbid_services() {
    restore_policy # a run that was killed may have left its own
    if [ -e "$POLICY" ] || [ -L "$POLICY" ]; then mv "$POLICY" "$SAVED"; fi
    trap restore_policy EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    printf '#!/bin/sh\n%s\nexit 101\n' "$MARK" >"$POLICY"
    chmod 755 "$POLICY"
}

apt() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=900 -o Dpkg::Use-Pty=0 \
        -o Acquire::Retries=3 "$@" </dev/null
}

# The index may be missing (fresh image) or too old to download from: then refresh it, once.
install() {
    apt install --yes --no-install-recommends "$@" || {
        echo "install-deps.sh: refreshing the package index and trying again"
        apt update
        apt install --yes --no-install-recommends "$@"
    }
}

# Services that came with this run stay off after a reboot too: five web servers cannot share port 80.
disable_new_services() {
    local package unit
    command -v systemctl >/dev/null || return 0
    for package in "$@"; do
        { dpkg-query --listfiles "$package" 2>/dev/null || true; } |
            sed -n 's|^.*/systemd/system/\([^/@]*\.service\)$|\1|p' |
            while read -r unit; do
                systemctl --quiet disable "$unit" >/dev/null 2>&1 || true
            done
    done
}

install_as_root() {
    local before after new names want
    mkdir -p "$STATE"
    exec 9>"$STATE/lock"
    flock 9
    names=$(missing "$@")
    [ -n "$names" ] || return 0
    mapfile -t want <<<"$names"

    forbid_services
    # DokuWiki would otherwise add itself to every web server of the machine.
    if command -v debconf-set-selections >/dev/null && printf '%s\n' "${want[@]}" | grep -qx dokuwiki; then
        echo 'dokuwiki dokuwiki/system/configure-webserver multiselect' | debconf-set-selections
    fi
    before=$(installed)
    # First php-fpm alone: with Apache in the same run, apt would answer `php` with Apache's own PHP module.
    if printf '%s\n' "${want[@]}" | grep -qx php-fpm; then install php-fpm; fi
    install "${want[@]}"
    after=$(installed)
    mapfile -t new < <(comm -13 <(echo "$before") <(echo "$after"))
    disable_new_services "${new[@]}"
    # Debian enables Xdebug for every program as soon as it is installed, which makes them all slow.
    if printf '%s\n' "${new[@]}" | grep -qx php-xdebug && ! grep -qE '^php[0-9.]+-xdebug$' <<<"$before"; then
        phpdismod xdebug
    fi
}

main() {
    [ $# -gt 0 ] || fail "usage: scripts/install-deps.sh build|serve|test|bench|conformance|fuzz|php-build ..."
    command -v apt-get >/dev/null || fail "this needs Debian or a derivative (apt-get not found)"
    local group names packages=() want=()
    for group in "$@"; do
        case $group in
            build) packages+=("${BUILD[@]}") ;;
            serve) packages+=("${SERVE[@]}") ;;
            test) packages+=("${TEST[@]}") ;;
            bench) packages+=("${BENCH[@]}") ;;
            conformance) packages+=("${CONFORMANCE[@]}") ;;
            fuzz) packages+=("${FUZZ[@]}") ;;
            php-build) packages+=("${PHP_BUILD[@]}") ;;
            *) fail "unknown group: $group" ;;
        esac
    done
    names=$(missing "${packages[@]}")
    [ -n "$names" ] || return 0
    mapfile -t want <<<"$names"
    echo "installing Debian packages: ${want[*]}" >&2
    if [ "$(id -u)" = 0 ]; then
        install_as_root "${want[@]}" >&2
    else
        command -v sudo >/dev/null || fail "run this as root, or install sudo: apt-get install ${want[*]}"
        sudo -- "$0" "$@"
    fi
}

export LC_ALL=C.UTF-8
main "$@"
exit
