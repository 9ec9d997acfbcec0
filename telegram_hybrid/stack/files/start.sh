#!/bin/sh
# start.sh USER FOLDER COMMAND...: run a service in its container on files of its own.
#
# The files of this deployment belong to whoever wrote them, with mode 0600, and are mounted
# read-only. Started as root, this copies them to FOLDER for USER; the image's own entrypoint then
# gives up root.
set -eu
user=$1
folder=$2
shift 2
mkdir -p "$folder"
for file in /stack/*; do
    copy=$folder/${file##*/}
    # Sentinel keeps what it learned in its file: only one that was written later replaces it.
    if [ ! -e "$copy" ] || [ "$file" -nt "$copy" ]; then
        cp "$file" "$copy"
        chown "$user" "$copy"
        chmod 0600 "$copy"
    fi
done
# PostgreSQL's image runs this once, when it has made the cluster.
if [ -d /docker-entrypoint-initdb.d ]; then
    ln -sf "$folder/init.sql" /docker-entrypoint-initdb.d/200_telegram.sql
fi
exec "$@"
