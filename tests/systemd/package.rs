//! The Debian package in a system of its own: installed, started, upgraded, removed, purged.

use super::{Tree, bare, boot, can_boot};
use crate::packages::deb;
use std::fs;

fn tree() -> Option<Tree> {
    let deb = deb::built().filter(|_| can_boot())?;
    let tree = bare();
    fs::copy(deb, tree.0.join("rswsgi.deb")).expect("a copy of the package");
    Some(tree)
}

#[test]
fn it_is_installed_serves_and_leaves_nothing() {
    let Some(tree) = tree() else {
        return;
    };
    boot(
        &tree,
        r#"
        # By name: others may change the system below meanwhile.
        files() {
            find /etc /usr /var /run /opt -xdev -name '*rswsgi*' 2>/dev/null | grep -v '^/var/lib/dpkg/' | sort
        }
        install() { dpkg --install --force-confold /rswsgi.deb >/tmp/dpkg 2>&1 </dev/null; }
        files >/tmp/before
        install || fail "install: $(cat /tmp/dpkg)"
        id rswsgi >/dev/null || fail "no user"
        [ "$(rswsgi --version)" = "$(rswsgictl --version | sed s/ctl//)" ] || fail versions
        for page in 1:rswsgictl 5:rswsgi.toml 7:rswsgi-control 8:rswsgi; do
            [ -s "/usr/share/man/man${page%%:*}/${page#*:}.${page%%:*}.gz" ] || fail "no page $page"
        done
        bash -c 'source /usr/share/bash-completion/completions/rswsgi; complete -p rswsgi' >/dev/null ||
            fail completions
        for unit in rswsgi.service rswsgi.socket rswsgi@shop.service rswsgi@shop.socket; do
            found=$(systemd-analyze verify --man=no "$unit" 2>&1) || fail "$unit: $found"
            systemctl is-active --quiet "$unit" && fail "$unit was started"
            systemctl is-enabled --quiet "$unit" && fail "$unit was enabled"
        done

        # As it comes, there is nothing to serve; that is said, and not tried again and again.
        systemctl start rswsgi.service 2>/dev/null && fail "it serves nothing"
        [ "$(systemctl show --property ExecMainStatus --value rswsgi.service)" = 78 ] || fail "status"
        systemctl reset-failed rswsgi.service
        cat >>/etc/rswsgi/rswsgi.toml <<END
target = "shop"
chdir = "/srv/shop"
workers = 2
access-log = "/var/log/rswsgi/access.log"
END
        runuser -u rswsgi -- rswsgi --config /etc/rswsgi/rswsgi.toml --check || fail "check"
        systemctl enable --now rswsgi.socket rswsgi.service 2>/tmp/enabled || fail "start: $(cat /tmp/enabled)"
        expected="one $(id -u rswsgi)"
        [ "$(ask /run/rswsgi/rswsgi.sock)" = "$expected" ] || fail "no answer"
        printf 'target = "shop"\nchdir = "/srv/shop"\nworkers = 1\n' >/etc/rswsgi/shop.toml
        systemctl start rswsgi@shop.service || fail "start of an instance"
        [ "$(rswsgictl list | grep -c /run/rswsgi/)" = 2 ] || fail "list: $(rswsgictl list)"
        publish two
        systemctl reload rswsgi.service || fail reload
        ask /run/rswsgi/rswsgi.sock | grep -q '^two ' || fail "the new version does not serve"

        if [ -x /usr/sbin/logrotate ]; then
            eventually grep -q ' 200 ' /var/log/rswsgi/access.log
            logrotate --force --state /tmp/state /etc/logrotate.d/rswsgi || fail logrotate
            ask /run/rswsgi/rswsgi.sock >/dev/null
            eventually grep -q ' 200 ' /var/log/rswsgi/access.log
            [ -s /var/log/rswsgi/access.log.1 ] || fail "nothing was rotated"
        fi

        # Installed over itself, as an upgrade is: the same processes go on with the new program.
        main=$(pid rswsgi.service)
        inode=$(stat --dereference --format %i "/proc/$main/exe")
        install || fail "upgrade: $(cat /tmp/dpkg)"
        eventually sh -c "[ \$(stat --dereference --format %i /proc/$main/exe) != $inode ]"
        eventually sh -c 'journalctl --quiet --unit rswsgi.service | grep -q "upgraded from"'
        [ "$(pid rswsgi.service)" = "$main" ] || fail "another process"
        ask /run/rswsgi/rswsgi.sock | grep -q '^two ' || fail "no answer after the upgrade"
        systemctl reload rswsgi.service || fail "reload after the upgrade"

        # Directories of the system are in it, too.
        dpkg --listfiles rswsgi | while read -r path; do [ -d "$path" ] || echo "$path"; done >/tmp/files
        dpkg --remove rswsgi >/tmp/dpkg 2>&1 || fail "remove: $(cat /tmp/dpkg)"
        pgrep --full 'rswsgi: ' && fail "processes are left"
        grep -q shop /etc/rswsgi/rswsgi.toml || fail "the configuration is gone"
        dpkg --purge rswsgi >/tmp/dpkg 2>&1 || fail "purge: $(cat /tmp/dpkg)"
        rm /etc/rswsgi/shop.toml
        rmdir /etc/rswsgi || fail "more is left in /etc/rswsgi"
        while read -r path; do [ ! -e "$path" ] || fail "$path is left"; done </tmp/files
        [ "$(wc -l </tmp/files)" -gt 20 ] || fail "the package has few files: $(cat /tmp/files)"
        files >/tmp/after
        diff /tmp/before /tmp/after || fail "files are left"
    "#,
    );
}
