//! An upgrade of the supervisor (SIGUSR2), and reloads, while WAS clients ask.

use super::{multi, ours};
use crate::support::was_client::*;
use crate::support::{MultiClient, Running, Server};
use nix::sys::signal::Signal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Clients that ask all the time; each exchange has to succeed.
struct Askers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Askers {
    /// Makes connections with `connect`; every other client keeps its one, the others have a new one for every
    /// third exchange.
    fn start(count: usize, connect: impl Fn() -> WasClientOf + Send + Sync + 'static) -> Askers {
        let (stop, answered) = (Arc::default(), Arc::default());
        let connect = Arc::new(connect);
        let asker = |number: usize| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let connect = Arc::clone(&connect);
            std::thread::spawn(move || ask_on(number, &*connect, &stop, &answered))
        };
        let threads = (0..count).map(asker).collect();
        Askers {
            stop,
            answered,
            threads,
        }
    }

    #[track_caller]
    fn wait_answers(&self, more: u64) {
        let before = self.answered.load(Ordering::Relaxed);
        crate::support::wait_until("more answers", || {
            let is_over = self.threads.iter().any(JoinHandle::is_finished);
            let now = self.answered.load(Ordering::Relaxed);
            (is_over || now >= before + more).then_some(())
        });
    }

    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no exchange is lost");
        }
        self.answered.load(Ordering::Relaxed)
    }
}

/// A connection, with the client that it belongs to.
type WasClientOf = (crate::support::WasClient, Option<MultiClient>);

fn ask_on(
    number: usize,
    connect: &(dyn Fn() -> WasClientOf + Send + Sync),
    stop: &AtomicBool,
    answered: &AtomicU64,
) {
    let (mut client, mut multi) = connect();
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        if number % 2 == 1 && round % 3 == 0 {
            (client, multi) = connect();
        }
        match round % 4 {
            0 => {
                let answer = client.ask(Asking::post("/sums", &[b'x'; 3000]));
                assert!(answer.text().starts_with("3000 "), "{answer:?}");
            }
            1 => assert_eq!(client.get("/big?70000").body.len(), 70_000),
            _ => drop(client.get("/hello").assert_text("hello\n")),
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    drop(multi);
}

#[track_caller]
fn replace_and_reload(server: &Running, askers: &Askers) {
    for round in 0..6 {
        let workers = server.workers();
        server.signal(Signal::SIGUSR2);
        server.wait_notified("RELOADING=1");
        server.wait_notified("READY=1");
        askers.wait_answers(20);
        assert_eq!(server.workers(), workers, "an upgrade keeps the workers");
        if round % 2 == 1 {
            server.signal(Signal::SIGHUP);
            server.wait_notified("READY=1");
            askers.wait_answers(20);
            crate::support::wait_until("one generation", || {
                (server.masters().len() == 1).then_some(())
            });
        }
    }
}

#[test]
fn upgrades_and_reloads_lose_no_exchange_of_clients_that_connect() {
    if !ours() {
        return;
    }
    let server = Server::new().app("was_app").workers(2);
    let path: PathBuf = server.dir().join("was.sock");
    let mut server = server.bind(&format!("was:{}", path.display())).start();
    let address = path.clone();
    let askers = Askers::start(6, move || {
        let multi = MultiClient::remote(&address);
        (multi.connect(), Some(multi))
    });
    replace_and_reload(&server, &askers);
    assert!(askers.finish() > 100);
    server.signal(Signal::SIGTERM);
    assert!(server.wait_exit().success());
    assert!(!path.exists(), "the last program removes its socket");
}

#[test]
fn upgrades_and_reloads_lose_no_exchange_of_the_client_that_started_it() {
    if !ours() {
        return;
    }
    let (mut server, multi) = multi(Server::new().app("was_app").workers(2));
    let multi = Arc::new(multi);
    let own = Arc::clone(&multi);
    let askers = Askers::start(6, move || (own.connect(), None));
    replace_and_reload(&server, &askers);
    assert!(askers.finish() > 100);
    drop(multi);
    assert!(server.wait_exit().success());
}
