//! Cron expressions: five fields (minute, hour, day of month, month, day of week), in UTC. When
//! both days are given, either will do, as cron has it.

use std::fmt;

const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 24 * 60;
/// Days that are looked ahead: the 29th of February comes within eight years, also over 2100.
const DAYS_AHEAD_MAX: u64 = 366 * 8 + 2;
/// Bytes of an expression.
const TEXT_BYTES_MAX: usize = 256;

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A parsed expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    month_days: u64,
    months: u64,
    week_days: u64,
    /// Both days are restricted: either will do.
    either_day: bool,
}

/// What is wrong with an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct CronError {
    /// Which field.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

/// A field: its name, its least and greatest value, and the names of its values.
struct Field {
    name: &'static str,
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { name: "minute", min: 0, max: 59, names: &[] },
    Field { name: "hour", min: 0, max: 23, names: &[] },
    Field { name: "day of month", min: 1, max: 31, names: &[] },
    Field { name: "month", min: 1, max: 12, names: &MONTHS },
    Field { name: "day of week", min: 0, max: 7, names: &DAYS },
];

impl Cron {
    /// Reads `*/15 8-18 * * mon-fri`, `0 0 1 jan,jul *`, `@daily`.
    ///
    /// # Errors
    /// Names the field; also when no time ever comes, as on the 30th of February.
    pub fn parse(text: &str) -> Result<Self, CronError> {
        let whole = |reason: &str| CronError { field: "cron", reason: reason.to_owned() };
        if text.len() > TEXT_BYTES_MAX {
            return Err(whole("is too long"));
        }
        let spelled = match text.trim() {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let parts: Vec<_> = spelled.split_whitespace().collect();
        let [minute, hour, month_day, month, week_day] = parts.as_slice() else {
            return Err(whole("has five fields: minute, hour, day of month, month, day of week"));
        };
        let [f0, f1, f2, f3, f4] = &FIELDS;
        let mut week_days = f4.parse(week_day)?;
        // Both 0 and 7 are Sunday.
        week_days |= (week_days >> 7) & 1;
        let cron = Self {
            text: text.trim().to_owned(),
            minutes: f0.parse(minute)?,
            hours: f1.parse(hour)?,
            month_days: f2.parse(month_day)?,
            months: f3.parse(month)?,
            week_days: week_days & 0x7f,
            either_day: !month_day.starts_with('*') && !week_day.starts_with('*'),
        };
        if cron.next_after(0).is_none() {
            return Err(whole("names a day that never comes"));
        }
        Ok(cron)
    }

    /// The first time after `ms` (milliseconds since 1970).
    #[must_use]
    pub fn next_after(&self, ms: u64) -> Option<u64> {
        let first_minute = ms / MINUTE_MS + 1;
        let first_day = first_minute / DAY_MINUTES;
        for day in first_day..first_day + DAYS_AHEAD_MAX {
            if !self.on_day(day) {
                continue;
            }
            let from = if day == first_day { first_minute % DAY_MINUTES } else { 0 };
            let minute = (from..DAY_MINUTES)
                .find(|minute| has(self.hours, minute / 60) && has(self.minutes, minute % 60));
            if let Some(minute) = minute {
                return Some((day * DAY_MINUTES + minute) * MINUTE_MS);
            }
        }
        None
    }

    fn on_day(&self, day: u64) -> bool {
        let (month, month_day) = month_and_day(day);
        // The first of January 1970 was a Thursday.
        let week_day = (day + 4) % 7;
        let (by_month, by_week) = (has(self.month_days, month_day), has(self.week_days, week_day));
        let fits = if self.either_day { by_month || by_week } else { by_month && by_week };
        fits && has(self.months, month)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn has(set: u64, value: u64) -> bool {
    set >> value & 1 == 1
}

/// Month and day of the month of a day since 1970, in the Gregorian calendar (Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
fn month_and_day(day: u64) -> (u64, u64) {
    let z = day + 719_468;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month_day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (month, month_day)
}

impl Field {
    fn parse(&self, text: &str) -> Result<u64, CronError> {
        let mut set = 0;
        for part in text.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, Some(self.step(step)?)),
                None => (part, None),
            };
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (self.min, self.max),
                Some((from, to)) => (self.value(from)?, self.value(to)?),
                // `5/10` begins at 5.
                None if step.is_some() => (self.value(range)?, self.max),
                None => (self.value(range)?, self.value(range)?),
            };
            if from > to {
                return Err(self.wrong(format!("{range:?} goes backwards")));
            }
            for value in (from..=to).step_by(step.unwrap_or(1) as usize) {
                set |= 1 << value;
            }
        }
        Ok(set)
    }

    fn step(&self, text: &str) -> Result<u32, CronError> {
        let step = text.parse().ok().filter(|step| (1..=self.max).contains(step));
        step.ok_or_else(|| self.wrong(format!("{text:?} is not a step")))
    }

    fn value(&self, text: &str) -> Result<u32, CronError> {
        let lower = text.to_ascii_lowercase();
        let named = self.names.iter().zip(self.min..).find(|(name, _)| **name == lower);
        let value = named.map(|(_, value)| value).or_else(|| text.parse().ok());
        value.filter(|value| (self.min..=self.max).contains(value)).ok_or_else(|| {
            self.wrong(format!("{text:?} is not between {} and {}", self.min, self.max))
        })
    }

    fn wrong(&self, reason: String) -> CronError {
        CronError { field: self.name, reason }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2026-11-21 17:40:30 UTC, a Saturday.
    const NOW_MS: u64 = 1_795_282_830_000;
    const HOUR_MS: u64 = 60 * MINUTE_MS;
    const DAY_MS: u64 = 24 * HOUR_MS;
    /// The midnight before.
    const MIDNIGHT_MS: u64 = NOW_MS - NOW_MS % DAY_MS;

    fn check(text: &str, expected_ms: u64) {
        let cron = Cron::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(cron.next_after(NOW_MS), Some(expected_ms), "{text}");
    }

    #[test]
    fn the_next_time_is_found() {
        check("* * * * *", NOW_MS + 30_000);
        check("*/15 * * * *", MIDNIGHT_MS + 17 * HOUR_MS + 45 * MINUTE_MS);
        check("0 8-18/4 * * *", MIDNIGHT_MS + DAY_MS + 8 * HOUR_MS);
        check("30 9 * * mon-fri", MIDNIGHT_MS + 2 * DAY_MS + 9 * HOUR_MS + 30 * MINUTE_MS);
        check("@daily", MIDNIGHT_MS + DAY_MS);
        check("0 0 * * 7", MIDNIGHT_MS + DAY_MS);
        // 2026-12-01 is ten days after the 21st of November.
        check("@monthly", MIDNIGHT_MS + 10 * DAY_MS);
        check("0 0 1 jan *", MIDNIGHT_MS + 41 * DAY_MS);
        // The 25th or a Monday, whichever comes first.
        check("0 0 25 * mon", MIDNIGHT_MS + 2 * DAY_MS);
        // 2028-02-29.
        check("0 0 29 2 *", 1_835_395_200_000);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |text: &str, field: &str| {
            assert_eq!(Cron::parse(text).unwrap_err().field, field, "{text}");
        };
        check("* * * *", "cron");
        check("@often", "cron");
        check("60 * * * *", "minute");
        check("* 5-2 * * *", "hour");
        check("* * 0 * *", "day of month");
        check("* * * foo *", "month");
        check("* * * * 8", "day of week");
        check("*/0 * * * *", "minute");
        check("0 0 30 2 *", "cron");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9*/,a-z -]{0,40}") {
            if let Ok(cron) = Cron::parse(&text) {
                let next = cron.next_after(NOW_MS).unwrap();
                prop_assert!(next > NOW_MS && next % MINUTE_MS == 0);
                prop_assert_eq!(cron.next_after(next - 1), Some(next));
            }
        }

        #[test]
        fn days_follow_each_other(day in 0_u64..200_000) {
            let ((month, one), (next_month, two)) = (month_and_day(day), month_and_day(day + 1));
            prop_assert!((1..=12).contains(&month) && (1..=31).contains(&one));
            prop_assert!(two == one + 1 || (two == 1 && next_month == month % 12 + 1));
        }
    }
}
