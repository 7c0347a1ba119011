use super::Action::{Drain, GiveUp, Kill, Serve, Start, Stop, Tell};
use super::Cause::{First, Reload, Restart};
use super::News::{Failed, Hopeless, Late, Lost, Overdue, Serves, StartsAfter, Superseded, Waits};
use super::*;

const TERMS: Terms = Terms {
    start: 60 * SECOND,
    grace: 30 * SECOND,
};

fn begun() -> Generations {
    let mut generations = Generations::new(FirstFailure::IsFinal);
    assert_eq!(generations.step(Event::Begin(TERMS), 0), [Start(1, First)]);
    generations
}

/// Generation 1 serves since the time 0.
fn serving() -> Generations {
    let mut generations = begun();
    check(
        &mut generations,
        0,
        &[(Event::Ready(1), &[Serve(1), serves(1, First)])],
    );
    generations
}

fn serves(number: Number, cause: Cause) -> Action {
    Tell(Serves { number, cause })
}

fn failed(number: Number, cause: Cause, serving: Option<Number>) -> Action {
    Tell(Failed {
        number,
        cause,
        serving,
    })
}

/// Each event at `now`, and what is to be done about it.
#[track_caller]
fn check(generations: &mut Generations, now: Nanos, table: &[(Event, &[Action])]) {
    for (index, (event, actions)) in table.iter().enumerate() {
        let done = generations.step(*event, now);
        assert_eq!(&done, actions, "step {index}: {event:?}");
    }
}

#[test]
fn the_first_generation_serves_or_the_app_is_hopeless() {
    check(
        &mut begun(),
        5,
        &[(Event::Ready(1), &[Serve(1), serves(1, First)])],
    );
    check(
        &mut begun(),
        5,
        &[
            (Event::Failed(1), &[]),
            (Event::Ended(1), &[Tell(Hopeless(1))]),
        ],
    );
    check(&mut begun(), 5, &[(Event::Ended(1), &[Tell(Hopeless(1))])]);
    check(
        &mut begun(),
        60 * SECOND,
        &[
            (Event::Due, &[Tell(Late(1)), Kill(1)]),
            (Event::Ended(1), &[Tell(Hopeless(1))]),
        ],
    );
}

#[test]
fn a_reload_drains_the_old_generation_only_when_the_new_one_is_ready() {
    check(
        &mut serving(),
        SECOND,
        &[
            (Event::Reload(TERMS), &[Start(2, Reload)]),
            (Event::Due, &[]),
            (Event::Ready(2), &[Serve(2), Drain(1), serves(2, Reload)]),
            (Event::Ready(2), &[]),
            (Event::Ended(1), &[]),
            (Event::Reload(TERMS), &[Start(3, Reload)]),
        ],
    );
}

#[test]
fn whatever_goes_wrong_with_a_reload_the_old_generation_keeps_serving() {
    let said: &[(Event, &[Action])] = &[
        (Event::Failed(2), &[]),
        (Event::Ready(2), &[]),
        (Event::Ended(2), &[failed(2, Reload, Some(1))]),
    ];
    let died: &[(Event, &[Action])] = &[(Event::Ended(2), &[failed(2, Reload, Some(1))])];
    for how in [said, died] {
        let mut generations = serving();
        check(
            &mut generations,
            0,
            &[(Event::Reload(TERMS), &[Start(2, Reload)])],
        );
        check(&mut generations, SECOND, how);
        assert_eq!(generations.serving(), Some(1));
        assert!(!generations.is_reloading());
        assert_eq!(generations.wake_at(), None);
    }
}

#[test]
fn a_generation_that_is_not_ready_in_time_is_killed_until_it_is_gone() {
    let mut generations = serving();
    let _ = generations.step(Event::Reload(TERMS), 0);
    assert_eq!(generations.wake_at(), Some(60 * SECOND));
    check(&mut generations, 59 * SECOND, &[(Event::Due, &[])]);
    check(
        &mut generations,
        60 * SECOND,
        &[(Event::Due, &[Tell(Late(2)), Kill(2)]), (Event::Due, &[])],
    );
    check(
        &mut generations,
        61 * SECOND,
        &[
            (Event::Due, &[Kill(2)]),
            (Event::Ended(2), &[failed(2, Reload, Some(1))]),
        ],
    );
}

#[test]
fn a_reload_takes_the_place_of_one_under_way() {
    let mut generations = serving();
    check(
        &mut generations,
        0,
        &[
            (Event::Reload(TERMS), &[Start(2, Reload)]),
            (Event::Reload(TERMS), &[Tell(Superseded(2)), GiveUp(2)]),
            (Event::Reload(TERMS), &[]),
            (Event::Ready(2), &[]),
        ],
    );
    assert!(generations.is_reloading());
    check(
        &mut generations,
        0,
        &[
            (Event::Ended(2), &[Start(3, Reload)]),
            (Event::Ready(3), &[Serve(3), Drain(1), serves(3, Reload)]),
        ],
    );
    assert!(!generations.is_reloading());
}

#[test]
fn a_reload_after_a_failure_waits_for_the_end_of_what_failed() {
    check(
        &mut serving(),
        0,
        &[
            (Event::Reload(TERMS), &[Start(2, Reload)]),
            (Event::Failed(2), &[]),
            (Event::Reload(TERMS), &[]),
            (
                Event::Ended(2),
                &[failed(2, Reload, Some(1)), Start(3, Reload)],
            ),
        ],
    );
}

#[test]
fn what_is_given_up_but_does_not_leave_is_killed() {
    let mut generations = serving();
    let _ = generations.step(Event::Reload(TERMS), 0);
    let _ = generations.step(Event::Reload(TERMS), 0);
    assert_eq!(generations.wake_at(), Some(AT_ONCE));
    check(&mut generations, AT_ONCE, &[(Event::Due, &[Kill(2)])]);
}

#[test]
fn a_reload_during_the_first_start_starts_afresh() {
    check(
        &mut begun(),
        0,
        &[
            (Event::Reload(TERMS), &[Tell(Superseded(1)), GiveUp(1)]),
            (Event::Ended(1), &[Start(2, Reload)]),
            (Event::Ready(2), &[Serve(2), serves(2, First)]),
        ],
    );
    check(
        &mut begun(),
        0,
        &[
            (Event::Reload(TERMS), &[Tell(Superseded(1)), GiveUp(1)]),
            (Event::Ended(1), &[Start(2, Reload)]),
            (Event::Ended(2), &[Tell(Hopeless(2))]),
        ],
    );
}

#[test]
fn reloads_without_end_never_pile_up_generations() {
    for ready_after in [1, 2, 7] {
        let mut generations = serving();
        let mut alive = vec![1];
        for now in 1..500 {
            let mut actions = generations.step(Event::Reload(TERMS), now);
            let ended: Vec<Number> = actions
                .iter()
                .filter_map(|action| match action {
                    GiveUp(number) => Some(*number),
                    _ => None,
                })
                .collect();
            for number in ended {
                alive.retain(|other| *other != number);
                actions.extend(generations.step(Event::Ended(number), now));
            }
            for action in actions {
                if let Start(number, _) = action {
                    alive.push(number);
                }
            }
            if now % ready_after == 0 {
                let newest = generations.next - 1;
                let _ = generations.step(Event::Ready(newest), now);
            }
            assert!(alive.len() <= MOST_LEAVING + 2, "{alive:?}");
            assert!(generations.serving().is_some());
        }
    }
}

#[test]
fn a_reload_waits_while_many_generations_still_leave() {
    let mut generations = serving();
    for number in 2..=MOST_LEAVING as u64 + 1 {
        let _ = generations.step(Event::Reload(TERMS), 0);
        let _ = generations.step(Event::Ready(number), 0);
    }
    check(
        &mut generations,
        0,
        &[
            (Event::Reload(TERMS), &[Tell(Waits(MOST_LEAVING))]),
            (Event::Reload(TERMS), &[]),
            (Event::Ended(2), &[Start(6, Reload)]),
        ],
    );
    // Not when nobody serves.
    let _ = generations.step(Event::Ready(6), 0);
    check(
        &mut generations,
        0,
        &[
            (Event::Reload(TERMS), &[Tell(Waits(MOST_LEAVING))]),
            (Event::Ended(6), &[Tell(Lost(6)), Start(7, Reload)]),
        ],
    );
}

#[test]
fn a_lost_generation_is_started_again_at_once_then_with_back_off() {
    let mut generations = serving();
    let mut now = 20 * SECOND;
    let mut delays = Vec::new();
    for number in 1..6 {
        let actions = generations.step(Event::Ended(number), now);
        let [Tell(Lost(_)), Tell(StartsAfter(delay))] = actions[..] else {
            panic!("{actions:?}");
        };
        delays.push(delay);
        now += delay;
        check(
            &mut generations,
            now,
            &[
                (Event::Due, &[Start(number + 1, Restart)]),
                (
                    Event::Ready(number + 1),
                    &[Serve(number + 1), serves(number + 1, Restart)],
                ),
            ],
        );
    }
    assert_eq!(delays[0], 0);
    assert!(delays[1] > 0 && delays.is_sorted(), "{delays:?}");
    now += 20 * SECOND;
    check(
        &mut generations,
        now,
        &[(Event::Ended(6), &[Tell(Lost(6)), Tell(StartsAfter(0))])],
    );
}

#[test]
fn a_reload_under_way_takes_the_place_of_a_lost_generation() {
    let mut generations = serving();
    let _ = generations.step(Event::Reload(TERMS), 0);
    check(&mut generations, 0, &[(Event::Ended(1), &[Tell(Lost(1))])]);
    assert_eq!(generations.restart_at, None);
    let mut other = serving();
    let _ = other.step(Event::Reload(TERMS), 0);
    let _ = other.step(Event::Ended(1), 0);
    check(
        &mut generations,
        0,
        &[(Event::Ready(2), &[Serve(2), serves(2, Reload)])],
    );
    // It fails, too: what served is started again.
    let actions = other.step(Event::Ended(2), 0);
    assert_eq!(actions[0], failed(2, Reload, None));
    assert!(matches!(actions[1], Tell(StartsAfter(delay)) if delay > 0));
}

#[test]
fn a_reload_takes_the_place_of_a_restart() {
    let mut waiting = serving();
    let _ = waiting.step(Event::Ended(1), 0);
    check(
        &mut waiting,
        0,
        &[
            (Event::Reload(TERMS), &[Start(2, Reload)]),
            (Event::Due, &[]),
        ],
    );
    let mut starting = serving();
    let _ = starting.step(Event::Ended(1), 0);
    check(
        &mut starting,
        0,
        &[
            (Event::Due, &[Start(2, Restart)]),
            (Event::Reload(TERMS), &[Tell(Superseded(2)), GiveUp(2)]),
            (Event::Ended(2), &[Start(3, Reload)]),
        ],
    );
}

#[test]
fn a_stop_ends_everything_and_starts_nothing() {
    let mut generations = serving();
    let _ = generations.step(Event::Reload(TERMS), 0);
    let _ = generations.step(Event::Ready(2), 0);
    let _ = generations.step(Event::Reload(TERMS), 0);
    check(
        &mut generations,
        0,
        &[
            (Event::Drain, &[GiveUp(3), Drain(2)]),
            (Event::Reload(TERMS), &[]),
            (Event::Stop, &[Stop(1), Stop(2)]),
        ],
    );
    check(
        &mut generations,
        AT_ONCE,
        &[
            (
                Event::Due,
                &[
                    Tell(Overdue(1)),
                    Kill(1),
                    Tell(Overdue(2)),
                    Kill(2),
                    Kill(3),
                ],
            ),
            (Event::Ended(3), &[]),
            (Event::Ended(2), &[]),
            (Event::Ended(1), &[]),
        ],
    );
    assert_eq!(generations.wake_at(), None);
}

#[test]
fn what_does_not_leave_in_time_is_killed() {
    let mut generations = serving();
    let _ = generations.step(Event::Reload(TERMS), 0);
    let _ = generations.step(Event::Ready(2), 0);
    assert_eq!(generations.wake_at(), Some(TERMS.grace + SLACK));
    check(
        &mut generations,
        TERMS.grace + SLACK,
        &[(Event::Due, &[Tell(Overdue(1)), Kill(1)])],
    );
}

#[test]
fn only_a_quiet_state_can_be_handed_over() {
    assert_eq!(begun().quiet(), None);
    let mut generations = serving();
    let _ = generations.step(Event::Reload(TERMS), 0);
    assert_eq!(generations.quiet(), None);
    let _ = generations.step(Event::Ready(2), 7);
    let quiet = generations.quiet().unwrap();
    let mut resumed = Generations::resume(quiet.clone(), FirstFailure::IsFinal);
    assert_eq!(resumed.quiet(), Some(quiet));
    assert_eq!(resumed.wake_at(), generations.wake_at());
    check(
        &mut resumed,
        0,
        &[
            (Event::Reload(TERMS), &[Start(3, Reload)]),
            (Event::Ready(3), &[Serve(3), Drain(2), serves(3, Reload)]),
        ],
    );
}

#[test]
fn what_rests_leaves_and_stays_away_until_a_reload() {
    let mut generations = serving();
    check(&mut generations, SECOND, &[(Event::Rest, &[Drain(1)])]);
    assert!(generations.is_resting() && generations.quiet().is_none());
    check(
        &mut generations,
        2 * SECOND,
        &[
            (Event::Rest, &[]),
            (Event::Ended(1), &[]),
            (Event::Due, &[]),
        ],
    );
    assert!(generations.quiet().is_some());
    check(
        &mut generations,
        3 * SECOND,
        &[
            (Event::Reload(TERMS), &[Start(2, Reload)]),
            (Event::Rest, &[]),
            (Event::Ready(2), &[Serve(2), serves(2, Reload)]),
        ],
    );
    assert!(!generations.is_resting());
}
