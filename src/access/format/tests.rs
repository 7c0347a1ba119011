use super::super::record::tests::{DONE, Random, begun};
use super::super::record::{Begun, Done, Ending, append, complete, write};
use super::*;

const CONTEXT: Context<'static> = Context {
    app: "shop",
    generation: 3,
    worker: 2,
    unix: 1_795_239_591_042_000_000,
};

fn line(format: &str, begun: &Begun<'_>, done: &Done, others: &[&[u8]]) -> String {
    let mut bytes = Vec::new();
    write(&mut bytes, begun);
    others.iter().for_each(|other| append(&mut bytes, other));
    complete(&mut bytes, done);
    let format = Format::parse(format).unwrap();
    let record = Record::read(&bytes).unwrap();
    let mut out = Vec::new();
    format.write(&mut out, &record, &CONTEXT, &mut Calendar::default());
    String::from_utf8(out).unwrap()
}

#[test]
fn the_well_known_forms() {
    assert_eq!(
        line("common", &begun(), &DONE, &[]),
        "10.0.0.7 - - [21/Nov/2026:05:39:56 +0000] \"GET /a?b HTTP/1.1\" 200 14\n"
    );
    assert_eq!(
        line("combined", &begun(), &DONE, &[]),
        "10.0.0.7 - - [21/Nov/2026:05:39:56 +0000] \"GET /a?b HTTP/1.1\" 200 14 \
         \"http://x/\" \"curl\"\n"
    );
    let gunicorn =
        r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s" %(D)s %(L)s %(M)s"#;
    assert_eq!(
        line(gunicorn, &begun(), &DONE, &[]),
        "10.0.0.7 - - [21/Nov/2026:05:39:56 +0000] \"GET /a?b HTTP/1.1\" 200 14 \
         \"http://x/\" \"curl\" 3456 0.003 3\n"
    );
}

#[test]
fn json_tells_everything() {
    let text = line("json", &begun(), &DONE, &[]);
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    for (key, value) in [
        ("time", "\"2026-11-21T05:39:56.042Z\""),
        ("peer", "\"10.0.0.7\""),
        ("method", "\"GET\""),
        ("path", "\"/a\""),
        ("query", "\"b\""),
        ("protocol", "\"HTTP/1.1\""),
        ("status", "200"),
        ("bytes", "14"),
        ("outcome", "\"complete\""),
        ("total_ms", "3.456"),
        ("app_ms", "2.0"),
        ("queue_ms", "1.0"),
        ("referer", "\"http://x/\""),
        ("user_agent", "\"curl\""),
        ("id", "\"abc\""),
        ("app", "\"shop\""),
        ("generation", "3"),
        ("worker", "2"),
        ("pid", "77"),
    ] {
        assert_eq!(object[key].to_string(), value, "{key}");
    }
    assert_eq!(object.as_object().unwrap().len(), JSON.len());
    let crashed = Done {
        status: 0,
        ending: Ending::Crashed,
        ..DONE
    };
    let text = line("json", &begun(), &crashed, &[]);
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (&object["status"], &object["outcome"]),
        (&0.into(), &"crashed".into())
    );
}

#[test]
fn what_is_not_there_is_a_dash_and_a_crash_has_no_status() {
    let begun = Begun {
        line: Line::Raw(b"\x16\x03\"x"),
        peer: None,
        referer: b"",
        ..begun()
    };
    let crashed = Done {
        status: 0,
        bytes: 0,
        ..DONE
    };
    assert_eq!(
        line(
            "%(h)s %(r)s %(m)s %(f)s %(s)s %(b)s %(B)s %({X}o)s",
            &begun,
            &crashed,
            &[]
        ),
        "- \\x16\\x03\\x22x - - 000 - 0 -\n"
    );
}

#[test]
fn headers_are_found_by_their_side() {
    let format = "%({X-A}o)s %({Host}i)s %({X-B}o)s %({Via}i)s 100%%";
    assert_eq!(
        line(format, &begun(), &DONE, &[b"host", b"via", b"a", b"b"]),
        "a host b via 100%\n"
    );
    let format = Format::parse(format).unwrap();
    assert_eq!(format.request_fields(), ["Host", "Via"]);
    assert_eq!(format.response_fields(), ["X-A", "X-B"]);
}

#[test]
fn a_line_stays_a_line_whatever_the_client_sends() {
    let mut random = Random(11);
    for round in 0..2000 {
        let mut bytes = |length: usize| -> Vec<u8> {
            let length = random.below(length);
            (0..length).map(|_| random.below(256) as u8).collect()
        };
        let (target, agent, id) = (bytes(40), bytes(40), bytes(20));
        let begun = Begun {
            line: Line::Whole {
                method: b"GET",
                target: &target,
                is_11: false,
            },
            agent: &agent,
            id: &id,
            ..begun()
        };
        for format in ["combined", "json"] {
            let text = line(format, &begun, &DONE, &[]);
            assert_eq!(text.matches('\n').count(), 1, "{round}");
            assert!(!text.trim_end().contains(|c: char| c.is_ascii_control()));
            if format == "json" {
                let object: serde_json::Value = serde_json::from_str(&text).unwrap();
                let shown = String::from_utf8_lossy(&agent);
                assert_eq!(object["user_agent"], shown.as_ref());
            } else {
                assert_eq!(text.matches('"').count(), 6, "{text}");
            }
        }
    }
}

#[test]
fn a_format_that_cannot_be_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", "neither common"),
        ("combine", "neither common"),
        ("%(x", "is no %(name)s"),
        ("%h", "is no %(name)s"),
        ("%(query_ms)s", "is unknown; there is query"),
        ("%(zzz)s", "%(zzz)s is unknown"),
        ("%()s", "is unknown"),
        ("%({}i)s", "no name of a header"),
        ("%({a b}i)s", "no name of a header"),
        ("%(h)s\n", "control character"),
        (
            "%({a}i)s%({b}i)s%({c}i)s%({d}i)s%({e}i)s",
            "more than 4 headers",
        ),
    ] {
        let error = Format::parse(text).unwrap_err();
        assert!(error.contains(reason), "{text}: {error}");
    }
}

#[test]
fn every_name_is_its_own() {
    for (index, (name, _)) in NAMES.iter().enumerate() {
        assert!(NAMES[..index].iter().all(|(other, _)| other != name));
    }
    for name in JSON {
        assert!(NAMES.iter().any(|(other, _)| other == name), "{name}");
    }
}
