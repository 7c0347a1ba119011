//! The rules of the protocol, one by one, and what holds whatever arrives.

use super::packet::put;
use super::reply::{put_head, put_metrics};
use super::*;

const LIMITS: Limits = Limits {
    uri: 4096,
    metadata: 65536,
    fields: 100,
};

/// xorshift64*: the same on every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(mixed).unwrap() % bound
    }
}

fn packet(command: Command, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, command, &[payload]);
    bytes
}

fn raw(command: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(command.to_ne_bytes());
    bytes.extend(payload);
    bytes
}

fn number(command: Command, number: u64) -> Vec<u8> {
    packet(command, &number.to_ne_bytes())
}

/// A session, what it has answered and what happened.
#[derive(Default)]
struct Case {
    session: Session,
    request: Request,
    out: Vec<u8>,
    seen: Vec<&'static str>,
}

impl Case {
    fn hear(&mut self, bytes: &[u8]) -> Result<(), Violation> {
        self.session.receive(bytes);
        loop {
            let name = match self.session.next(&mut self.out)? {
                None => return Ok(()),
                Some(Happened::Metadata(command, payload)) => {
                    self.request.take(command, payload, &LIMITS)?;
                    continue;
                }
                Some(Happened::Begun) => {
                    self.request.clear();
                    "begun"
                }
                Some(Happened::Complete) => "complete",
                Some(Happened::Announced) => "announced",
                Some(Happened::Cut) => "cut",
                Some(Happened::Stopped) => "stopped",
            };
            self.seen.push(name);
        }
    }

    /// One that has heard all this.
    fn of(packets: &[Vec<u8>]) -> Case {
        let mut case = Case::default();
        case.hear(&packets.concat()).unwrap();
        case
    }

    fn violation(packets: &[Vec<u8>]) -> Violation {
        Case::default().hear(&packets.concat()).unwrap_err()
    }

    fn answers(&mut self) -> Vec<(Command, Vec<u8>)> {
        let mut packets = Packets::default();
        packets.push(&std::mem::take(&mut self.out));
        let mut found = Vec::new();
        while let Some(packet) = packets.take() {
            let command = Command::of(packet.command).unwrap();
            found.push((command, packet.payload.to_vec()));
        }
        assert!(packets.is_empty());
        found
    }

    fn commands(&mut self) -> Vec<Command> {
        self.answers().into_iter().map(|answer| answer.0).collect()
    }

    fn respond(&mut self, length: Option<u64>) {
        let head = Head {
            status: 200,
            fields: b"",
            content: Content::Body { length },
        };
        self.session.respond(&mut self.out, &head, &[]);
    }
}

fn get() -> Vec<Vec<u8>> {
    vec![
        packet(Command::Request, b""),
        packet(Command::Uri, b"/a?b"),
        packet(Command::NoData, b""),
    ]
}

fn post() -> Vec<Vec<u8>> {
    vec![
        packet(Command::Request, b""),
        packet(Command::Method, &3u32.to_ne_bytes()),
        packet(Command::Uri, b"/"),
        packet(Command::Data, b""),
    ]
}

fn and(mut packets: Vec<Vec<u8>>, more: Vec<u8>) -> Vec<Vec<u8>> {
    packets.push(more);
    packets
}

#[test]
fn a_packet_is_taken_when_all_of_it_is_there() {
    let bytes = [packet(Command::Header, b"a=b"), packet(Command::Nop, b"")].concat();
    for cut in 0..bytes.len() {
        let mut packets = Packets::default();
        packets.push(&bytes[..cut]);
        assert_eq!(packets.first().is_some(), cut >= 7, "{cut}");
        packets.push(&bytes[cut..]);
        assert_eq!(packets.take().unwrap().payload, b"a=b");
        assert_eq!(packets.take().unwrap().command, 0);
        assert!(packets.take().is_none() && packets.is_empty());
    }
}

#[test]
fn the_largest_payload_is_one_packet() {
    let bytes = packet(Command::Header, &[b'='; MAX_PAYLOAD]);
    let mut packets = Packets::default();
    packets.push(&bytes);
    assert_eq!(packets.take().unwrap().payload.len(), MAX_PAYLOAD);
}

#[test]
fn metadata_comes_in_any_order() {
    let mut rest = vec![
        packet(Command::Uri, b"/s/p?q"),
        packet(Command::Header, b"x=1=2"),
        packet(Command::Method, &4u16.to_ne_bytes()),
        packet(Command::ScriptName, b"/s"),
        packet(Command::Parameter, b"key=value"),
        packet(Command::PathInfo, b"/p"),
        packet(Command::Tls, b""),
        packet(Command::QueryString, b"q"),
        packet(Command::RemoteHost, b"2001:db8::1"),
        packet(Command::Metric, b""),
        packet(Command::DocumentRoot, b"/var/www"),
    ];
    for _ in 0..rest.len() {
        rest.rotate_left(1);
        let mut packets = vec![packet(Command::Request, b"")];
        packets.extend(rest.clone());
        packets.push(packet(Command::NoData, b""));
        let case = Case::of(&packets);
        let request = &case.request;
        assert_eq!(request.method().name(), Some("PUT"));
        assert_eq!(request.uri(), Some(&b"/s/p?q"[..]));
        assert_eq!(request.script_name(), Some(&b"/s"[..]));
        assert_eq!(request.path_info(), Some(&b"/p"[..]));
        assert_eq!(request.query_string(), Some(&b"q"[..]));
        assert_eq!(request.remote_host(), Some(&b"2001:db8::1"[..]));
        assert_eq!(request.document_root(), Some(&b"/var/www"[..]));
        assert!(request.is_tls() && request.wants_metrics());
        let header: Vec<_> = request.headers().collect();
        assert_eq!(header, [(&b"x"[..], &b"1=2"[..])]);
        let parameter: Vec<_> = request.parameters().collect();
        assert_eq!(parameter, [(&b"key"[..], &b"value"[..])]);
        assert_eq!(request.refusal(), None);
    }
}

#[test]
fn a_request_without_a_method_is_a_get_and_may_be_repeated() {
    let case = Case::of(&get());
    assert_eq!(case.request.method().name(), Some("GET"));
    let head = packet(Command::Method, &1u32.to_ne_bytes());
    let packets = [packet(Command::Request, b""), head.clone(), head];
    assert_eq!(Case::of(&packets).request.method().name(), Some("HEAD"));
}

#[test]
fn every_method_has_its_number() {
    for (number, name) in [
        (1, "HEAD"),
        (2, "GET"),
        (3, "POST"),
        (4, "PUT"),
        (5, "DELETE"),
        (6, "OPTIONS"),
        (7, "TRACE"),
        (8, "PROPFIND"),
        (9, "PROPPATCH"),
        (10, "MKCOL"),
        (11, "COPY"),
        (12, "MOVE"),
        (13, "LOCK"),
        (14, "UNLOCK"),
        (15, "PATCH"),
        (16, "REPORT"),
        (17, "QUERY"),
    ] {
        let packets = [
            packet(Command::Request, b""),
            packet(Command::Method, &u32::to_ne_bytes(number)),
            packet(Command::Uri, b"/"),
        ];
        let case = Case::of(&packets);
        assert_eq!(case.request.method().name(), Some(name));
        assert_eq!(case.request.refusal(), None);
    }
}

#[test]
fn an_unknown_method_is_answered_with_501() {
    for number in [0u32, 18, 4711, u32::MAX] {
        let packets = [
            packet(Command::Request, b""),
            packet(Command::Method, &number.to_ne_bytes()),
            packet(Command::Uri, b"/"),
            packet(Command::NoData, b""),
        ];
        let refusal = Case::of(&packets).request.refusal().unwrap();
        assert_eq!(refusal.status(), 501);
    }
}

#[test]
fn what_comes_once_only_is_not_taken_twice() {
    for command in [
        Command::Uri,
        Command::ScriptName,
        Command::PathInfo,
        Command::QueryString,
        Command::RemoteHost,
        Command::DocumentRoot,
    ] {
        let once = packet(command, b"/x");
        let packets = [packet(Command::Request, b""), once.clone(), once];
        assert_eq!(
            Case::violation(&packets),
            Violation::Repeated(command.number())
        );
    }
    let packets = [
        packet(Command::Request, b""),
        packet(Command::Method, &2u32.to_ne_bytes()),
        packet(Command::Method, &3u32.to_ne_bytes()),
    ];
    assert_eq!(Case::violation(&packets), Violation::Repeated(2));
}

#[test]
fn headers_may_be_repeated_but_not_malformed() {
    let packets = [
        packet(Command::Request, b""),
        packet(Command::Header, b"cookie=a=1"),
        packet(Command::Header, b"cookie=b=2"),
        packet(Command::Header, b"empty="),
    ];
    assert_eq!(Case::of(&packets).request.headers().len(), 3);
    for bad in [&b"no sign"[..], b"=value", b""] {
        for command in [Command::Header, Command::Parameter] {
            let packets = [packet(Command::Request, b""), packet(command, bad)];
            assert_eq!(
                Case::violation(&packets),
                Violation::Malformed(command.number())
            );
        }
    }
}

#[test]
fn what_http_cannot_carry_is_refused() {
    for bad in [&b"a b=c"[..], b"a=x\r\ny", b"a=\0", b"n\xe4me=x", b"a:=b"] {
        let packets = [
            packet(Command::Request, b""),
            packet(Command::Uri, b"/"),
            packet(Command::Header, bad),
        ];
        let refusal = Case::of(&packets).request.refusal().unwrap();
        assert_eq!(refusal.status(), 400, "{bad:?}");
    }
    let packets = [
        packet(Command::Request, b""),
        packet(Command::Uri, b"/"),
        packet(Command::Header, b"a=\xe4\tb"),
    ];
    assert_eq!(Case::of(&packets).request.refusal(), None);
}

#[test]
fn too_long_an_address_is_414_and_too_many_headers_are_431() {
    let long = vec![b'x'; 5000];
    for command in [
        Command::Uri,
        Command::ScriptName,
        Command::PathInfo,
        Command::QueryString,
    ] {
        let packets = [packet(Command::Request, b""), packet(command, &long)];
        let refusal = Case::of(&packets).request.refusal().unwrap();
        assert_eq!(refusal.status(), 414);
    }
    let field = packet(Command::Header, &[b"n=", &long[..]].concat());
    let many = vec![packet(Command::Parameter, b"n=v"); 101];
    for fields in [vec![field; 14], many] {
        let packets = [
            vec![packet(Command::Request, b""), packet(Command::Uri, b"/")],
            fields,
        ];
        let refusal = Case::of(&packets.concat()).request.refusal().unwrap();
        assert_eq!(refusal.status(), 431);
    }
}

#[test]
fn a_request_that_names_nothing_is_400() {
    let packets = [packet(Command::Request, b""), packet(Command::NoData, b"")];
    let refusal = Case::of(&packets).request.refusal().unwrap();
    assert_eq!(refusal.status(), 400);
}

#[test]
fn nothing_of_a_request_is_left_in_the_next_one() {
    let mut case = Case::of(&[
        packet(Command::Request, b""),
        packet(Command::Uri, &[b'x'; 5000]),
        packet(Command::Header, b"a_b=c"),
        packet(Command::Tls, b""),
        packet(Command::NoData, b""),
    ]);
    assert!(case.request.has_underscores());
    case.respond(Some(0));
    assert!(case.session.rest());
    case.hear(&get().concat()).unwrap();
    let request = &case.request;
    assert_eq!((request.refusal(), request.is_tls()), (None, false));
    assert_eq!(
        (request.headers().len(), request.has_underscores()),
        (0, false)
    );
}

#[test]
fn unknown_commands_are_skipped_inside_a_request_only() {
    let mut packets = get();
    packets.insert(1, raw(19, b"later"));
    packets.push(raw(500, b""));
    packets.push(packet(Command::Nop, b"x"));
    assert_eq!(Case::of(&packets).seen, ["begun", "complete"]);
    assert_eq!(Case::violation(&[raw(19, b"")]), Violation::Unexpected(19));
}

#[test]
fn between_requests_only_three_commands_are_allowed() {
    for command in (2..19).filter(|command| *command != Command::Stop.number()) {
        let packets = [raw(command, &[0; 8])];
        assert_eq!(Case::violation(&packets), Violation::Unexpected(command));
    }
    Case::of(&[packet(Command::Nop, b""), packet(Command::Nop, b"ignored")]);
}

#[test]
fn what_does_not_belong_into_the_metadata_ends_the_connection() {
    for command in [
        Command::Request,
        Command::Status,
        Command::Length,
        Command::Stop,
        Command::Premature,
    ] {
        let packets = [packet(Command::Request, b""), number(command, 0)];
        assert_eq!(
            Case::violation(&packets),
            Violation::Unexpected(command.number())
        );
    }
}

#[test]
fn metadata_after_its_end_ends_the_connection() {
    for command in [
        Command::Method,
        Command::Uri,
        Command::Header,
        Command::NoData,
        Command::Data,
        Command::Metric,
    ] {
        let packets = and(post(), packet(command, b"a=b"));
        assert_eq!(
            Case::violation(&packets),
            Violation::Unexpected(command.number())
        );
    }
}

#[test]
fn a_second_request_before_the_end_of_the_first_ends_the_connection() {
    let packets = and(get(), packet(Command::Request, b""));
    assert_eq!(Case::violation(&packets), Violation::Unexpected(1));
}

#[test]
fn integers_have_the_size_of_their_command() {
    let bad = |packets: &[Vec<u8>]| Case::violation(packets);
    let request = || packet(Command::Request, b"");
    for payload in [&[][..], &[1], &[1, 0, 0], &[0; 8]] {
        let packets = [request(), packet(Command::Method, payload)];
        assert_eq!(bad(&packets), Violation::Malformed(2));
    }
    for command in [Command::Length, Command::Premature] {
        for payload in [&[][..], &[1, 0, 0, 0], &[0; 9]] {
            let packets = and(post(), packet(command, payload));
            assert_eq!(bad(&packets), Violation::Malformed(command.number()));
        }
    }
}

#[test]
fn the_length_of_the_body_may_come_at_any_time_but_not_contradict() {
    let mut case = Case::of(&post());
    assert_eq!(case.session.readable(), u64::MAX);
    case.session.was_read(10).unwrap();
    assert_eq!(case.session.upload(), Upload::Open);
    case.hear(&number(Command::Length, 15)).unwrap();
    assert_eq!(case.session.readable(), 5);
    case.hear(&number(Command::Length, 15)).unwrap();
    assert_eq!(
        case.hear(&number(Command::Length, 16)).unwrap_err(),
        Violation::Length
    );
    case.session.was_read(5).unwrap();
    assert_eq!(case.session.upload(), Upload::Complete);
    assert_eq!(case.session.was_read(1).unwrap_err(), Violation::Length);

    let mut case = Case::of(&post());
    case.session.was_read(10).unwrap();
    assert_eq!(
        case.hear(&number(Command::Length, 9)).unwrap_err(),
        Violation::Length
    );
    for command in [Command::Length, Command::Premature] {
        let packets = and(get(), number(command, 0));
        assert_eq!(
            Case::violation(&packets),
            Violation::Unexpected(command.number())
        );
    }
}

#[test]
fn a_premature_end_of_the_body_is_not_its_end() {
    let mut case = Case::of(&and(post(), number(Command::Length, 100)));
    case.session.was_read(10).unwrap();
    case.hear(&number(Command::Premature, 30)).unwrap();
    assert_eq!(case.seen.last(), Some(&"cut"));
    assert_eq!(case.session.upload(), Upload::Cut);
    assert_eq!(case.session.readable(), 20);
    assert!(!case.session.is_drained());
    case.session.was_read(20).unwrap();
    assert_eq!(case.session.upload(), Upload::Cut);
    assert!(case.session.is_drained());
    let again = case.hear(&number(Command::Premature, 30)).unwrap_err();
    assert_eq!(again, Violation::Length);

    for (announced, read, n) in [(Some(100), 10, 9), (Some(100), 0, 101), (None, 10, 9)] {
        let mut case = Case::of(&post());
        if let Some(announced) = announced {
            case.hear(&number(Command::Length, announced)).unwrap();
        }
        case.session.was_read(read).unwrap();
        let wrong = case.hear(&number(Command::Premature, n)).unwrap_err();
        assert_eq!(wrong, Violation::Length);
    }
}

#[test]
fn a_body_that_is_not_wanted_is_stopped_only_when_it_is_worth_it() {
    for (announced, read, stops) in [
        (Some(10), 10, false),
        (Some(262_144), 0, false),
        (Some(262_145), 0, true),
        (Some(1 << 40), 1 << 39, true),
        (None, 5, true),
    ] {
        let mut case = Case::of(&post());
        if let Some(announced) = announced {
            case.hear(&number(Command::Length, announced)).unwrap();
        }
        case.session.was_read(read).unwrap();
        case.session.refuse_upload(&mut case.out);
        case.session.refuse_upload(&mut case.out);
        let expected: &[Command] = if stops { &[Command::Stop] } else { &[] };
        assert_eq!(case.commands(), expected, "{announced:?}");
    }
    let mut case = Case::of(&get());
    case.session.refuse_upload(&mut case.out);
    assert_eq!(case.commands(), []);
}

#[test]
fn after_our_stop_nothing_is_read_before_the_client_says_how_much() {
    let mut case = Case::of(&post());
    case.session.was_read(5).unwrap();
    case.session.refuse_upload(&mut case.out);
    assert_eq!(case.session.readable(), 0);
    case.hear(&number(Command::Premature, 25)).unwrap();
    assert_eq!(case.session.readable(), 20);
    // One that had finished says LENGTH instead.
    let mut case = Case::of(&post());
    case.session.refuse_upload(&mut case.out);
    case.hear(&number(Command::Length, 7)).unwrap();
    assert_eq!(
        (case.session.readable(), case.session.upload()),
        (7, Upload::Open)
    );
}

#[test]
fn a_response_of_known_length_is_over_with_its_last_byte() {
    let mut case = Case::of(&get());
    case.respond(Some(5));
    assert_eq!(
        case.answers(),
        [
            (Command::Status, 200u32.to_ne_bytes().to_vec()),
            (Command::Data, vec![]),
            (Command::Length, 5u64.to_ne_bytes().to_vec()),
        ]
    );
    case.session.was_written(4);
    assert!(!case.session.is_answered() && !case.session.rest());
    case.session.was_written(1);
    assert!(case.session.is_answered() && case.session.rest());
    case.session.end(&mut case.out, 5, &[]);
    case.session.cut(&mut case.out);
    assert_eq!(case.commands(), [], "nothing is said on an idle connection");
}

#[test]
fn a_response_of_unknown_length_ends_with_its_length() {
    let mut case = Case::of(&get());
    case.respond(None);
    assert_eq!(case.commands(), [Command::Status, Command::Data]);
    case.session.was_written(7);
    case.session.end(&mut case.out, 9, &[]);
    assert_eq!(
        case.answers(),
        [(Command::Length, 9u64.to_ne_bytes().to_vec())]
    );
    assert!(!case.session.is_answered());
    case.session.was_written(2);
    assert!(case.session.rest());
}

#[test]
fn what_was_begun_and_cannot_go_on_is_premature() {
    let mut case = Case::of(&get());
    case.session.cut(&mut case.out);
    assert_eq!(case.commands(), [], "PREMATURE without DATA is an error");
    case.respond(Some(10));
    case.session.was_written(3);
    case.out.clear();
    case.session.cut(&mut case.out);
    case.session.cut(&mut case.out);
    assert_eq!(
        case.answers(),
        [(Command::Premature, 3u64.to_ne_bytes().to_vec())]
    );
    assert!(case.session.rest());
}

#[test]
fn head_and_statuses_without_a_body_have_no_data() {
    for (is_head, status, length, expected) in [
        (
            true,
            200,
            Some(5),
            &[Command::Status, Command::Header, Command::NoData][..],
        ),
        (true, 200, None, &[Command::Status, Command::NoData]),
        (false, 204, Some(5), &[Command::Status, Command::NoData]),
        (false, 205, None, &[Command::Status, Command::NoData]),
        (false, 304, Some(5), &[Command::Status, Command::NoData]),
        (true, 304, Some(5), &[Command::Status, Command::NoData]),
    ] {
        let mut case = Case::of(&get());
        let head = Head {
            status,
            fields: b"",
            content: Content::of(is_head, status, length),
        };
        case.session.respond(&mut case.out, &head, &[]);
        assert_eq!(case.commands(), expected, "{status}");
        assert!(case.session.rest());
    }
}

#[test]
fn a_stop_is_answered_at_every_point_and_once() {
    let stop = packet(Command::Stop, b"");
    // Before anything was said.
    let mut case = Case::of(&get());
    case.hear(&stop).unwrap();
    assert_eq!(case.seen.last(), Some(&"stopped"));
    assert_eq!(
        case.answers(),
        [(Command::Premature, 0u64.to_ne_bytes().to_vec())]
    );
    case.respond(Some(5));
    assert_eq!(case.commands(), [], "nothing else is sent for this request");
    assert!(case.session.rest());

    // In the middle, twice.
    let mut case = Case::of(&get());
    case.respond(None);
    case.session.was_written(3);
    case.out.clear();
    case.hear(&[stop.clone(), stop.clone()].concat()).unwrap();
    assert_eq!(
        case.answers(),
        [(Command::Premature, 3u64.to_ne_bytes().to_vec())]
    );
    case.session.end(&mut case.out, 3, &[]);
    assert!(case.commands().is_empty() && case.session.rest());

    // When it is over, and the connection idle.
    for rests in [false, true] {
        let mut case = Case::of(&get());
        case.respond(Some(2));
        case.session.was_written(2);
        assert!(!rests || case.session.rest());
        case.out.clear();
        case.seen.clear();
        case.hear(&stop).unwrap();
        assert!(case.seen.is_empty(), "the request is over");
        assert_eq!(
            case.answers(),
            [(Command::Premature, 2u64.to_ne_bytes().to_vec())]
        );
        assert!(case.session.rest());
        case.hear(&get().concat()).unwrap();
        assert_eq!(case.seen, ["begun", "complete"]);
    }

    // After our own PREMATURE: the client has it already.
    let mut case = Case::of(&get());
    case.respond(None);
    case.session.cut(&mut case.out);
    case.out.clear();
    case.hear(&stop).unwrap();
    assert_eq!(case.commands(), []);
}

#[test]
fn after_a_stop_the_body_is_drained_before_the_next_request() {
    let mut case = Case::of(&post());
    case.session.was_read(5).unwrap();
    case.hear(&packet(Command::Stop, b"")).unwrap();
    assert_eq!(case.session.readable(), 0);
    assert!(!case.session.rest());
    let more = [vec![number(Command::Premature, 8)], get()].concat();
    case.hear(&more.concat()).unwrap();
    assert_eq!(case.seen.last(), Some(&"cut"), "the next request waits");
    assert_eq!(case.session.readable(), 3);
    case.session.was_read(3).unwrap();
    assert!(case.session.rest());
    case.hear(b"").unwrap();
    assert_eq!(case.seen[case.seen.len() - 2..], ["begun", "complete"]);
}

#[test]
fn a_next_request_without_a_word_about_the_body_ends_the_connection() {
    let mut case = Case::of(&post());
    case.respond(Some(0));
    let next = case.hear(&packet(Command::Request, b"")).unwrap_err();
    assert_eq!(next, Violation::Unexpected(1));
}

#[test]
fn a_connection_goes_on_elsewhere() {
    let mut case = Case::of(&get());
    case.respond(Some(7));
    case.session.was_written(7);
    assert!(case.session.rest() && case.session.is_idle());
    case.session.receive(&packet(Command::Stop, b""));
    assert!(!case.session.is_idle() && case.session.is_between());
    let input = case.session.rest_of_input().to_vec();
    let mut other = Case {
        session: Session::resume(case.session.state(), &input),
        ..Case::default()
    };
    other.hear(b"").unwrap();
    assert_eq!(
        other.answers(),
        [(Command::Premature, 7u64.to_ne_bytes().to_vec())]
    );
    let state = other.session.state();
    let mut third = Case {
        session: Session::resume(state, &packet(Command::Stop, b"")),
        ..Case::default()
    };
    third.hear(b"").unwrap();
    assert_eq!(third.commands(), [], "it has been told");
}

#[test]
fn fields_become_packets_with_lower_case_names() {
    let mut out = Vec::new();
    let head = Head {
        status: 201,
        fields:
            b"Content-Type: text/plain; a=b\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Empty: \r\n",
        content: Content::Nothing { length: Some(12) },
    };
    put_head(&mut out, &head);
    let mut case = Case {
        out,
        ..Case::default()
    };
    let texts: Vec<_> = case.answers()[1..]
        .iter()
        .map(|(_, payload)| String::from_utf8(payload.clone()).unwrap())
        .collect();
    assert_eq!(
        texts,
        [
            "content-type=text/plain; a=b",
            "set-cookie=a=1",
            "set-cookie=b=2",
            "x-empty=",
            "content-length=12"
        ]
    );
}

#[test]
fn the_limits_of_the_client_are_known() {
    let field = |bytes: usize| format!("N: {}\r\n", "x".repeat(bytes - 2)).into_bytes();
    assert_eq!(check_fields(&field(8191)), Ok(()));
    let name = "N".to_owned();
    let expected = TooLarge::Header { name, bytes: 8192 };
    assert_eq!(check_fields(&field(8192)), Err(expected));
    assert_eq!(check_fields(&field(8000).repeat(8)), Ok(()));
    let together = TooLarge::Together { bytes: 72_000 };
    assert_eq!(check_fields(&field(8000).repeat(9)), Err(together));
}

#[test]
fn statuses_that_the_client_does_not_know_become_those_of_their_class() {
    for (status, sent) in [
        (200, 200),
        (208, 208),
        (209, 200),
        (226, 226),
        (299, 200),
        (306, 300),
        (308, 308),
        (418, 418),
        (419, 400),
        (420, 400),
        (427, 400),
        (430, 400),
        (451, 451),
        (499, 400),
        (509, 500),
        (511, 511),
        (599, 500),
        (600, 500),
        (999, 500),
    ] {
        assert_eq!(client_status(status), sent);
    }
}

#[test]
fn metrics_are_finite_numbers_with_names() {
    let metric = |value| Metric {
        name: "requests",
        value,
    };
    let mut case = Case::default();
    let metrics = [metric(1.5), metric(f32::NAN), metric(f32::INFINITY)];
    put_metrics(&mut case.out, &metrics);
    let payload = [&1.5f32.to_ne_bytes()[..], b"requests"].concat();
    assert_eq!(case.answers(), [(Command::Metric, payload)]);
    // Before the end of the response, whatever its form.
    for content in [
        Content::Nothing { length: None },
        Content::Body { length: Some(1) },
        Content::Body { length: None },
    ] {
        let mut case = Case::of(&get());
        let head = Head {
            status: 200,
            fields: b"",
            content,
        };
        let metrics = [metric(1.0)];
        case.session.respond(&mut case.out, &head, &metrics);
        case.session.was_written(1);
        case.session.end(&mut case.out, 1, &metrics);
        let commands = case.commands();
        let place = |wanted| commands.iter().position(|command| *command == wanted);
        let last = place(Command::Length).or(place(Command::NoData)).unwrap();
        assert_eq!(place(Command::Metric), Some(last - 1), "{commands:?}");
        assert_eq!(last, commands.len() - 1);
    }
}

/// A long conversation gives the same however its bytes are cut.
#[test]
fn splits_do_not_matter() {
    let conversation = [
        get(),
        vec![packet(Command::Stop, b""), packet(Command::Nop, b"zzz")],
    ]
    .concat()
    .concat();
    let expected = {
        let mut case = Case::default();
        case.hear(&conversation).unwrap();
        (case.seen.clone(), case.answers())
    };
    let mut chance = Chance(7);
    for _ in 0..500 {
        let mut case = Case::default();
        let mut rest = &conversation[..];
        while !rest.is_empty() {
            let (piece, others) = rest.split_at(1 + chance.below(rest.len()));
            case.hear(piece).unwrap();
            rest = others;
        }
        assert_eq!((case.seen.clone(), case.answers()), expected);
    }
}

/// Whatever arrives, counts stay true: no more is read than was announced, and nothing panics.
#[test]
fn arbitrary_bytes_break_nothing() {
    let mut chance = Chance(42);
    for round in 0..4000 {
        let mut case = Case::default();
        for _ in 0..40 {
            let command = chance.below(21) as u16;
            let payload: Vec<u8> = match chance.below(4) {
                0 => (chance.below(30) as u64).to_ne_bytes().to_vec(),
                1 => (chance.below(20) as u32).to_ne_bytes().to_vec(),
                2 => b"name=value".to_vec(),
                _ => (0..chance.below(12))
                    .map(|_| chance.below(256) as u8)
                    .collect(),
            };
            if case.hear(&raw(command, &payload)).is_err() {
                break;
            }
            let readable = case.session.readable().min(10);
            let read = chance.below(readable as usize + 1) as u64;
            case.session.was_read(read).unwrap();
            match chance.below(5) {
                0 => case.respond(Some(3)),
                1 => case.respond(None),
                2 => case.session.refuse_upload(&mut case.out),
                3 => case.session.cut(&mut case.out),
                _ => {}
            }
            if case.session.is_writable() && !case.session.is_answered() {
                case.session.was_written(1);
            }
            case.session.rest();
            let premature = case.commands().into_iter();
            let premature = premature.filter(|command| *command == Command::Premature);
            assert!(premature.count() <= 1, "round {round}");
        }
    }
}
