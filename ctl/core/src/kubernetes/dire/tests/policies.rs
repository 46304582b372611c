//! What a Dire says becomes the policy of `services.toml`.

use super::*;
use lockstep_plan::{Commit, Divergence, Grouping};
use std::time::Duration;

fn policy(spec: Value) -> Result<Replicate, String> {
    policy::policy(&dire(spec).spec)
}

#[test]
fn without_a_word_it_is_the_default_one() {
    assert_eq!(policy(json!({})), Ok(Replicate::DEFAULT));
}

#[test]
fn each_word_is_heard() {
    let policy = policy(json!({
        "commit": "Quorum", "quorum": 2, "minSync": 3, "divergence": "Evict", "group": "Client",
        "proxyProtocol": true, "rejoin": false,
        "masks": [{ "offset": 4, "length": 8 }, { "pattern": "Date: [^\"\r\\\\]*" }],
        "limits": {
            "openTimeout": "4s", "stallTimeout": "30ms", "deadAfter": "5s", "finTimeout": "2s",
            "orphanTimeout": "20s", "maxLag": "2Mi", "grace": "100ms", "lagTimeout": "2m",
            "logMemory": "8Mi", "logDisk": "1Gi", "keepalive": "16s", "clientTimeout": "1h",
        },
    }));
    let policy = policy.expect("it is one");
    let second = Duration::from_secs;
    assert_eq!(policy.commit, Commit::Quorum(2.try_into().unwrap()));
    assert_eq!(policy.min_sync.get(), 3);
    assert_eq!(policy.divergence, Divergence::Evict);
    assert_eq!(policy.group, Grouping::Client);
    assert!(policy.proxy_protocol && !policy.rejoin);
    assert_eq!(policy.masks.len(), 2);
    assert_eq!(policy.open_timeout, second(4));
    assert_eq!(policy.stall_timeout, Duration::from_millis(30));
    assert_eq!(policy.dead_after, second(5));
    assert_eq!(policy.fin_timeout, second(2));
    assert_eq!(policy.orphan_timeout, second(20));
    assert_eq!(policy.max_lag, 2 << 20);
    assert_eq!(policy.grace, Duration::from_millis(100));
    assert_eq!(policy.lag_timeout, second(120));
    assert_eq!(policy.log_memory, 8 << 20);
    assert_eq!(policy.log_disk, 1 << 30);
    assert_eq!(policy.keepalive, second(16));
    assert_eq!(policy.client_timeout, second(3600));
}

#[test]
fn what_a_schema_of_another_version_let_through_is_an_error() {
    for (spec, wanted) in [
        (json!({ "commit": "Quorum" }), "whole number from 1"),
        (
            json!({ "commit": "Quorum", "quorum": 2, "minSync": 1 }),
            "less than the quorum",
        ),
        (json!({ "masks": [{ "offset": 4 }] }), "needs a `length`"),
        (json!({ "limits": { "grace": "soon" } }), "soon"),
        (json!({ "limits": { "maxLag": "1K" } }), "1KB"),
    ] {
        let error = policy(spec.clone()).expect_err("it is none");
        assert!(error.contains(wanted), "{spec}: {error}");
    }
}

proptest! {
    /// Whatever a pattern has in it, it is a pattern or an error, and never another key.
    #[test]
    fn no_pattern_escapes_its_quotes(text in "\\PC{0,20}|[\"'\\\\\n\r\t\u{7f}\u{0}]{1,6}") {
        let mut dire = dire(json!({}));
        dire.spec.masks = vec![lockstep_kubernetes::resources::dire::Mask {
            offset: None, length: None, pattern: Some(format!("abc{text}")),
        }];
        let read: toml::Table = policy::text(&dire.spec).parse().expect("it is TOML");
        let pattern = read["masks"][0]["pattern"].as_str();
        prop_assert_eq!(pattern, Some(&*format!("abc{text}")));
    }
}
