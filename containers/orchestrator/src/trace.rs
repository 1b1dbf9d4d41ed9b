//! W3C trace context: the header `traceparent` in and out, so that a request can be followed from
//! the client through the orchestrator and the job to the service.

use std::fmt;

use uuid::Uuid;

/// Length of a version 00 header.
const HEADER_BYTES: usize = 55;

/// One span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

impl Trace {
    /// A new span: of the trace that `header` names, or of a new trace when there is no header or
    /// it is malformed (as the recommendation asks).
    #[must_use]
    pub fn continuing(header: Option<&str>) -> Self {
        let parent = header.and_then(parse);
        let trace_id = parent.map_or_else(|| Uuid::new_v4().as_u128(), |span| span.trace_id);
        let flags = parent.map_or(0, |span| span.flags);
        // The half of a random UUID that holds its variant, and so is never zero.
        let (_, span_id) = Uuid::new_v4().as_u64_pair();
        Self { trace_id, span_id, flags }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

fn parse(header: &str) -> Option<Trace> {
    let mut parts = header.split('-');
    let version = hex(parts.next()?, 2)?;
    let trace_id = hex(parts.next()?, 32)?;
    let span_id = u64::try_from(hex(parts.next()?, 16)?).ok()?;
    let flags = u8::try_from(hex(parts.next()?, 2)?).ok()?;
    // Version 255 is forbidden; a later version may have more parts, version 0 may not.
    let well_formed = version != 0xff && (version != 0 || header.len() == HEADER_BYTES);
    // Of the flags only "sampled" is known.
    (well_formed && trace_id != 0 && span_id != 0).then_some(Trace {
        trace_id,
        span_id,
        flags: flags & 1,
    })
}

fn hex(text: &str, digits: usize) -> Option<u128> {
    let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if text.len() != digits || !lower {
        return None;
    }
    u128::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_trace_goes_on_in_a_span_of_its_own() {
        let span = Trace::continuing(Some(HEADER));
        let written = span.to_string();
        assert_eq!(written.len(), HEADER_BYTES);
        assert_eq!(written[..35], HEADER[..35]);
        assert_ne!(written[36..52], HEADER[36..52]);
        assert!(written.ends_with("-01"));
        assert_eq!(parse(&written), Some(span));
    }

    #[test]
    fn a_malformed_header_begins_a_new_trace() {
        let upper = HEADER.to_uppercase();
        let zero = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let longer = format!("{HEADER}-what");
        for header in ["", "00", "ff", &upper, &zero, &longer, "00-é"] {
            assert_eq!(parse(header), None, "{header}");
        }
        assert!(parse(&longer.replacen("00", "01", 1)).is_some(), "a later version may be longer");
    }

    proptest::proptest! {
        #[test]
        fn no_header_panics(header in ".*") {
            let written = Trace::continuing(Some(&header)).to_string();
            proptest::prop_assert_eq!(written.len(), HEADER_BYTES);
        }
    }
}
