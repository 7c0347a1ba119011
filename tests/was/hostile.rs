//! Clients that are none, or have gone wrong: whatever they pass and say, others are served by the same
//! worker, and nothing of theirs is left.

use super::{ours, with};
use crate::support::was_client::*;
use crate::support::{MultiClient, Pid, Running, Server, WasClient, wait_until};
use nix::fcntl::OFlag;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket, socketpair,
};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

fn descriptors(pid: Pid) -> usize {
    let all = std::fs::read_dir(format!("/proc/{}/fd", pid.number));
    all.expect("a process of ours").count()
}

/// The same worker goes on, with nothing open that it did not have before.
struct Unharmed {
    worker: Pid,
    before: usize,
    client: WasClient,
}

impl Unharmed {
    fn new(server: &Running, mut client: WasClient) -> Unharmed {
        client.get("/hello").assert_text("hello\n");
        let worker = server.workers()[0];
        Unharmed {
            worker,
            before: descriptors(worker),
            client,
        }
    }

    #[track_caller]
    fn serves(&mut self) {
        self.client.get("/hello").assert_text("hello\n");
        self.client.ask(Asking::post("/sums", &[b'x'; 100_000]));
    }

    #[track_caller]
    fn assert(mut self, server: &Running) {
        self.serves();
        wait_until("all descriptors to be closed", || {
            self.client.get("/hello").assert_status(200);
            (descriptors(self.worker) == self.before).then_some(())
        });
        assert_eq!(server.workers(), [self.worker], "the same process");
    }
}

fn stream() -> (OwnedFd, OwnedFd) {
    pair(SockType::Stream)
}

fn pair(kind: SockType) -> (OwnedFd, OwnedFd) {
    let flags = SockFlag::SOCK_CLOEXEC;
    socketpair(AddressFamily::Unix, kind, None, flags).expect("make a socket pair")
}

fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("make a pipe")
}

fn open(path: impl AsRef<std::path::Path>, flags: OFlag) -> OwnedFd {
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::fcntl::open(path.as_ref(), flags | OFlag::O_CLOEXEC, mode).expect("open a file")
}

/// Descriptors of all kinds, and what has to be kept for them.
fn strange(server: &Running) -> (Vec<(&'static str, OwnedFd)>, Vec<OwnedFd>) {
    let file = server.dir().join("some-file");
    std::fs::write(&file, [b'x'; 10_000]).expect("write a file");
    let fifo = server.dir().join("own-fifo");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&fifo, mode).expect("make a fifo");
    let listener = server.dir().join("own-listener.sock");
    let terminal = nix::pty::openpty(None, None).expect("make a terminal");
    let bound = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    );
    let bound = bound.expect("make a socket");
    bind(
        bound.as_raw_fd(),
        &UnixAddr::new(&listener).expect("a short path"),
    )
    .expect("bind it");
    listen(&bound, Backlog::new(1).expect("a small number")).expect("listen");
    std::fs::remove_file(&listener).expect("remove a file");
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").expect("bind to any port");
    let tcp = std::net::TcpStream::connect(tcp.local_addr().expect("it is bound"));
    let (read, write) = pipe();
    let (datagram, other_datagram) = pair(SockType::Datagram);
    let (packets, other_packets) = pair(SockType::SeqPacket);
    let (closed, _) = stream();
    let (lonely_read, _) = pipe();
    let (_, lonely_write) = pipe();
    let epoll = nix::sys::epoll::Epoll::new(nix::sys::epoll::EpollCreateFlags::EPOLL_CLOEXEC);
    let event = nix::sys::eventfd::EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_CLOEXEC);
    let kinds = vec![
        ("a regular file", open(&file, OFlag::O_RDWR)),
        ("a file to read", open(&file, OFlag::O_RDONLY)),
        ("a path", open(&file, OFlag::O_PATH)),
        ("a directory", open(server.dir(), OFlag::O_RDONLY)),
        ("/dev/null", open("/dev/null", OFlag::O_RDWR)),
        ("/dev/zero", open("/dev/zero", OFlag::O_RDWR)),
        ("/dev/full", open("/dev/full", OFlag::O_RDWR)),
        ("a terminal", terminal.slave),
        ("the other side of a terminal", terminal.master),
        ("a fifo", open(&fifo, OFlag::O_RDWR)),
        ("the path of a fifo", open(&fifo, OFlag::O_PATH)),
        ("the end of a pipe to read", read),
        ("the end of a pipe to write", write),
        ("a pipe that nobody writes", lonely_read),
        ("a pipe that nobody reads", lonely_write),
        ("a datagram socket", datagram),
        ("a packet socket", packets),
        ("a socket whose other side is closed", closed),
        ("a listening socket", bound),
        ("a TCP socket", tcp.expect("connect").into()),
        ("an epoll set", epoll.expect("make an epoll set").0),
        ("an eventfd", event.expect("make an eventfd").into()),
    ];
    (kinds, vec![other_datagram, other_packets])
}

fn pass(multi: &MultiClient, control: &OwnedFd, input: &OwnedFd, output: &OwnedFd) {
    let all = [control.as_raw_fd(), input.as_raw_fd(), output.as_raw_fd()];
    multi
        .send(&packet(1, b""), &all)
        .expect("send a connection");
}

#[test]
fn descriptors_of_every_kind_in_every_place_harm_nobody() {
    if !ours() {
        return;
    }
    let (server, multi, client) = with(Server::new());
    std::fs::write(server.dir().join("served"), [b'x'; 10_000]).expect("write a file");
    let mut unharmed = Unharmed::new(&server, client);
    let (kinds, _kept) = strange(&server);
    let requests = [
        Asking::get("/hello").bytes(),
        Asking::get("/file").bytes(),
        Asking::get("/big?300000").bytes(),
        Asking::get("/endless").bytes(),
        Asking::post("/sums", b"12345").bytes(),
        Asking::new(3, "/sums").opening(),
    ];
    for (_, kind) in &kinds {
        // In the place of the control channel, of all channels, and of a pipe while a request is asked.
        let ((input, upload), (download, output)) = (pipe(), pipe());
        pass(&multi, kind, &input, &output);
        pass(&multi, kind, kind, kind);
        drop((upload, download));
        for request in &requests {
            for place in 0..3 {
                let (control, theirs) = stream();
                let ((input, upload), (download, output)) = (pipe(), pipe());
                match place {
                    0 => pass(&multi, &theirs, kind, &output),
                    1 => pass(&multi, &theirs, &input, kind),
                    _ => pass(&multi, &theirs, kind, kind),
                }
                drop(theirs);
                let mut control = File::from(control);
                let _ = std::io::Write::write_all(&mut control, request);
                drop((control, input, output, upload, download));
                unharmed.serves();
            }
        }
        unharmed.serves();
    }
    drop(kinds);
    server.log.wait_for("closed a WAS connection: its");
    unharmed.assert(&server);
}

/// One descriptor three times, and the socket by which connections come.
#[test]
fn channels_that_are_one_and_the_same_harm_nobody() {
    if !ours() {
        return;
    }
    let (server, multi, client) = with(Server::new());
    let mut unharmed = Unharmed::new(&server, client);
    let (ours, theirs) = stream();
    pass(&multi, &theirs, &theirs, &theirs);
    let fifo = server.dir().join("own-fifo");
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::unistd::mkfifo(&fifo, mode).expect("make a fifo");
    // What is written comes back as what is read.
    let fifo = open(&fifo, OFlag::O_RDWR);
    for request in [
        Asking::get("/hello").bytes(),
        Asking::new(3, "/sums").opening(),
        Asking::get("/big?1000000").bytes(),
        Asking::post("/sums", &[b'x'; 5000]).bytes(),
    ] {
        let (control, theirs) = stream();
        pass(&multi, &theirs, &fifo, &fifo);
        let mut control = File::from(control);
        std::io::Write::write_all(&mut control, &request).expect("send a request");
        unharmed.serves();
    }
    drop((ours, theirs, fifo));
    unharmed.assert(&server);
}

#[test]
fn thousands_of_connections_that_come_and_go_leave_nothing() {
    if !ours() {
        return;
    }
    let (server, multi, client) = with(Server::new());
    let mut unharmed = Unharmed::new(&server, client);
    for round in 0..3000 {
        let mut client = multi.connect();
        match round % 4 {
            0 => {}
            1 => client.send(&Asking::get("/hello").bytes()[..3]),
            2 => client.send(Asking::get("/hello").bytes()),
            _ => client.send(Asking::new(3, "/sums").opening()),
        }
        drop(client);
        if round % 500 == 0 {
            unharmed.serves();
        }
    }
    unharmed.assert(&server);
}

/// As many as the socket holds, none of which is served before the next one is there.
#[test]
fn a_queue_full_of_connections_is_worked_off() {
    if !ours() {
        return;
    }
    let (server, multi, mut client) = with(Server::new());
    client.get("/hello").assert_status(200);
    let gate = server.gate("gate1");
    client.send(Asking::get("/meet?gate1").bytes());
    server.notes.expect("arrived");
    let mut waiting: Vec<WasClient> = (0..100).map(|_| multi.connect()).collect();
    for client in &mut waiting {
        client.send(Asking::get("/hello").bytes());
    }
    gate.open();
    for client in &mut waiting {
        client.answer().assert_text("hello\n");
        client.assert_idle();
    }
    client.answer().assert_status(200);
}

/// What is said without end: a client that does so is served as others are, and ends when it breaks a rule.
#[test]
fn a_client_that_never_stops_talking_harms_nobody() {
    if !ours() {
        return;
    }
    let (server, multi, client) = with(Server::new());
    let mut unharmed = Unharmed::new(&server, client);
    let nops = packet(NOP, [0; 60_000]);
    let mut idle = multi.connect();
    let mut asking = multi.connect();
    asking.send(&Asking::get("/hello").bytes()[..4]);
    let mut running = multi.connect();
    running.send(Asking::get("/big?5000000").bytes());
    running.read_some(10);
    for _ in 0..200 {
        for client in [&mut idle, &mut asking, &mut running] {
            client.send(&nops);
        }
        unharmed.client.get("/hello").assert_text("hello\n");
    }
    idle.get("/hello").assert_text("hello\n");
    asking.send(&Asking::get("/hello").bytes()[4..]);
    asking.answer().assert_text("hello\n");
    running.send(packet(STOP, b""));
    running.stopped_after(10);
    drop((idle, asking, running));
    unharmed.assert(&server);
}

/// Who asks before he was answered cannot know what is an answer to what.
#[test]
fn a_request_before_the_last_one_is_answered_ends_the_connection() {
    if !ours() {
        return;
    }
    let (server, multi, client) = with(Server::new());
    let unharmed = Unharmed::new(&server, client);
    for (first, second) in [("/hello", "/pid"), ("/big?5000000", "/hello")] {
        let mut early = multi.connect();
        early.send([Asking::get(first).bytes(), Asking::get(second).bytes()].concat());
        early.expect_closed();
    }
    unharmed.assert(&server);
}
