//! What may be said by what is known of the cluster: a kind that cannot be followed holds up what
//! depends on it, and nothing else.

use super::decide::May;
use super::watch::{Feed, Kind};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A failure that was not repeated for so long is over: one that lasts comes every few seconds.
const OVER: Duration = Duration::from_secs(15);

/// What is known of objects that are followed together.
#[derive(Debug, Default, Clone)]
pub struct State {
    /// Whether all of them were told.
    pub listed: bool,
    /// How often.
    pub lists: u64,
    /// Changes since.
    pub events: u64,
    /// Why they cannot be followed, and when that was.
    pub failure: Option<(String, Option<u16>, Instant)>,
}

impl State {
    /// Whether the cluster has no such kind.
    pub fn is_absent(&self) -> bool {
        matches!(self.failure, Some((_, Some(404), _)))
    }

    /// Whether the API server does not tell of them, which only an operator changes.
    pub fn is_refused(&self) -> bool {
        matches!(self.failure, Some((_, Some(401 | 403 | 404), _)))
    }

    /// Why they cannot be followed, if that is so.
    pub fn trouble(&self, now: Instant) -> Option<&str> {
        let (why, _, at) = self.failure.as_ref()?;
        (now.duration_since(*at) < OVER).then_some(why)
    }
}

/// What is followed, and how far that went.
pub type Feeds = BTreeMap<Feed, State>;

/// Whether the API server has said all that decides what is served. Without Services and their
/// endpoints nothing can be said. What else it refuses to tell is not waited for once it had its
/// time; `node`: nor is anything said before it is known whether there is a node of this host's name.
pub fn is_complete(feeds: &Feeds, node: bool, had_time: bool) -> bool {
    let is_known = |(feed, state): (&Feed, &State)| match feed.kind {
        Kind::Services | Kind::Slices => state.listed,
        Kind::Nodes if !node => true,
        kind if !kind.is_needed() && kind != Kind::Nodes => true,
        _ => state.listed || state.is_absent() || (had_time && state.is_refused()),
    };
    feeds.iter().all(is_known)
}

/// What may be written, once that is complete. A kind that is not known is not empty: nothing is
/// taken away from anybody by that.
pub fn may(feeds: &Feeds) -> May {
    let listed = |kind: Kind| {
        let mut feeds = feeds.iter().filter(|(feed, _)| feed.kind == kind);
        feeds.all(|(_, state)| state.listed)
    };
    let optional = |kind: Kind| {
        let mut feeds = feeds.iter().filter(|(feed, _)| feed.kind == kind);
        feeds.all(|(_, state)| state.listed || (kind.is_optional() && state.is_absent()))
    };
    let unknown = feeds.iter().filter(|(_, state)| !state.listed);
    let common = listed(Kind::Services) && listed(Kind::Namespaces);
    May {
        addresses: common && listed(Kind::Pools),
        advertisements: listed(Kind::Advertisements),
        dires: listed(Kind::Services) && listed(Kind::Dires),
        gateways: common && super::watch::GATEWAY_API.into_iter().all(optional),
        unknown: unknown
            .filter_map(|(feed, _)| feed.namespace.clone())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn feeds(states: &[(Kind, Option<&str>, Option<u16>)]) -> Feeds {
        let states = states.iter().map(|(kind, namespace, refused)| {
            let feed = Feed {
                kind: *kind,
                namespace: namespace.map(Arc::from),
            };
            let failure = refused.map(|code| (String::new(), Some(code), Instant::now()));
            let state = State {
                listed: refused.is_none(),
                failure,
                ..State::default()
            };
            (feed, state)
        });
        states.collect()
    }

    #[test]
    fn what_is_refused_is_not_waited_for_forever_but_for_services_and_their_endpoints() {
        let all = |refused: Kind, code: u16| {
            let kinds = [Kind::Services, Kind::Slices, Kind::Dires, Kind::Nodes];
            let states = kinds.map(|kind| (kind, None, (kind == refused).then_some(code)));
            feeds(&states)
        };
        for code in [401, 403] {
            for kind in [Kind::Dires, Kind::Nodes] {
                assert!(!is_complete(&all(kind, code), true, false), "{kind:?}");
                assert!(is_complete(&all(kind, code), true, true), "{kind:?}");
            }
            for kind in [Kind::Services, Kind::Slices] {
                assert!(!is_complete(&all(kind, code), true, true), "{kind:?}");
            }
        }
        assert!(is_complete(&all(Kind::Nodes, 403), false, false));
        assert!(!is_complete(&all(Kind::Dires, 500), true, true));
    }

    #[test]
    fn each_kind_holds_up_its_own_writes_only() {
        let kinds = [
            Kind::Services,
            Kind::Slices,
            Kind::Namespaces,
            Kind::Pools,
            Kind::Advertisements,
            Kind::Dires,
            Kind::Grants,
            Kind::Nodes,
        ];
        let without = |refused: Kind| {
            let may = may(&feeds(
                &kinds.map(|kind| (kind, None, (kind == refused).then_some(403))),
            ));
            [may.addresses, may.advertisements, may.dires, may.gateways]
        };
        assert_eq!(without(Kind::Nodes), [true; 4]);
        assert_eq!(without(Kind::Services), [false, true, false, false]);
        assert_eq!(without(Kind::Namespaces), [false, true, true, false]);
        assert_eq!(without(Kind::Pools), [false, true, true, true]);
        assert_eq!(without(Kind::Advertisements), [true, false, true, true]);
        assert_eq!(without(Kind::Dires), [true, true, false, true]);
        assert_eq!(without(Kind::Grants), [true, true, true, false]);
        let may = may(&feeds(&[
            (Kind::Dires, None, None),
            (Kind::Pods, Some("games"), Some(403)),
            (Kind::Pods, Some("shop"), None),
        ]));
        assert!(may.dires && may.unknown.iter().map(|n| &**n).eq(["games"]));
    }
}
