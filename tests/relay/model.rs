//! A model of how connections change hands between the main loop of a worker, its watcher and the relay: every order
//! in which two workers, their watchers, their clients and a kill can take their steps, one after the other.
//!
//! It has the rules of `src/worker/floor.rs`, `ferry.rs` and `watcher.rs`: whoever holds the lock may touch
//! connections; the main loop gives the lock back only while the application runs; a connection is sent first and let
//! go of then; the one whose request runs stays; the first byte of its response and the 504 of the watcher
//! exclude each other. Each rule is also left out once, and the model has to notice.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

const WORKERS: usize = 2;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    Nothing,
    /// The connection is let go of before the relay has taken it.
    LetGoFirst,
    /// The connection stays with its worker although the relay has it.
    NeverLetGo,
    /// The watcher does not ask for the lock.
    NoLock,
    /// The connection whose request runs is handed over like the others.
    PassesRunning,
    /// The watcher answers 504 whatever the application has sent.
    AnswersTwice,
    /// What the relay does not take is closed.
    FullIsOver,
    /// A worker that is given up serves on when its application comes back after all.
    ServesOn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Main {
    /// Between requests; it holds the lock.
    Loops,
    /// The application runs for this client; the lock is free.
    Runs(usize),
    /// The application has come back; the lock is wanted.
    Returns(usize),
    /// It leaves and has come to this client with handing over; it holds the lock.
    Leaves(usize),
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Purpose {
    /// What has become readable is to be served by others.
    Busy,
    /// All others are to survive this worker.
    Stuck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Watcher {
    Sleeps,
    /// It holds the lock and has come to this client.
    Looks(usize, Purpose),
    /// The relay has it, the worker still has it, too.
    Sent(usize, Purpose),
    /// All that could be handed over was; the stuck request comes last.
    Answers,
    /// The worker is given up: nothing is left but to be killed.
    Done,
}

/// Who has the right to the response that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Claim {
    Nobody,
    Application,
    Watcher,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Worker<const CLIENTS: usize> {
    main: Main,
    watcher: Watcher,
    claim: Claim,
    /// Connections that it has.
    has: [bool; CLIENTS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Request {
    None,
    /// In the socket.
    Waits,
    /// An application runs it.
    Runs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Open,
    /// With a 504.
    TimedOut,
    /// With its stuck worker.
    Killed,
    /// With a worker that a stranger has killed.
    Struck,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Client {
    asked: u8,
    request: Request,
    run: u8,
    answered: u8,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State<const CLIENTS: usize> {
    workers: [Worker<CLIENTS>; WORKERS],
    /// It has room for one.
    relay: Option<usize>,
    clients: [Client; CLIENTS],
    /// Requests of each client.
    requests: u8,
    /// The first worker may still be told to leave, and one worker may still be killed at any time.
    may_leave: bool,
    may_kill: bool,
    /// There was no room for a connection of a stuck worker for too long.
    gave_up: bool,
}

/// Who does what, about which client.
struct Step(&'static str, usize, &'static str, Option<usize>);

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Step(who, number, what, client) = self;
        write!(f, "{who} {number} {what}")?;
        client.map_or(Ok(()), |client| write!(f, ", client {client}"))
    }
}

/// What may happen next, and what follows.
type Steps<const CLIENTS: usize> = Vec<(Step, State<CLIENTS>)>;

impl<const CLIENTS: usize> Worker<CLIENTS> {
    const FRESH: Self = Worker {
        main: Main::Loops,
        watcher: Watcher::Sleeps,
        claim: Claim::Nobody,
        has: [false; CLIENTS],
    };

    /// One that is being sent belongs to the relay already: its worker cannot touch it.
    fn owns(&self, client: usize) -> bool {
        self.has[client] && !matches!(self.watcher, Watcher::Sent(sent, _) if sent == client)
    }
}

impl<const CLIENTS: usize> State<CLIENTS> {
    /// All connections are those of the first worker.
    fn first(requests: u8, may_kill: bool) -> Self {
        let mut workers = [Worker::FRESH; WORKERS];
        workers[0].has = [true; CLIENTS];
        let client = Client {
            asked: 0,
            request: Request::None,
            run: 0,
            answered: 0,
            end: End::Open,
        };
        State {
            workers,
            relay: None,
            clients: [client; CLIENTS],
            requests,
            may_leave: true,
            may_kill,
            gave_up: false,
        }
    }

    fn steps(&self, flaw: Flaw) -> Steps<CLIENTS> {
        let mut steps = Vec::new();
        for client in 0..CLIENTS {
            self.client(client, &mut steps);
        }
        for worker in 0..WORKERS {
            self.main(worker, flaw, &mut steps);
            self.watcher(worker, flaw, &mut steps);
        }
        steps
    }

    fn then(&self, steps: &mut Steps<CLIENTS>, what: Step, change: impl FnOnce(&mut Self)) {
        let mut next = *self;
        change(&mut next);
        steps.push((what, next));
    }

    fn client(&self, client: usize, steps: &mut Steps<CLIENTS>) {
        let Client {
            asked,
            request,
            end,
            ..
        } = self.clients[client];
        if end == End::Open && request == Request::None && asked < self.requests {
            self.then(steps, Step("client", client, "asks", None), |next| {
                next.clients[client].asked += 1;
                next.clients[client].request = Request::Waits;
            });
        }
    }

    fn is_locked_by_watcher(&self, worker: usize) -> bool {
        matches!(
            self.workers[worker].watcher,
            Watcher::Looks(..) | Watcher::Sent(..) | Watcher::Answers
        )
    }

    fn main(&self, worker: usize, flaw: Flaw, steps: &mut Steps<CLIENTS>) {
        let Worker {
            main, has, claim, ..
        } = self.workers[worker];
        let name = |what| Step("worker", worker, what, None);
        let about = |what, client| Step("worker", worker, what, Some(client));
        match main {
            Main::Loops => {
                for (client, has) in has.into_iter().enumerate() {
                    if has && self.clients[client].request == Request::Waits {
                        self.then(steps, about("runs", client), |next| {
                            next.clients[client].request = Request::Runs;
                            next.clients[client].run += 1;
                            next.workers[worker].claim = Claim::Nobody;
                            next.workers[worker].main = Main::Runs(client);
                        });
                    }
                }
                if let Some(client) = self.relay {
                    self.then(steps, name("takes from the relay"), |next| {
                        next.relay = None;
                        next.workers[worker].has[client] = true;
                    });
                }
                if worker == 0 && self.may_leave {
                    self.then(steps, name("is to leave"), |next| {
                        next.may_leave = false;
                        next.workers[worker].main = Main::Leaves(0);
                    });
                }
            }
            Main::Runs(client) => {
                // One that never comes back has no step here; only the kill ends it.
                if claim == Claim::Nobody {
                    self.then(steps, about("answers", client), |next| {
                        next.workers[worker].claim = Claim::Application;
                        next.clients[client].answered += 1;
                        next.clients[client].request = Request::None;
                    });
                } else {
                    self.then(steps, name("has its application back"), |next| {
                        next.workers[worker].main = Main::Returns(client);
                    });
                }
            }
            // It is about to be killed: whatever it took now would be lost.
            Main::Returns(_)
                if self.workers[worker].watcher == Watcher::Done && flaw != Flaw::ServesOn =>
            {
                self.then(steps, name("ends by itself"), |next| {
                    next.kill(worker, End::Killed);
                });
            }
            Main::Returns(client) => {
                if !self.is_locked_by_watcher(worker) || flaw == Flaw::NoLock {
                    self.then(steps, name("goes on"), |next| {
                        next.workers[worker].main = Main::Loops;
                        // It was told that it is too late: the watcher has answered.
                        if claim == Claim::Watcher {
                            next.workers[worker].has[client] = false;
                        }
                    });
                }
            }
            Main::Leaves(client) if client == CLIENTS => self.then(steps, name("ends"), |next| {
                next.workers[worker].main = Main::Gone;
            }),
            Main::Leaves(client) if !has[client] => self.then(steps, name("passes over"), |next| {
                next.workers[worker].main = Main::Leaves(client + 1);
            }),
            // While there is no room it tries again.
            Main::Leaves(client) => {
                if self.relay.is_none() {
                    self.then(steps, about("hands over", client), |next| {
                        next.relay = Some(client);
                        next.workers[worker].has[client] = false;
                    });
                }
            }
            Main::Gone => {}
        }
        if main != Main::Gone && self.may_kill {
            self.then(steps, name("is killed by a stranger"), |next| {
                next.may_kill = false;
                next.kill(worker, End::Struck);
            });
        }
    }

    /// Another one takes its place.
    fn kill(&mut self, worker: usize, end: End) {
        self.workers[worker] = Worker::FRESH;
        for client in 0..CLIENTS {
            if self.owners(client) == 0 && self.clients[client].end == End::Open {
                self.clients[client].end = end;
                self.clients[client].request = Request::None;
            }
        }
    }

    fn watcher(&self, worker: usize, flaw: Flaw, steps: &mut Steps<CLIENTS>) {
        let Worker {
            main,
            watcher,
            claim,
            has,
        } = self.workers[worker];
        let name = |what| Step("watcher", worker, what, None);
        let about = |what, client| Step("watcher", worker, what, Some(client));
        let set = |next: &mut Self, watcher| next.workers[worker].watcher = watcher;
        match watcher {
            Watcher::Sleeps => {
                let is_free = matches!(main, Main::Runs(_) | Main::Returns(_));
                if is_free || (flaw == Flaw::NoLock && main == Main::Loops) {
                    self.then(steps, name("looks"), |next| {
                        set(next, Watcher::Looks(0, Purpose::Busy));
                    });
                }
                if is_free {
                    self.then(steps, name("finds it stuck"), |next| {
                        set(next, Watcher::Looks(0, Purpose::Stuck));
                    });
                }
            }
            Watcher::Looks(client, Purpose::Busy) if client == CLIENTS => {
                self.then(steps, name("lets go"), |next| set(next, Watcher::Sleeps))
            }
            Watcher::Looks(client, Purpose::Stuck) if client == CLIENTS => {
                self.then(steps, name("comes to the last"), |next| {
                    set(next, Watcher::Answers);
                })
            }
            Watcher::Looks(client, purpose) => {
                let runs = matches!(main, Main::Runs(c) | Main::Returns(c) if c == client);
                let concerns = has[client]
                    && (!runs || flaw == Flaw::PassesRunning)
                    && (purpose == Purpose::Stuck
                        || self.clients[client].request == Request::Waits);
                let next = Watcher::Looks(client + 1, purpose);
                if !concerns {
                    self.then(steps, name("passes over"), |state| set(state, next));
                } else if flaw == Flaw::LetGoFirst {
                    self.then(steps, about("drops", client), |state| {
                        state.workers[worker].has[client] = false;
                        state.relay = state.relay.or(Some(client));
                        set(state, next);
                    });
                } else if self.relay.is_none() {
                    self.then(steps, about("sends", client), |state| {
                        state.relay = Some(client);
                        set(state, Watcher::Sent(client, purpose));
                    });
                } else if flaw == Flaw::FullIsOver {
                    self.then(steps, about("closes", client), |state| {
                        state.workers[worker].has[client] = false;
                        set(state, next);
                    });
                } else {
                    self.then(steps, name("finds no room"), |state| {
                        state.gave_up |= purpose == Purpose::Stuck;
                        set(state, next);
                    });
                }
            }
            Watcher::Sent(client, purpose) => {
                self.then(steps, about("lets go of", client), |next| {
                    if flaw != Flaw::NeverLetGo {
                        next.workers[worker].has[client] = false;
                    }
                    set(next, Watcher::Looks(client + 1, purpose));
                });
            }
            Watcher::Answers => {
                let running = match main {
                    Main::Runs(client) | Main::Returns(client) => Some(client),
                    _ => None,
                };
                match running {
                    Some(client) if claim == Claim::Nobody || flaw == Flaw::AnswersTwice => {
                        self.then(steps, about("answers with 504", client), |next| {
                            next.workers[worker].claim = Claim::Watcher;
                            next.clients[client].answered += 1;
                            next.clients[client].request = Request::None;
                            next.clients[client].end = End::TimedOut;
                            set(next, Watcher::Done);
                        });
                    }
                    _ => self.then(steps, name("has nothing to say"), |next| {
                        set(next, Watcher::Done)
                    }),
                }
            }
            Watcher::Done => self.then(steps, Step("worker", worker, "is killed", None), |next| {
                next.kill(worker, End::Killed);
            }),
        }
    }

    fn owners(&self, client: usize) -> usize {
        let owners = self.workers.iter().filter(|worker| worker.owns(client));
        owners.count() + usize::from(self.relay == Some(client))
    }

    /// What must hold at every moment.
    fn check(&self) -> Result<(), String> {
        for (number, client) in self.clients.iter().enumerate() {
            let wrong = |what: &str| Err(format!("client {number} {what}"));
            let owners = self.owners(number);
            let running = self.workers.iter();
            let running = running.filter(|w| w.main == Main::Runs(number)).count();
            match client.end {
                End::Open if owners == 0 => return wrong("is lost"),
                // The request that was stuck has its 504, or a part of its response.
                End::Killed if client.answered == 0 && !self.gave_up => {
                    return wrong("was lost with a stuck worker");
                }
                _ if owners > 1 => return wrong("has two owners"),
                _ if running > 1 => return wrong("is served twice at a time"),
                End::Killed | End::Struck if owners > 0 => {
                    return wrong("is closed and still open");
                }
                _ => {}
            }
            if client.run > client.asked {
                return wrong("has a request run twice");
            }
            if client.answered > client.run {
                return wrong("has two answers to one request");
            }
        }
        Ok(())
    }

    /// What must hold when nothing more happens.
    fn check_end(&self) -> Result<(), String> {
        if self.relay.is_some() {
            return Err("somebody is left on the relay".into());
        }
        for (number, client) in self.clients.iter().enumerate() {
            let wrong = |what: &str| Err(format!("client {number} {what}"));
            match client.end {
                End::Open if client.asked < self.requests => return wrong("cannot ask"),
                End::Open if client.answered < client.asked => return wrong("has no answer"),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Two clients ask twice, and a stranger may kill.
fn two(flaw: Flaw) -> Result<usize, String> {
    explore(State::<2>::first(2, true), flaw)
}

/// The relay becomes full: of three clients, two may have to leave at once.
fn three(flaw: Flaw) -> Result<usize, String> {
    explore(State::<3>::first(1, false), flaw)
}

/// Visits every state that can be reached; how many there are, or how to come to one that is wrong.
fn explore<const CLIENTS: usize>(first: State<CLIENTS>, flaw: Flaw) -> Result<usize, String> {
    let mut before = HashMap::from([(first, first)]);
    let mut queue = VecDeque::from([first]);
    while let Some(state) = queue.pop_front() {
        let steps = state.steps(flaw);
        let verdict = match state.check() {
            Ok(()) if steps.is_empty() => state.check_end(),
            verdict => verdict,
        };
        if let Err(what) = verdict {
            return Err(format!("{what}:\n{}", history(&before, state, flaw)));
        }
        for (_, next) in steps {
            if let Entry::Vacant(entry) = before.entry(next) {
                entry.insert(state);
                queue.push_back(next);
            }
        }
    }
    Ok(before.len())
}

/// The steps that lead to a state, the shortest way.
fn history<const CLIENTS: usize>(
    before: &HashMap<State<CLIENTS>, State<CLIENTS>>,
    state: State<CLIENTS>,
    flaw: Flaw,
) -> String {
    let mut lines = vec![format!("{state:?}")];
    let mut at = state;
    while before[&at] != at {
        let mut steps = before[&at].steps(flaw).into_iter();
        lines.extend(steps.find_map(|(what, next)| (next == at).then(|| what.to_string())));
        at = before[&at];
    }
    lines.reverse();
    lines.join("\n")
}

#[test]
fn no_order_of_steps_loses_doubles_or_leaks_a_connection() {
    let found = two(Flaw::Nothing).and_then(|two| Ok((two, three(Flaw::Nothing)?)));
    match found {
        Ok(states) => println!("{states:?} states"),
        Err(how) => panic!("{how}"),
    }
}

#[test]
fn each_rule_is_needed() {
    let flaws = [
        Flaw::LetGoFirst,
        Flaw::NeverLetGo,
        Flaw::NoLock,
        Flaw::PassesRunning,
        Flaw::AnswersTwice,
        Flaw::FullIsOver,
        Flaw::ServesOn,
    ];
    for flaw in flaws {
        match three(flaw).and_then(|_| two(flaw)) {
            Err(how) => println!("{flaw:?}: {how}\n"),
            Ok(_) => panic!("{flaw:?} goes unnoticed"),
        }
    }
}
