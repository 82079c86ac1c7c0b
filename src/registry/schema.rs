//! The tables' versions: numbered files of SQL, each of which leads from one version to the next.
//!
//! An older image is brought up when the next version is committed. A newer one is refused: its tables may mean something else.

/// Migration N leads from version N-1 to N. Released ones never change.
pub const MIGRATIONS: [&str; 1] = [include_str!("../../assets/schema/0001_first.sql")];

/// The version that this program reads and writes.
pub const VERSION: u32 = MIGRATIONS.len() as u32;

/// What is still to be run on an image of that version; `None`: it is newer than this program.
pub fn wanted(version: u32) -> Option<&'static [&'static str]> {
    MIGRATIONS.get(usize::try_from(version).ok()?..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_lead_to_the_version_and_no_further() {
        assert_eq!(wanted(0).map(<[_]>::len), Some(MIGRATIONS.len()));
        assert_eq!(wanted(VERSION), Some(&[][..]));
        assert_eq!(wanted(VERSION + 1), None);
    }
}
