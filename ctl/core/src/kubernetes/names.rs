//! The names of services in the engine, which stand in metrics, commands and `lockstep status`.
//!
//! | of | name |
//! |---|---|
//! | a port of a Service | `NAMESPACE/SERVICE/PORT` |
//! | the same at addresses of the Service's second family | `NAMESPACE/SERVICE/PORT/v6` (or `/v4`) |
//! | a `Dire`, all its ports | `NAMESPACE/CHILD` |
//! | a listener of a Gateway | `NAMESPACE/CHILD/LISTENER` |
//!
//! `CHILD` is the Service made for a `Dire` or a Gateway, from which it has its addresses: no other
//! Service has its name.
//!
//! `PORT` of a Service is the port's name, or its number where it has none. Each family has a
//! service of its own, since backends that packets are rewritten for have to be of the family of the
//! address, and a pod of both families would be two replicas.

use lockstep_kubernetes::facts::{Family, Name, ServicePort};
use lockstep_plan::ServiceName;

/// Of a Service's port. `second` is the family of its addresses where that is not the Service's
/// first one. `None` for names that Kubernetes does not allow.
pub fn of_service(
    service: &Name,
    port: &ServicePort,
    second: Option<Family>,
) -> Option<ServiceName> {
    let mut last = match port.name.as_str() {
        "" => port.port.to_string(),
        name if name.contains('/') => return None,
        name => name.to_owned(),
    };
    match second {
        None => {}
        Some(Family::V4) => last.push_str("/v4"),
        Some(Family::V6) => last.push_str("/v6"),
    }
    below(service, &last)
}

/// The Service that a name of the table was made of.
pub fn service_of(name: &ServiceName) -> Option<Name> {
    let mut parts = name.as_str().split('/');
    Some(Name::new(parts.next()?, parts.next()?))
}

/// A slash within a part would make two names one.
fn below(object: &Name, last: &str) -> Option<ServiceName> {
    let (namespace, name) = (&object.namespace, &object.name);
    let plain = |part: &str| !part.is_empty() && !part.contains('/');
    if plain(namespace) && plain(name) {
        ServiceName::new(&format!("{namespace}/{name}/{last}"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_kubernetes::facts::Protocol;

    fn port(name: &str) -> ServicePort {
        ServicePort {
            name: name.to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
        }
    }

    #[test]
    fn a_port_has_the_name_of_its_service_and_its_own() {
        let web = Name::new("shop", "web");
        let named = |port, second| of_service(&web, &port, second);
        let text = |name: Option<ServiceName>| name.map(|n| n.to_string());
        assert_eq!(
            text(named(port("http"), None)).as_deref(),
            Some("shop/web/http")
        );
        assert_eq!(text(named(port(""), None)).as_deref(), Some("shop/web/80"));
        assert_eq!(
            text(named(port("http"), Some(Family::V6))).as_deref(),
            Some("shop/web/http/v6")
        );
        let child = ServiceName::new("shop/web").unwrap();
        for name in [child, named(port("http"), None).unwrap()] {
            assert_eq!(service_of(&name), Some(web.clone()));
        }
    }

    #[test]
    fn the_longest_names_of_kubernetes_fit() {
        // A namespace, a Service and a port's name have 63 characters at most.
        let long = "x".repeat(63);
        let name = Name::new(&long, &long);
        assert!(of_service(&name, &port(&long), Some(Family::V6)).is_some());
    }

    #[test]
    fn what_would_be_another_objects_name_is_none() {
        assert_eq!(of_service(&Name::new("a/b", "c"), &port("d"), None), None);
        assert_eq!(of_service(&Name::new("a", ""), &port("d"), None), None);
        assert_eq!(of_service(&Name::new("a", "b"), &port("c/v6"), None), None);
    }
}
