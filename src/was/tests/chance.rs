//! What holds whatever arrives, and however it is cut.

use super::*;

/// xorshift64*: the same on every run.
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(mixed).unwrap() % bound
    }
}

/// A long conversation gives the same however its bytes are cut.
#[test]
fn splits_do_not_matter() {
    let conversation = [
        get(),
        vec![packet(Command::Stop, b""), packet(Command::Nop, b"zzz")],
    ]
    .concat()
    .concat();
    let expected = {
        let mut case = Case::default();
        case.hear(&conversation).unwrap();
        (case.seen.clone(), case.answers())
    };
    let mut chance = Chance(7);
    for _ in 0..500 {
        let mut case = Case::default();
        let mut rest = &conversation[..];
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(1 + chance.below(rest.len()));
            case.hear(piece).unwrap();
            rest = others;
        }
        assert_eq!((case.seen.clone(), case.answers()), expected);
    }
}

/// Whatever arrives, counts stay true: no more is read than was announced, and nothing panics.
#[test]
fn arbitrary_bytes_break_nothing() {
    let mut chance = Chance(42);
    for round in 0..4000 {
        let mut case = Case::default();
        for _ in 0..40 {
            let command = chance.below(21) as u16;
            let payload: Vec<u8> = match chance.below(4) {
                0 => (chance.below(30) as u64).to_ne_bytes().to_vec(),
                1 => (chance.below(20) as u32).to_ne_bytes().to_vec(),
                2 => b"name=value".to_vec(),
                _ => (0..chance.below(12))
                    .map(|_| chance.below(256) as u8)
                    .collect(),
            };
            if case.hear(&raw(command, &payload)).is_err() {
                break;
            }
            let readable = case.session.readable().min(10);
            let read = chance.below(readable as usize + 1) as u64;
            case.session.was_read(read).unwrap();
            match chance.below(5) {
                0 => case.respond(Some(3)),
                1 => case.respond(None),
                2 => case.session.refuse_upload(&mut case.out),
                3 => case.session.cut(&mut case.out),
                _ => {}
            }
            if case.session.is_writable() && !case.session.is_answered() {
                case.session.was_written(1);
            }
            case.session.rest();
            let premature = case.commands().into_iter();
            let premature = premature.filter(|command| *command == Command::Premature);
            assert!(premature.count() <= 1, "round {round}");
        }
    }
}
