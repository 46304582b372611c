//! A Service as services of the engine.

use super::Settings;
use lockstep_kubernetes::facts::{Name, Protocol, Service};

/// What of a Service cannot be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The port, where it is one port's.
    pub port: Option<(u16, Protocol)>,
    /// In a word.
    pub reason: &'static str,
    /// What to do.
    pub message: String,
}

/// Caches the translation of each Service.
#[derive(Debug, Default)]
pub struct Translator {}

impl Translator {
    /// What of a Service cannot be served, and why.
    pub fn problems(&self, _name: &Name) -> &[Problem] {
        &[]
    }
}

/// Whether a Service is for us.
pub fn is_ours(service: &Service, settings: &Settings) -> bool {
    let class = match &service.class {
        Some(class) => *class == settings.class,
        None => settings.default_class,
    };
    service.load_balancer && !service.deleting && class
}
