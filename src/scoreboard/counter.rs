//! What workers and masters count.

/// What is counted, one cell each. Counters belong to the slot: a respawned worker goes on counting
/// where its predecessor stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Requests that reached the application.
    Requests,
    /// Final responses by class of status, 2xx to 5xx; also those the server itself gave.
    Status2,
    Status3,
    Status4,
    Status5,
    /// Accepted connections.
    Connections,
    BytesReceived,
    BytesSent,
    /// Exceptions that left the application.
    Exceptions,
    /// Requests that ended by `RequestTimeout`.
    SoftTimeouts,
    /// Responses cut short because the client had gone.
    ClientAborts,
    /// Responses cut short because they did not keep to their Content-Length or failed midway.
    BrokenResponses,
    /// Wake-ups of the event loop.
    WakeUps,
    /// Requests that found no room on their way to the access log.
    UnloggedRequests,
    /// Connections taken from the relay.
    RelayedIn,
    /// Connections sent on because the application ran; because the worker was leaving; because it was
    /// about to be killed; because others had nothing to do.
    RelayedBusy,
    RelayedDrain,
    RelayedStuck,
    RelayedBalance,
    /// Attempts that found no room.
    RelayFull,
    /// Taken from the relay and closed, because they could not be served.
    RelayRefused,
    /// Workers forked; this and the following are counted by the master, in the row of the pool.
    Spawns,
    /// Workers that ended although nobody had told them to.
    Crashes,
    /// Workers that ended before they could serve, or could not be forked.
    StartFailures,
    /// Workers killed because they did not react to `RequestTimeout`.
    HardTimeouts,
    /// Workers replaced after `--max-requests`, at `--max-age`, over `--max-memory`, as asked.
    RecycledRequests,
    RecycledAge,
    RecycledMemory,
    RecycledAsked,
    /// Workers that left because there was nothing to do for them.
    Retired,
}

impl Counter {
    pub const ALL: &[Counter] = &[
        Counter::Requests,
        Counter::Status2,
        Counter::Status3,
        Counter::Status4,
        Counter::Status5,
        Counter::Connections,
        Counter::BytesReceived,
        Counter::BytesSent,
        Counter::Exceptions,
        Counter::SoftTimeouts,
        Counter::ClientAborts,
        Counter::BrokenResponses,
        Counter::WakeUps,
        Counter::UnloggedRequests,
        Counter::RelayedIn,
        Counter::RelayedBusy,
        Counter::RelayedDrain,
        Counter::RelayedStuck,
        Counter::RelayedBalance,
        Counter::RelayFull,
        Counter::RelayRefused,
        Counter::Spawns,
        Counter::Crashes,
        Counter::StartFailures,
        Counter::HardTimeouts,
        Counter::RecycledRequests,
        Counter::RecycledAge,
        Counter::RecycledMemory,
        Counter::RecycledAsked,
        Counter::Retired,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Counter::Requests => "requests",
            Counter::Status2 => "status_2xx",
            Counter::Status3 => "status_3xx",
            Counter::Status4 => "status_4xx",
            Counter::Status5 => "status_5xx",
            Counter::Connections => "connections",
            Counter::BytesReceived => "bytes_received",
            Counter::BytesSent => "bytes_sent",
            Counter::Exceptions => "exceptions",
            Counter::SoftTimeouts => "soft_timeouts",
            Counter::ClientAborts => "client_aborts",
            Counter::BrokenResponses => "broken_responses",
            Counter::WakeUps => "wake_ups",
            Counter::UnloggedRequests => "unlogged_requests",
            Counter::RelayedIn => "relayed_in",
            Counter::RelayedBusy => "relayed_busy",
            Counter::RelayedDrain => "relayed_drain",
            Counter::RelayedStuck => "relayed_stuck",
            Counter::RelayedBalance => "relayed_balance",
            Counter::RelayFull => "relay_full",
            Counter::RelayRefused => "relay_refused",
            Counter::Spawns => "spawns",
            Counter::Crashes => "crashes",
            Counter::StartFailures => "start_failures",
            Counter::HardTimeouts => "hard_timeouts",
            Counter::RecycledRequests => "recycled_requests",
            Counter::RecycledAge => "recycled_age",
            Counter::RecycledMemory => "recycled_memory",
            Counter::RecycledAsked => "recycled_asked",
            Counter::Retired => "retired",
        }
    }
}
