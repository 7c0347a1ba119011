//! Serves hundreds of mostly idle apps and prints what they cost, how long a cold one takes beside a bare
//! import, and what the clients of one app notice of the others: many that wake, and one that does its
//! worst. Nothing here asserts a figure.

#[path = "../common/arguments.rs"]
mod arguments;
#[path = "../common/module.rs"]
mod module;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::{Arg, value_parser};
use nix::unistd::Uid;

use server::{Place, Server, get};

/// The first of the users; nobody has these numbers.
const USERS: u32 = 60_001;
const ALL_USERS: u32 = 20;

/// As much as a small site imports.
const APPLICATION: &str = "\
import decimal, email.message, http.client, json, logging.config, sqlite3, uuid, wsgiref.util
def application(environ, start_response):
    start_response('200 OK', [('Content-Length', '2')])
    return [b'ok']
";

struct Options {
    apps: usize,
    waking: usize,
    rounds: usize,
    seconds: u64,
    python: PathBuf,
}

fn main() -> ExitCode {
    let matches = clap::Command::new("hosting")
        .about("Many apps in one server: memory, cold starts, neighbours")
        .args([
            arguments::number("apps", "200", "Apps in all, of 20 users"),
            arguments::number("waking", "50", "Apps that wake at once beside a busy one"),
            arguments::number("rounds", "15", "Cold starts, in turn with bare imports"),
            arguments::number("seconds", "5", "Time for each measurement of a busy app"),
            Arg::new("python")
                .long("python")
                .default_value("/usr/bin/python3")
                .value_parser(value_parser!(PathBuf))
                .help("Interpreter; other users have to be able to execute it"),
            arguments::bench(),
        ])
        .get_matches();
    let number = |name| *matches.get_one::<u32>(name).expect("it has a default") as usize;
    let options = Options {
        apps: number("apps"),
        waking: number("waking"),
        rounds: number("rounds"),
        seconds: number("seconds") as u64,
        python: matches
            .get_one("python")
            .cloned()
            .expect("it has a default"),
    };
    match module::is_current().and_then(|()| measure(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hosting: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &Options) -> Result<(), String> {
    if !Uid::effective().is_root() {
        eprintln!("not root: all apps are those of one user, and no disk can be filled");
    }
    println!("| idle | apps | processes | KiB of the supervisor | KiB per app |");
    println!("|---|--:|--:|--:|--:|");
    let one = idle(options, 1)?.memory()?;
    let server = idle(options, options.apps)?;
    let all = server.memory()?;
    let per_app = all.saturating_sub(one) as f64 / (options.apps.max(2) - 1) as f64;
    println!("| one | 1 | 0 | {one} | |");
    let (apps, children) = (options.apps, server.children());
    println!("| all | {apps} | {children} | {all} | {per_app:.1} |\n");
    cold(options, &server)?;
    drop(server);
    println!("| clients of a busy app | requests | p50 ms | p99 ms | max ms | unanswered |");
    println!("|---|--:|--:|--:|--:|--:|");
    waking(options)?;
    for behaviour in BEHAVIOURS {
        beside(options, behaviour)?;
    }
    Ok(())
}

/// A server with so many apps that nobody asks.
fn idle(options: &Options, apps: usize) -> Result<Server, String> {
    let place = Place::new("idle", &options.python, "on-demand = true\n")?;
    place.module("app", APPLICATION)?;
    for number in 0..apps {
        place.app(&format!("a{number}"), user(number), "target = 'app'")?;
    }
    let server = place.start(None)?;
    server.wait_for("all apps", |server| {
        let list = server.ctl(&["app", "list"])?;
        (list.matches("at rest").count() == apps).then_some(())
    })?;
    Ok(server)
}

fn user(number: usize) -> u32 {
    USERS + number as u32 % ALL_USERS
}

/// Cold starts in turn with bare imports.
fn cold(options: &Options, server: &Server) -> Result<(), String> {
    let (mut cold, mut bare) = (Vec::new(), Vec::new());
    server.place.bare_import("app")?;
    for round in 0..options.rounds.min(options.apps) {
        bare.push(server.place.bare_import("app")?);
        cold.push(server.get(&format!("a{round}"), "GET")?);
    }
    let (cold, bare) = (median(cold), median(bare));
    let limit = bare.mul_f64(1.3) + Duration::from_millis(20);
    println!("| first byte of a cold app, ms | bare import, ms | 1.3 x bare + 20, ms |");
    println!("|--:|--:|--:|");
    println!(
        "| {} | {} | {} |\n",
        millis(cold),
        millis(bare),
        millis(limit)
    );
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn millis(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// A client that asks one app without a pause, on a connection for each request.
struct Client {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<Duration>, usize)>,
}

impl Client {
    fn of(server: &Server, app: &str) -> Client {
        let (stop, socket) = (Arc::new(AtomicBool::new(false)), server.socket(app));
        let is_over = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let (mut times, mut unanswered) = (Vec::new(), 0);
            while !is_over.load(Ordering::Relaxed) {
                match get(&socket, "GET") {
                    Ok(time) => times.push(time),
                    Err(_) => unanswered += 1,
                }
            }
            (times, unanswered)
        });
        Client { stop, thread }
    }

    fn tell(self, what: &str) {
        self.stop.store(true, Ordering::Relaxed);
        let Ok((mut times, unanswered)) = self.thread.join() else {
            return;
        };
        times.sort_unstable();
        let at = |share: usize| {
            let index = times.len().saturating_sub(1) * share / 100;
            millis(times.get(index).copied().unwrap_or_default())
        };
        let (count, p50, p99, max) = (times.len(), at(50), at(99), at(100));
        println!("| {what} | {count} | {p50} | {p99} | {max} | {unanswered} |");
    }
}

fn waking(options: &Options) -> Result<(), String> {
    let place = Place::new("waking", &options.python, "on-demand = true\n")?;
    place.module("app", APPLICATION)?;
    for number in 0..=options.waking {
        place.app(&format!("a{number}"), user(number), "target = 'app'")?;
    }
    let server = place.start(None)?;
    server.get("a0", "GET")?;
    let alone = Client::of(&server, "a0");
    thread::sleep(Duration::from_secs(options.seconds));
    alone.tell("alone");
    let client = Client::of(&server, "a0");
    let begun = Instant::now();
    let waking = (1..=options.waking).map(|number| {
        let socket = server.socket(&format!("a{number}"));
        thread::spawn(move || get(&socket, "GET"))
    });
    let waking: Vec<_> = waking.collect();
    let count = waking.len();
    let answered = waking
        .into_iter()
        .filter_map(|thread| thread.join().ok()?.ok());
    let answered = answered.count();
    let took = begun.elapsed().as_secs_f64();
    client.tell(&format!(
        "while {count} others wake ({answered} answered, in {took:.1} s)"
    ));
    Ok(())
}

/// What an app does, and what keeps it in bounds.
struct Behaviour {
    name: &'static str,
    host: &'static str,
    module: &'static str,
    /// Shell commands with DIR for the directory of the app.
    before: Option<&'static str>,
}

const PLAIN: Behaviour = Behaviour {
    name: "",
    host: "",
    module: "",
    before: None,
};

const BEHAVIOURS: [Behaviour; 5] = [
    Behaviour {
        name: "beside a crash loop",
        module: "import os\nos.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), 9))\n",
        ..PLAIN
    },
    Behaviour {
        name: "beside a fork bomb (nproc=40)",
        host: "rlimit = 'nproc=40'\nrequest-timeout = '4s'\nkill-timeout = '1s'\n",
        module: "import os\ndef work():\n    while True:\n        try:\n            os.fork()\n        \
            except OSError:\n            pass\n",
        ..PLAIN
    },
    Behaviour {
        name: "beside a memory hog (as=1g)",
        host: "rlimit = 'as=1g'\n",
        module: "def work():\n    while True:\n        try:\n            bytearray(700 << 20)\n        \
            except MemoryError:\n            pass\n",
        ..PLAIN
    },
    Behaviour {
        name: "beside a flood of output onto a full disk",
        host: "app-log = '{name}/log'\napp-access-log = '{name}/access'\n",
        module: "import os\ndef work():\n    while True:\n        os.write(1, b'x' * 4000 + b'\\n')\n",
        before: Some("mount -t tmpfs -o size=64k,mode=777 tmpfs DIR"),
    },
    Behaviour {
        name: "beside an endless import",
        module: "while True:\n    pass\n",
        ..PLAIN
    },
];

fn beside(options: &Options, behaviour: Behaviour) -> Result<(), String> {
    let Behaviour {
        name,
        host,
        module,
        before,
    } = behaviour;
    if before.is_some() && !Uid::effective().is_root() {
        println!("| {name} | | | | | not root |");
        return Ok(());
    }
    let place = Place::new("beside", &options.python, host)?;
    place.module("app", APPLICATION)?;
    let asked = "def application(environ, start_response):\n    if environ['REQUEST_METHOD'] == 'POST':\n        \
        work()\n    start_response('200 OK', [('Content-Length', '2')])\n    return [b'ok']\n";
    place.module("bad", &format!("{module}{asked}"))?;
    place.app("good", USERS, "target = 'app'")?;
    place.app("bad", USERS + 1, "target = 'bad'\nstart-timeout = '2s'")?;
    let own = place.directory_of("bad", USERS + 1)?;
    place.directory_of("good", USERS)?;
    let before = before.map(|before| before.replace("DIR", &own.display().to_string()));
    let server = place.start(before.as_deref())?;
    server.wait_for("the other app", |server| server.get("good", "GET").ok())?;
    // Whoever asks the app that misbehaves has to wait, or is cut off.
    let socket = server.socket("bad");
    thread::spawn(move || get(&socket, "POST"));
    thread::sleep(Duration::from_millis(300));
    let client = Client::of(&server, "good");
    thread::sleep(Duration::from_secs(options.seconds));
    client.tell(name);
    drop(server);
    server::end_all_of(USERS + 1);
    Ok(())
}
