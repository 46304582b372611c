//! From trials to rows, and what is read from other programs.

use super::balancer::sum_of;
use super::*;

#[test]
fn percentiles_are_values_that_were_measured() {
    let values: Vec<f64> = (1..=100).map(f64::from).collect();
    assert_eq!(percentile(&values, 0.5), 50.0);
    assert_eq!(percentile(&values, 0.99), 99.0);
    assert_eq!(percentile(&values, 1.0), 100.0);
    assert_eq!(percentile(&values[..1], 0.99), 1.0);
    assert_eq!(percentile(&values[..60], 0.99), 60.0);
}

#[test]
fn a_metric_is_summed_over_its_labels_and_over_nothing_else() {
    let page = "# TYPE packets counter\npackets{worker=\"0\"} 3\npackets{worker=\"1\"} 4\n\
                packets_lost{worker=\"0\"} 100\nbytes 7\n";
    assert_eq!(sum_of(page, "packets"), Some(7.0));
    assert_eq!(sum_of(page, "bytes"), Some(7.0));
    assert_eq!(sum_of(page, "pack"), None);
}
