//! Points in time as people type them.

use dropgate_schemas::time::Timestamp;

/// A time (`2026-03-01T12:00:00Z`), a day in UTC (`2026-03-01`), or a span before now (`90min`, `24h`, `7d`).
///
/// # Errors
/// If it is none of them; the text says what would be.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    moment(text).or_else(|| from_now(text, |span| -span)).ok_or_else(|| {
        "not a point in time: use 2026-03-01T12:00:00Z, 2026-03-01, or a span before now such as 24h or 7d".to_owned()
    })
}

/// The same for a point in time to come; spans are after now.
///
/// # Errors
/// If it is none of them, or past; the text says what would be.
pub(crate) fn until(text: &str) -> Result<Timestamp, String> {
    let found = moment(text).or_else(|| from_now(text, |span| span));
    found.filter(|moment| *moment > Timestamp::now()).ok_or_else(|| {
        "not a point in time to come: use a span such as 90d, 2026-03-01T12:00:00Z, or 2026-03-01".to_owned()
    })
}

fn moment(text: &str) -> Option<Timestamp> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp::from_millis(moment.as_millisecond()));
    }
    let day = text.parse::<jiff::civil::Date>().ok()?;
    let midnight = day.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp::from_millis(midnight.timestamp().as_millisecond()))
}

fn from_now(text: &str, signed: impl Fn(jiff::Span) -> jiff::Span) -> Option<Timestamp> {
    let span = text.parse::<jiff::Span>().ok().filter(|span| !span.is_negative())?;
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    Some(Timestamp::from_millis(now.checked_add(signed(span)).ok()?.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn takes_times_days_and_spans() {
        let noon = "2026-03-01T12:00:00Z".parse::<Timestamp>().unwrap();
        assert_eq!(parse("2026-03-01T12:00:00Z").unwrap(), noon);
        assert_eq!(parse("2026-03-01T14:00:00+02:00").unwrap(), noon);
        assert_eq!(parse("2026-03-01").unwrap(), noon.minus(Duration::from_secs(12 * 3600)));
        for (text, seconds) in [("24h", 86_400), ("7d", 604_800), ("90min", 5_400), ("30 s", 30)] {
            let ago = Timestamp::now().since(parse(text).unwrap());
            assert!(ago.as_secs().abs_diff(seconds) <= 1, "{text}: {ago:?}");
        }
        for bad in ["", "soon", "-1h", "2026-13-01", "12"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_end_lies_in_the_time_to_come() {
        let left = until("90d").unwrap().since(Timestamp::now()).as_secs();
        assert!(left.abs_diff(90 * 86_400) <= 1, "{left}");
        assert_eq!(until("2999-01-01").unwrap(), "2999-01-01T00:00:00Z".parse::<Timestamp>().unwrap());
        for bad in ["", "0s", "-1d", "2020-01-01", "never"] {
            assert!(until(bad).is_err(), "{bad}");
        }
    }
}
