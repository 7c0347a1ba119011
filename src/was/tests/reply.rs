//! What is said in responses.

use super::*;
use crate::was::reply::{put_head, put_metrics};

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
