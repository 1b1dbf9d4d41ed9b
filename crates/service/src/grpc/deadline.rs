//! How long a caller waits, as gRPC says it.

use std::time::{Duration, Instant};

use tonic::metadata::MetadataMap;

/// The instant that the caller's `grpc-timeout` names, if it names one (`100m` = 100 ms; gRPC over
/// HTTP/2, "Timeout": at most 8 digits and a unit).
#[must_use]
pub fn deadline(metadata: &MetadataMap) -> Option<Instant> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    let timeout = match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    };
    Instant::now().checked_add(timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_s_timeout_is_read_in_every_unit() {
        let check = |text: &str, expect: Option<Duration>| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            let left = deadline(&metadata).map(|at| at.saturating_duration_since(Instant::now()));
            match (left, expect) {
                (None, None) => {}
                (Some(left), Some(expect)) => {
                    assert!(left <= expect && expect - left < Duration::from_secs(1), "{text}");
                }
                (left, expect) => panic!("{text}: {left:?} instead of {expect:?}"),
            }
        };
        check("2H", Some(Duration::from_secs(7200)));
        check("3M", Some(Duration::from_secs(180)));
        check("5S", Some(Duration::from_secs(5)));
        check("100m", Some(Duration::from_millis(100)));
        check("7u", Some(Duration::from_micros(7)));
        check("99999999n", Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "S", "5", "5x", "-5S", "123456789S", "5 S"] {
            check(wrong, None);
        }
    }
}
