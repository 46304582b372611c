//! `[kubernetes]`: the cluster whose Services are served.

use crate::kubernetes::Settings;
use lockstep_kubernetes::CLASS;
use lockstep_topology::diagnostics::{Diagnostics, Source};
use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;
use toml::Spanned;

/// The Lease that the leader holds, where the file names no other.
pub const LEASE: &str = "lockstep";

/// The namespace of the Lease, where neither the file nor the pod says another.
pub const NAMESPACE: &str = "lockstep-system";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubernetes {
    /// The `loadBalancerClass` of Services that are ours.
    pub class: String,
    /// Also Services without a class.
    pub default_class: bool,
    /// The `controllerName` of GatewayClasses that are ours; the Gateway API is not looked at
    /// where the file has nothing.
    pub gateway_controller: Option<String>,
    /// How the API server is reached; by the pod's own account where the file has nothing.
    pub kubeconfig: Option<PathBuf>,
    /// The context of it; its current one where the file has nothing.
    pub context: Option<String>,
    /// The node that this balancer is on.
    pub node: Option<String>,
    /// The namespace of the Lease.
    pub namespace: Option<String>,
    /// The Lease's name.
    pub lease: String,
    /// Whether this daemon may be the one that decides and writes.
    pub lead: bool,
    /// Where `healthCheckNodePort`s are answered; nowhere where the file has nothing.
    pub health_checks: Option<IpAddr>,
}

/// The empty section.
impl Default for Kubernetes {
    fn default() -> Self {
        Kubernetes {
            class: CLASS.to_owned(),
            default_class: false,
            gateway_controller: None,
            kubeconfig: None,
            context: None,
            node: None,
            namespace: None,
            lease: LEASE.to_owned(),
            lead: true,
            health_checks: None,
        }
    }
}

impl Kubernetes {
    /// What decides what is served, on this node.
    pub fn settings(&self, node: Option<String>) -> Settings {
        Settings {
            class: self.class.clone(),
            default_class: self.default_class,
            node,
            gateway_controller: self.gateway_controller.clone().unwrap_or_default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKubernetes {
    class: Option<Spanned<String>>,
    #[serde(default)]
    default_class: bool,
    gateway_controller: Option<Spanned<String>>,
    kubeconfig: Option<Spanned<String>>,
    context: Option<Spanned<String>>,
    node: Option<Spanned<String>>,
    namespace: Option<Spanned<String>>,
    lease: Option<Spanned<String>>,
    #[serde(default = "yes")]
    lead: bool,
    health_checks: Option<Spanned<String>>,
}

fn yes() -> bool {
    true
}

const QUALIFIED: &str = "write a name with a prefix, such as \"lockstep.dev/xdp\": a DNS name, `/`, and up to 63 \
     letters, digits, `-`, `_` or `.`";
const SUBDOMAIN: &str = "names of Kubernetes are 1 to 253 small letters, digits, `-` and `.`, and begin and end with a \
     letter or digit";
const LABEL: &str = "namespaces are 1 to 63 small letters, digits and `-`, and begin and end with a letter or digit";

impl RawKubernetes {
    pub(super) fn to_kubernetes(&self, source: Source<'_>, found: &mut Diagnostics) -> Kubernetes {
        let mut checked = |value: &Option<Spanned<String>>, is: fn(&str) -> bool, help: &str| {
            let value = value.as_ref()?;
            if !is(value.get_ref()) {
                let message = format!("{:?} cannot be used here", value.get_ref());
                found.push(source.error(value.span(), message).help(help));
            }
            Some(value.get_ref().clone())
        };
        let class = checked(&self.class, is_qualified, QUALIFIED);
        let controller = checked(&self.gateway_controller, is_qualified, QUALIFIED);
        let file = checked(&self.kubeconfig, |t| !t.is_empty(), "write a file's path");
        let help = "name one of `kubectl config get-contexts`";
        let context = checked(&self.context, |t| !t.is_empty(), help);
        let node = checked(&self.node, is_subdomain, SUBDOMAIN);
        let namespace = checked(&self.namespace, is_label, LABEL);
        let lease = checked(&self.lease, is_subdomain, SUBDOMAIN);
        let help = "write an address of this host, or \"0.0.0.0\" or \"::\" for all of them";
        let is_address = |t: &str| t.parse::<IpAddr>().is_ok();
        let health_checks = checked(&self.health_checks, is_address, help);
        if let (Some(context), None) = (&self.context, &self.kubeconfig) {
            let message = "`context` is one of a `kubeconfig`, and none is named";
            let help = "set `kubeconfig`, or leave out `context`";
            found.push(source.error(context.span(), message).help(help));
        }
        Kubernetes {
            class: class.unwrap_or_else(|| CLASS.to_owned()),
            default_class: self.default_class,
            gateway_controller: controller,
            kubeconfig: file.map(PathBuf::from),
            context,
            node,
            namespace,
            lease: lease.unwrap_or_else(|| LEASE.to_owned()),
            lead: self.lead,
            health_checks: health_checks.and_then(|text| text.parse().ok()),
        }
    }
}

/// A DNS subdomain (RFC 1123), as names of objects are.
fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_part)
}

/// A DNS label (RFC 1123), as names of namespaces are.
fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_part(text)
}

fn is_part(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && !text.starts_with('-') && !text.ends_with('-') && text.chars().all(plain)
}

/// A prefix and a name, as `loadBalancerClass` and `controllerName` are.
fn is_qualified(text: &str) -> bool {
    let Some((prefix, name)) = text.split_once('/') else {
        return false;
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    is_subdomain(prefix) && (1..=63).contains(&name.len()) && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::Kubernetes;
    use crate::config::parse;
    use std::path::PathBuf;

    #[test]
    fn an_empty_section_is_the_pods_own_cluster_with_our_class() {
        let file = parse("lockstepd.toml", "[kubernetes]\n").unwrap();
        let kubernetes = file.config.kubernetes.unwrap();
        assert_eq!(kubernetes, Kubernetes::default());
        assert_eq!(kubernetes.class, "lockstep.dev/xdp");
        assert_eq!(kubernetes.lease, "lockstep");
        assert!(kubernetes.lead && !kubernetes.default_class);
        assert_eq!(kubernetes.kubeconfig, None);
        assert_eq!(kubernetes.health_checks, None);
        let settings = kubernetes.settings(Some("n1".to_owned()));
        assert_eq!(settings.node.as_deref(), Some("n1"));
        assert_eq!(settings.gateway_controller, "", "no Gateway API");
    }

    #[test]
    fn a_section_says_which_cluster_and_which_part_is_taken_in_it() {
        let text = "[kubernetes]\nclass = \"example.org/lb\"\ndefault_class = true\n\
                    kubeconfig = \"/etc/lockstep/kubeconfig\"\ncontext = \"admin@home\"\n\
                    node = \"worker-1.example\"\nnamespace = \"network\"\nlease = \"lb\"\n\
                    lead = false\nhealth_checks = \"::\"\n";
        let file = parse("lockstepd.toml", text).unwrap();
        let kubernetes = file.config.kubernetes.unwrap();
        assert_eq!(kubernetes.class, "example.org/lb");
        let path = PathBuf::from("/etc/lockstep/kubeconfig");
        assert_eq!(kubernetes.kubeconfig, Some(path));
        assert_eq!(kubernetes.context.as_deref(), Some("admin@home"));
        assert_eq!(kubernetes.namespace.as_deref(), Some("network"));
        assert!(!kubernetes.lead && kubernetes.default_class);
        assert_eq!(kubernetes.health_checks, Some("::".parse().unwrap()));
    }

    #[test]
    fn everything_wrong_is_said_at_its_place() {
        let text = "[kubernetes]\n\
                    class = \"xdp\"\n\
                    context = \"home\"\n\
                    node = \"Worker\"\n\
                    namespace = \"a.b\"\n\
                    lease = \"-\"\n\
                    health_checks = \"everywhere\"\n\
                    gateway_controller = \"/gateway\"\n";
        let errors = parse("lockstepd.toml", text).unwrap_err().to_string();
        for line in [
            "lockstepd.toml:2:9: \"xdp\" cannot be used here; write a name with a prefix",
            "lockstepd.toml:3:11: `context` is one of a `kubeconfig`, and none is named",
            "lockstepd.toml:4:8: \"Worker\" cannot be used here; names of Kubernetes",
            "lockstepd.toml:5:13: \"a.b\" cannot be used here; namespaces are",
            "lockstepd.toml:6:9: \"-\" cannot be used here",
            "lockstepd.toml:7:17: \"everywhere\" cannot be used here",
            "lockstepd.toml:8:22: \"/gateway\" cannot be used here",
        ] {
            assert!(errors.contains(line), "{line}\nin\n{errors}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_with_the_nearest_one() {
        let errors = parse("lockstepd.toml", "[kubernetes]\nclas = \"a/b\"\n").unwrap_err();
        assert!(errors.to_string().contains("class"), "{errors}");
    }
}
