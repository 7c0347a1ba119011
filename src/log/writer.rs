//! A sink with a thread of its own and a bounded queue in front of it: however slow the disk or the
//! reader, whoever logs never waits. What does not fit is counted, and told when it works again.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, SigmaskHow};

use super::file::{LogFile, UserFile};
use super::journal::Journal;
use super::syslog::Syslog;
use super::{Destination, Entry, Form};
use crate::sys::append::Owner;

/// Where entries or lines end up.
pub trait Sink: Send {
    fn entry(&mut self, entry: &Entry) -> io::Result<()>;
    /// Whole lines, each with its end.
    fn lines(&mut self, lines: &[u8]) -> io::Result<()>;
    /// Opens anew what may have been moved away.
    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes that may wait.
const ROOM: usize = 8 << 20;
/// The same where there are many writers.
const SMALL_ROOM: usize = 256 << 10;
/// A thread that is one of many leaves when there has been nothing to write for so long.
const REST: Duration = Duration::from_secs(10);

enum Item {
    Entry(Entry),
    Lines { text: Vec<u8>, count: u64 },
    Reopen,
    Flush(Sender<()>),
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
    /// Entries or lines that found no room since this was told.
    dropped: u64,
    thread: Thread,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Thread {
    /// It is started by what there is to write.
    #[default]
    None,
    Runs,
}

/// What a thread of many needs when it is started.
type Make = dyn Fn() -> (Box<dyn Sink>, Tell) + Send + Sync;
type Tell = Box<dyn Fn(Trouble) + Send>;

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    room: usize,
    /// `None`: there is one thread, for good.
    make: Option<Box<Make>>,
    /// How long a thread of many stays when there is nothing to write.
    rest: Duration,
}

/// What is to be said about a sink.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    Fails(String),
    /// So many entries or lines were lost.
    WorksAgain(u64),
    TooSlow(u64),
    CannotReopen(String),
}

/// The way to the thread; clones lead to the same.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

impl Writer {
    /// Opens `destination` and starts the thread. `tell` is called by the thread.
    pub fn open(
        destination: &Destination,
        form: Form,
        tell: impl Fn(Trouble) + Send + 'static,
    ) -> io::Result<Writer> {
        let sink: Box<dyn Sink> = match destination {
            Destination::Stdout | Destination::Stderr => {
                Box::new(LogFile::stream(destination, form)?)
            }
            Destination::File(path) => Box::new(LogFile::open(path, form)?),
            Destination::Syslog { facility, socket } => {
                Box::new(Syslog::new(facility, socket.clone(), form))
            }
            Destination::Journal { socket } => Box::new(Journal::new(socket.clone())),
        };
        Writer::start(sink, tell)
    }

    fn start(sink: Box<dyn Sink>, tell: impl Fn(Trouble) + Send + 'static) -> io::Result<Writer> {
        let writer = Writer(Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            room: ROOM,
            make: None,
            rest: Duration::MAX,
        }));
        writer.spawn(sink, Box::new(tell))?;
        lock(&writer.0.queue).thread = Thread::Runs;
        Ok(writer)
    }

    /// One of many: a file that is its user's, with little room, and a thread only while there is something
    /// to write. A disk that hangs holds up nobody else.
    pub fn of_user(
        place: (&Path, &Owner),
        form: Form,
        tell: impl Fn(Trouble) + Clone + Send + Sync + 'static,
    ) -> Writer {
        Writer::resting(place, form, tell, REST)
    }

    fn resting(
        (path, owner): (&Path, &Owner),
        form: Form,
        tell: impl Fn(Trouble) + Clone + Send + Sync + 'static,
        rest: Duration,
    ) -> Writer {
        let (path, owner) = (path.to_owned(), owner.clone());
        let make = move || {
            let sink = UserFile::new(path.clone(), owner.clone(), form);
            let (sink, tell): (Box<dyn Sink>, Tell) = (Box::new(sink), Box::new(tell.clone()));
            (sink, tell)
        };
        Writer(Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            room: SMALL_ROOM,
            make: Some(Box::new(make)),
            rest,
        }))
    }

    fn spawn(&self, sink: Box<dyn Sink>, tell: Tell) -> io::Result<()> {
        let shared = Arc::clone(&self.0);
        // Signals are the main thread's: one that it holds back must not find its handler here.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let thread = std::thread::Builder::new().name("log".into());
        let started = thread.spawn(move || serve(&shared, sink, &tell));
        before.thread_set_mask()?;
        started.map(drop)
    }

    pub fn entry(&self, entry: Entry) {
        let bytes = entry.text.len() + size_of::<Entry>();
        self.put(Item::Entry(entry), bytes, 1);
    }

    /// `count` lines, each with its end.
    pub fn lines(&self, text: Vec<u8>, count: u64) {
        let bytes = text.len() + size_of::<Item>();
        self.put(Item::Lines { text, count }, bytes, count);
    }

    /// What was given before goes to the old file, what comes after to the new one.
    pub fn reopen(&self) {
        self.put(Item::Reopen, 0, 0);
    }

    /// Waits until all that was given before is written, or for `limit`.
    pub fn flush(&self, limit: Duration) {
        Writer::flush_all([self], limit);
    }

    /// The same for several, which write at the same time.
    pub fn flush_all<'a>(writers: impl IntoIterator<Item = &'a Writer>, limit: Duration) {
        let (done, wait) = channel();
        for writer in writers {
            // Without a thread there is nothing to be written.
            if lock(&writer.0.queue).thread == Thread::Runs {
                writer.put(Item::Flush(done.clone()), 0, 0);
            }
        }
        drop(done);
        let until = Instant::now() + limit;
        // Ends when all have answered, or their threads have left.
        while wait.recv_timeout(until.saturating_duration_since(Instant::now())) == Ok(()) {}
    }

    fn put(&self, item: Item, bytes: usize, count: u64) {
        let mut queue = lock(&self.0.queue);
        if queue.bytes + bytes > self.0.room && bytes > 0 {
            queue.dropped += count;
            return;
        }
        if let (Thread::None, Some(make)) = (&queue.thread, &self.0.make) {
            let (sink, tell) = make();
            if self.spawn(sink, tell).is_err() {
                queue.dropped += count;
                return;
            }
            queue.thread = Thread::Runs;
        }
        queue.bytes += bytes;
        queue.items.push_back(item);
        self.0.filled.notify_one();
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    // It is whole at any time.
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(shared: &Shared, mut sink: Box<dyn Sink>, tell: &dyn Fn(Trouble)) {
    // Lost since the sink has failed for the first time.
    let mut failed: Option<u64> = None;
    loop {
        let (items, dropped) = {
            let mut queue = lock(&shared.queue);
            while queue.items.is_empty() {
                if shared.make.is_none() {
                    let waited = shared.filled.wait(queue);
                    queue = waited.unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
                let waited = shared.filled.wait_timeout(queue, shared.rest);
                let (guard, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                queue = guard;
                if waited.timed_out() && queue.items.is_empty() {
                    queue.thread = Thread::None;
                    return;
                }
            }
            // What is being written still takes room, so that twice as much is never held.
            let dropped = std::mem::take(&mut queue.dropped);
            (std::mem::take(&mut queue.items), dropped)
        };
        for item in items {
            let (done, count, bytes) = match item {
                Item::Entry(entry) => {
                    let bytes = entry.text.len() + size_of::<Entry>();
                    (sink.entry(&entry), 1, bytes)
                }
                Item::Lines { text, count } => {
                    (sink.lines(&text), count, text.len() + size_of::<Item>())
                }
                Item::Reopen => {
                    if let Err(error) = sink.reopen() {
                        tell(Trouble::CannotReopen(error.to_string()));
                    }
                    continue;
                }
                Item::Flush(done) => {
                    let _ = done.send(());
                    continue;
                }
            };
            lock(&shared.queue).bytes -= bytes;
            match (done, failed) {
                (Ok(()), None) => {}
                (Ok(()), Some(lost)) => {
                    failed = None;
                    tell(Trouble::WorksAgain(lost));
                }
                (Err(error), None) => {
                    failed = Some(count);
                    tell(Trouble::Fails(error.to_string()));
                }
                (Err(_), Some(lost)) => failed = Some(lost + count),
            }
        }
        if dropped > 0 {
            tell(Trouble::TooSlow(dropped));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

    /// Waits at a gate before each write, and answers as it is told to.
    struct Gate {
        answers: Receiver<io::Result<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Sink for Gate {
        fn entry(&mut self, entry: &Entry) -> io::Result<()> {
            self.lines(entry.text.as_bytes())
        }

        fn lines(&mut self, lines: &[u8]) -> io::Result<()> {
            let answer = self.answers.recv().unwrap_or(Ok(()));
            if answer.is_ok() {
                let _ = self.written.send(lines.to_vec());
            }
            answer
        }
    }

    type Told = Receiver<Trouble>;

    fn gated() -> (Writer, SyncSender<io::Result<()>>, Receiver<Vec<u8>>, Told) {
        let (open, answers) = sync_channel(0);
        let (written, read) = channel();
        let (tell, told) = channel();
        let gate = Box::new(Gate { answers, written });
        let writer = Writer::start(gate, move |trouble| {
            let _ = tell.send(trouble);
        });
        (writer.unwrap(), open, read, told)
    }

    #[test]
    fn whoever_logs_never_waits_and_what_has_no_room_is_told() {
        let (writer, open, read, told) = gated();
        for _ in 0..12 {
            writer.lines(vec![b'x'; 1 << 20], 10);
        }
        drop(open);
        // The second one is behind what the thread tells after the first.
        writer.flush(Duration::from_secs(60));
        writer.flush(Duration::from_secs(60));
        let dropped = told.try_iter().map(|trouble| match trouble {
            Trouble::TooSlow(dropped) => dropped,
            other => panic!("{other:?}"),
        });
        let dropped: u64 = dropped.sum();
        assert!(dropped > 0, "{dropped}");
        assert_eq!(read.try_iter().count() as u64 * 10, 120 - dropped);
        // There is room again.
        writer.lines(b"y\n".to_vec(), 1);
        writer.flush(Duration::from_secs(10));
        assert_eq!(read.try_recv().unwrap(), b"y\n");
    }

    #[test]
    fn one_of_many_has_a_thread_only_while_there_is_something_to_write() {
        let name = format!("rswsgi-writer-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let place = (path.as_path(), &Owner::Ourselves);
        let writer = Writer::resting(place, Form::Text, |_| {}, Duration::from_millis(1));
        assert_eq!(lock(&writer.0.queue).thread, Thread::None);
        for round in 1..=3 {
            writer.lines(b"x\n".to_vec(), 1);
            writer.flush(Duration::from_secs(60));
            assert_eq!(std::fs::read(&path).unwrap().len(), 2 * round);
            // It has let go of the file.
            while Arc::strong_count(&writer.0) > 1 {
                std::thread::yield_now();
            }
            assert_eq!(lock(&writer.0.queue).thread, Thread::None);
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn tells_once_that_it_fails_and_once_that_it_works_again() {
        let (writer, open, read, told) = gated();
        let full = || Err(io::Error::from_raw_os_error(libc::ENOSPC));
        for number in 0..4 {
            writer.lines(format!("{number}\n").into_bytes(), 1);
        }
        for answer in [full(), full(), full(), Ok(())] {
            open.send(answer).unwrap();
        }
        writer.flush(Duration::from_secs(10));
        assert_eq!(read.recv().unwrap(), b"3\n");
        let told: Vec<_> = told.try_iter().collect();
        assert!(matches!(told[0], Trouble::Fails(_)), "{told:?}");
        assert_eq!(told[1..], [Trouble::WorksAgain(3)]);
    }
}
