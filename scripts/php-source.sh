#!/bin/bash
# To be sourced: getting the source of a PHP from Debian's archive. Used by build-php.sh and conformance.sh, which define
# say, fail, quietly and LOG.
set -euo pipefail

# Debian release and source package, the best first.
# shellcheck disable=SC2034 # for those who source this
CANDIDATES=("trixie php8.4" "bookworm php8.2")

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/fe-php
APT=$CACHE/apt
SOURCES=$CACHE/sources

# apt with lists, cache and sources of its own: the machine's are only read.
private_apt() {
    apt-get -q -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$APT/parts" -o "Dir::State=$APT/state" \
        -o "Dir::State::Lists=$APT/lists" -o "Dir::Cache=$APT/cache" -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Languages=none -o Acquire::Retries=3 "$@"
}

# The source entries for release $1, from wherever this machine gets Debian's main archive.
debian_sources() {
    local uris keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    # shellcheck disable=SC2016 # apt's placeholders, not ours
    uris=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(ORIGIN) $(COMPONENT)' 'Created-By: Packages' |
        awk '$4 == "main" && $2 !~ /[\/-](security|updates|backports)/ && ($3 == "Debian" || $1 ~ /\/debian\/?$/) {print $1}' |
        sort -u | head -n 1)
    [ -n "$uris" ] || fail "no Debian archive among this machine's apt sources"
    [ -f "$keyring" ] || fail "$keyring is missing: apt-get install debian-archive-keyring"
    printf 'Types: deb-src\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$uris" "$1" "$keyring"
}

# Downloads the upstream tarballs of source packages $2... of Debian release $1 into $SOURCES (apt checks signatures and
# hashes). To be called in a subshell, for a step that fails ends it.
download_sources() {
    debian_sources "$1" >"$APT/parts/debian.sources"
    quietly private_apt update
    cd "$SOURCES"
    quietly private_apt source --download-only --tar-only "${@:2}"
}

# The tarball that apt has downloaded. (It leaves out of its list what it finds in the current directory.)
tarball() {
    local name
    cd "$APT"
    name=$(private_apt source --print-uris --tar-only "$1" 2>>"$LOG" |
        sed -n "s/^'[^']*' \($1_[^ ]*\.orig\.tar\.[a-z0-9]*\) .*/\1/p" | grep .) ||
        fail "no source of $1 in Debian (the whole log: $LOG)"
    echo "$SOURCES/$name"
}

# Lets one process at a time use the private apt, and makes its directories.
lock_sources() {
    mkdir -p "$APT"/{parts,state,lists/partial,cache/archives/partial} "$SOURCES"
    exec 8>"$CACHE/sources.lock"
    flock 8
}

unlock_sources() {
    exec 8>&-
}
