use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, time::Duration};

/// The longest duration a config may name: a year.
const LONGEST: f64 = 366.0 * 86_400.0;

/// A duration as the config has it: seconds, whole or as a fraction, more than none.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub struct Seconds(Duration);

impl Seconds {
    /// As a duration.
    #[must_use]
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<u64> for Seconds {
    fn from(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }
}

impl From<Duration> for Seconds {
    fn from(duration: Duration) -> Self {
        Self(duration)
    }
}

impl fmt::Debug for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.subsec_nanos() == 0 {
            serializer.serialize_u64(self.0.as_secs())
        } else {
            serializer.serialize_f64(self.0.as_secs_f64())
        }
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = f64;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of seconds")
            }
            fn visit_i64<E>(self, n: i64) -> Result<f64, E> {
                Ok(i32::try_from(n).map_or(f64::INFINITY, f64::from))
            }
            fn visit_u64<E>(self, n: u64) -> Result<f64, E> {
                Ok(u32::try_from(n).map_or(f64::INFINITY, f64::from))
            }
            fn visit_f64<E>(self, n: f64) -> Result<f64, E> {
                Ok(n)
            }
        }
        let n = deserializer.deserialize_any(Visitor)?;
        if n > 0.0 && n <= LONGEST {
            Ok(Self(Duration::from_secs_f64(n)))
        } else {
            Err(serde::de::Error::custom(format!(
                "{n} is not a duration: use more than 0 and at most a year of seconds"
            )))
        }
    }
}
