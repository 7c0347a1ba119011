//! Listeners: bound by us or inherited, then all alike.
//!
//! [`open`] gives the supervisor its listeners; they stay open for its whole life and are described
//! to a master by [`ListenerSpec`]. Nothing here accepts: that is the workers' work.

#![forbid(unsafe_code)]

mod access;
mod adopt;
mod listener;
mod tcp;
mod unix;
pub mod was;

pub use access::DEFAULT_MODE;
pub use adopt::{LISTEN_VARIABLES, Passed, adopt, passed};
pub use listener::{Door, HandedListener, Kind, Listener, ListenerSpec, Origin};

use crate::config::{Bind, DEFAULT_BIND, Listen, ProxyProtocol};
use crate::error::{Error, Exit, Result};
use access::Access;
use unix::Protocol;

/// The name under which the service manager keeps listeners of ours over a restart (sd_notify(3),
/// FDNAME).
pub const KEPT: &str = "rswsgi-listener";

/// Listeners that this program has bound before and that were kept for it.
#[derive(Debug, Default)]
pub struct Kept(Vec<Listener>);

impl Kept {
    /// Those among the sockets that were passed.
    ///
    /// # Errors
    /// Those of [`adopt`].
    pub fn of(passed: &[Passed]) -> Result<Kept> {
        let kept = passed.iter().filter(|socket| socket.is_kept()).map(adopt);
        kept.collect::<Result<_>>().map(Kept)
    }

    /// The one that listens there already. One whose socket file has been replaced is none.
    fn take(&mut self, kind: &Kind) -> Option<Listener> {
        let index = self.0.iter().position(|kept| kept.kind() == kind)?;
        let mut listener = self.0.swap_remove(index);
        listener.reclaim().is_ok().then_some(listener)
    }
}

/// Puts the sockets that were passed under a name (`fd://web`) into its place: there may be several.
///
/// # Errors
/// [`Exit::Config`] when none was.
pub fn by_name(named: &[Listen], passed: &[Passed]) -> Result<Vec<Listen>> {
    let mut found = Vec::new();
    for listen in named {
        let Bind::Named(name) = &listen.bind else {
            found.push(listen.clone());
            continue;
        };
        let is_meant = |socket: &&Passed| socket.label.as_ref() == Some(name);
        let sockets: Vec<_> = passed.iter().filter(is_meant).collect();
        if sockets.is_empty() {
            return Err(not_passed(listen, passed));
        }
        found.extend(sockets.into_iter().map(|socket| Listen {
            bind: Bind::Fd(socket.fd),
            ..listen.clone()
        }));
    }
    Ok(found)
}

fn not_passed(listen: &Listen, passed: &[Passed]) -> Error {
    let labels = passed.iter().filter_map(|socket| socket.label.as_deref());
    let labels: Vec<&str> = labels.filter(|label| *label != KEPT).collect();
    let there = match labels.is_empty() {
        true => "none has a name".to_owned(),
        false => format!("there are {}", labels.join(", ")),
    };
    let message = format!(
        "cannot listen on {listen}: no socket of this name was passed, {there}; see FileDescriptorName= in \
         systemd.socket(5)"
    );
    Error::new(Exit::Config, message)
}

/// Who names sockets means these and no others: to the rest clients could connect, and nobody would
/// ever answer.
fn check_names(named: &[Listen], binds: &[Listen], passed: &[Passed]) -> Result<()> {
    if !named
        .iter()
        .any(|listen| matches!(listen.bind, Bind::Named(_)))
    {
        return Ok(());
    }
    let is_left = |socket: &&Passed| {
        let taken = binds
            .iter()
            .any(|listen| listen.bind == Bind::Fd(socket.fd));
        !taken && !socket.is_kept()
    };
    match passed.iter().find(is_left) {
        None => Ok(()),
        Some(socket) => {
            let message = format!("{socket} was passed, and no setting names it");
            Err(Error::new(Exit::Config, message))
        }
    }
}

/// All listeners of an app: the sockets that were passed, then those named; the default address if
/// there are neither. A socket that is passed as well as named (`fd://3`) is one listener. What was
/// kept for us and is no longer asked for is closed.
pub fn open(named: &[Listen], passed: &[Passed], backlog: u32) -> Result<Vec<Listener>> {
    let binds = by_name(named, passed)?;
    check_names(named, &binds, passed)?;
    let named = &binds;
    let mut kept = Kept::of(passed)?;
    let mut listeners = Vec::new();
    for socket in passed.iter().filter(|socket| !socket.is_kept()) {
        listeners.push(adopt(socket)?.speaking(protocol_of(named, socket.fd)));
    }
    for (index, listen) in named.iter().enumerate() {
        let taken = |fd: i32| passed.iter().any(|socket| socket.fd == fd);
        match &listen.bind {
            _ if named[..index].contains(listen) => {}
            Bind::Fd(fd) if taken(*fd) => {}
            bind => {
                let bound = bind_or_take(bind, backlog, &mut kept)?.into_iter();
                listeners.extend(bound.map(|l| l.speaking(listen.proxy_protocol)));
            }
        }
    }
    if listeners.is_empty() {
        let default = DEFAULT_BIND
            .parse()
            .map_err(|reason: String| Error::new(Exit::Internal, reason))?;
        listeners = bind_or_take(&default, backlog, &mut kept)?;
    }
    Ok(listeners)
}

/// The listeners of one of many apps: bound, or those that were kept, or passed under a name of its own
/// (`fd://web`). `passed`: to the server as a whole.
///
/// # Errors
/// As of [`open`].
pub fn open_one_of_many(
    named: &[Listen],
    passed: &[Passed],
    kept: &mut Kept,
    backlog: u32,
) -> Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for listen in by_name(named, passed)? {
        let bound = bind_or_take(&listen.bind, backlog, kept)?.into_iter();
        listeners.extend(bound.map(|l| l.speaking(listen.proxy_protocol)));
    }
    Ok(listeners)
}

/// What is spoken on a passed socket: that is said where it is named.
fn protocol_of(named: &[Listen], fd: i32) -> ProxyProtocol {
    let named = named.iter().find(|listen| listen.bind == Bind::Fd(fd));
    named.map_or(ProxyProtocol::Off, |listen| listen.proxy_protocol)
}

/// Binds one address; a host name may stand for several.
pub fn bind(address: &Bind, backlog: u32) -> Result<Vec<Listener>> {
    bind_or_take(address, backlog, &mut Kept::default())
}

fn bind_or_take(bind: &Bind, backlog: u32, kept: &mut Kept) -> Result<Vec<Listener>> {
    match bind {
        Bind::Unix { .. } | Bind::Abstract(_) => {
            Ok(vec![bind_unix(Protocol::Http, bind, backlog, kept)?])
        }
        Bind::Was(bind) => Ok(vec![bind_unix(Protocol::Was, bind, backlog, kept)?]),
        // Whoever asks for listeners has looked at standard input before.
        Bind::WasStandard => Ok(Vec::new()),
        Bind::Tcp { host, port } => tcp::bind(host, *port, backlog, kept),
        Bind::Fd(fd) => Ok(vec![adopt(&Passed::unnamed(*fd))?]),
        Bind::Named(_) => Err(not_passed(&bind.clone().into(), &[])),
    }
}

fn bind_unix(protocol: Protocol, bind: &Bind, backlog: u32, kept: &mut Kept) -> Result<Listener> {
    let refuse = |reason: String| Error::new(Exit::Config, format!("cannot bind {bind}: {reason}"));
    match bind {
        Bind::Unix {
            path,
            mode,
            user,
            group,
        } => {
            let access = Access::new(*mode, user.as_deref(), group.as_deref()).map_err(refuse)?;
            unix::bind_path_for(protocol, path, &access, backlog, kept)
        }
        Bind::Abstract(name) => unix::bind_abstract_for(protocol, name, backlog, kept),
        _ => Err(refuse("it is not a Unix socket".into())),
    }
}

/// `http://127.0.0.1:8000, unix:/run/a.sock`, for the line that announces the start.
pub fn serves(listeners: &[Listener]) -> String {
    let names: Vec<_> = listeners.iter().map(Listener::name).collect();
    names.join(", ")
}

/// The kernel lowers the backlog to net.core.somaxconn; nix refuses more than its default of 4096,
/// so a larger one asks for all there is.
fn backlog_of(backlog: u32) -> nix::sys::socket::Backlog {
    use nix::sys::socket::Backlog;
    i32::try_from(backlog)
        .ok()
        .and_then(|backlog| Backlog::new(backlog).ok())
        .unwrap_or(Backlog::MAXALLOWABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::IntoRawFd;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A directory of one test, removed when it ends.
    pub(super) struct Directory(PathBuf);

    pub(super) fn directory() -> Directory {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("rswsgi-net-{}-{count}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    impl Directory {
        pub(super) fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn inherited() -> i32 {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        nix::unistd::dup(&socket).unwrap().into_raw_fd()
    }

    #[test]
    fn a_passed_socket_replaces_the_default_address() {
        let passed = [Passed::unnamed(inherited())];
        let listeners = open(&[], &passed, 16).unwrap();
        assert_eq!(listeners.len(), 1);
        assert!(serves(&listeners).starts_with("http://127.0.0.1:"));
        assert!(!serves(&listeners).ends_with(":8000"));
    }

    #[test]
    fn a_socket_passed_and_named_is_one_listener() {
        let fd = inherited();
        let binds = [Bind::Fd(fd).into(), "127.0.0.1:0".parse().unwrap()];
        let listeners = open(&binds, &[Passed::unnamed(fd)], 16).unwrap();
        assert_eq!(listeners.len(), 2);
    }

    fn labelled(fd: i32, label: &str) -> Passed {
        Passed {
            fd,
            label: Some(label.to_owned()),
        }
    }

    #[test]
    fn sockets_are_found_by_their_name_and_no_other_is_taken() {
        let listens = |texts: &[&str]| -> Vec<Listen> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        let passed = [
            labelled(inherited(), "web"),
            labelled(inherited(), "admin"),
            labelled(inherited(), "web"),
        ];
        let web = listens(&["fd://web?proxy-protocol=on"]);
        let found = by_name(&web, &passed).unwrap();
        let fds = [passed[0].fd, passed[2].fd].map(|fd| format!("fd://{fd}?proxy-protocol=on"));
        let shown: Vec<_> = found.iter().map(Listen::to_string).collect();
        assert_eq!(shown, fds);
        // The third is left over, and is mentioned.
        let error = open(&web, &passed, 16).unwrap_err();
        let text = format!(
            "descriptor {} (admin) was passed, and no setting names it",
            passed[1].fd
        );
        assert_eq!((error.exit(), error.to_string()), (Exit::Config, text));
        let unknown = by_name(&listens(&["fd://wbe"]), &passed).unwrap_err();
        let text = unknown.to_string();
        assert!(
            text.contains("no socket of this name was passed, there are web, admin, web;"),
            "{text}"
        );
        let both = open(&listens(&["fd://web", "fd://admin"]), &passed, 16).unwrap();
        assert_eq!(both.len(), 3);
    }

    #[test]
    fn an_address_named_twice_is_bound_once() {
        let fd = Listen::from(Bind::Fd(inherited()));
        assert_eq!(open(&[fd.clone(), fd], &[], 16).unwrap().len(), 1);
    }

    #[test]
    fn what_is_spoken_on_a_listener_is_said_where_it_is_named() {
        let (fd, other) = (inherited(), inherited());
        let named = [
            format!("fd://{fd}?proxy-protocol=on").parse().unwrap(),
            "127.0.0.1:0?proxy-protocol=on".parse().unwrap(),
            "127.0.0.1:0".parse().unwrap(),
        ];
        let passed = [Passed::unnamed(fd), Passed::unnamed(other)];
        let listeners = open(&named, &passed, 16).unwrap();
        let spoken: Vec<_> = listeners.iter().map(Listener::proxy_protocol).collect();
        use ProxyProtocol::{Off, Required};
        assert_eq!(spoken, [Required, Off, Required, Off]);
        let handed = listeners[2].hand_over();
        let json = serde_json::to_string(&handed).unwrap();
        let handed: HandedListener = serde_json::from_str(&json).unwrap();
        let copy = nix::unistd::dup(&listeners[2]).unwrap();
        let resumed = Listener::resume(&handed, copy).unwrap();
        assert_eq!(resumed.proxy_protocol(), Required, "after an upgrade");
    }

    #[test]
    fn every_form_of_address_can_be_bound_and_announced() {
        let directory = directory();
        let path = directory.path("a.sock");
        let text = format!("unix:{}?mode=600", path.display());
        let binds = [text.parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
        let listeners = open(&binds, &[], 16).unwrap();
        let start = format!("unix:{}, http://127.0.0.1:", path.display());
        assert!(serves(&listeners).starts_with(&start));
    }

    #[test]
    fn an_owner_that_does_not_exist_is_a_mistake_in_the_configuration() {
        let named: Bind = "unix:/nowhere/a.sock?user=no-such-user".parse().unwrap();
        let error = bind(&named, 16).unwrap_err();
        assert_eq!(error.exit(), Exit::Config);
        assert!(
            error
                .to_string()
                .ends_with("there is no user \"no-such-user\""),
            "{error}"
        );
    }

    /// As if the service manager had kept it.
    fn kept(listener: &Listener) -> Passed {
        Passed {
            fd: nix::unistd::dup(listener).unwrap().into_raw_fd(),
            label: Some(KEPT.to_owned()),
        }
    }

    #[test]
    fn what_was_kept_is_taken_up_again_and_is_ours() {
        let directory = directory();
        let text = format!("unix:{}?mode=600", directory.path("a.sock").display());
        let mut binds: Vec<Listen> = vec![text.parse().unwrap(), "127.0.0.1:0".parse().unwrap()];
        let mut first = open(&binds, &[], 16).unwrap();
        let Kind::Tcp { addr } = first[1].kind().clone() else {
            panic!("{:?}", first[1]);
        };
        binds[1] = addr.to_string().parse().unwrap();
        let passed: Vec<Passed> = first.iter().map(kept).collect();
        first[0].keep_file();
        drop(first);
        // A socket that nobody asks for any more is closed.
        let other: Listen = "127.0.0.1:0".parse().unwrap();
        let unwanted = open(&[other], &[], 16).unwrap();
        let passed = [&passed[..], &[kept(&unwanted[0])]].concat();
        let unwanted = unwanted.into_iter().next().unwrap().kind().clone();
        let second = open(&binds, &passed, 16).unwrap();
        assert_eq!(second.len(), 2);
        assert!(second.iter().all(|l| l.origin() == Origin::Bound));
        assert_eq!(second[1].kind(), &Kind::Tcp { addr });
        let Kind::Tcp { addr } = unwanted else {
            panic!("{unwanted:?}");
        };
        TcpListener::bind(addr).expect("it was closed");
        drop(second);
        assert!(
            !directory.path("a.sock").exists(),
            "the file is ours to remove"
        );
    }

    #[test]
    fn a_backlog_beyond_the_default_maximum_asks_for_all() {
        assert_eq!(i32::from(backlog_of(2048)), 2048);
        assert_eq!(i32::from(backlog_of(65_535)), -1);
    }
}
