#!/bin/bash
# `make serve`: DokuWiki on fe-php behind a private nginx, on http://127.0.0.1:8080. Ctrl-C stops all of it.
#
#   PORT=8080          the port to listen on
#   FE_PHP=PATH        run this binary rather than compile one
set -euo pipefail
umask 022

HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(dirname "$HERE")
PORT=${PORT:-8080}
WORKERS=${WORKERS:-4}
PIDS=()

say() {
    echo "serve: $*" >&2
}

fail() {
    say "$*"
    exit 1
}

# Root gives its rights up: the two servers then run as www-data, in a directory which that user can reach.
choose_user() {
    # A session of their own: the terminal sends Ctrl-C to this script alone, which then stops them in order.
    RUN=(setsid setpriv --pdeathsig TERM --no-new-privs)
    if [ "$(id -u)" = 0 ]; then
        RUN+=(--reuid www-data --regid www-data --init-groups)
        DIR=/var/cache/fe-php/serve
    else
        DIR=${XDG_CACHE_HOME:-$HOME/.cache}/fe-php/serve
    fi
}

check_port() {
    [[ $PORT =~ ^[1-9][0-9]{0,4}$ ]] || fail "PORT=$PORT is not a port number"
    # Connecting tells that somebody listens; the subshell closes the connection again.
    if (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; then
        fail "port $PORT is taken; choose another one: make serve PORT=8081"
    fi
}

build() {
    if [ -z "${FE_PHP-}" ]; then
        (cd "$ROOT" && "${CARGO:-cargo}" build --release --bin fe-php)
        FE_PHP=${CARGO_TARGET_DIR:-$ROOT/target}/release/fe-php
    fi
    [ -x "$FE_PHP" ] || fail "$FE_PHP is no program"
}

write_nginx_conf() {
    cat >"$TMP/nginx.conf" <<END
worker_processes 1;
pid $TMP/nginx.pid;
error_log stderr warn;
events { worker_connections 256; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log $TMP/access.log;
    client_max_body_size 128m;
    client_body_temp_path $TMP/body;
    fastcgi_temp_path $TMP/fastcgi;
    proxy_temp_path $TMP/proxy;
    scgi_temp_path $TMP/scgi;
    uwsgi_temp_path $TMP/uwsgi;
    upstream php {
        server unix:$TMP/fe-php.sock;
        keepalive 8;
    }
    server {
        listen 127.0.0.1:$PORT;
        server_name localhost;
        root $DIR/dokuwiki;
        index doku.php;
        location ~ ^/(bin|conf|data|inc|vendor)/ { return 404; }
        location ~ /\.ht { return 404; }
        location ~ \.php\$ {
            try_files \$uri =404;
            include /etc/nginx/fastcgi_params;
            fastcgi_param SCRIPT_FILENAME \$document_root\$fastcgi_script_name;
            fastcgi_pass php;
            fastcgi_keep_conn on;
        }
    }
}
END
}

# Stops both servers, nginx first so that it reports no errors, and waits until they are gone.
# shellcheck disable=SC2317,SC2329 # called by a trap
stop() {
    local status=$? i
    trap '' INT TERM HUP EXIT
    for ((i = ${#PIDS[@]} - 1; i >= 0; i--)); do
        kill -TERM "${PIDS[i]}" 2>/dev/null || true
        wait "${PIDS[i]}" 2>/dev/null || true
    done
    [ -z "${TMP-}" ] || rm -rf "$TMP"
    exit "$status"
}

# start NAME COMMAND...
start() {
    local name=$1
    shift
    (cd / && exec "${RUN[@]}" "$@") </dev/null &
    PIDS+=($!)
    NAMES[$!]=$name
}

# Waits until the check succeeds; gives up when a server ends or after 20 s.
await() {
    local i pid
    for ((i = 0; i < 200; i++)); do
        if "$@"; then return; fi
        for pid in "${PIDS[@]}"; do
            kill -0 "$pid" 2>/dev/null || fail "${NAMES[$pid]} did not start"
        done
        sleep 0.1
    done
    fail "no answer after 20 s"
}

# shellcheck disable=SC2317,SC2329 # called by await
answers() {
    curl --silent --fail --max-time 20 --output /dev/null "http://127.0.0.1:$PORT/doku.php"
}

main() {
    declare -gA NAMES=()
    choose_user
    "$HERE/install-deps.sh" serve
    check_port
    build
    mkdir -p "$DIR"
    "$HERE/install-dokuwiki.sh" "$DIR/dokuwiki"

    TMP=$(mktemp -d /tmp/fe-php-serve.XXXXXX)
    trap stop EXIT
    trap 'exit 0' INT TERM HUP
    # A checkout in somebody's home is out of www-data's reach.
    install -m 755 "$FE_PHP" "$TMP/fe-php"
    write_nginx_conf
    if [ "$(id -u)" = 0 ]; then
        chown -R www-data:www-data "$TMP" "$DIR/dokuwiki"
    fi

    start fe-php "$TMP/fe-php" fpm --listen "$TMP/fe-php.sock" --workers "$WORKERS"
    await test -S "$TMP/fe-php.sock"
    start nginx nginx -e stderr -c "$TMP/nginx.conf" -g 'daemon off;'
    await answers
    echo
    echo "DokuWiki on fe-php: http://127.0.0.1:$PORT (its files: $DIR/dokuwiki)"
    echo "Ctrl-C stops it."
    local ended=0
    wait -n || ended=$?
    fail "a server ended unexpectedly (exit status $ended)"
}

main "$@"
