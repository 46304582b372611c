//! Rates: how much counters grew in a second, by the engine's own clock.

use std::collections::HashMap;

/// What a counter counts: its name, and of whom.
type Name = (&'static str, String);

/// Counters of the status before, against which those of the present one are held.
#[derive(Debug, Default)]
pub struct Meter {
    /// The engine's process, and its age in seconds at the last status.
    engine: Option<(u64, f64)>,
    before: HashMap<Name, u64>,
    now: HashMap<Name, u64>,
    /// Between the two; without it there are no rates.
    seconds: Option<f64>,
}

impl Meter {
    /// Begins a status of the engine with this process number, this many seconds after its start.
    /// Another process, or one that is younger than before, has counted from 0 again, and nobody
    /// knows for how long: rates begin anew.
    pub fn begin(&mut self, pid: u64, age: f64) {
        self.before = std::mem::take(&mut self.now);
        self.seconds = match self.engine {
            Some((same, before)) if same == pid && age > before => Some(age - before),
            Some(_) | None => None,
        };
        self.engine = Some((pid, age));
    }

    /// A counter's growth in a second; `None` at the first status.
    ///
    /// One that was not there began at 0 since; one that is smaller than it was did so too: the
    /// engine counts a VIP or backend that is removed and comes back from 0.
    pub fn rate(&mut self, counter: &'static str, of: &str, value: u64) -> Option<f64> {
        let name = (counter, of.to_owned());
        let before = self.before.get(&name).copied().unwrap_or(0);
        self.now.insert(name, value);
        let grown = value.checked_sub(before).unwrap_or(value);
        self.seconds.map(|seconds| grown as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_growth_by_the_engines_clock() {
        let mut meter = Meter::default();
        meter.begin(1, 10.0);
        assert_eq!(meter.rate("packets", "web", 1_000), None);
        meter.begin(1, 12.0);
        assert_eq!(meter.rate("packets", "web", 1_500), Some(250.0));
        // Another counter, and one of somebody who was not there.
        assert_eq!(meter.rate("bytes", "web", 80), Some(40.0));
        assert_eq!(meter.rate("packets", "dns", 10), Some(5.0));
    }

    #[test]
    fn a_counter_that_began_anew_has_grown_from_0() {
        let mut meter = Meter::default();
        meter.begin(1, 1.0);
        meter.rate("packets", "web", 1_000);
        meter.begin(1, 2.0);
        assert_eq!(meter.rate("packets", "web", 30), Some(30.0));
        // Away for one status, and back.
        meter.begin(1, 3.0);
        meter.begin(1, 4.0);
        assert_eq!(meter.rate("packets", "web", 7), Some(7.0));
    }

    #[test]
    fn a_new_engine_has_no_rates_yet() {
        let mut meter = Meter::default();
        meter.begin(1, 100.0);
        meter.rate("packets", "web", 1_000);
        meter.begin(2, 200.0);
        assert_eq!(meter.rate("packets", "web", 5_000), None);
        meter.begin(2, 201.0);
        assert_eq!(meter.rate("packets", "web", 5_100), Some(100.0));
        // The same number again, of a younger process; and no time at all.
        meter.begin(2, 3.0);
        assert_eq!(meter.rate("packets", "web", 5_200), None);
        meter.begin(2, 3.0);
        assert_eq!(meter.rate("packets", "web", 5_200), None);
    }
}
