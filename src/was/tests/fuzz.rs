//! Scripts and packets from fixed seeds, and scripts that the fuzzer has found.

use super::chance::Chance;
use super::{drive, get, number, packet, post};
use crate::was::Command;

/// Says with which seed it has failed.
fn each_seed(count: u64, play: impl Fn(Chance)) {
    struct Telling(u64);
    impl Drop for Telling {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the seed was {}", self.0);
            }
        }
    }
    for seed in 1..=count {
        let _telling = Telling(seed);
        // Neighbours are to have nothing in common.
        play(Chance(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    }
}

fn random(chance: &mut Chance, most: usize) -> Vec<u8> {
    let length = chance.below(most);
    (0..length).map(|_| chance.below(256) as u8).collect()
}

#[test]
fn no_script_gets_client_and_server_out_of_step() {
    each_seed(20_000, |mut chance| {
        drive::converse(&random(&mut chance, 400))
    });
}

/// Of a script that makes requests: a random one seldom gets so far.
#[test]
fn no_mutation_of_exchanges_gets_them_out_of_step() {
    // REQUEST; URI; DATA; LENGTH 3; read 3; respond 2; write twice. All is delivered at once.
    let exchange: &[u8] = &[
        0, 1, 0, 255, 0, 3, 4, 255, 0, 11, 0, 255, 0, 12, 1, 3, 255, 14, 3, 255, 8, 2, 255, 13,
        255, 13, 255,
    ];
    // REQUEST; URI; NO_DATA; respond without length; write; STOP.
    let stopped: &[u8] = &[
        0, 1, 0, 255, 0, 3, 4, 255, 0, 10, 0, 255, 9, 255, 13, 255, 0, 13, 0, 255,
    ];
    each_seed(20_000, |mut chance| {
        let mut script = [exchange, stopped, exchange, stopped].concat();
        mutate(&mut chance, &mut script);
        drive::converse(&script);
    });
}

#[test]
fn bytes_mean_the_same_however_they_are_cut() {
    let conversations = [
        [get(), vec![packet(Command::Stop, b"")], get()].concat(),
        [
            post(),
            vec![number(Command::Length, 9), packet(Command::Nop, b"zz")],
        ]
        .concat(),
        [
            post(),
            vec![number(Command::Premature, 0), packet(Command::Stop, b"")],
        ]
        .concat(),
    ];
    each_seed(2_000, |mut chance| {
        let mut bytes = conversations[chance.below(conversations.len())].concat();
        mutate(&mut chance, &mut bytes);
        drive::split(&bytes);
    });
}

fn mutate(chance: &mut Chance, bytes: &mut Vec<u8>) {
    for _ in 0..chance.below(5) {
        let (at, count) = (chance.below(bytes.len()), chance.below(8));
        let end = (at + count).min(bytes.len());
        match chance.below(5) {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes[at] = chance.below(256) as u8,
            2 if end - at < bytes.len() => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            _ => {
                let noise = random(chance, 8);
                bytes.splice(at..at, noise);
            }
        }
    }
}
