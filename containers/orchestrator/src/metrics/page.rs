//! The text exposition format for numbers that others count: a family's head, then its samples.
//! Those that are observed here go through the `prometheus` crate.

use std::fmt::Write as _;

use super::families::{Family, Kind};

/// The format's content type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A page under construction.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// A page that begins with `text`.
    pub(crate) fn starting_with(text: String) -> Self {
        Self { text }
    }

    /// The page.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// A family and its samples: label values in the family's order, and the number. A family
    /// without samples is left out.
    pub(crate) fn family<'a, L>(
        &mut self,
        family: &Family,
        samples: impl IntoIterator<Item = (L, f64)>,
    ) where
        L: AsRef<[&'a str]>,
    {
        debug_assert!(family.kind != Kind::Histogram, "{} has buckets", family.name);
        let mut headed = false;
        for (values, number) in samples {
            if !std::mem::replace(&mut headed, true) {
                self.head(family);
            }
            self.sample(family.name, family.labels, values.as_ref(), number);
        }
    }

    /// A family without labels.
    pub(crate) fn single(&mut self, family: &Family, number: f64) {
        self.family(family, [([""; 0], number)]);
    }

    /// A histogram without labels: upper bounds, counts of each bucket (one more than bounds), and
    /// the sum, all in the family's unit.
    pub(crate) fn histogram(&mut self, family: &Family, bounds: &[f64], counts: &[u64], sum: f64) {
        self.head(family);
        let bucket = format!("{}_bucket", family.name);
        let mut total = 0_u64;
        for (index, count) in counts.iter().enumerate() {
            total += count;
            let bound = bounds.get(index).map_or_else(|| "+Inf".to_owned(), f64::to_string);
            self.sample(&bucket, &["le"], &[&bound], as_f64(total));
        }
        self.sample(&format!("{}_sum", family.name), &[], &[], sum);
        self.sample(&format!("{}_count", family.name), &[], &[], as_f64(total));
    }

    fn head(&mut self, family: &Family) {
        let Family { name, help, .. } = family;
        let kind = family.kind.as_str();
        // Writing to a String does not fail.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[&str], values: &[&str], number: f64) {
        debug_assert_eq!(labels.len(), values.len(), "labels of {name}");
        self.text.push_str(name);
        for (index, (label, value)) in labels.iter().zip(values).enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{label}=\"");
            self.escaped(value);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {number}");
    }

    fn escaped(&mut self, value: &str) {
        for c in value.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                c => self.text.push(c),
            }
        }
    }
}

/// A count as the format's only number type. Exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "the exposition format has only this number type")]
pub(crate) fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::families;

    #[test]
    fn labels_are_escaped_and_buckets_add_up() {
        let mut page = Page::default();
        page.family(&families::QUEUE_DEPTH, [(["a\"b\\c\nd"], 2.0)]);
        page.family(&families::QUEUE_OLDEST, Vec::<([&str; 1], f64)>::new());
        page.histogram(&families::STORE_BATCH, &[1.0, 2.5], &[1, 2, 3], 9.5);
        let text = page.into_text();
        assert!(
            text.contains("aisemble_queue_depth{capability=\"a\\\"b\\\\c\\nd\"} 2\n"),
            "{text}"
        );
        assert!(!text.contains("oldest"), "no head without samples");
        let buckets = "aisemble_store_batch_operations_bucket{le=\"1\"} 1\n\
                       aisemble_store_batch_operations_bucket{le=\"2.5\"} 3\n\
                       aisemble_store_batch_operations_bucket{le=\"+Inf\"} 6\n\
                       aisemble_store_batch_operations_sum 9.5\n\
                       aisemble_store_batch_operations_count 6\n";
        assert!(text.ends_with(buckets), "{text}");
    }
}
