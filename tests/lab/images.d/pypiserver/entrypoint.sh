#!/bin/bash
# The contract of the upstream image's entrypoint: arguments are pypi-server's; none means gunicorn on PYPISERVER_PORT (or PORT);
# root makes /data/packages usable for the user pypiserver and drops to it, anyone else runs as is.
set -euo pipefail

as_user=()
if ((EUID == 0)); then as_user=(gosu pypiserver); fi

usable() { "${as_user[@]}" test "$@"; }

need() { # DIRECTORY ACCESS…
    local directory=$1 access
    for access in "${@:2}"; do
        usable "-$access" "$directory" && continue
        chown -R pypiserver:pypiserver "$directory" || true
        usable "-$access" "$directory" && continue
        echo "Cannot start pypiserver: user $("${as_user[@]}" id -u) lacks access ($access) to $directory" >&2
        exit 1
    done
}

need /data r x
mkdir -p /data/packages
need /data/packages r w x

if (($# == 0)); then set -- run -p "${PYPISERVER_PORT:-$PORT}" --server gunicorn; fi
exec "${as_user[@]}" pypi-server "$@"
