//! What changes from one `lockstepd.toml` to another, key by key.

use std::collections::BTreeMap;
use std::fmt;
use toml::{Table, Value};

/// Keys whose values nobody is shown.
const SECRETS: [&str; 2] = ["password", "key"];
/// What names an element of a list of tables, the first of these that it has.
const NAMES: [&str; 2] = ["address", "name"];

/// A key whose value changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The key, such as `bgp.peer[192.0.2.1].hold_time`.
    pub key: String,
    /// Its value before; `None` where it was left out.
    pub before: Option<String>,
    /// And after.
    pub after: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "{key}: {before} -> {after}"),
            (None, Some(after)) => write!(f, "{key}: {after} (new)"),
            (Some(before), None) => write!(f, "{key}: {before} (left out)"),
            (None, None) => write!(f, "{key}"),
        }
    }
}

/// Every key that has another value, from texts without errors. Values of keys that are secret are
/// not told, only that they change.
pub fn differences(before: &str, after: &str) -> Vec<Difference> {
    let (before, after) = (flat(before), flat(after));
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let differs = keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key));
    differs
        .map(|key| {
            let shown = |value: &String| shown(key, value);
            Difference {
                key: key.clone(),
                before: before.get(key).map(shown),
                after: after.get(key).map(shown),
            }
        })
        .collect()
}

fn shown(key: &str, value: &str) -> String {
    let last = key.rsplit('.').next().unwrap_or(key);
    match SECRETS.contains(&last) {
        true => "(secret)".to_owned(),
        false => value.to_owned(),
    }
}

/// Values by their whole keys.
fn flat(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    walk(
        "",
        &Value::Table(text.parse::<Table>().unwrap_or_default()),
        &mut found,
    );
    found
}

/// Adds the values under a key by their whole keys.
pub(crate) fn walk(key: &str, value: &Value, found: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let dot = if key.is_empty() { "" } else { "." };
                walk(&format!("{key}{dot}{name}"), value, found);
            }
        }
        Value::Array(elements) if elements.iter().all(Value::is_table) && !elements.is_empty() => {
            for (index, element) in elements.iter().enumerate() {
                let name = NAMES.iter().find_map(|n| element.get(n)?.as_str());
                let name = name.map_or_else(|| index.to_string(), str::to_owned);
                walk(&format!("{key}[{name}]"), element, found);
            }
        }
        value => {
            found.insert(key.to_owned(), value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(before: &str, after: &str) -> Vec<String> {
        let found = differences(before, after);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_same_values_in_another_order_are_no_difference() {
        let (a, b) = (
            "[bgp]\nas = 1\nmed = 2\n",
            "# new\nbgp = { med = 2, as = 1 }\n",
        );
        assert_eq!(lines(a, b), Vec::<String>::new());
    }

    #[test]
    fn keys_that_change_come_or_go_are_named_with_their_values() {
        assert_eq!(
            lines(
                "[bgp]\nas = 1\nmed = 2\n",
                "[bgp]\nas = 3\nhold_time = \"9s\"\n"
            ),
            [
                "bgp.as: 1 -> 3",
                "bgp.hold_time: \"9s\" (new)",
                "bgp.med: 2 (left out)"
            ]
        );
    }

    #[test]
    fn peers_are_known_by_their_address_whatever_their_order() {
        let peer = |address, med| format!("[[bgp.peer]]\naddress = \"{address}\"\nmed = {med}\n");
        let before = peer("192.0.2.1", 1) + &peer("192.0.2.2", 2);
        let after = peer("192.0.2.2", 5) + &peer("192.0.2.1", 1);
        assert_eq!(lines(&before, &after), ["bgp.peer[192.0.2.2].med: 2 -> 5"]);
    }

    #[test]
    fn secrets_are_not_told() {
        let found = lines("[bgp]\npassword = \"old\"\n", "[bgp]\npassword = \"new\"\n");
        assert_eq!(found, ["bgp.password: (secret) -> (secret)"]);
    }
}
