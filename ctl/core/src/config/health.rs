//! `[health]`: what checks are like where a service of `services.toml` says less.
//!
//! ```toml
//! [health]
//! interval = "2s"
//! fast_interval = "1s"                     # half of the interval where none is given
//! timeout = "1s"                           # half of the interval where none is given
//! rise = 2
//! fall = 3
//! damping = "1m"                           # the half-life of a flap, or "off"
//! scripts = "/etc/lockstep/checks"         # where scripts are; none is run where it is left out
//! ```

use crate::checks::Damping;
use crate::services::health::{Count, Pause};
use lockstep_topology::diagnostics::{Diagnostics, Source};
use lockstep_topology::duration;
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use toml::Spanned;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Defaults {
    /// From one check to the next.
    pub interval: Option<Duration>,
    /// The same, while checks speak against the verdict.
    pub fast_interval: Option<Duration>,
    /// How long a check may take.
    pub timeout: Option<Duration>,
    /// Checks in a row that make a backend up.
    pub rise: Option<u8>,
    /// Checks in a row that make a backend down.
    pub fall: Option<u8>,
    /// The half-life of a flap, in milliseconds; `None` for the default, zero for no damping.
    pub damping: Option<Duration>,
    /// The directory of scripts; none is run where there is none.
    pub scripts: Option<PathBuf>,
}

impl Defaults {
    /// How flapping is damped.
    pub fn damping(&self) -> Damping {
        match self.damping {
            None => Damping::default(),
            Some(half_life) => Damping {
                half_life: Some(half_life).filter(|h| !h.is_zero()),
            },
        }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHealth {
    interval: Option<Pause>,
    fast_interval: Option<Spanned<Pause>>,
    timeout: Option<Spanned<Pause>>,
    rise: Option<Count>,
    fall: Option<Count>,
    damping: Option<Spanned<String>>,
    scripts: Option<Spanned<PathBuf>>,
}

impl RawHealth {
    /// The shortest and the longest half-life.
    const HALF_LIFE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(60 * 60)];

    pub(super) fn to_defaults(&self, source: Source<'_>, found: &mut Diagnostics) -> Defaults {
        for (name, key) in [
            ("fast_interval", &self.fast_interval),
            ("timeout", &self.timeout),
        ] {
            let Some((key, interval)) = key.as_ref().zip(self.interval.as_ref()) else {
                continue;
            };
            if key.get_ref().0 > interval.0 {
                let message = format!("`{name}` is longer than the interval");
                let help = "a check ends before the next one begins: at most the interval";
                found.push(source.error(key.span(), message).help(help));
            }
        }
        let spanned = |key: &Option<Spanned<Pause>>| key.as_ref().map(|k| k.get_ref().0);
        Defaults {
            interval: self.interval.as_ref().map(|p| p.0),
            fast_interval: spanned(&self.fast_interval),
            timeout: spanned(&self.timeout),
            rise: self.rise.as_ref().map(|c| c.0),
            fall: self.fall.as_ref().map(|c| c.0),
            damping: self.damping(source, found),
            scripts: self.scripts(source, found),
        }
    }

    fn damping(&self, source: Source<'_>, found: &mut Diagnostics) -> Option<Duration> {
        let text = self.damping.as_ref()?;
        if text.get_ref() == "off" {
            return Some(Duration::ZERO);
        }
        let [from, to] = Self::HALF_LIFE;
        let time = duration::parse(text.get_ref()).ok();
        let time = time.filter(|time| (from..=to).contains(time));
        if time.is_none() {
            let message = format!("{:?} is no half-life of flaps", text.get_ref());
            let (from, to) = (duration::format(from), duration::format(to));
            let help = format!("write a time from {from:?} to {to:?}, or \"off\"");
            found.push(source.error(text.span(), message).help(help));
        }
        time
    }

    fn scripts(&self, source: Source<'_>, found: &mut Diagnostics) -> Option<PathBuf> {
        let path = self.scripts.as_ref()?;
        if !path.get_ref().is_absolute() {
            let message = format!("{:?} is not an absolute path", path.get_ref());
            let help = "name the directory from the root on, such as \"/etc/lockstep/checks\"";
            found.push(source.error(path.span(), message).help(help));
        }
        Some(path.get_ref().clone())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;
    use std::time::Duration;

    #[test]
    fn every_key_is_read() {
        let text = "[health]\ninterval = \"5s\"\nfast_interval = \"500ms\"\ntimeout = \"1s\"\nrise = 1\n\
                    fall = 4\ndamping = \"30s\"\nscripts = \"/etc/lockstep/checks\"\n";
        let health = parse("l.toml", text).unwrap().config.health;
        assert_eq!(health.interval, Some(Duration::from_secs(5)));
        assert_eq!(health.fast_interval, Some(Duration::from_millis(500)));
        assert_eq!(health.timeout, Some(Duration::from_secs(1)));
        assert_eq!((health.rise, health.fall), (Some(1), Some(4)));
        assert_eq!(health.damping().half_life, Some(Duration::from_secs(30)));
        let off = parse("l.toml", "[health]\ndamping = \"off\"\n").unwrap();
        assert_eq!(off.config.health.damping().half_life, None);
    }

    #[test]
    fn what_is_wrong_is_said_at_its_line_all_at_once() {
        let text = "[health]\ninterval = \"1s\"\ntimeout = \"2s\"\ndamping = \"often\"\nscripts = \"checks\"\n";
        let errors = parse("l.toml", text).unwrap_err().to_string();
        for part in [
            "l.toml:3:11: `timeout` is longer than the interval",
            "l.toml:4:11: \"often\" is no half-life",
            "l.toml:5:11: \"checks\" is not an absolute path",
        ] {
            assert!(errors.contains(part), "{part} in {errors}");
        }
        let errors = parse("l.toml", "[health]\nrise = 0\n").unwrap_err();
        assert!(errors.to_string().contains("from 1 to 100"), "{errors}");
    }
}
