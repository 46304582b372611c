//! The policy: text in, policy or exactly the report out; defaults as they are documented.

use crate::policy::keys;
use crate::services::parse;
use lockstep_plan::mask::{Mask, Pattern};
use lockstep_plan::{Commit, Divergence, Grouping, Mode, Replicate};
use proptest::prelude::*;
use std::num::{NonZeroU8, NonZeroU16};
use std::time::Duration;

/// A service of six lines that replicates to three backends, and these lines after them.
fn with(lines: &str) -> String {
    format!(
        "[[service]]\nname = \"game\"\nvips = [\"203.0.113.20:5201/tcp\"]\nmode = \"replicate\"\n\
         backends = [{{ address = \"10.0.0.1\" }}, {{ address = \"10.0.0.2\", port = 5202 }}, \
         {{ address = \"fd00::3\" }}]\n[service.replicate]\n{lines}\n"
    )
}

fn policy(text: &str) -> Replicate {
    let services = match parse("services.toml", text) {
        Ok(file) => file.services,
        Err(found) => panic!("{found}\nfor:\n{text}"),
    };
    let replicates = services.iter().find_map(|s| s.mode.replicate());
    Replicate::clone(replicates.expect("a service that replicates"))
}

fn assert_reports(rows: &[(String, &[&str])]) {
    for (text, lines) in rows {
        match parse("services.toml", text) {
            Ok(file) => panic!("accepted: {file:#?}\nfor:\n{text}"),
            Err(found) => assert_eq!(found.to_string(), lines.join("\n"), "for:\n{text}"),
        }
    }
}

fn replicas(number: u8) -> NonZeroU8 {
    NonZeroU8::new(number).unwrap()
}

#[test]
fn without_keys_the_policy_is_the_default_one() {
    assert_eq!(policy(&with("")), Replicate::DEFAULT);
    let bare = with("").replace("[service.replicate]\n", "");
    assert_eq!(policy(&bare), Replicate::DEFAULT);
}

#[test]
fn the_example_of_the_module_names_each_default() {
    let text: String = include_str!("../../services.rs")
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .skip_while(|line| *line != "```toml")
        .skip(1)
        .take_while(|line| *line != "```")
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(policy(&text), Replicate::DEFAULT);
    for (key, value) in keys(&Replicate::DEFAULT) {
        assert!(
            text.contains(&format!("\n{key} = {value}")),
            "{key}: {text}"
        );
    }
}

#[test]
fn the_book_names_each_key_with_its_default_and_no_other() {
    let book = include_str!("../../../../../docs/src/operations/services.md");
    let rows: Vec<Vec<&str>> = book
        .split_once("## Replicated sessions")
        .and_then(|(_, section)| section.split_once("### "))
        .map(|(section, _)| section.lines())
        .unwrap()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let keys = keys(&Replicate::DEFAULT);
    assert_eq!(rows.len(), keys.len());
    for (row, (key, default)) in rows.iter().zip(keys) {
        assert_eq!(row[0], format!("`{key}`"));
        let documented = row.last().unwrap();
        assert!(
            documented.starts_with(&format!("`{default}`")),
            "{key}: {documented}, and it is {default}"
        );
    }
}

#[test]
fn a_whole_policy_is_read() {
    let text = with(
        r#"commit = { quorum = 2 }
min_sync = 3
open_timeout = "1s"
stall_timeout = "2ms"
dead_after = "3s"
fin_timeout = "4m"
orphan_timeout = "5s"
max_lag = "6KiB"
grace = "7ms"
lag_timeout = "8h"
divergence = "evict"
masks = [{ offset = 0, length = 8 }, { pattern = 'Date: [^\r]*' }]
group = "client"
proxy_protocol = true
rejoin = false
log_memory = "9MiB"
log_disk = "10GiB"
keepalive = "11s"
client_timeout = "12s""#,
    );
    let expected = Replicate {
        commit: Commit::Quorum(replicas(2)),
        min_sync: replicas(3),
        open_timeout: Duration::from_secs(1),
        stall_timeout: Duration::from_millis(2),
        dead_after: Duration::from_secs(3),
        fin_timeout: Duration::from_secs(240),
        orphan_timeout: Duration::from_secs(5),
        max_lag: 6 << 10,
        grace: Duration::from_millis(7),
        lag_timeout: Duration::from_secs(8 * 3600),
        divergence: Divergence::Evict,
        masks: vec![
            Mask::Range {
                offset: 0,
                length: 8,
            },
            Mask::Pattern(Pattern::new(r"Date: [^\r]*").unwrap()),
        ],
        group: Grouping::Client,
        proxy_protocol: true,
        rejoin: false,
        log_memory: 9 << 20,
        log_disk: 10 << 30,
        keepalive: Duration::from_secs(11),
        client_timeout: Duration::from_secs(12),
    };
    assert_eq!(policy(&text), expected);
    let services = parse("services.toml", &text).unwrap().services;
    assert!(matches!(services[0].mode, Mode::Replicate(_)));
    let ports = services[0].backends.iter().map(|b| b.port);
    let ports: Vec<_> = ports.map(|p| p.map(NonZeroU16::get)).collect();
    assert_eq!(ports, [None, Some(5202), None]);
}

#[test]
fn min_sync_is_the_quorum_where_it_is_not_named() {
    assert_eq!(
        policy(&with("commit = { quorum = 3 }")).min_sync,
        replicas(3)
    );
    assert_eq!(
        policy(&with("commit = { quorum = 1 }")).min_sync,
        replicas(1)
    );
}

#[test]
fn errors_of_keys_and_values_are_listed_at_once() {
    assert_reports(&[
        (
            with(
                r#"comit = "primary"
commit = "majority"
min_sync = 0
open_timeout = "13h"
grace = "0s"
stall_timeout = 20
max_lag = "1M"
log_memory = "1KiB"
divergence = "evikt"
group = "address"
rejoin = "yes"
masks = [{ pattern = 'a.*' }, { pattern = 'Date: (' }, { ofset = 1 }, { offset = -1, length = 0 }]"#,
            ),
            &[
                "services.toml:7:1: unknown key `comit`; did you mean `commit`? (allowed: commit, \
                 min_sync, open_timeout, stall_timeout, dead_after, fin_timeout, orphan_timeout, \
                 max_lag, grace, lag_timeout, divergence, masks, group, proxy_protocol, rejoin, \
                 log_memory, log_disk, keepalive, client_timeout)",
                "services.toml:8:10: `commit` cannot be \"majority\"; \
                 it takes \"primary\" or { quorum = 2 }",
                "services.toml:9:12: `min_sync` cannot be `0`; it takes a whole number from 1 to 255",
                "services.toml:10:16: `open_timeout`: \"13h\" is out of range; \
                 it is from \"1ms\" to \"12h\"",
                "services.toml:11:9: `grace`: \"0s\" is out of range; it is from \"1ms\" to \"12h\"",
                "services.toml:12:17: `stall_timeout` cannot be `20`; \
                 it takes a string such as \"500ms\" or \"3s\"",
                "services.toml:13:11: `max_lag`: \"1M\" is not an amount of memory; \
                 write a whole number and B, KiB, MiB or GiB, such as \"64KiB\" or \"1MiB\"",
                "services.toml:14:14: `log_memory`: \"1KiB\" is out of range; \
                 it is from \"4KiB\" to \"1GiB\"",
                "services.toml:15:14: `divergence` cannot be `evikt`; \
                 did you mean `evict`? (allowed: ignore, count, evict, reset)",
                "services.toml:16:9: `group` cannot be `address`; allowed: connection, client",
                "services.toml:17:10: `rejoin` cannot be \"yes\"; it takes a boolean",
                "services.toml:18:22: `pattern`: \"a.*\": the pattern begins with 1 bytes of literal \
                 text, and needs at least 3, such as `Date: ` in `Date: [^\\r]*`; behind `(?i)`, \
                 text is not literal",
                "services.toml:18:43: `pattern`: \"Date: (\" is not a regular expression: \
                 unclosed group",
                "services.toml:18:58: unknown key `ofset`; did you mean `offset`? \
                 (allowed: offset, length, pattern)",
                "services.toml:18:82: `offset` cannot be `-1`; \
                 it takes a whole number from 0 to 9223372036854775807",
                "services.toml:18:95: `length` cannot be `0`; \
                 it takes a whole number from 1 to 4294967295",
            ],
        ),
        (
            with("commit = { quorm = 2 }\nmin_sync = 256"),
            &[
                "services.toml:7:10: `quorum` is missing in `commit`",
                "services.toml:7:12: unknown key `quorm`; did you mean `quorum`? (allowed: quorum)",
                "services.toml:8:12: `min_sync` cannot be `256`; it takes a whole number from 1 to 255",
            ],
        ),
    ]);
}

#[test]
fn what_cannot_hold_stands_at_its_key() {
    let mask = "{ offset = 1, length = 1 }, ";
    assert_reports(&[
        (
            with("commit = { quorum = 4 }\nmin_sync = 1"),
            &[
                "services.toml:7:10: service game: a quorum of 4 can never be reached by 3 backends; \
                 add backends or lower `quorum`",
                "services.toml:8:12: service game: min_sync = 1 is less than the quorum of 4; \
                 raise it, or leave it out",
            ],
        ),
        (
            with("min_sync = 4"),
            &[
                "services.toml:7:12: service game: min_sync = 4 can never be reached by 3 backends; \
                 add backends or lower `min_sync`",
            ],
        ),
        (
            with("").replace("5201/tcp\"", "5201/udp\", \"203.0.113.20:0/tcp\""),
            &[
                "services.toml:3:9: service game: VIP 203.0.113.20:5201/udp is not TCP, and \
                 mode = \"replicate\" replicates TCP only",
                "services.toml:3:34: service game: VIP 203.0.113.20:0/tcp stands for several ports, \
                 each to the same port of a backend, but backend 10.0.0.2 has a port of its own; \
                 name one port, or leave out the backend's",
            ],
        ),
        (
            with("")
                .replace("\"replicate\"", "\"tunnel\"")
                .replace("fd00::3", "10.0.0.3"),
            &[
                "services.toml:5:70: service game: backend 10.0.0.2 has a port, but packets in a \
                 tunnel keep that of the VIP; leave `port` out, or use another mode",
                "services.toml:6:1: service game: `replicate` says how it replicates, but it does \
                 not; set mode = \"replicate\", or leave `replicate` out",
            ],
        ),
        (
            with(&format!(
                "masks = [{}{{}}, {{ offset = 1 }}, {{ length = 1, pattern = 'abcd*' }}, {{ length = 1 }}]",
                mask.repeat(5)
            )),
            &[
                "services.toml:7:150: service game: a mask without keys masks nothing; \
                 write { offset = 0, length = 8 } or { pattern = 'Date: [^\\r]*' }",
                "services.toml:7:154: service game: a mask with an `offset` needs a `length`; \
                 write { offset = 0, length = 8 } or { pattern = 'Date: [^\\r]*' }",
                "services.toml:7:170: service game: a mask is a range or a pattern, not both; \
                 write { offset = 0, length = 8 } or { pattern = 'Date: [^\\r]*' }",
                "services.toml:7:205: service game: a mask with a `length` needs an `offset`; \
                 write { offset = 0, length = 8 } or { pattern = 'Date: [^\\r]*' }",
                "services.toml:7:205: service game: more than 8 masks; each is paid for with every \
                 byte; alternatives behind the same literal text fit in one pattern",
            ],
        ),
    ]);
}

#[test]
fn too_many_replicas_are_an_error_at_their_service() {
    let backends: Vec<String> = (1..=129)
        .map(|n| format!("{{ address = \"10.1.0.{n}\" }}"))
        .collect();
    let (all, limit) = (backends.join(", "), backends[..128].join(", "));
    let text = |backends: &str, mode: &str| {
        format!(
            "[[service]]\nname = \"wide\"\nvips = [\"203.0.113.21:1/tcp\"]\n\
             mode = \"{mode}\"\nbackends = [{backends}]\n"
        )
    };
    assert!(parse("services.toml", &text(&limit, "replicate")).is_ok());
    let tunnel = text(&all, "tunnel")
        .replace("wide", "tunnel")
        .replace(":1/", ":2/");
    assert_reports(&[(
        tunnel + &text(&all, "replicate"),
        &[
            "services.toml:7:8: backends of one service that replicates: 129 are more than the 128 \
             an engine holds",
        ],
    )]);
}

fn any_policy() -> impl Strategy<Value = Replicate> {
    let time = || (1u64..=43_200_000).prop_map(Duration::from_millis);
    let times = (
        (time(), time(), time(), time(), time()),
        (time(), time(), time(), time()),
    );
    let mask = prop_oneof![
        (0..=i64::MAX as u64, 1..=u32::MAX)
            .prop_map(|(offset, length)| Mask::Range { offset, length }),
        prop::sample::select(vec![
            r"Date: [^\r]*",
            "id='[0-9a-f]{8}'",
            "\"quoted\"\\d+",
            "tab\t.+"
        ])
        .prop_map(|p| Mask::Pattern(Pattern::new(p).unwrap())),
    ];
    let sizes = (1u32..=1 << 30, 4096u32..=1 << 30, 0u64..=1 << 40);
    let choices = (
        (0u8..=3, 0u8..=3),
        prop::sample::select(vec![
            Divergence::Ignore,
            Divergence::Count,
            Divergence::Evict,
            Divergence::Reset,
        ]),
        prop::sample::select(vec![Grouping::Connection, Grouping::Client]),
        any::<[bool; 2]>(),
        prop::collection::vec(mask, 0..=8),
    );
    (times, sizes, choices).prop_map(
        |((a, b), (max_lag, log_memory, log_disk), (sync, divergence, group, flags, masks))| {
            let (quorum, more) = sync;
            Replicate {
                commit: NonZeroU8::new(quorum).map_or(Commit::Primary, Commit::Quorum),
                min_sync: replicas(quorum.max(more).max(1)),
                open_timeout: a.0,
                stall_timeout: a.1,
                dead_after: a.2,
                fin_timeout: a.3,
                orphan_timeout: a.4,
                max_lag,
                grace: b.0,
                lag_timeout: b.1,
                divergence,
                masks,
                group,
                proxy_protocol: flags[0],
                rejoin: flags[1],
                log_memory,
                log_disk,
                keepalive: b.2,
                client_timeout: b.3,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_policy_written_key_by_key_reads_back(written in any_policy()) {
        let lines: Vec<String> = keys(&written)
            .into_iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        prop_assert_eq!(policy(&with(&lines.join("\n"))), written);
    }

    #[test]
    fn a_damaged_policy_is_answered(at in 0usize..400, cut in 0usize..3, put in "[\\]\\[{}\"=,0-9a-z\n]{0,2}") {
        let text = with("commit = { quorum = 2 }\nmasks = [{ pattern = 'Date: .' }]\nmax_lag = \"1MiB\"");
        let (at, end) = (at.min(text.len()), (at + cut).min(text.len()));
        let damaged = format!("{}{put}{}", &text[..at], &text[end..]);
        if let Err(found) = parse("t.toml", &damaged) {
            prop_assert!(found.has_errors());
            prop_assert!(found.iter().all(|d| !d.message.is_empty() && !d.message.contains('\n')));
        }
    }
}
