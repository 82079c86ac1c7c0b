//! How far a node's data go: the history's id and the number of its last write-set, as Galera writes them (`UUID:SEQNO`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Groups of a UUID's hexadecimal digits (RFC 9562, section 4).
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// Of a history of write-sets, or of a node in a group's view. All zero: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Uuid(u128);

impl Uuid {
    pub const ZERO: Uuid = Uuid(0);

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// It is not of this form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is neither a UUID nor a position")]
pub struct Malformed;

impl FromStr for Uuid {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let groups: Vec<&str> = text.split('-').collect();
        let is_whole = groups.len() == GROUPS.len()
            && groups
                .iter()
                .zip(GROUPS)
                .all(|(group, length)| group.len() == length && group.bytes().all(|digit| digit.is_ascii_hexdigit()));
        if !is_whole {
            return Err(Malformed);
        }
        u128::from_str_radix(&groups.concat(), 16)
            .map(Uuid)
            .map_err(|_| Malformed)
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{:032x}", self.0);
        let mut rest = digits.as_str();
        for (index, length) in GROUPS.into_iter().enumerate() {
            let (group, behind) = rest.split_at(length);
            out.write_str(if index == 0 { "" } else { "-" })?;
            out.write_str(group)?;
            rest = behind;
        }
        Ok(())
    }
}

impl TryFrom<String> for Uuid {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Uuid> for String {
    fn from(uuid: Uuid) -> String {
        uuid.to_string()
    }
}

/// Where a node's data stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub uuid: Uuid,
    /// -1: not known, or nothing at all.
    pub seqno: i64,
}

impl Position {
    pub const NONE: Position = Position {
        uuid: Uuid::ZERO,
        seqno: -1,
    };

    /// It says how far data go. `0` is a history that has just begun.
    pub fn is_known(self) -> bool {
        !self.uuid.is_zero() && self.seqno >= 0
    }
}

impl FromStr for Position {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (uuid, seqno) = text.split_once(':').ok_or(Malformed)?;
        Ok(Position {
            uuid: uuid.parse()?,
            seqno: seqno.parse().map_err(|_| Malformed)?,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.uuid, self.seqno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b:120";

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position: Position = TEXT.parse().unwrap();
        assert_eq!((position.to_string().as_str(), position.seqno), (TEXT, 120));
        assert!(position.is_known());
        let none: Position = "00000000-0000-0000-0000-000000000000:-1".parse().unwrap();
        assert_eq!((none, none.is_known()), (Position::NONE, false));
    }

    #[test]
    fn what_is_cut_or_bent_is_none() {
        for end in 0..TEXT.len() - 3 {
            assert_eq!(TEXT[..end].parse::<Position>(), Err(Malformed), "{end}");
        }
        for bad in [
            "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b",
            "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b:",
            "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b:1 ",
            "6d6cace8-e9f2-11f1-9b62-6f11f0bb768b:99999999999999999999",
            "6d6cace8e9f211f19b626f11f0bb768b:1",
            "6d6cace8-e9f2-11f1-9b62-6f11f0bb768g:1",
            "+d6cace8-e9f2-11f1-9b62-6f11f0bb768b:1",
            "é6cace8-e9f2-11f1-9b62-6f11f0bb768b:1",
        ] {
            assert_eq!(bad.parse::<Position>(), Err(Malformed), "{bad}");
        }
    }
}
