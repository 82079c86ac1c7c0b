//! How often something may happen, as written in the configuration: "20/s, 200", or "off".

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer};

/// `None`: as often as anybody likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(pub Option<Quota>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Of each in the long run. Not zero.
    pub interval: Duration,
    /// At once, after a rest. Not zero.
    pub burst: u32,
}

/// Beyond, a count of nanoseconds could overflow.
const MOST: u32 = 1_000_000;

impl Rate {
    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "off" {
            return Some(Rate(None));
        }
        let (rate, burst) = text.split_once(',')?;
        let (count, unit) = rate.split_once('/')?;
        let unit = match unit.trim() {
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            _ => return None,
        };
        let number = |text: &str| text.trim().parse().ok().filter(|count| (1..=MOST).contains(count));
        Some(Rate(Some(Quota {
            interval: unit / number(count)?,
            burst: number(burst)?,
        })))
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:.3}/s, {}", 1.0 / self.interval.as_secs_f64(), self.burst)
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Rate::parse(&text).ok_or_else(|| {
            de::Error::custom(format!(
                "\"{text}\" is not a rate and a burst; write it like \"20/s, 200\" or \"600/m, 60\", or \"off\""
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_a_unit_and_a_burst() {
        let quota = |millis, burst| {
            Some(Rate(Some(Quota {
                interval: Duration::from_millis(millis),
                burst,
            })))
        };
        assert_eq!(Rate::parse("20/s, 200"), quota(50, 200));
        assert_eq!(Rate::parse("600/m,60"), quota(100, 60));
        assert_eq!(Rate::parse("off"), Some(Rate(None)));
        for bad in [
            "",
            "20",
            "20/s",
            "20, 200",
            "0/s, 1",
            "1/s, 0",
            "1/h, 1",
            "-1/s, 1",
            "9999999/s, 1",
        ] {
            assert_eq!(Rate::parse(bad), None, "{bad}");
        }
        let Some(Rate(Some(quota))) = quota(50, 200) else {
            return;
        };
        assert_eq!(quota.to_string(), "20.000/s, 200");
    }
}
