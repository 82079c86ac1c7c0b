//! Sizes and durations as written in the configuration: "64MiB", "30s".

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

const SIZES: [(&str, u64); 5] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("B", 1),
];

impl Size {
    pub fn parse(text: &str) -> Option<Self> {
        scaled(text).map(Size)
    }

    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Period {
    pub fn parse(text: &str) -> Option<Self> {
        humantime::parse_duration(text).ok().map(Period)
    }
}

fn scaled(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let factor = match unit.trim() {
        "" => 1,
        unit => SIZES.iter().find(|(name, _)| *name == unit)?.1,
    };
    number.checked_mul(factor)
}

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = SIZES[..4]
            .iter()
            .rev()
            .find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match fits {
            Some((unit, factor)) => write!(out, "{}{unit}", self.0 / factor),
            None => write!(out, "{}B", self.0),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(out)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct SizeVisitor;
        impl Visitor<'_> for SizeVisitor {
            type Value = Size;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a size like \"64MiB\"")
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<Size, E> {
                u64::try_from(bytes)
                    .map(Size)
                    .map_err(|_| E::custom("a size is not negative"))
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<Size, E> {
                Ok(Size(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                Size::parse(text).ok_or_else(|| E::custom(format!("\"{text}\" is not a size; write it like \"64MiB\"")))
            }
        }
        from.deserialize_any(SizeVisitor)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Period::parse(&text)
            .ok_or_else(|| de::Error::custom(format!("\"{text}\" is not a duration; write it like \"30s\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_printed() {
        assert_eq!(Size::parse("64MiB"), Some(Size(64 << 20)));
        assert_eq!(Size::parse("1 GiB"), Some(Size(1 << 30)));
        assert_eq!(Size::parse("17"), Some(Size(17)));
        for bad in ["", "MiB", "64MB", "-1", "1.5GiB", "99999999999TiB"] {
            assert_eq!(Size::parse(bad), None, "{bad}");
        }
        assert_eq!(Size(64 << 20).to_string(), "64MiB");
        assert_eq!(Size(1500).to_string(), "1500B");
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(Period::parse("30s"), Some(Period(Duration::from_secs(30))));
        assert_eq!(Period::parse("500ms"), Some(Period(Duration::from_millis(500))));
        for bad in ["30", "", "s", "30 parsecs", "-1s"] {
            assert_eq!(Period::parse(bad), None, "{bad}");
        }
        assert_eq!(Period(Duration::from_secs(90)).to_string(), "1m 30s");
    }
}
