//! The section `backup`: where backups are kept, for whom they are sealed, which ones stay.

use std::path::PathBuf;

use serde::Deserialize;

use super::Period;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// Empty: it is said with each command.
    pub store: PathBuf,
    /// Public keys that may open them too.
    pub recipients: Vec<String>,
    /// UTC, like "02:30"; empty: none by itself.
    daily: String,
    /// MariaDB keeps what logs are made of.
    pub log: bool,
    pub log_every: Period,
    pub keep_last: usize,
    pub keep_daily: usize,
    pub keep_weekly: usize,
}

impl Backup {
    /// When, in minutes after midnight.
    pub fn daily(&self) -> Option<u64> {
        minutes(&self.daily)
    }

    /// What is wrong with `daily`.
    pub fn daily_fault(&self) -> Option<&'static str> {
        match self.daily.is_empty() {
            true => None,
            false if self.daily().is_none() => Some("is a time of day in UTC, like \"02:30\", or \"\" for none"),
            false if self.store.as_os_str().is_empty() => Some("needs backup.store, which says where backups are kept"),
            false => None,
        }
    }
}

fn minutes(text: &str) -> Option<u64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |text: &str, most: u64| {
        let is_pair = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|number| is_pair && *number <= most)
    };
    Some(number(hours, 23)? * 60 + number(minutes, 59)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_day_has_hours_and_minutes() {
        assert_eq!(
            (minutes("02:30"), minutes("00:00"), minutes("23:59")),
            (Some(150), Some(0), Some(1439))
        );
        for bad in ["", "2:30", "24:00", "02:60", "02:3", "+2:30", "02:30:00", "02"] {
            assert_eq!(minutes(bad), None, "{bad}");
        }
    }
}
