//! As the production client starts its children: under its filter of system calls, and with hardly an
//! environment.

use super::{multi, ours};
use crate::support::server::Standard;
use crate::support::was_client::*;
use crate::support::{MultiClient, Pid, Server, WasClient};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use std::collections::BTreeMap;

/// A process that makes one of these is killed.
const KILLED: [i64; 16] = [
    libc::SYS_mbind,
    libc::SYS_set_mempolicy,
    libc::SYS_move_pages,
    libc::SYS_setns,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_personality,
    libc::SYS_kcmp,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_acct,
];

fn filter(rules: BTreeMap<i64, Vec<SeccompRule>>, action: SeccompAction) -> BpfProgram {
    let arch = std::env::consts::ARCH.try_into().expect("a known machine");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch);
    let program = filter.and_then(TryInto::try_into);
    program.expect("these rules make a filter")
}

fn without(calls: &[i64]) -> BTreeMap<i64, Vec<SeccompRule>> {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// Of this thread, and of all that it starts. Without clone3(2), as where namespaces are forbidden.
fn shut_in() {
    let errno = |number: i32| SeccompAction::Errno(number.cast_unsigned());
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    let is_other = |family: i32| {
        let family = family.cast_unsigned().into();
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
    };
    let others: Result<Vec<_>, _> = families.into_iter().map(is_other).collect();
    let others = others.and_then(SeccompRule::new).expect("three conditions");
    let sockets = BTreeMap::from([(libc::SYS_socket, vec![others])]);
    for program in [
        filter(without(&KILLED), SeccompAction::KillProcess),
        filter(
            without(&[libc::SYS_get_mempolicy, libc::SYS_clone3]),
            errno(libc::ENOSYS),
        ),
        filter(sockets, errno(libc::EAFNOSUPPORT)),
    ] {
        seccompiler::apply_filter(&program).expect("filters can be had");
    }
}

/// Runs a test in a thread that the filter holds, with the server that it starts.
fn inside(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        shut_in();
        test();
    };
    let ended = std::thread::spawn(run).join();
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

/// All three filters.
fn assert_shut_in(processes: &[Pid]) {
    for pid in processes {
        let status = std::fs::read_to_string(format!("/proc/{}/status", pid.number));
        let status = status.expect("a process of ours");
        let count = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp_filters:"));
        let count = count.and_then(|text| text.trim().parse::<u32>().ok());
        assert!(count >= Some(3), "{} has {count:?} filters", pid.title());
    }
}

fn serves(client: &mut WasClient) {
    client.get("/hello").assert_text("hello\n");
    let answer = client.ask(Asking::post("/sums", &vec![b'x'; 300_000]));
    assert!(answer.text().starts_with("300000 "));
    assert_eq!(client.get("/big?1000000").body.len(), 1_000_000);
    client.get("/printing").assert_text("clean");
    // A file through a pipe.
    client.get("/file").assert_text("served");
}

#[test]
fn a_single_connection_is_served_under_the_filter_of_the_client() {
    if !ours() {
        return;
    }
    inside(|| {
        let (mut client, ends) = WasClient::pair();
        let standard = Standard {
            stdin: ends.input,
            output_and_control: Some((ends.output, ends.control)),
        };
        let mut server = Server::new()
            .app("was_app")
            .file("served", "served")
            .standard(standard)
            .start();
        serves(&mut client);
        assert_shut_in(&[server.supervisor(), server.master()]);
        assert_shut_in(&server.crew());
        drop(client);
        assert!(server.wait_exit().success());
    });
}

#[test]
fn a_multi_client_is_served_under_its_filter() {
    if !ours() {
        return;
    }
    inside(|| {
        let (mut server, multi) = multi(
            Server::new()
                .app("was_app")
                .file("served", "served")
                .workers(2),
        );
        let mut clients: Vec<_> = (0..4).map(|_| multi.connect()).collect();
        clients.iter_mut().for_each(serves);
        assert_shut_in(&[server.supervisor(), server.master()]);
        assert_shut_in(&server.workers());
        drop((clients, multi));
        assert!(server.wait_exit().success());
    });
}

/// PATH is all that the production client gives, beside what was configured.
#[test]
fn it_needs_no_environment() {
    if !ours() {
        return;
    }
    let (multi, stdin) = MultiClient::pair();
    let standard = Standard {
        stdin,
        output_and_control: None,
    };
    // What only the tests need is kept: where it is to say that it is ready.
    let clean = "exec env -i PATH=/usr/local/bin:/usr/bin:/bin NOTIFY_SOCKET=\"$NOTIFY_SOCKET\" \
                 ${RSWSGI_MODULE:+RSWSGI_MODULE=\"$RSWSGI_MODULE\"} \"$@\"";
    let text = "import os, locale, sys\n\
                def app(environ, start_response):\n    \
                    start_response('200 OK', [])\n    \
                    names = sorted(os.environ)\n    \
                    return [repr((sys.flags.utf8_mode, sys.getfilesystemencoding(), names)).encode()]\n";
    let server = Server::new().file("app.py", text).standard(standard);
    let server = server.under(["sh", "-c", clean, "sh"]);
    let _server = server.arg("--sys-path", ".").start();
    let text = multi.connect().get("/").text();
    assert!(text.contains("'utf-8'"), "{text}");
    assert!(
        text.contains("'PATH'") && !text.contains("'HOME'"),
        "{text}"
    );
}
