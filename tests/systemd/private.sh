#!/usr/bin/env bash
# Boots systemd in namespaces of its own, over a copy-on-write view of this machine's root file
# system, runs a script beside it, and leaves nothing behind. Needs root.
#
#   private.sh TREE SCRIPT     TREE is laid over the root first; the exit status is that of SCRIPT.
#                              71: systemd did not come up.
#
# Its network is its own: every port is free, and nothing else can be reached.
set -euo pipefail

tree=$(realpath "$1")
script=$(realpath "$2")
stage=$(mktemp -d)
group=rswsgi-private-$$
boot=

# A control group for all of it, in each hierarchy there is: version 1, 2 or both (cgroups(7)).
groups() {
    local root
    for root in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
        if [[ -e $root/cgroup.procs ]]; then echo "$root/$group"; fi
    done
}

clean_up() {
    local directory
    if [[ -n $boot ]]; then
        kill -KILL "$boot" 2>/dev/null || true
        wait "$boot" 2>/dev/null || true
    fi
    for directory in $(groups); do
        # Processes leave their group a moment after they have been killed.
        for _ in {1..50}; do
            find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null || true
            [[ -d $directory ]] || break
            sleep 0.1
        done
    done
    rm -rf "$stage"
}
trap clean_up EXIT

# Runs in the new mount namespace; ends as the parent of the new init.
read -r -d '' lay <<'INNER' || true
    stage=$1 tree=$2 script=$3
    mount -t tmpfs tmpfs "$stage"
    mkdir "$stage"/{upper,work,root}
    mount -t overlay overlay -o "lowerdir=/,upperdir=$stage/upper,workdir=$stage/work" "$stage/root"
    cp -r "$tree"/. "$stage/root"
    cp "$script" "$stage/root/scenario"
    cd "$stage/root"
    # Its clean-up at boot would otherwise empty the machine's.
    mount -t tmpfs -o mode=1777 tmpfs tmp
    mount -t tmpfs tmpfs run
    mount --rbind /dev dev
    mount -t sysfs -o ro sysfs sys || mount --bind /sys sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup 2>/dev/null || {
        mount -t tmpfs tmpfs sys/fs/cgroup
        mkdir sys/fs/cgroup/unified
        mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
    }
    : > etc/machine-id
    rm -rf var/log/journal
    # These would act on the kernel of the machine.
    for unit in sysctl modules-load binfmt remount-fs udevd udev-trigger; do
        ln -sf /dev/null "etc/systemd/system/systemd-$unit.service"
    done
    exec unshare --pid --fork --kill-child sh -c '
        mount -t proc proc proc
        export container=private
        exec chroot . /usr/lib/systemd/systemd --system --unit=basic.target --log-target=console --show-status=0
    ' </dev/null
INNER

(
    for directory in $(groups); do
        mkdir "$directory"
        echo "$BASHPID" >"$directory/cgroup.procs"
    done
    exec unshare --cgroup --mount --uts --ipc --net --propagation private \
        bash -euo pipefail -c "$lay" lay "$stage" "$tree" "$script"
) >"$stage.log" 2>&1 &
boot=$!
trap 'clean_up; rm -f "$stage.log"' EXIT

inside() {
    nsenter --target "$init" --mount --pid --cgroup --uts --ipc --net --root --wd "$@"
}

state=
for _ in {1..300}; do
    # All the steps above execute one another, so the child of this process is the new init.
    init=$(pgrep --parent "$boot" || true)
    if [[ -n $init ]]; then
        state=$(inside systemctl is-system-running 2>/dev/null || true)
        case $state in running | degraded) break ;; esac
    fi
    sleep 0.1
done
case $state in
running | degraded) ;;
*)
    echo "systemd did not come up:" >&2
    tail -5 "$stage.log" >&2
    exit 71
    ;;
esac

status=0
inside bash /scenario || status=$?
exit "$status"
