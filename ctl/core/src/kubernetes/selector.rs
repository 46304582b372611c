//! Label selectors.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use std::collections::BTreeMap;

/// Whether labels are selected: by everything that the selector asks for, so that an empty one
/// selects all. One that is invalid ([`problem`]) selects nothing.
pub fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let mut wanted = selector.match_labels.iter().flatten();
    let mut asked = selector.match_expressions.iter().flatten();
    wanted.all(|(key, value)| labels.get(key) == Some(value))
        && asked.all(|requirement| meets(labels, requirement))
}

fn meets(labels: &BTreeMap<String, String>, requirement: &LabelSelectorRequirement) -> bool {
    let label = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let named = label.is_some_and(|value| values.contains(value));
    match (requirement.operator.as_str(), values) {
        ("In", [_, ..]) => named,
        // Also where there is no such label (LabelSelectorRequirement).
        ("NotIn", [_, ..]) => !named,
        ("Exists", []) => label.is_some(),
        ("DoesNotExist", []) => label.is_none(),
        _ => false,
    }
}

/// Why a selector is none, and what to write instead.
pub fn problem(selector: &LabelSelector) -> Option<String> {
    let mut asked = selector.match_expressions.iter().flatten();
    asked.find_map(|LabelSelectorRequirement { key, operator, values }| {
        match (operator.as_str(), values.as_deref().unwrap_or_default()) {
            ("In" | "NotIn", [_, ..]) | ("Exists" | "DoesNotExist", []) => None,
            ("In" | "NotIn", []) => Some(format!(
                "the expression about {key:?} has operator {operator} without values; name at least one"
            )),
            ("Exists" | "DoesNotExist", _) => Some(format!(
                "the expression about {key:?} has operator {operator} with values; leave them out, or \
                 use In or NotIn"
            )),
            _ => Some(format!(
                "the expression about {key:?} has operator {operator:?}; it is In, NotIn, Exists or \
                 DoesNotExist"
            )),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn asks(key: &str, operator: &str, values: &[&str]) -> LabelSelector {
        let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: key.to_owned(),
                operator: operator.to_owned(),
                values: (!values.is_empty()).then_some(values),
            }]),
            match_labels: None,
        }
    }

    #[test]
    fn a_selector_selects_what_has_all_it_asks_for() {
        let web = labels(&[("app", "web"), ("tier", "front")]);
        let rows = [
            (LabelSelector::default(), true),
            (asks("app", "In", &["web", "api"]), true),
            (asks("app", "In", &["api"]), false),
            (asks("zone", "In", &["a"]), false),
            (asks("app", "NotIn", &["api"]), true),
            (asks("app", "NotIn", &["web"]), false),
            (asks("zone", "NotIn", &["a"]), true),
            (asks("app", "Exists", &[]), true),
            (asks("zone", "Exists", &[]), false),
            (asks("app", "DoesNotExist", &[]), false),
            (asks("zone", "DoesNotExist", &[]), true),
        ];
        for (selector, selected) in rows {
            assert_eq!(matches(&selector, &web), selected, "{selector:?}");
            assert_eq!(problem(&selector), None, "{selector:?}");
        }
        let both = |app: &str| LabelSelector {
            match_labels: Some(labels(&[("app", app)])),
            ..asks("tier", "In", &["front"])
        };
        assert!(matches(&both("web"), &web));
        assert!(!matches(&both("api"), &web));
        assert!(!matches(&both("web"), &labels(&[("app", "web")])));
    }

    #[test]
    fn an_invalid_selector_selects_nothing_and_says_why() {
        let rows = [
            (asks("app", "In", &[]), "without values; name at least one"),
            (asks("app", "NotIn", &[]), "without values"),
            (asks("app", "Exists", &["web"]), "leave them out"),
            (asks("app", "DoesNotExist", &["web"]), "leave them out"),
            (
                asks("app", "Gt", &["1"]),
                "it is In, NotIn, Exists or DoesNotExist",
            ),
        ];
        for (selector, why) in rows {
            for labels in [labels(&[]), labels(&[("app", "web")])] {
                assert!(!matches(&selector, &labels), "{selector:?}");
            }
            let said = problem(&selector).unwrap();
            assert!(said.contains(why), "{said}");
        }
    }
}
