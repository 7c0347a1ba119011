//! A server that only has a control socket and answers as a test tells it: for what a real one does
//! not do on demand.

use rswsgi::control::{Ping, Refused, Reply, Request, SCHEMA, stats};
use std::io::{BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What becomes of a request.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    Text(&'static str),
    /// None for now.
    Silence,
    /// The connection is closed.
    Close,
}

impl From<Refused> for Answer {
    fn from(refused: Refused) -> Answer {
        Answer::Reply(refused.into())
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    clients: Mutex<Vec<UnixStream>>,
    asked: Mutex<Vec<Request>>,
}

/// Gone, with its connections and its socket, when it is dropped.
pub struct FakeServer {
    pub path: PathBuf,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    /// Listens at `path`.
    pub fn new<F>(path: &Path, answer: F) -> FakeServer
    where
        F: Fn(&Request) -> Answer + Send + Sync + 'static,
    {
        let listener = UnixListener::bind(path).expect("bind a control socket");
        let shared = Arc::new(Shared::default());
        let (of_thread, answer) = (Arc::clone(&shared), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if of_thread.stop.load(Ordering::SeqCst) {
                    return;
                }
                let clone = stream.try_clone().expect("duplicate a descriptor");
                let mut clients = of_thread.clients.lock().expect("no panic with the lock");
                clients.push(clone);
                let (shared, answer) = (Arc::clone(&of_thread), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream, &shared, answer.as_ref()));
            }
        });
        FakeServer {
            path: path.to_owned(),
            shared,
            thread: Some(thread),
        }
    }

    /// Answers to `ping` with this app; all else by `answer`.
    pub fn with_app<F>(path: &Path, app: &'static str, answer: F) -> FakeServer
    where
        F: Fn(&Request) -> Answer + Send + Sync + 'static,
    {
        FakeServer::new(path, move |request| match request.verb.name() {
            "ping" => Answer::Reply(Reply::Ping(Ping {
                schema: SCHEMA,
                server: process(),
                apps: vec![app.to_owned()],
            })),
            _ => answer(request),
        })
    }

    /// The requests so far.
    pub fn asked(&self) -> Vec<Request> {
        self.shared
            .asked
            .lock()
            .expect("no panic with the lock")
            .clone()
    }
}

/// What it says of itself.
pub fn process() -> stats::Process {
    stats::Process {
        version: "9.9.9".into(),
        pid: 4711,
        state: "serving".into(),
        started_seconds: 0.0,
        uptime_seconds: 12_000.0,
    }
}

fn serve(stream: &UnixStream, shared: &Shared, answer: &dyn Fn(&Request) -> Answer) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let answer = match Request::read(line.as_bytes()) {
            Ok(request) => {
                let mut asked = shared.asked.lock().expect("no panic with the lock");
                asked.push(request.clone());
                drop(asked);
                answer(&request)
            }
            Err(refused) => refused.into(),
        };
        let sent = match answer {
            Answer::Reply(reply) => (&*stream).write_all(&reply.write()),
            Answer::Text(text) => (&*stream).write_all(text.as_bytes()),
            Answer::Silence => Ok(()),
            Answer::Close => stream.shutdown(Shutdown::Both),
        };
        if sent.is_err() {
            return;
        }
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.path); // wakes accept
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let clients = self.shared.clients.lock().expect("no panic with the lock");
        for client in clients.iter() {
            let _ = client.shutdown(Shutdown::Both);
        }
        let _ = std::fs::remove_file(&self.path);
    }
}
