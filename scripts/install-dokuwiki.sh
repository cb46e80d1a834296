#!/bin/bash
# Makes a private, writable DokuWiki out of Debian's package; what is in it already (pages, settings) stays.
#
#   scripts/install-dokuwiki.sh DIRECTORY
set -euo pipefail

PACKAGE=/usr/share/dokuwiki
CONF=/etc/dokuwiki

main() {
    [ $# = 1 ] || { echo "usage: scripts/install-dokuwiki.sh DIRECTORY" >&2; exit 1; }
    [ -f "$PACKAGE/doku.php" ] || { echo "install-dokuwiki.sh: Debian's package dokuwiki is not installed" >&2; exit 1; }
    mkdir -p "$1"
    local dir
    dir=$(cd "$1" && pwd)
    if ! cmp -s "$PACKAGE/VERSION" "$dir/VERSION"; then
        # The package is full of links into the system, and one plugin, for developers, is for root's eyes only.
        # VERSION goes last, as it says that the rest is there.
        tar -C "$PACKAGE" -ch --exclude=lib/plugins/testing bin inc lib vendor doku.php feed.php index.php |
            tar -C "$dir" -x --no-same-owner
        # Debian's own preload.php sends everybody to /etc/dokuwiki.
        printf "<?php\ndefined('DOKU_CONF') || define('DOKU_CONF', '%s/conf/');\n" "$dir" >"$dir/inc/preload.php"
        # Debian 13's package lacks this file, which each page reads.
        if [ ! -e "$dir/lib/scripts/jquery/versions" ]; then
            mkdir -p "$dir/lib/scripts/jquery"
            : >"$dir/lib/scripts/jquery/versions"
        fi
        mkdir -p "$dir/conf"
        find "$CONF" -maxdepth 1 -type f -readable ! -name local.php ! -name apache.conf ! -name lighttpd.conf \
            -exec cp -n -t "$dir/conf" {} +
        mkdir -p "$dir"/data/{attic,cache,index,locks,log,media,media_attic,media_meta,meta,pages,tmp}
        cp "$PACKAGE/VERSION" "$dir"
    fi
    if [ ! -e "$dir/conf/local.php" ]; then
        printf '%s\n' '<?php' "\$conf['title'] = 'fe-php';" "\$conf['license'] = '';" \
            "\$conf['savedir'] = '$dir/data';" "\$conf['updatecheck'] = 0;" >"$dir/conf/local.php"
        printf '%s\n' '====== It works ======' '' 'DokuWiki on fe-php. Anyone who reaches this address can edit this page.' \
            >"$dir/data/pages/start.txt"
        # DokuWiki distrusts a cache file made in the same second as what it was made from, writes it anew in place,
        # and meanwhile shows other visitors an empty page.
        touch -d '1 hour ago' "$dir/conf/local.php" "$dir/data/pages/start.txt"
    fi
}

main "$@"
