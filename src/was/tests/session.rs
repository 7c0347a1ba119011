//! What may be said when, and the counts of both bodies.

use super::*;

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
fn a_next_request_waits_for_the_end_of_the_one_before() {
    let mut case = Case::of(&get());
    case.respond(Some(0));
    case.hear(&get().concat()).unwrap();
    assert_eq!(case.seen, ["begun", "complete"]);
    assert!(case.session.rest());
    case.hear(b"").unwrap();
    assert_eq!(case.seen, ["begun", "complete", "begun", "complete"]);
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
