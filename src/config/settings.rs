//! The settings as the rest of the program knows them: typed, checked, complete.
//!
//! [`resolve`] turns the layers of texts into [`Settings`]; it touches neither the file system nor
//! the network. The supervisor sends the result to the master as JSON.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::before_fork::{self, BeforeFork};
use super::bind::Bind;
use super::development::{self, Watching};
use super::given::{self, Given};
use super::hosting::{self, HostLimits, Presence};
use super::isolation::{self, Isolation};
use super::layers::Layers;
use super::listen::Listen;
use super::logs::{self, LogSettings, OwnLogs};
use super::privileges::{self, Privileges};
use super::proxies::{self, Proxies};
use super::target::{self, DefaultNames, Target};
use super::value::show_size;
use super::workers::Pool;
use crate::error::{Error, Exit, Result};
use crate::log::{Destination, Form};

/// Everything an app was configured with. Paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub target: Target,
    /// The name of the app in titles, logs and metrics.
    pub name: String,
    /// As named; when empty, the sockets passed by systemd, else [`super::DEFAULT_BIND`].
    pub bind: Vec<Listen>,
    /// Instead of those of [`super::DEFAULT_BIND`].
    pub host: Option<String>,
    pub port: Option<u16>,
    /// Objects that are looked for in the module when none is named.
    pub default_names: DefaultNames,
    /// A module to be served when that of `target` cannot be imported.
    pub fallback_module: Option<String>,
    pub backlog: u32,
    pub workers: Pool,
    pub before_fork: BeforeFork,
    pub interpreter: InterpreterSettings,
    pub privileges: Privileges,
    /// Whether the server goes on in the background.
    pub daemon: bool,
    /// Whether a change reloads.
    pub reload: bool,
    pub watching: Watching,
    pub pid_file: Option<PathBuf>,
    /// Mount prefix: empty, or `/prefix` without a final slash.
    pub script_name: String,
    pub limits: Limits,
    pub recycling: Recycling,
    /// Connections travel between workers; they leave one whose application has run for so long.
    /// `None`: they stay.
    pub relay: Option<Duration>,
    /// How long a service that is started by its sockets stays when nobody asks for it.
    pub exit_idle: Option<Duration>,
    pub underscore_fields: UnderscoreFields,
    pub proxies: Proxies,
    /// Directory with pages for responses of the server's own.
    pub error_pages: Option<PathBuf>,
    pub log: Destination,
    pub log_format: Form,
    /// `None`: there is no access log.
    pub access_log: Option<Destination>,
    pub logs: LogSettings,
    pub own_logs: OwnLogs,
    pub control: ControlSocket,
    /// Its members may look, but not steer.
    pub control_group: Option<String>,
    pub metrics_bind: Vec<Bind>,
    /// Files of the apps, when there are many.
    pub apps_dir: Option<PathBuf>,
    /// The same of users.
    pub user_apps_dir: Option<PathBuf>,
    /// Where apps of users may listen.
    pub user_listen_dir: Option<PathBuf>,
    /// Whether users of apps may use the control socket.
    pub control_users: bool,
    pub host_limits: HostLimits,
    pub presence: Presence,
    pub isolation: Isolation,
    /// What was asked for, for people; without values that may be secret.
    pub given: Vec<Given>,
}

/// Where the server can be asked and told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ControlSocket {
    /// In the first directory that will do.
    Somewhere,
    At(PathBuf),
    /// Whoever has started the server has bound it: `fd://NAME`, `fd://N`.
    Passed(Bind),
    Nowhere,
}

/// The Python the app runs in and what is prepared for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterpreterSettings {
    /// A path, or a bare name to be looked up on `PATH`.
    pub python: Option<PathBuf>,
    pub venv: Option<PathBuf>,
    /// Working directory of the app.
    pub chdir: Option<PathBuf>,
    /// Added to the end of `sys.path`, in this order.
    pub sys_path: Vec<PathBuf>,
    /// Added to the environment of the app.
    pub env: Vec<(String, String)>,
}

/// Bounds on what a client may make a worker hold, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of the request line.
    pub request_line: usize,
    /// Bytes of the whole head, request line included.
    pub head: usize,
    pub fields: usize,
    /// Bytes of a request body; `u64::MAX` when unlimited.
    pub max_body: u64,
    /// Bytes of a body kept in memory; the rest of it goes to a file in `temp_dir`.
    pub body_memory: u64,
    /// `None` stands for the directory the operating system suggests.
    pub temp_dir: Option<PathBuf>,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Without progress while a body is received.
    pub body_timeout: Duration,
    /// Without progress while a response is sent.
    pub send_timeout: Duration,
    /// Between two requests; `None` closes after each response.
    pub keep_alive: Option<Duration>,
    pub start_timeout: Duration,
    pub graceful_timeout: Duration,
    /// For one request; `None` for no limit.
    pub request_timeout: Option<Duration>,
    /// After it, before the worker is killed.
    pub kill_timeout: Duration,
    /// A request that runs for longer is logged; `None` for never.
    pub slow_request: Option<Duration>,
    /// Open connections per worker.
    pub max_connections: usize,
    /// Bytes of a response that may wait for a slow reader before the app's iterator waits.
    pub output_buffer: usize,
}

/// When a worker is replaced although nothing is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recycling {
    pub max_requests: Option<u64>,
    pub max_requests_jitter: u64,
    pub max_age: Option<Duration>,
    /// Bytes of unique set size.
    pub max_memory: Option<u64>,
    /// Without a request, for a worker beyond the minimum.
    pub idle_timeout: Duration,
}

/// What becomes of a request field with `_` in its name: in the environ `X_Y` cannot be told from
/// `X-Y`, so a client could forge what a proxy sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnderscoreFields {
    Drop,
    Refuse,
    Keep,
}

pub(super) fn resolve(layers: &Layers) -> Result<Settings> {
    let target = resolve_target(layers)?;
    let name = match layers.text("name")? {
        Some(name) => layers
            .check("name", target::check_name(&name))
            .map(|()| name)?,
        None => target.default_name(),
    };
    Ok(Settings {
        target,
        name,
        bind: layers.list("bind", |text| {
            let listen = text.parse::<Listen>()?.within(layers.base("bind"));
            listen.bind.check_length().map(|()| listen)
        })?,
        host: layers.text("host")?,
        port: resolve_port(layers)?,
        default_names: DefaultNames::ApplicationFirst,
        fallback_module: layers
            .has_default("module")
            .then(|| super::WAS_MODULES[1].to_owned()),
        backlog: layers.number("backlog")?,
        workers: layers.parsed("workers", str::parse)?,
        before_fork: before_fork::resolve(layers)?,
        interpreter: resolve_interpreter(layers)?,
        privileges: privileges::resolve(layers)?,
        daemon: layers.switch("daemon")?,
        reload: layers.switch("reload")?,
        watching: development::resolve(layers)?,
        pid_file: layers.path("pid-file")?,
        script_name: layers.parsed("script-name", read_script_name)?,
        limits: resolve_limits(layers)?,
        recycling: resolve_recycling(layers)?,
        exit_idle: Some(layers.duration("exit-idle")?).filter(|time| !time.is_zero()),
        control: resolve_control(layers)?,
        control_group: layers.text("control-group")?,
        metrics_bind: layers.list("metrics-bind", |text| {
            let bind = text.parse::<Bind>()?.within(layers.base("metrics-bind"));
            bind.check_length().map(|()| bind)
        })?,
        apps_dir: layers.path("apps-dir")?,
        user_apps_dir: layers.path("user-apps-dir")?,
        user_listen_dir: layers.path("user-listen-dir")?,
        control_users: layers.switch("control-users")?,
        host_limits: hosting::limits(layers)?,
        presence: hosting::presence(layers)?,
        isolation: isolation::resolve(layers)?,
        given: given::given(layers),
        underscore_fields: layers.parsed("underscore-fields", |text| match text {
            "drop" => Ok(UnderscoreFields::Drop),
            "refuse" => Ok(UnderscoreFields::Refuse),
            "keep" => Ok(UnderscoreFields::Keep),
            _ => Err(format!("{text:?} is unknown")),
        })?,
        proxies: proxies::resolve(layers)?,
        relay: resolve_relay(layers)?,
        error_pages: layers.path("error-pages")?,
        log: logs::error_log(layers)?,
        log_format: logs::form(layers)?,
        access_log: logs::access_log(layers)?,
        logs: logs::resolve(layers)?,
        own_logs: logs::own_logs(layers)?,
    })
}

fn resolve_port(layers: &Layers) -> Result<Option<u16>> {
    let read = |text: String| {
        let port = text.parse::<u16>();
        port.map_err(|_| format!("{text:?} is not a port between 0 and 65535"))
    };
    match layers.text("port")? {
        None => Ok(None),
        Some(text) => layers.check("port", read(text)).map(Some),
    }
}

impl Settings {
    /// `--host` and `--port`, as other servers call it.
    ///
    /// # Errors
    /// Why it is no address.
    pub fn host_and_port(&self) -> Result<Option<Bind>, String> {
        if self.host.is_none() && self.port.is_none() {
            return Ok(None);
        }
        let host = self.host.as_deref().unwrap_or("127.0.0.1");
        let port = self.port.unwrap_or(8000);
        let text = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        text.parse().map(Some)
    }
}

impl Settings {
    /// One connection is served by one worker, which nobody could replace.
    pub fn serve_one_connection(&mut self) {
        self.workers = Pool::Range(super::Workers { min: 1, max: 1 });
        self.recycling.max_requests = None;
        self.recycling.max_age = None;
        self.recycling.max_memory = None;
    }
}

/// The highest layer that names a target in either spelling wins, and may use only one of them.
fn resolve_target(layers: &Layers) -> Result<Target> {
    for layer in layers.highest_first() {
        let (target, module, app) = (
            layer.last("target"),
            layer.last("module"),
            layer.last("app"),
        );
        let (name, read) = match (target, module, app) {
            (None, None, None) => continue,
            (Some(target), None, None) => ("target", target.parse()),
            (None, Some(module), app) => ("module", Target::new(module, app)),
            (None, None, Some(_)) if layers.has_default("module") => {
                let module = layers.text("module")?.unwrap_or_default();
                ("app", Target::new(&module, app))
            }
            (None, None, Some(_)) => (
                "app",
                Err("needs --module; the target may also be given as MODULE:EXPRESSION".to_owned()),
            ),
            (Some(target), ..) => (
                "target",
                Err(format!(
                    "{target:?} is given, so --module and --app cannot be given as well"
                )),
            ),
        };
        return layer.check(name, read);
    }
    if layers.switch("passenger")? {
        return Target::new("passenger_wsgi", None)
            .map_err(|reason| Error::new(Exit::Internal, reason));
    }
    Err(no_target(layers))
}

/// Who has named a file looks for the target there.
fn no_target(layers: &Layers) -> Error {
    match layers.file() {
        Some(file) => Error::new(
            Exit::Config,
            format!(
                "no application given: {} has no target; example: target = \"myapp.wsgi:application\"",
                file.display()
            ),
        ),
        None => Error::new(
            Exit::Usage,
            "no application given; example: rswsgi myapp.wsgi:application",
        ),
    }
}

fn resolve_control(layers: &Layers) -> Result<ControlSocket> {
    let text = layers.text("control")?;
    let read = match text.as_deref() {
        None => Ok(ControlSocket::Somewhere),
        Some("none") => Ok(ControlSocket::Nowhere),
        Some("") => Err("the path is empty".to_owned()),
        Some(text) if text.starts_with("fd://") => text.parse().map(ControlSocket::Passed),
        Some(text) => {
            let path = layers
                .base("control")
                .join(text.strip_prefix("unix:").unwrap_or(text));
            let bind = Bind::file(path.clone());
            bind.check_length().map(|()| ControlSocket::At(path))
        }
    };
    layers.check("control", read)
}

pub(super) fn resolve_interpreter(layers: &Layers) -> Result<InterpreterSettings> {
    let python = layers.text("python")?.map(|text| match text.contains('/') {
        true => layers.base("python").join(text),
        false => PathBuf::from(text),
    });
    Ok(InterpreterSettings {
        python,
        venv: layers.path("venv")?,
        chdir: layers.path("chdir")?,
        sys_path: layers.list("sys-path", |text| match text {
            "" => Err("the path is empty".to_owned()),
            _ => Ok(layers.base("sys-path").join(text)),
        })?,
        env: layers.list("env", read_variable)?,
    })
}

fn resolve_limits(layers: &Layers) -> Result<Limits> {
    let limits = Limits {
        request_line: layers.number("limit-request-line")?,
        head: layers.number("limit-head")?,
        fields: layers.number("limit-fields")?,
        max_body: match layers.number("max-body")? {
            0 => u64::MAX,
            bytes => bytes,
        },
        body_memory: layers.number("body-memory")?,
        temp_dir: layers.path("temp-dir")?,
        head_timeout: layers.duration("head-timeout")?,
        body_timeout: layers.duration("body-timeout")?,
        send_timeout: layers.duration("send-timeout")?,
        keep_alive: Some(layers.duration("keep-alive")?).filter(|time| !time.is_zero()),
        start_timeout: layers.duration("start-timeout")?,
        graceful_timeout: layers.duration("graceful-timeout")?,
        request_timeout: Some(layers.duration("request-timeout")?).filter(|time| !time.is_zero()),
        kill_timeout: layers.duration("kill-timeout")?,
        slow_request: Some(layers.duration("slow-request")?).filter(|time| !time.is_zero()),
        max_connections: layers.number("max-connections")?,
        output_buffer: layers.number("output-buffer")?,
    };
    if limits.request_line > limits.head {
        let reason = format!(
            "a request line of {} does not fit into a head of {}",
            show_size(limits.request_line as u64),
            show_size(limits.head as u64)
        );
        layers.check_first(&["limit-head", "limit-request-line"], Err(reason))?;
    }
    Ok(limits)
}

fn resolve_relay(layers: &Layers) -> Result<Option<Duration>> {
    let after = layers.duration("relay-after")?;
    layers.parsed("relay", |text| match text {
        "on" => Ok(Some(after)),
        "off" => Ok(None),
        _ => Err(format!("{text:?} is unknown")),
    })
}

fn resolve_recycling(layers: &Layers) -> Result<Recycling> {
    Ok(Recycling {
        max_requests: Some(layers.number("max-requests")?).filter(|n| *n > 0),
        max_requests_jitter: layers.number("max-requests-jitter")?,
        max_age: Some(layers.duration("max-age")?).filter(|age| !age.is_zero()),
        max_memory: Some(layers.number("max-memory")?).filter(|n| *n > 0),
        idle_timeout: layers.duration("idle-timeout")?,
    })
}

/// SCRIPT_NAME as PEP 3333 wants it: decoded, empty or `/prefix`.
fn read_script_name(text: &str) -> Result<String, String> {
    let strange = |c: char| c.is_control() || "?#".contains(c);
    let reason = match text {
        "" => return Ok(String::new()),
        _ if !text.starts_with('/') => "does not start with '/'",
        _ if text.ends_with('/') => "ends with '/'; leave it out",
        _ if text.contains("//") => "has an empty segment",
        _ if text.contains(strange) => "holds characters that cannot be part of a path",
        _ => return Ok(text.to_owned()),
    };
    Err(format!("{text:?} {reason}"))
}

fn read_variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !text.contains('\0') => {
            Ok((key.to_owned(), value.to_owned()))
        }
        // Not which: it may be a secret, or part of one.
        _ => Err("an entry is not KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_name_is_empty_or_a_prefix() {
        for good in ["", "/a", "/a/b", "/ä b", "/%20"] {
            assert_eq!(read_script_name(good), Ok(good.to_owned()));
        }
        for bad in [
            "/", "a", "a/", "/a/", "//a", "/a//b", "/a?b", "/a#b", "/a\n",
        ] {
            assert!(read_script_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_variable_may_have_an_empty_value_but_not_an_empty_name() {
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(read_variable("A=b"), pair("A", "b"));
        assert_eq!(read_variable("A="), pair("A", ""));
        assert_eq!(read_variable("A=b=c"), pair("A", "b=c"));
        for bad in ["", "A", "=b", "A=\0"] {
            assert!(read_variable(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_mistake_in_a_variable_does_not_tell_its_value() {
        for bad in ["s3cret", "=s3cret", "A=s3cret\0"] {
            let reason = read_variable(bad).unwrap_err();
            assert_eq!(reason, "an entry is not KEY=VALUE");
        }
    }
}
