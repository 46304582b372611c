//! How latency is spread.

use super::Latency;
use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;
use std::fmt::Write;
use std::time::Duration;

/// The longest latency that is told apart, in nanoseconds: more counts as this.
const LONGEST: u64 = 100_000_000_000;
/// Digits by which values are told apart.
const DIGITS: u8 = 3;

/// Latencies, in nanoseconds.
#[derive(Debug, Clone)]
pub struct Spread(Histogram<u64>);

impl Spread {
    /// Of nothing.
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, DIGITS);
        Spread(histogram.expect("bounds that the test has tried"))
    }

    /// One more.
    #[inline]
    pub fn add(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// And those of another.
    pub fn merge(&mut self, other: &Spread) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }

    /// None any more.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a share of them stays below, in microseconds.
    pub fn quantile_us(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1e3
    }

    /// In figures; none of nothing.
    pub fn latency(&self) -> Result<Option<Latency>> {
        if self.is_empty() {
            return Ok(None);
        }
        Ok(Some(Latency {
            p50_us: self.quantile_us(0.5),
            p90_us: self.quantile_us(0.9),
            p99_us: self.quantile_us(0.99),
            p999_us: self.quantile_us(0.999),
            max_us: self.0.max() as f64 / 1e3,
            mean_us: self.0.mean().round() / 1e3,
            histogram: self.encoded()?,
        }))
    }

    /// As a line of a histogram's log has it.
    fn encoded(&self) -> Result<String> {
        let mut log = Vec::new();
        let mut serializer = V2DeflateSerializer::new();
        let mut writer = IntervalLogWriterBuilder::new()
            .begin_log_with(&mut log, &mut serializer)
            .context("cannot encode the histogram")?;
        writer
            .write_histogram(&self.0, Duration::ZERO, Duration::ZERO, None)
            .map_err(|error| anyhow::anyhow!("cannot encode the histogram: {error:?}"))?;
        let text = String::from_utf8(log).context("a log is text")?;
        let (_, encoded) = text
            .trim_end()
            .rsplit_once(',')
            .context("a log has fields")?;
        Ok(encoded.to_owned())
    }

    /// The percentile distribution as HdrHistogram's tools write and plot it (`.hgrm`), in
    /// microseconds.
    pub fn percentiles(&self) -> String {
        let mut text = format!(
            "{:>12} {:>14} {:>10} {:>14}\n\n",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        );
        for step in self.0.iter_quantiles(5) {
            let value = step.value_iterated_to() as f64 / 1e3;
            let (share, count) = (
                step.quantile(),
                self.0.count_between(0, step.value_iterated_to()),
            );
            // Writing to a string does not fail.
            let _ = if share < 1.0 {
                let inverse = 1.0 / (1.0 - share);
                writeln!(text, "{value:12.3} {share:14.12} {count:10} {inverse:14.2}")
            } else {
                writeln!(text, "{value:12.3} {share:14.12} {count:10}")
            };
        }
        let (mean, deviation) = (self.0.mean() / 1e3, self.0.stdev() / 1e3);
        let _ = write!(
            text,
            "#[Mean    = {mean:12.3}, StdDeviation   = {deviation:12.3}]\n\
             #[Max     = {:12.3}, Total count    = {:12}]\n\
             #[Buckets = {:12}, SubBuckets     = {:12}]\n",
            self.0.max() as f64 / 1e3,
            self.0.len(),
            self.0.buckets(),
            // HdrHistogram's own: twice what tells `DIGITS` digits apart, as a power of two.
            2_u64.pow(11)
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_what_was_measured() {
        let mut spread = Spread::new();
        assert_eq!(spread.latency().unwrap(), None);
        for microseconds in 1..=1_000 {
            spread.add(microseconds * 1_000);
        }
        let latency = spread.latency().unwrap().unwrap();
        let near = |value: f64, wanted: f64| (value - wanted).abs() <= wanted / 1_000.0;
        assert!(near(latency.p50_us, 500.0), "{latency:?}");
        assert!(near(latency.p99_us, 990.0) && near(latency.max_us, 1_000.0));
        assert!(near(latency.mean_us, 500.5));
        assert!(
            latency.histogram.starts_with("HISTFAAA"),
            "{}",
            latency.histogram
        );
    }

    #[test]
    fn what_is_longer_than_anything_is_not_left_out() {
        let mut spread = Spread::new();
        spread.add(u64::MAX);
        spread.add(0);
        assert_eq!(spread.0.len(), 2);
        assert!(spread.latency().unwrap().unwrap().max_us >= 99e6);
    }

    #[test]
    fn the_percentile_file_has_the_form_that_the_plotters_read() {
        let mut spread = Spread::new();
        (1..=100).for_each(|value| spread.add(value * 1_000));
        let text = spread.percentiles();
        let mut lines = text.lines();
        assert!(
            lines
                .next()
                .unwrap()
                .contains("Value     Percentile TotalCount")
        );
        let rows: Vec<Vec<f64>> = (lines.by_ref().skip(1))
            .take_while(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace()
                    .map(|word| word.parse().unwrap())
                    .collect()
            })
            .collect();
        assert!(rows.len() > 10);
        assert!(
            rows.windows(2)
                .all(|pair| pair[0][0] <= pair[1][0] && pair[0][1] <= pair[1][1])
        );
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 100.0, 3));
        assert!(text.contains("#[Max     ="), "{text}");
    }
}
