//! Points in time as people type them.

use dropgate_schemas::time::Timestamp;

/// A time (`2026-03-01T12:00:00Z`), a day in UTC (`2026-03-01`), or a span before now (`90min`, `24h`, `7d`).
///
/// # Errors
/// If it is none of them; the text says what would be.
pub(crate) fn parse(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp::from_millis(moment.as_millisecond()));
    }
    if let Ok(day) = text.parse::<jiff::civil::Date>()
        && let Ok(midnight) = day.to_zoned(jiff::tz::TimeZone::UTC)
    {
        return Ok(Timestamp::from_millis(midnight.timestamp().as_millisecond()));
    }
    let before = |span: jiff::Span| {
        let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
        Some(Timestamp::from_millis(now.checked_sub(span).ok()?.timestamp().as_millisecond()))
    };
    text.parse::<jiff::Span>().ok().filter(|span| !span.is_negative()).and_then(before).ok_or_else(|| {
        "not a point in time: use 2026-03-01T12:00:00Z, 2026-03-01, or a span before now such as 24h or 7d".to_owned()
    })
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
}
