//! The supervisor's side: from the rings of one generation to lines.

#![forbid(unsafe_code)]

use super::format::{Context, Format};
use super::lane::Lanes;
use super::record::{Ending, Record};
use super::values::Calendar;
use crate::sys::clock::Nanos;

pub struct Intake {
    lanes: Lanes,
    format: Format,
    /// Read so far, per lane: what stands in the shared memory is for the writer only.
    tails: Vec<u32>,
    /// Of the counters in shared memory, what has been told.
    lost: Vec<u64>,
    calendar: Calendar,
    buffer: Vec<u8>,
}

/// What a look at the rings came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    pub lines: u64,
    /// Requests without a line.
    pub lost: u64,
}

impl Intake {
    pub fn new(lanes: Lanes, format: Format) -> Self {
        let tails = lanes.as_slice().iter().map(|lane| lane.tail()).collect();
        let lost = lanes.as_slice().iter().map(|lane| lane.lost()).collect();
        Self {
            lanes,
            format,
            tails,
            lost,
            calendar: Calendar::default(),
            buffer: Vec::new(),
        }
    }

    pub fn lanes(&self) -> &Lanes {
        &self.lanes
    }

    /// Appends a line for every record.
    pub fn take(&mut self, out: &mut Vec<u8>, context: &Context<'_>) -> Taken {
        let mut taken = Taken::default();
        let lanes = self.lanes.as_slice().iter().zip(&mut self.tails);
        for (worker, ((lane, tail), told)) in lanes.zip(&mut self.lost).enumerate() {
            let lost = lane.lost();
            // Another process counts: nonsense is told once, and is not believed.
            taken.lost += lost.wrapping_sub(*told).min(1 << 32);
            *told = lost;
            let context = Context { worker, ..*context };
            let (format, calendar) = (&self.format, &mut self.calendar);
            let (mut lines, mut bad) = (0, 0);
            let mut give = |bytes: &[u8]| match Record::read(bytes) {
                Some(record) => {
                    format.write(out, &record, &context, calendar);
                    lines += 1;
                }
                None => bad += 1,
            };
            if !lane.drain(tail, &mut self.buffer, &mut give) {
                bad += 1;
            }
            taken.lines += lines;
            taken.lost += bad;
        }
        taken
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        let lanes = self.lanes.as_slice().iter().zip(&self.tails);
        lanes.into_iter().all(|(lane, tail)| lane.is_empty(*tail))
    }

    /// All writers are gone: what they have left is completed, to be taken once more.
    pub fn bury(&self, ending: Ending, now: Nanos) {
        for lane in self.lanes.as_slice() {
            lane.bury(ending, 0, now);
        }
    }
}
