use crate::checks::{AllDown, Exchange, HttpVersion, Probe, Statuses, Via};
use crate::services::parse;
use std::time::Duration;

/// A service with this mode and these keys.
fn service(mode: &str, keys: &str) -> String {
    format!(
        "[[service]]\nname = \"web\"\nvips = [\"203.0.113.1:80/tcp\"]\nmode = \"{mode}\"\n{keys}\n\
         backends = [{{ address = \"10.0.0.1\" }}]\n"
    )
}

fn policy(keys: &str) -> crate::checks::Policy {
    let file = parse("s.toml", &service("tunnel", keys)).unwrap();
    file.health.into_values().next().unwrap()
}

#[test]
fn a_service_without_health_is_not_checked() {
    let policy = policy("");
    assert_eq!((policy.check, policy.all_down), (None, AllDown::Keep));
}

#[test]
fn every_key_is_read() {
    let policy = policy(
        r#"health = { type = "https", via = "tunnel", port = 8443, interval = "5s", fast_interval = "1s", timeout = "500ms", rise = 1, fall = 5, path = "/health?deep=1", host = "shop.example.com", headers = { x-check = "yes" }, status = [200, "300-399"], body = 'ok|warm', ca = "/etc/ca.pem", server_name = "shop" }
all_down = "reset""#,
    );
    assert_eq!(policy.all_down, AllDown::Reset);
    let check = policy.check.unwrap();
    assert_eq!((check.via, check.port), (Via::Tunnel, Some(8443)));
    assert_eq!(check.interval, Some(Duration::from_secs(5)));
    assert_eq!(check.fast_interval, Some(Duration::from_secs(1)));
    assert_eq!(check.timeout, Some(Duration::from_millis(500)));
    assert_eq!((check.rise, check.fall), (Some(1), Some(5)));
    assert_eq!(check.probe.name(), "https");
    let Probe::Http(http) = check.probe else {
        panic!("{check:?}");
    };
    assert_eq!(http.version, HttpVersion::Http1);
    assert_eq!(http.path, "/health?deep=1");
    assert_eq!(http.host.as_deref(), Some("shop.example.com"));
    assert_eq!(http.headers, [("x-check".to_owned(), "yes".to_owned())]);
    assert_eq!(http.status, Statuses(vec![200..=200, 300..=399]));
    assert!(http.body.unwrap().is_in(b"it is warm"));
    let tls = http.tls.unwrap();
    assert_eq!(tls.server_name.as_deref(), Some("shop"));
    assert_eq!(tls.ca.unwrap().to_str(), Some("/etc/ca.pem"));
}

#[test]
fn what_is_sent_and_expected_is_text_or_bytes() {
    let tcp = policy(r#"health = { type = "tcp", send = "PING\r\n", expect = "hex:2b504f" }"#);
    let expected = Exchange {
        send: b"PING\r\n".to_vec(),
        expect: b"+PO".to_vec(),
    };
    assert_eq!(tcp.check.unwrap().probe, Probe::Tcp(expected));
}

#[test]
fn the_other_types_are_read() {
    for (keys, name) in [
        ("type = \"udp\"", "udp"),
        ("type = \"icmp\"", "icmp"),
        ("type = \"http2\", tls = true, ca = \"/a\"", "http2"),
        ("type = \"grpc\", service = \"shop.Cart\"", "grpc"),
        (
            "type = \"script\", command = [\"check-web\", \"-v\"]",
            "script",
        ),
        ("type = \"http\", status = 204", "http"),
        ("type = \"http\", status = \"2-3\"", ""),
    ] {
        let text = service("nat", &format!("health = {{ {keys} }}"));
        match parse("s.toml", &text) {
            Ok(file) => {
                let policy = file.health.into_values().next().unwrap();
                assert_eq!(policy.check.unwrap().probe.name(), name);
            }
            Err(errors) => assert_eq!(name, "", "{errors}"),
        }
    }
}

#[test]
fn what_is_wrong_is_said_at_its_place_with_what_to_do() {
    for (mode, keys, parts) in [
        (
            "tunnel",
            r#"health = { type = "tcp", path = "/x" }"#,
            vec![
                "s.toml:5:33: service web: `path` is about checks of type http, https, http2, and this one is \"tcp\"",
                "another type",
            ],
        ),
        (
            "tunnel",
            r#"health = { type = "icmp", port = 7, send = "x" }"#,
            vec![
                "5:34: service web: `port` is about",
                "5:44: service web: `send` is about",
            ],
        ),
        (
            "tunnel",
            r#"health = { type = "http2", ca = "/a" }"#,
            vec!["5:33: service web: `ca` is about TLS", "set tls = true"],
        ),
        (
            "nat",
            r#"health = { type = "tcp", via = "tunnel" }"#,
            vec![
                "5:32: service web: via = \"tunnel\" is about tunnels, and mode = \"nat\" has none",
            ],
        ),
        (
            "tunnel",
            r#"health = { type = "icmp", via = "tunnel" }"#,
            vec!["5:33: service web: via = \"tunnel\" is about TCP and UDP"],
        ),
        (
            "tunnel",
            r#"health = { type = "udp", via = "tunnel" }"#,
            vec!["its first VIP is of another protocol"],
        ),
        (
            "tunnel",
            r#"health = { type = "script" }"#,
            vec!["5:10: service web: a check of type script needs a `command`"],
        ),
        (
            "tunnel",
            r#"health = { type = "script", command = ["/bin/sh", "-c", "true"] }"#,
            vec![
                "5:39: service web: \"/bin/sh\" is not the name of a file",
                "leave out the path",
            ],
        ),
        (
            "tunnel",
            r#"health = { type = "tcp", interval = "1s", timeout = "2s" }"#,
            vec!["5:53: service web: `timeout` is longer than the interval"],
        ),
        (
            "tunnel",
            r#"health = { type = "tcp", interval = "1ms" }"#,
            vec!["5:37: `interval`: \"1ms\" is out of range; it is from \"10ms\" to \"1h\""],
        ),
        (
            "tunnel",
            r#"health = { type = "http", body = 'a(' }"#,
            vec!["5:34: `body`: \"a(\" is not a regular expression: unclosed group"],
        ),
        (
            "tunnel",
            r#"health = { type = "http", status = "20-3" }"#,
            vec!["\"20-3\" are no statuses of HTTP"],
        ),
        (
            "tunnel",
            r#"health = { type = "http", headers = { "a b" = "c" } }"#,
            vec!["\"a b\" = \"c\" cannot be a header"],
        ),
        (
            "tunnel",
            r#"health = { type = "tcp", send = "hex:0" }"#,
            vec!["\"hex:0\" is not hexadecimal"],
        ),
        (
            "tunnel",
            r#"health = { type = "tpc" }"#,
            vec!["5:19: ", "tcp"],
        ),
        (
            "tunnel",
            r#"all_down = "drop""#,
            vec![
                "5:12: service web: `all_down` says what becomes of it when every check fails, and it has no checks",
            ],
        ),
        (
            "replicate",
            "health = { type = \"tcp\" }\nall_down = \"drop\"",
            vec!["6:12: service web: `all_down` is about the choice of a backend"],
        ),
    ] {
        let errors = parse("s.toml", &service(mode, keys)).unwrap_err();
        let errors = errors.to_string();
        for part in parts {
            assert!(errors.contains(part), "{part:?} in {errors}\nfor {keys}");
        }
    }
}

#[test]
fn a_vip_of_every_port_needs_one_to_be_checked() {
    let text = service("nat", "health = { type = \"tcp\" }").replace(":80/tcp", ":0/tcp");
    let errors = parse("s.toml", &text).unwrap_err().to_string();
    assert!(errors.contains("add `port` to `health`"), "{errors}");
    let named = text.replace("\"tcp\" }", "\"tcp\", port = 80 }");
    assert!(parse("s.toml", &named).is_ok());
}
