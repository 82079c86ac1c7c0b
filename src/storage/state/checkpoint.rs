//! The `checkpoint` file: index of the last checkpoint and how far it got. Text, so that an admin can read it.

use std::io;
use std::path::Path;

use super::Failure;
use super::disk::Disk;

/// Raised with the format; an unknown one is refused.
const HEAD: &str = "bitrix-node state 1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// SQLite's log is being carried over; it holds nothing newer than the index.
    Settling,
    /// The main file is the state at the index; what else there is came later.
    Settled,
    /// As settled, and nothing came later.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    pub phase: Phase,
    /// Applied index; `None` before the first entry.
    pub index: Option<u64>,
    pub is_mirror_broken: bool,
}

impl Marker {
    fn encode(&self) -> String {
        let phase = match self.phase {
            Phase::Settling => "settling",
            Phase::Settled => "settled",
            Phase::Closed => "closed",
        };
        let index = self.index.map_or("none".to_owned(), |index| index.to_string());
        let mirror = if self.is_mirror_broken { "broken" } else { "good" };
        format!("{HEAD}\nphase {phase}\nindex {index}\nmirror {mirror}\n")
    }

    fn decode(text: &str) -> Option<Marker> {
        let mut lines = text.lines();
        if lines.next()? != HEAD {
            return None;
        }
        let phase = match lines.next()?.strip_prefix("phase ")? {
            "settling" => Phase::Settling,
            "settled" => Phase::Settled,
            "closed" => Phase::Closed,
            _ => return None,
        };
        let index = match lines.next()?.strip_prefix("index ")? {
            "none" => None,
            index => Some(index.parse().ok()?),
        };
        let is_mirror_broken = match lines.next()?.strip_prefix("mirror ")? {
            "good" => false,
            "broken" => true,
            _ => return None,
        };
        Some(Marker {
            phase,
            index,
            is_mirror_broken,
        })
    }

    /// `None`: there is no marker.
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Marker>, Failure> {
        let bytes = match disk.read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let marker = std::str::from_utf8(&bytes).ok().and_then(Marker::decode);
        marker
            .map(Some)
            .ok_or_else(|| Failure::Damaged("the checkpoint file cannot be read".into()))
    }

    pub fn write(&self, disk: &dyn Disk, path: &Path) -> Result<(), Failure> {
        Ok(disk.replace(path, self.encode().as_bytes())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_comes_back_and_a_cut_one_is_refused() {
        for phase in [Phase::Settling, Phase::Settled, Phase::Closed] {
            for (index, is_mirror_broken) in [(None, false), (Some(0), true), (Some(u64::MAX), false)] {
                let marker = Marker {
                    phase,
                    index,
                    is_mirror_broken,
                };
                let text = marker.encode();
                assert_eq!(Marker::decode(&text), Some(marker));
                let without_last_line = text.rsplit_once("mirror").unwrap().0;
                assert_eq!(Marker::decode(without_last_line), None);
            }
        }
        assert_eq!(
            Marker::decode("bitrix-node state 2\nphase settled\nindex 1\nmirror good\n"),
            None
        );
    }
}
