//! Whether a server is asked, by what was heard of it. Pure.

/// Silences of the watch after which a server counts as gone. One may be a full queue.
const SILENCES_MAX: u8 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Up {
        silences: u8,
    },
    /// Not asked. What it holds may be old.
    Down {
        /// It said so once since it came back. A server that stood still may have carried out, after that, what it had been sent
        /// before, on a connection that nobody has any more; so it is emptied once more, a watch later.
        is_emptied: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Answered the watch.
    Version,
    /// Confirmed that it is empty.
    Emptied,
    Silence,
    /// A command was not answered: whether it was executed is not known.
    Lost,
}

impl Health {
    /// A server that was not asked before may be in use by other nodes: it is not emptied.
    pub const FIRST: Health = Health::Up { silences: 0 };
    const LOST: Health = Health::Down { is_emptied: false };

    pub fn is_up(self) -> bool {
        matches!(self, Health::Up { .. })
    }

    pub fn after(self, heard: Heard) -> Self {
        match (self, heard) {
            (Health::Up { .. }, Heard::Version | Heard::Emptied) => Self::FIRST,
            (Health::Up { silences }, Heard::Silence) if silences + 1 < SILENCES_MAX => {
                Health::Up { silences: silences + 1 }
            }
            (Health::Down { is_emptied: false }, Heard::Emptied) => Health::Down { is_emptied: true },
            (Health::Down { is_emptied: true }, Heard::Emptied) => Self::FIRST,
            (down @ Health::Down { .. }, Heard::Version) => down,
            (_, Heard::Silence | Heard::Lost) => Self::LOST,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_that_was_lost_comes_back_only_empty() {
        let silent = Health::FIRST.after(Heard::Silence);
        assert!(silent.is_up());
        assert_eq!(silent.after(Heard::Version), Health::FIRST);
        for down in [silent.after(Heard::Silence), Health::FIRST.after(Heard::Lost)] {
            assert!(!down.is_up());
            assert!(!down.after(Heard::Version).is_up(), "it may hold old items");
            let once = down.after(Heard::Emptied);
            assert!(!once.is_up(), "what it was sent before may come after it");
            assert_eq!(once.after(Heard::Emptied), Health::FIRST);
            assert_eq!(once.after(Heard::Lost), down);
        }
    }
}
