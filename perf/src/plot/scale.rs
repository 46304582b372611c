//! From values to pixels, and values as people read them.

/// An axis: which values lie where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    /// The value at `from`.
    pub low: f64,
    /// The value at `to`.
    pub high: f64,
    /// Whether equal ratios are equally far apart.
    pub logarithmic: bool,
    /// A pixel.
    pub from: f64,
    /// A pixel.
    pub to: f64,
}

impl Scale {
    /// An axis for these values, from zero on where that is near, without pixels yet. Of a logarithmic
    /// one the values above zero count.
    pub fn over(values: impl Iterator<Item = f64>, logarithmic: bool, zero: bool) -> Self {
        let usable = |value: &f64| value.is_finite() && (!logarithmic || *value > 0.0);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.filter(usable) {
            low = low.min(value);
            high = high.max(value);
        }
        if low > high {
            (low, high) = (1.0, 10.0);
        }
        if logarithmic {
            if low == high {
                (low, high) = (low / 2.0, high * 2.0);
            }
        } else {
            if low > 0.0 && (zero || low < 0.6 * high) {
                low = 0.0;
            }
            if low == high {
                // One value stands in the middle.
                (low, high) = (low - low.abs().max(1.0), high + high.abs().max(1.0));
            }
        }
        Scale {
            low,
            high,
            logarithmic,
            from: 0.0,
            to: 1.0,
        }
    }

    /// The same axis between two pixels.
    pub fn between(self, from: f64, to: f64) -> Self {
        Scale { from, to, ..self }
    }

    /// The same axis from one round value to another.
    pub fn rounded(self) -> Self {
        if self.logarithmic {
            return Scale {
                low: round_down(self.low),
                high: round_up(self.high),
                ..self
            };
        }
        let step = self.step(6);
        let low = (self.low / step).floor() * step;
        let high = (self.high / step - 1e-9).ceil() * step;
        Scale { low, high, ..self }
    }

    /// The same axis with some room at both ends.
    pub fn padded(self, share: f64) -> Self {
        if self.logarithmic {
            let room = (self.high / self.low).powf(share);
            return Scale {
                low: self.low / room,
                high: self.high * room,
                ..self
            };
        }
        let room = (self.high - self.low) * share;
        Scale {
            low: self.low - room,
            high: self.high + room,
            ..self
        }
    }

    /// The pixel of a value; none of what is not on the axis at all.
    pub fn at(&self, value: f64) -> Option<f64> {
        let share = match self.logarithmic {
            true if value <= 0.0 => return None,
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        let share = share.clamp(0.0, 1.0);
        share
            .is_finite()
            .then_some(self.from + share * (self.to - self.from))
    }

    /// Round values on the axis, about so many.
    pub fn ticks(&self, about: usize) -> Vec<f64> {
        if self.logarithmic {
            return self.decades(about);
        }
        let step = self.step(about);
        let first = (self.low / step - 1e-9).ceil() as i64;
        let last = (self.high / step + 1e-9).floor() as i64;
        (first..=last.min(first + 50))
            .map(|n| n as f64 * step)
            .collect()
    }

    fn step(&self, about: usize) -> f64 {
        let rough = (self.high - self.low) / about.max(1) as f64;
        let decade = 10_f64.powf(rough.log10().floor());
        let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|n| n * decade);
        let enough = steps.into_iter().find(|step| *step >= rough * 0.999);
        enough.unwrap_or(10.0 * decade)
    }

    /// Powers of ten; what lies between too, where there are few.
    fn decades(&self, about: usize) -> Vec<f64> {
        let (first, last) = (self.low.log10().floor(), self.high.log10().ceil());
        let powers = first as i32..=last as i32;
        let between: &[f64] = match powers.clone().count() {
            0..=2 => &[1.0, 2.0, 3.0, 5.0],
            3..=4 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let every = powers.clone().count().div_ceil(about.max(1)).max(1);
        let ticks = powers.step_by(every);
        let ticks = ticks.flat_map(|power| between.iter().map(move |n| n * 10_f64.powi(power)));
        let on_axis = |v: &f64| *v >= self.low * 0.999 && *v <= self.high * 1.001;
        ticks.filter(on_axis).collect()
    }
}

const ROUND: [f64; 4] = [1.0, 2.0, 5.0, 10.0];

fn round_down(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let fitting = ROUND.iter().rev().map(|n| n * decade);
    fitting
        .into_iter()
        .find(|v| *v <= value * 1.0001)
        .unwrap_or(decade)
}

fn round_up(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    let mut fitting = ROUND.iter().map(|n| n * decade);
    fitting
        .find(|v| *v >= value * 0.9999)
        .unwrap_or(10.0 * decade)
}

/// A value in three digits: `1.35M`, `12k`, `0.05`.
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return "-".to_owned();
    }
    let units = [(1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    // What would be rounded to 1,000 of a unit is one of the next.
    let unit = units.iter().find(|(size, _)| value.abs() >= 0.9995 * size);
    let (size, unit) = unit.copied().unwrap_or((1.0, ""));
    let number = value / size;
    let decimals = match number.abs() {
        0.0 => 0,
        n if n < 1.0 => (2.0 - n.log10().floor()).min(6.0) as usize,
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    let mut text = format!("{number:.decimals$}");
    if text.contains('.') {
        let kept = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(kept);
    }
    if text == "-0" {
        text = "0".to_owned();
    }
    text + unit
}
