//! The page that a newcomer follows, `docs/django.md`: every command of it, in order, on a machine of its
//! own.

use super::{bare, boot, can_boot};
use crate::packages::deb;
use crate::support::provision;
use std::fs;
use std::path::Path;

const PAGE: &str = include_str!("../../docs/django.md");

/// The blocks of commands, with the line of each.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, line) in page.lines().enumerate() {
        match (&mut open, line) {
            (None, "```sh") => open = Some((index + 1, String::new())),
            (None, line) => assert!(!line.starts_with("```"), "line {}", index + 1),
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, text)), line) => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "the last block has no end");
    blocks
}

/// Fails at the first command that does. What `!` stands before has to fail: bash alone does not mind
/// when it does not.
fn strict(block: &str) -> String {
    let line = |line: &str| match line.strip_prefix("! ") {
        Some(command) => format!("if {command}; then echo 'this was to fail'; exit 1; fi\n"),
        None => format!("{line}\n"),
    };
    block.lines().map(line).collect()
}

#[test]
fn every_command_of_the_page_works() {
    let Some(deb) = deb::built().filter(|_| can_boot()) else {
        return;
    };
    for (program, package) in [("nginx", "nginx-light"), ("curl", "curl")] {
        if provision::program(program, package).is_none() {
            return;
        }
    }
    let Some(wheels) = provision::wheels() else {
        return;
    };
    let tree = bare();
    let root = tree.0.join("root/walk");
    fs::create_dir_all(&root).expect("a directory");
    let copy = |from: &Path, to: &Path| {
        let name = from.file_name().expect("a file has a name");
        fs::copy(from, to.join(name)).expect("a copy");
    };
    copy(deb, &root);
    let index = tree.0.join("root/wheels");
    fs::create_dir_all(&index).expect("a directory");
    for wheel in fs::read_dir(wheels).expect("wheels").flatten() {
        copy(&wheel.path(), &index);
    }
    // The machine is a copy of this one, on which a test or its owner may have left such things.
    let mut scenario = String::from(
        "cd /root/walk\nexport PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root\n\
        unset PYTHONPATH PYTHONHOME VIRTUAL_ENV PYENV_VERSION\n\
        export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels PIP_DISABLE_PIP_VERSION_CHECK=1\n\
        rm -rf /srv/shop\n",
    );
    let blocks = blocks(PAGE);
    assert!(blocks.len() > 8, "{}", blocks.len());
    for (line, block) in &blocks {
        let name = format!("block-{line}.sh");
        fs::write(root.join(&name), strict(block)).expect("a file");
        scenario.push_str(&format!(
            "say 'the commands at line {line}'\n\
            bash -euo pipefail {name} 2>&1 || {{ tail /var/log/nginx/error.log; fail 'line {line}'; }}\n"
        ));
    }
    scenario.push_str(CHECKS);
    boot(&tree, &scenario);
}

/// What the page promises.
const CHECKS: &str = r#"
say checks
systemctl is-enabled --quiet rswsgi@shop.socket rswsgi@shop.service nginx || fail enabled
[ "$(curl --silent http://localhost/)" = "Welcome from 127.0.0.1" ] || fail "the address of the client"
[ "$(curl --silent --header 'X-Forwarded-For: 6.6.6.6' http://localhost/)" = "Welcome from 127.0.0.1" ] || fail "a lie"
curl --silent --output /dev/null --cookie-jar /tmp/jar http://localhost/admin/login/ || fail "the form"
token=$(awk '/csrftoken/ { print $7 }' /tmp/jar)
status=$(curl --silent --output /dev/null --write-out '%{http_code}' --cookie /tmp/jar --cookie-jar /tmp/jar \
    --data-urlencode username=admin --data-urlencode 'password=correct horse' --data next=/admin/ \
    --data "csrfmiddlewaretoken=$token" http://localhost/admin/login/)
[ "$status" = 302 ] || fail "login: $status"
curl --silent --cookie /tmp/jar http://localhost/admin/ | grep -q 'Site administration' || fail "logged in"
ps -o user= -C rswsgi | sort -u | grep -qx rswsgi || fail "the user: $(ps -o user=,args= -C rswsgi)"
runuser -u www-data -- test -w /run/rswsgi/shop.sock || fail "nginx may use the socket"
! runuser -u nobody -- test -w /run/rswsgi/shop.sock || fail "nobody else may"
! runuser -u www-data -- test -r /srv/shop/shop/settings.py || fail "the secret key"
"#;
