//! Many apps, limited room: whose turn it is to start, and who goes to make room.
//!
//! An app that is to start waits for its turn. Turns are given in the order in which they were asked for,
//! but owners of whom fewer apps are starting come first, so that nobody gets ahead by having many apps.
//! An app that has failed lately comes after the others and never takes the last turn.

#![forbid(unsafe_code)]

use super::backoff::Nanos;

/// After this a start is no longer counted: it is the application's own time, and others do not wait for it.
pub const LONG_START: Nanos = 3_000_000_000;

/// What one app has and wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Whose app it is.
    pub owner: u32,
    /// Room is kept for it while it has no processes.
    pub is_reserved: bool,
    /// Processes it counts for when it has some.
    pub size: u32,
    /// Whether it has some, also such as only leave.
    pub is_here: bool,
    /// Since when a generation of it starts.
    pub starts_since: Option<Nanos>,
    /// Since when it wants to start.
    pub wants_since: Option<Nanos>,
    /// Since when it could go without anybody noticing.
    pub idle_since: Option<Nanos>,
    /// What it has is about to be gone.
    pub is_leaving: bool,
    /// It did not come up the last time.
    pub has_failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Processes of all apps.
    pub processes: Option<u32>,
    /// Apps that start at the same time.
    pub starting: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The app at this place may start.
    Start(usize),
    /// The app at this place is to make room.
    Stop(usize),
}

/// What is to be done now.
pub fn choose(claims: &[Claim], bounds: Bounds, now: Nanos) -> Vec<Choice> {
    let mut table = Table::new(claims, bounds, now);
    let mut choices = Vec::new();
    let mut passed = vec![false; claims.len()];
    while let Some(index) = table.next(&passed) {
        passed[index] = true;
        if !table.has_turn(index) {
            continue;
        }
        if table.has_room(index) {
            table.start(index);
            choices.push(Choice::Start(index));
            continue;
        }
        while table.lacks(index) > table.leaving {
            let Some(idle) = table.longest_idle(index) else {
                break;
            };
            table.stop(idle);
            choices.push(Choice::Stop(idle));
        }
        if !claims[index].is_reserved {
            // Whoever has waited longer is not overtaken by one that needs less.
            break;
        }
    }
    choices
}

struct Table<'a> {
    claims: &'a [Claim],
    bounds: Bounds,
    /// Apps whose start counts, with those that are started now.
    starting: Vec<usize>,
    /// Processes there are, also those that leave.
    used: u32,
    /// Of these, processes that are about to be gone.
    leaving: u32,
    stopped: Vec<usize>,
    started: Vec<usize>,
}

impl<'a> Table<'a> {
    fn new(claims: &'a [Claim], bounds: Bounds, now: Nanos) -> Self {
        let counts = |claim: &Claim| {
            let since = claim.starts_since;
            since.is_some_and(|since| now.saturating_sub(since) < LONG_START)
        };
        let all = claims.iter().enumerate();
        let starting = all.filter(|(_, claim)| counts(claim)).map(|(i, _)| i);
        let sum = |fits: fn(&Claim) -> bool| -> u32 {
            let sizes = claims.iter().filter(|c| fits(c)).map(|c| c.size);
            sizes.fold(0, u32::saturating_add)
        };
        Self {
            claims,
            bounds,
            starting: starting.collect(),
            used: sum(|claim| claim.is_here),
            leaving: sum(|claim| claim.is_here && claim.is_leaving),
            stopped: Vec::new(),
            started: Vec::new(),
        }
    }

    /// Who is asked next.
    fn next(&self, passed: &[bool]) -> Option<usize> {
        let waiting = self.claims.iter().enumerate();
        let waiting = waiting.filter(|(index, claim)| {
            claim.wants_since.is_some() && !passed[*index] && !self.stopped.contains(index)
        });
        let rank = |(index, claim): &(usize, &Claim)| {
            let own = self.starting.iter();
            let own = own.filter(|i| self.claims[**i].owner == claim.owner);
            (
                !claim.is_reserved,
                claim.has_failed,
                own.count(),
                claim.wants_since,
                *index,
            )
        };
        waiting.min_by_key(rank).map(|(index, _)| index)
    }

    fn has_turn(&self, index: usize) -> bool {
        let free = (self.bounds.starting as usize).saturating_sub(self.starting.len());
        match self.claims[index].has_failed {
            true => free > 1,
            false => free > 0,
        }
    }

    /// How much more room it takes than there is.
    fn lacks(&self, index: usize) -> u32 {
        let claim = &self.claims[index];
        let (Some(most), false) = (self.bounds.processes, claim.is_here) else {
            // What it has counts for it already; a reload may double it for a moment.
            return 0;
        };
        let kept = match claim.is_reserved {
            true => 0,
            false => self.kept(),
        };
        let needed = self.used.saturating_add(kept).saturating_add(claim.size);
        needed.saturating_sub(most)
    }

    /// Room that others have reserved and do not use.
    fn kept(&self) -> u32 {
        let all = self.claims.iter().enumerate();
        let absent = all.filter(|(index, claim)| {
            claim.is_reserved && !claim.is_here && !self.started.contains(index)
        });
        absent.fold(0, |sum, (_, claim)| sum.saturating_add(claim.size))
    }

    fn has_room(&self, index: usize) -> bool {
        self.lacks(index) == 0
    }

    fn start(&mut self, index: usize) {
        if !self.claims[index].is_here {
            self.used = self.used.saturating_add(self.claims[index].size);
        }
        self.starting.push(index);
        self.started.push(index);
    }

    fn longest_idle(&self, for_whom: usize) -> Option<usize> {
        let all = self.claims.iter().enumerate();
        let idle = all.filter(|(index, claim)| {
            claim.is_here
                && !claim.is_leaving
                && !claim.is_reserved
                && *index != for_whom
                && !self.stopped.contains(index)
        });
        let idle = idle.filter_map(|(index, claim)| Some((claim.idle_since?, index)));
        idle.min().map(|(_, index)| index)
    }

    fn stop(&mut self, index: usize) {
        self.leaving = self.leaving.saturating_add(self.claims[index].size);
        self.stopped.push(index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    const ABSENT: Claim = Claim {
        owner: 1,
        is_reserved: false,
        size: 2,
        is_here: false,
        starts_since: None,
        wants_since: None,
        idle_since: None,
        is_leaving: false,
        has_failed: false,
    };

    fn waits(since: Nanos) -> Claim {
        Claim {
            wants_since: Some(since),
            ..ABSENT
        }
    }

    fn idle(since: Nanos) -> Claim {
        Claim {
            is_here: true,
            idle_since: Some(since),
            ..ABSENT
        }
    }

    fn bounds(processes: u32, starting: u32) -> Bounds {
        Bounds {
            processes: Some(processes),
            starting,
        }
    }

    fn starts(claims: &[Claim], bounds: Bounds) -> Vec<usize> {
        let choices = choose(claims, bounds, 100 * SECOND);
        let starts = choices.into_iter().filter_map(|choice| match choice {
            Choice::Start(index) => Some(index),
            Choice::Stop(_) => None,
        });
        starts.collect()
    }

    fn stops(claims: &[Claim], bounds: Bounds) -> Vec<usize> {
        let choices = choose(claims, bounds, 100 * SECOND);
        let stops = choices.into_iter().filter_map(|choice| match choice {
            Choice::Stop(index) => Some(index),
            Choice::Start(_) => None,
        });
        stops.collect()
    }

    #[test]
    fn whoever_has_waited_longest_starts_first_and_only_so_many_at_once() {
        let claims = [waits(5), ABSENT, waits(3), waits(4)];
        assert_eq!(starts(&claims, bounds(100, 2)), [2, 3]);
        assert_eq!(starts(&claims, bounds(100, 9)), [2, 3, 0]);
        let mut busy = claims;
        busy[1].is_here = true;
        busy[1].starts_since = Some(99 * SECOND);
        assert_eq!(starts(&busy, bounds(100, 2)), [2]);
        assert!(starts(&busy, bounds(100, 1)).is_empty());
    }

    #[test]
    fn a_start_that_takes_long_holds_up_nobody() {
        let endless = Claim {
            is_here: true,
            starts_since: Some(90 * SECOND),
            ..ABSENT
        };
        assert_eq!(starts(&[endless, endless, waits(1)], bounds(100, 1)), [2]);
    }

    #[test]
    fn nobody_gets_ahead_by_having_many_apps() {
        let of = |owner, since| Claim {
            owner,
            ..waits(since)
        };
        let claims = [of(1, 1), of(1, 2), of(1, 3), of(2, 4), of(3, 5)];
        assert_eq!(starts(&claims, bounds(100, 4)), [0, 3, 4, 1]);
    }

    #[test]
    fn what_has_failed_comes_last_and_leaves_a_turn_to_others() {
        let failed = Claim {
            has_failed: true,
            ..waits(1)
        };
        assert_eq!(starts(&[failed, waits(2)], bounds(100, 2)), [1]);
        assert_eq!(starts(&[failed, failed], bounds(100, 2)), [0]);
        assert_eq!(starts(&[failed, waits(2)], bounds(100, 3)), [1, 0]);
    }

    #[test]
    fn the_cap_holds_and_the_longest_idle_makes_room() {
        let busy = Claim {
            idle_since: None,
            ..idle(0)
        };
        let claims = [idle(9), idle(7), busy, waits(1)];
        assert_eq!(starts(&claims, bounds(8, 4)), [3]);
        assert!(starts(&claims, bounds(7, 4)).is_empty());
        assert_eq!(stops(&claims, bounds(7, 4)), [1]);
        // It is waited for, and nobody else is sent away meanwhile.
        let mut leaving = claims;
        leaving[1].is_leaving = true;
        assert_eq!(choose(&leaving, bounds(7, 4), 0), []);
        // Nobody can go.
        assert_eq!(choose(&[busy, waits(1)], bounds(2, 4), 0), []);
    }

    #[test]
    fn one_that_needs_less_does_not_overtake() {
        let large = Claim {
            size: 6,
            ..waits(1)
        };
        let claims = [large, waits(2), idle(3)];
        assert!(starts(&claims, bounds(7, 4)).is_empty());
        assert_eq!(stops(&claims, bounds(7, 4)), [2]);
    }

    #[test]
    fn room_that_is_reserved_is_there() {
        let reserved = |since| Claim {
            is_reserved: true,
            wants_since: since,
            ..ABSENT
        };
        assert!(starts(&[reserved(None), waits(1)], bounds(3, 4)).is_empty());
        assert_eq!(starts(&[reserved(None), waits(1)], bounds(4, 4)), [1]);
        // Not only when nobody else waits.
        let claims = [waits(1), reserved(Some(9))];
        assert_eq!(starts(&claims, bounds(3, 4)), [1]);
        assert_eq!(starts(&claims, bounds(4, 4)), [1, 0]);
        // What is reserved is not taken away.
        let mut kept = idle(1);
        kept.is_reserved = true;
        assert_eq!(choose(&[kept, waits(1)], bounds(3, 4), 0), []);
    }

    #[test]
    fn a_reload_needs_a_turn_but_no_room() {
        let renewed = Claim {
            is_here: true,
            ..waits(1)
        };
        assert_eq!(starts(&[renewed, renewed], bounds(4, 1)), [0]);
    }

    #[test]
    fn however_many_wake_the_cap_and_the_turns_hold_and_all_get_theirs() {
        let mut claims: Vec<Claim> = (0..200u32)
            .map(|i| Claim {
                owner: i % 20,
                ..waits(u64::from(i))
            })
            .collect();
        let bounds = bounds(40, 4);
        let mut served = vec![false; claims.len()];
        for round in 0..1000u64 {
            let now = round * SECOND;
            for claim in &mut claims {
                // What started is there a second later, idle, and leaves when it is told to.
                if claim.is_leaving {
                    (claim.is_here, claim.is_leaving) = (false, false);
                }
                if claim.starts_since.take().is_some() {
                    claim.idle_since = Some(now);
                }
            }
            for choice in choose(&claims, bounds, now) {
                match choice {
                    Choice::Start(index) => {
                        let claim = &mut claims[index];
                        (claim.is_here, claim.wants_since) = (true, None);
                        claim.starts_since = Some(now);
                        served[index] = true;
                    }
                    Choice::Stop(index) => {
                        claims[index].is_leaving = true;
                        claims[index].idle_since = None;
                    }
                }
            }
            let here = claims.iter().filter(|claim| claim.is_here);
            assert!(here.map(|claim| claim.size).sum::<u32>() <= 40);
            let starting = claims.iter().filter(|claim| claim.starts_since.is_some());
            assert!(starting.count() <= 4);
        }
        assert!(served.iter().all(|served| *served));
    }
}
