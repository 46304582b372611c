//! What is read from other programs.

use super::balancer::sum_of;

#[test]
fn a_metric_is_summed_over_its_labels_and_over_nothing_else() {
    let page = "# TYPE packets counter\npackets{worker=\"0\"} 3\npackets{worker=\"1\"} 4\n\
                packets_lost{worker=\"0\"} 100\nbytes 7\n";
    assert_eq!(sum_of(page, "packets"), Some(7.0));
    assert_eq!(sum_of(page, "bytes"), Some(7.0));
    assert_eq!(sum_of(page, "pack"), None);
}
