//! Thousands of exchanges with random aborts: nothing is left, and everything stays in step.

use super::{ours, with};
use crate::support::was_client::*;
use crate::support::{Server, wait_until};

struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn open_descriptors(pid: crate::support::Pid) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", pid.number))
        .expect("a process of ours")
        .count()
}

/// One exchange; false when the connection was given up.
fn exchange(client: &mut WasClientBox, chance: &mut Chance) -> bool {
    let client = &mut client.0;
    match chance.below(10) {
        0..=3 => {
            client.get("/hello").assert_text("hello\n");
        }
        4 => {
            let size = chance.below(200_000);
            let answer = client.get(&format!("/big?{size}"));
            assert_eq!(answer.body.len() as u64, size);
        }
        5 => {
            let size = chance.below(150_000) as usize;
            let answer = client.ask(Asking::post("/sums", &vec![b'x'; size]));
            assert!(answer.text().starts_with(&format!("{size} ")));
        }
        6 => {
            client.send(Asking::get("/big?400000").bytes());
            let read = chance.below(50_000);
            client.read_some(read);
            client.send(packet(STOP, b""));
            client.stopped_after(read);
            client.assert_idle();
        }
        7 => {
            let put = chance.below(50_000) as usize;
            client.send(Asking::new(3, "/sums").opening());
            client.put(&vec![b'x'; put]);
            client.send(number(PREMATURE, put as u64));
            client.answer().assert_status(400);
            client.assert_idle();
        }
        8 => {
            client.get("/hello");
            client.send(packet(STOP, b""));
            assert_eq!(client.stopped_after(6), 6);
        }
        _ => {
            client.send(Asking::get("/big?300000").bytes());
            return chance.below(3) > 0 && {
                let read = client.answer();
                read.body.len() == 300_000
            };
        }
    }
    true
}

struct WasClientBox(crate::support::WasClient);

#[test]
fn ten_thousand_exchanges_with_random_aborts_leave_nothing() {
    if !ours() {
        return;
    }
    let (server, multi, mut first) = with(Server::new());
    first.get("/hello");
    let worker = server.workers()[0];
    let before = open_descriptors(worker);
    let mut chance = Chance(4711);
    let mut clients: Vec<_> = (0..4).map(|_| WasClientBox(multi.connect())).collect();
    for round in 0..10_000 {
        let index = round % clients.len();
        if !exchange(&mut clients[index], &mut chance) {
            clients[index] = WasClientBox(multi.connect());
        }
    }
    drop(clients);
    first.get("/hello").assert_text("hello\n");
    wait_until("all descriptors to be closed", || {
        first.get("/hello");
        (open_descriptors(worker) == before).then_some(())
    });
    assert_eq!(server.workers(), [worker], "the same process");
}
