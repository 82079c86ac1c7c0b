//! Keys of the session tickets that the fronts of a cluster have in common: a setting of the registry, made anew each day. The one
//! before is kept for what it made; then both the key and what could be read by it are gone. Pure.

use std::io;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

use super::seal::{Sealed, Sealer};

/// Of the setting.
pub const TICKETS: &str = "tls.tickets";

/// What a newer program writes with another number is left alone.
const VERSION: u32 = 1;
const ROTATION: Duration = Duration::from_secs(24 * 3600);
/// Of a key, for what it made as well: where the registry is away for so long, there are no tickets any more.
const LIFE: Duration = Duration::from_secs(2 * 24 * 3600);
/// The one that makes tickets, and the one before.
const KEPT: usize = 2;

#[derive(Debug, Serialize, Deserialize)]
struct Setting {
    version: u32,
    /// The newest first.
    keys: Vec<Key>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Key {
    /// In hex. Each ticket shows it.
    name: String,
    /// When it was made, in seconds since 1970.
    since: u64,
    /// Hex, sealed as `sealed_as`.
    secret: Sealed,
}

/// A key, and how long it is good for yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub name: [u8; 16],
    pub secret: [u8; 32],
    pub left: Duration,
}

/// Random bytes for a new key.
pub struct Draw {
    pub name: [u8; 16],
    pub secret: [u8; 32],
}

/// Whether it is time for a new key. `setting`: as it is now.
pub fn is_due(setting: Option<&str>, now: u64) -> bool {
    let Some(text) = setting else { return true };
    match parse(text) {
        Some(setting) if setting.version != VERSION => false,
        Some(setting) => setting.keys.first().is_none_or(|key| {
            let age = now.saturating_sub(key.since);
            // One of the far future is of a clock that was wrong.
            age >= ROTATION.as_secs() || key.since > now + LIFE.as_secs()
        }),
        None => true,
    }
}

/// The setting with a new key, and the one before.
pub fn rotated(setting: Option<&str>, now: u64, draw: &Draw, sealer: &Sealer) -> io::Result<String> {
    let name = HEXLOWER.encode(&draw.name);
    let secret = sealer.seal(&sealed_as(&name), &HEXLOWER.encode(&draw.secret))?;
    let before = setting.and_then(parse).map_or(Vec::new(), |setting| setting.keys);
    let since = now;
    let keys = std::iter::once(Key { name, since, secret }).chain(before).take(KEPT);
    let setting = Setting {
        version: VERSION,
        keys: keys.collect(),
    };
    serde_json::to_string(&setting).map_err(io::Error::other)
}

/// The keys that are good yet, the newest first. Fails for those of another cluster's secret.
pub fn opened(setting: &str, now: u64, sealer: &Sealer) -> io::Result<Vec<Opened>> {
    let setting = parse(setting).ok_or_else(|| io::Error::other("the setting cannot be read"))?;
    if setting.version != VERSION {
        return Err(io::Error::other("a newer program has written the setting"));
    }
    let mut keys = Vec::new();
    for key in &setting.keys {
        let age = Duration::from_secs(now.saturating_sub(key.since));
        let Some(left) = LIFE.checked_sub(age).filter(|left| !left.is_zero()) else {
            continue;
        };
        let secret = sealer.open(&sealed_as(&key.name), &key.secret)?;
        let read = bytes(&key.name).zip(bytes(&secret));
        let (name, secret) = read.ok_or_else(|| io::Error::other("the setting cannot be read"))?;
        keys.push(Opened { name, secret, left });
    }
    Ok(keys)
}

fn parse(text: &str) -> Option<Setting> {
    serde_json::from_str(text).ok()
}

fn sealed_as(name: &str) -> String {
    format!("ticket key {name}")
}

fn bytes<const SIZE: usize>(hex: &str) -> Option<[u8; SIZE]> {
    HEXLOWER.decode(hex.as_bytes()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;
    const NOW: u64 = 1_800_000_000;

    fn draw(number: u8) -> Draw {
        Draw {
            name: [number; 16],
            secret: [number; 32],
        }
    }

    fn names(setting: &str, now: u64, sealer: &Sealer) -> Vec<u8> {
        let keys = opened(setting, now, sealer).unwrap();
        keys.iter().for_each(|key| assert_eq!(key.secret, [key.name[0]; 32]));
        keys.iter().map(|key| key.name[0]).collect()
    }

    #[test]
    fn a_key_makes_tickets_for_a_day_and_opens_them_for_another() {
        let sealer = Sealer::new("secret");
        assert!(is_due(None, NOW));
        let first = rotated(None, NOW, &draw(1), &sealer).unwrap();
        assert!(!is_due(Some(&first), NOW + DAY - 1) && is_due(Some(&first), NOW + DAY));
        let second = rotated(Some(&first), NOW + DAY, &draw(2), &sealer).unwrap();
        assert_eq!(names(&second, NOW + DAY, &sealer), [2, 1]);
        assert_eq!(names(&second, NOW + 2 * DAY, &sealer), [2], "nobody has made a new one");
        let third = rotated(Some(&second), NOW + 2 * DAY, &draw(3), &sealer).unwrap();
        assert_eq!(names(&third, NOW + 2 * DAY, &sealer), [3, 2]);
        assert_eq!(names(&third, NOW + 5 * DAY, &sealer), [0; 0], "the registry was away");
        let life = opened(&third, NOW + 2 * DAY, &sealer).unwrap();
        assert_eq!((life[0].left, life[1].left), (LIFE, LIFE - ROTATION));
    }

    #[test]
    fn keys_are_sealed_and_each_in_its_place() {
        let sealer = Sealer::new("secret");
        let setting = rotated(None, NOW, &draw(7), &sealer).unwrap();
        assert!(!setting.contains(&HEXLOWER.encode(&[7; 32])), "{setting}");
        assert!(opened(&setting, NOW, &Sealer::new("other")).is_err());
        let moved = setting.replace(&HEXLOWER.encode(&[7; 16]), &HEXLOWER.encode(&[8; 16]));
        assert!(opened(&moved, NOW, &sealer).is_err());
    }

    #[test]
    fn clocks_that_differ_do_no_harm_and_newer_programs_are_left_alone() {
        let sealer = Sealer::new("secret");
        let setting = rotated(None, NOW + 600, &draw(1), &sealer).unwrap();
        assert!(!is_due(Some(&setting), NOW));
        assert_eq!(opened(&setting, NOW, &sealer).unwrap()[0].left, LIFE);
        let far = rotated(None, NOW + 30 * DAY, &draw(1), &sealer).unwrap();
        assert!(is_due(Some(&far), NOW), "nobody waits a month for it");
        let newer = setting.replace("\"version\":1", "\"version\":2");
        assert!(!is_due(Some(&newer), NOW + 9 * DAY) && opened(&newer, NOW, &sealer).is_err());
        assert!(is_due(Some("nonsense"), NOW));
    }
}
