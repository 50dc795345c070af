#!/bin/sh
# The contract of the official entrypoint: before nginx starts, run what lies in /docker-entrypoint.d, in order:
# *.envsh is sourced, *.sh is run, and only what is executable. (Its own scripts there, such as templates, are left out.)
set -e
case ${1:-} in
    nginx | nginx-debug)
        for script in /docker-entrypoint.d/*; do
            [ -x "$script" ] || continue
            # shellcheck source=/dev/null
            case $script in
                *.envsh) . "$script" ;;
                *.sh) "$script" ;;
            esac
        done
        ;;
esac
exec "$@"
