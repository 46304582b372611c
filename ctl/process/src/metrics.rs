//! Pages of metrics in the Prometheus text format (version 0.0.4).

use std::fmt::{Display, Write};

/// What the format calls itself where it goes over HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page of metrics, family by family.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    /// The name of the family that samples are of.
    family: String,
}

impl Page {
    /// Begins a family. Samples are of the last one.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        name.clone_into(&mut self.family);
    }

    /// A sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.part("", labels, value);
    }

    /// A family of one sample without labels.
    pub fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// A sample of the family's name and more, as a histogram has.
    pub fn part(&mut self, more: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "{}{more}", self.family);
        for (at, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if at == 0 { '{' } else { ',' });
            value.chars().for_each(|c| self.escaped(c));
            self.text.push('"');
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }

    fn escaped(&mut self, c: char) {
        match c {
            '\\' => self.text.push_str("\\\\"),
            '"' => self.text.push_str("\\\""),
            '\n' => self.text.push_str("\\n"),
            c => self.text.push(c),
        }
    }

    /// The page.
    pub fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_families_with_their_samples() {
        let mut page = Page::default();
        page.one("a_total", "counter", "Counts.", 3);
        page.family("b", "histogram", "Spreads.");
        page.part("_bucket", &[("x", "1"), ("le", "+Inf")], 2);
        page.sample(&[("x", "a\\b\"c\nd")], 0.5);
        let expected = "# HELP a_total Counts.\n# TYPE a_total counter\na_total 3\n\
                        # HELP b Spreads.\n# TYPE b histogram\n\
                        b_bucket{x=\"1\",le=\"+Inf\"} 2\nb{x=\"a\\\\b\\\"c\\nd\"} 0.5\n";
        assert_eq!(page.into_text(), expected);
    }
}
