//! What changes in how backends are checked. The engine knows nothing of it, so that it is found in
//! the texts of the files.

use crate::config::diff::walk;
use crate::services::parse;
use lockstep_plan::ServiceName;
use std::collections::{BTreeMap, BTreeSet};
use toml::{Table, Value};

/// The keys of a service that say it.
const KEYS: [&str; 2] = ["health", "all_down"];
/// What is sent to backends may be secret.
const SECRET: &str = "health.headers.";

/// The lines of `lockstep diff` for services that are in both texts of a `services.toml` and whose
/// backends are checked in another way. The same written in another way is none.
pub fn checks(before: &str, after: &str) -> BTreeMap<ServiceName, Vec<String>> {
    let (Ok(old), Ok(new)) = (parse("", before), parse("", after)) else {
        return BTreeMap::new();
    };
    let (was, is) = (keys(before), keys(after));
    let differs = new.health.iter().filter(|(name, policy)| {
        let before = old.health.get(*name);
        before.is_some_and(|before| before != *policy)
    });
    let none = BTreeMap::new();
    differs
        .map(|(name, _)| {
            let of = |keys: &BTreeMap<String, _>| keys.get(name.as_str()).cloned();
            let (was, is) = (of(&was), of(&is));
            let lines = lines(was.as_ref().unwrap_or(&none), is.as_ref().unwrap_or(&none));
            (name.clone(), lines)
        })
        .collect()
}

type Keys = BTreeMap<String, String>;

fn lines(was: &Keys, is: &Keys) -> Vec<String> {
    let all: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
    let differs = all.into_iter().filter(|key| was.get(*key) != is.get(*key));
    differs
        .map(|key| {
            let shown = |value: Option<&String>| match value {
                None => "none".to_owned(),
                Some(_) if key.starts_with(SECRET) => "(secret)".to_owned(),
                Some(value) => value.clone(),
            };
            format!("~ {key}: {} -> {}", shown(was.get(key)), shown(is.get(key)))
        })
        .collect()
}

/// By service, the values of those keys.
fn keys(text: &str) -> BTreeMap<String, Keys> {
    let document = text.parse::<Table>().unwrap_or_default();
    let services = document.get("service").and_then(Value::as_array);
    let services = services.into_iter().flatten().filter_map(|service| {
        let mut found = Keys::new();
        for key in KEYS {
            if let Some(value) = service.get(key) {
                walk(key, value, &mut found);
            }
        }
        Some((service.get("name")?.as_str()?.to_owned(), found))
    });
    services.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(before: &str, after: &str) -> Vec<String> {
        let service = |keys: &str| {
            format!(
                "[[service]]\nname = \"web\"\nvips = [\"203.0.113.10:80/tcp\"]\n\
                 backends = [{{ address = \"10.0.0.1\" }}]\n{keys}\n"
            )
        };
        let found = checks(&service(before), &service(after));
        found
            .into_iter()
            .flat_map(|(name, lines)| {
                assert_eq!(name.as_str(), "web");
                lines
            })
            .collect()
    }

    #[test]
    fn keys_that_come_change_and_go_are_named() {
        assert_eq!(
            changed(
                "health = { type = \"tcp\", interval = \"1s\", rise = 2 }",
                "all_down = \"reset\"\n[service.health]\ntype = \"tcp\"\nfall = 4\ninterval = \"3s\"",
            ),
            [
                "~ all_down: none -> \"reset\"",
                "~ health.fall: none -> 4",
                "~ health.interval: \"1s\" -> \"3s\"",
                "~ health.rise: 2 -> none",
            ]
        );
        assert_eq!(
            changed("", "health = { type = \"icmp\" }"),
            ["~ health.type: none -> \"icmp\""]
        );
    }

    #[test]
    fn the_same_in_other_words_is_no_change() {
        let before = "health = { type = \"tcp\", interval = \"1s\" }";
        let after = "all_down = \"keep\"\nhealth = { interval = \"1000ms\", type = \"tcp\" }";
        assert_eq!(changed(before, after), Vec::<String>::new());
        assert!(checks("service = []", "service = []").is_empty());
        assert!(checks("nonsense", "service = []").is_empty());
    }

    #[test]
    fn what_is_sent_to_backends_is_not_told() {
        let header = |value: &str| {
            format!("health = {{ type = \"http\", headers = {{ Authorization = \"{value}\" }} }}")
        };
        let found = changed(&header("old"), &header("new"));
        assert_eq!(
            found,
            ["~ health.headers.Authorization: (secret) -> (secret)"]
        );
    }
}
