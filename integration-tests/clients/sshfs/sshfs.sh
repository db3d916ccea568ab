#!/bin/sh
# sshfs: mounts the gate, takes a step with the programs for files, and unmounts.
set -u

mount=$(mktemp -d)
sshfs -f -o "IdentityFile=$GATE_KEY,UserKnownHostsFile=$GATE_KNOWN_HOSTS,GlobalKnownHostsFile=/dev/null,port=$GATE_PORT" \
    -o BatchMode=yes,IdentitiesOnly=yes,dir_cache=no -F /dev/null "$GATE_USER@$GATE_HOST:/" "$mount" &
sshfs=$!
until mountpoint -q "$mount"; do
    kill -0 "$sshfs" || exit 1
    sleep 0.05
done

take() {
    step=$1
    shift
    case $step in
    put) cp -- "$1" "$mount$2" ;;
    put-with-times) cp -p -- "$1" "$mount$2" ;;
    put-renamed) cp -- "$1" "$mount$2.filepart" && mv -- "$mount$2.filepart" "$mount$2" ;;
    put-and-stat) cp -- "$1" "$mount$2" && stat -c %s -- "$mount$2" ;;
    put-tree) cp -r -- "$1" "$mount$2" ;;
    put-at-once)
        running=
        while [ $# -gt 0 ]; do
            cp -- "$1" "$mount$2" &
            running="$running $!"
            shift 2
        done
        code=0
        for one in $running; do wait "$one" || code=1; done
        return $code
        ;;
    list) ls -l -- "$mount$1" ;;
    get) cp -- "$mount$1" "$2" ;;
    remove) rm -- "$mount$1" ;;
    *) return 2 ;;
    esac
}

take "$@"
code=$?
# What it still has to send is sent before it ends.
fusermount3 -u "$mount" && wait "$sshfs"
rmdir "$mount"
exit $code
