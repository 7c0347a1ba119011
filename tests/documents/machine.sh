#!/usr/bin/env bash
# Plays a scenario on a machine of its own as far as commands can tell: other users, an empty /run, /srv, /home
# and /var/log, every port free, and no processes but its own. Needs root; nothing is left of it.
#
#   unshare --mount --net --pid --fork --kill-child --mount-proc machine.sh DIRECTORY
#
# DIRECTORY has the programs in `programs/`, the files of the machine in `files/` and the scenario.
set -Eeuo pipefail
trap 'echo "status $? of: $BASH_COMMAND" >&2' ERR

directory=$1
cd "$directory"
ip link set lo up

stage=/mnt
mount -t tmpfs -o mode=755 tmpfs "$stage"
mkdir "$stage"/{etc,work,opt}
# Links to the programs would not do: they look for each other beside the file that is executed.
for program in programs/*; do
    name=$(basename "$program")
    : >"$stage/opt/$name"
    mount --bind "$(realpath "$program")" "$stage/opt/$name"
done
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$stage/etc,workdir=$stage/work" /etc
for place in /run /srv /home /var/log; do
    mount -t tmpfs -o mode=755 tmpfs "$place"
done
mount --rbind "$stage/opt" /opt

user() {
    sed -i "/^$1:/d" /etc/passwd /etc/group
    echo "$1:x:$2:" >>/etc/group
    echo "$1:x:$2:$2::$3:/bin/sh" >>/etc/passwd
}
user shop 61001 /srv/shop
user ann 61002 /home/ann
grep -q ^www-data: /etc/passwd || user www-data 61003 /var/www
rm -rf /etc/rswsgi /etc/shop.toml
cp -r files/. /
mkdir -p /home/ann/site /var/log/nginx
cp -r /srv/shop/. /home/ann/site
chown -R shop:shop /srv/shop
chown -R ann:ann /home/ann

export PATH=/opt:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1

fail() {
    echo "FAILED: $*" >&2
    [ ! -e "$directory/log" ] || tail -n 40 "$directory/log" >&2
    exit 1
}

# Until a command succeeds; it gives up when a slow machine would have done it, too, or the server has ended.
eventually() {
    local deadline=$((SECONDS + 30))
    until "$@"; do
        ((SECONDS < deadline)) || fail "gave up waiting: $*"
        [ -z "$job" ] || kill -0 "$job" 2>/dev/null || fail "the server has ended: $*"
        sleep 0.05
    done
}

# get ADDRESS [OPTIONS OF CURL]
get() {
    local address=$1
    shift
    case $address in
    unix:*) curl --silent --max-time 20 --unix-socket "${address#unix:}" "$@" http://localhost/ ;;
    *) curl --silent --max-time 20 "$@" "http://$address/" ;;
    esac
}

answers() { get "$@" >"$directory/answer"; }

# has PIECE...: of the last answer
has() {
    local piece
    for piece; do
        grep -qF -- "$piece" "$directory/answer" || return 1
    done
}

expect() { has "$@" || fail "not $* but $(cat "$directory/answer")"; }

# Answers at every address, with these pieces.
serves() {
    local address
    for address in $ADDRESSES; do
        eventually answers "$address"
        expect "$@"
    done
}

count() { pgrep --full --count "^rswsgi: $1" || true; }

nothing_runs() { ! pgrep --full '^rswsgi' >/dev/null; }

# launch USER: the command of the page as this user, in the directory where we are
launch() {
    local as=(setpriv --reuid "$1" --regid "$1" --init-groups)
    [ "$1" != root ] || as=()
    "${as[@]}" bash "$directory/command" >"$directory/log" 2>&1 </dev/null &
    job=$!
}

# What Ctrl-C and a service manager do.
stop() {
    local status=0
    kill -TERM "$(pgrep --full '^rswsgi: supervisor')"
    wait "$job" || status=$?
    job=
    [ "$status" = 0 ] || fail "status $status"
    eventually nothing_runs
    ! grep -E '(error|panic)' "$directory/log" || fail "the log has errors"
}

python3 -m venv --without-pip /srv/shop/venv
job=
ADDRESSES=$(cat addresses)
cd /srv/shop
source "$directory/scenario"
eventually nothing_runs
