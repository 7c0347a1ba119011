//! The terminal: taken over, drawn on, and given back as it was, whatever ends the program.

use std::io::{self, Stdout};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use crossterm::cursor::{Hide, Show};
use crossterm::event::{self, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use crossterm::execute;
use crossterm::terminal::{self, EnterAlternateScreen, LeaveAlternateScreen};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, raise};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;

use super::draw::{self, Palette};
use super::model::{Effect, Key, Model};
use super::watch;
use crate::control::stats::Stats;
use crate::control::{Refused, Trace};
use crate::ctl::client::Client;
use crate::ctl::command::Invocation;
use crate::ctl::{Error, Exit, Result, ask};
use crate::sys::signal::Inbox;

/// What the threads report.
#[derive(Debug)]
pub enum Event {
    Key(Key),
    Resized,
    Looked(Box<Stats>),
    Lost(String),
    Traced(u32, Result<Trace, Refused>),
    Signal(Signal),
    /// The terminal is gone.
    Closed,
}

/// Signals that end the program, after it has given back the terminal.
const ENDING: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
];

/// How long the main thread has for that: it may hang in a write to a terminal nobody reads.
const GRACE: Duration = Duration::from_secs(2);

pub fn run(invocation: &Invocation, interval: Duration, client: Client) -> Result<()> {
    let path = client.path().to_owned();
    let mut model = Model::new(path.to_string_lossy().into_owned());
    let (sender, events) = mpsc::channel();
    let inbox = Inbox::hooked(&ENDING).map_err(|error| failed("cannot catch signals", &error))?;
    give_back_on_panic();
    let screen = Screen::take().map_err(|error| failed("cannot take over the terminal", &error))?;
    start(&sender, move |sender| signals(&inbox, &sender));
    start(&sender, |sender| keys(&sender));
    let app = invocation.app.clone();
    start(&sender, move |sender| {
        watch::watch(client, app, interval, sender)
    });
    let end = turn(&mut model, &events, &sender, &path);
    drop(screen);
    match end.map_err(|error| failed("cannot draw", &error))? {
        End::Wanted => Ok(()),
        End::Signal(signal) => {
            // Whoever waits for this program is to see what ended it.
            let _ = signal_hook::low_level::emulate_default_handler(signal as i32);
            Ok(())
        }
    }
}

fn failed(doing: &str, error: &io::Error) -> Error {
    Error::new(Exit::Failed, format!("{doing}: {error}"))
}

fn start(sender: &Sender<Event>, run: impl FnOnce(Sender<Event>) + Send + 'static) {
    let sender = sender.clone();
    std::thread::spawn(move || run(sender));
}

/// Why it is over.
enum End {
    Wanted,
    Signal(Signal),
}

fn turn(
    model: &mut Model,
    events: &Receiver<Event>,
    sender: &Sender<Event>,
    path: &Path,
) -> io::Result<End> {
    let palette = Palette(ask::paint());
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    loop {
        draw_frame(&mut terminal, model, palette)?;
        // The sender of this function keeps the channel open.
        let Ok(mut event) = events.recv() else {
            return Ok(End::Wanted);
        };
        // What came meanwhile is drawn at once.
        loop {
            match step(model, event) {
                Step::Nothing => {}
                Step::End(end) => return Ok(end),
                Step::Do(Effect::Quit) => return Ok(End::Wanted),
                Step::Do(Effect::Trace { app, slot }) => {
                    let path = path.to_owned();
                    start(sender, move |sender| watch::trace(path, app, slot, sender));
                }
                Step::Do(Effect::Suspend) => {
                    give_back();
                    // Continues here on SIGCONT.
                    let _ = raise(Signal::SIGTSTP);
                    take()?;
                    // Draws everything. `Terminal::clear` would ask the terminal for its cursor, and the
                    // answer goes to the thread that reads keys.
                    terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
                }
            }
            match events.try_recv() {
                Ok(next) => event = next,
                Err(_) => break,
            }
        }
    }
}

enum Step {
    Nothing,
    Do(Effect),
    End(End),
}

fn step(model: &mut Model, event: Event) -> Step {
    match event {
        Event::Key(key) => match model.key(key) {
            Some(effect) => Step::Do(effect),
            None => Step::Nothing,
        },
        Event::Looked(stats) => {
            model.look(*stats);
            Step::Nothing
        }
        Event::Lost(reason) => {
            model.lost(reason);
            Step::Nothing
        }
        Event::Traced(slot, answer) => {
            model.traced(slot, answer);
            Step::Nothing
        }
        // Drawing asks for the size.
        Event::Resized => Step::Nothing,
        Event::Signal(signal) => Step::End(End::Signal(signal)),
        Event::Closed => Step::End(End::Wanted),
    }
}

fn draw_frame(
    terminal: &mut Terminal<CrosstermBackend<Stdout>>,
    model: &mut Model,
    palette: Palette,
) -> io::Result<()> {
    let mut visible = 0;
    terminal.draw(|frame| {
        let area = frame.area();
        visible = draw::draw(model, palette, area, frame.buffer_mut());
    })?;
    model.visible = visible;
    Ok(())
}

fn keys(sender: &Sender<Event>) {
    loop {
        let event = match event::read() {
            Ok(event::Event::Key(key)) if key.kind != KeyEventKind::Release => match translate(key)
            {
                Some(key) => Event::Key(key),
                None => continue,
            },
            Ok(event::Event::Resize(..)) => Event::Resized,
            Ok(_) => continue,
            Err(_) => Event::Closed,
        };
        let closed = matches!(event, Event::Closed);
        if sender.send(event).is_err() || closed {
            return;
        }
    }
}

fn translate(key: KeyEvent) -> Option<Key> {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    Some(match key.code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char('z') if control => Key::Suspend,
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::F(1) => Key::Char('?'),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc | KeyCode::Backspace => Key::Escape,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    })
}

fn signals(inbox: &Inbox, sender: &Sender<Event>) {
    loop {
        let mut fds = [PollFd::new(inbox.as_fd(), PollFlags::POLLIN)];
        // An interruption is a wake-up like any other.
        let _ = poll(&mut fds, PollTimeout::NONE);
        if let Some(signal) = inbox.take() {
            let _ = sender.send(Event::Signal(signal));
            std::thread::sleep(GRACE);
            // Not by way of standard output, in which the main thread hangs.
            let _ = terminal::disable_raw_mode();
            let _ = signal_hook::low_level::emulate_default_handler(signal as i32);
        }
    }
}

/// The terminal while it is ours.
struct Screen;

impl Screen {
    fn take() -> io::Result<Screen> {
        take()?;
        Ok(Screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    terminal::enable_raw_mode()?;
    let entered = execute!(io::stdout(), EnterAlternateScreen, Hide);
    if entered.is_err() {
        give_back();
    }
    entered
}

/// As it was before. A terminal that is gone needs nothing.
fn give_back() {
    let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
    let _ = terminal::disable_raw_mode();
}

/// A panic of any thread: its message is to be read on the screen the person had before.
fn give_back_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        give_back();
        report(panic);
        std::process::exit(Exit::Failed as i32);
    }));
}
