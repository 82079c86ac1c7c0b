//! The section `backup`: where backups are kept, for whom they are sealed, which ones stay.

use std::path::PathBuf;

use serde::Deserialize;

use super::Period;

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Backup {
    /// A folder, or `s3://bucket/folder`. Empty: it is said with each command.
    pub store: String,
    pub s3_endpoint: String,
    pub s3_region: String,
    pub s3_access_key: String,
    pub s3_secret_key_file: PathBuf,
    pub s3_authority: PathBuf,
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

/// Where backups are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackupStore {
    Folder(PathBuf),
    /// A bucket, and a folder in it.
    Bucket(String, String),
}

impl BackupStore {
    /// `None`: it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let Some(place) = text.strip_prefix("s3://") else {
            return (!text.is_empty() && !text.contains("://")).then(|| BackupStore::Folder(text.into()));
        };
        let (bucket, folder) = place.split_once('/').unwrap_or((place, ""));
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'/');
        let is_good = !bucket.is_empty() && place.bytes().all(is_plain);
        is_good.then(|| BackupStore::Bucket(bucket.to_owned(), folder.trim_matches('/').to_owned()))
    }
}

impl Backup {
    /// What is wrong with it: key and message.
    pub(super) fn faults(&self) -> Vec<(&'static str, String)> {
        let is_absolute_or_empty = |path: &PathBuf| path.as_os_str().is_empty() || path.is_absolute();
        let mut faults = Vec::new();
        let mut require = |holds: bool, key, message: &str| {
            if !holds {
                faults.push((key, message.to_string()));
            }
        };
        if let Some((key, fault)) = self.store_fault() {
            require(false, key, fault);
        }
        if let Some(fault) = self.endpoint_fault() {
            require(false, "backup.s3_endpoint", fault);
        }
        for (key, path) in [
            ("backup.s3_secret_key_file", &self.s3_secret_key_file),
            ("backup.s3_authority", &self.s3_authority),
        ] {
            require(is_absolute_or_empty(path), key, "must be an absolute path");
        }
        require(
            self.recipients.iter().all(|key| key.starts_with("age1")),
            "backup.recipients",
            "holds public keys, which begin with age1; `age-keygen -y` shows that of a private one",
        );
        if let Some(fault) = self.daily_fault() {
            require(false, "backup.daily", fault);
        }
        let is_seldom = self.log_every.0.as_secs() >= 60;
        require(is_seldom, "backup.log_every", "must be at least 1m");
        require(self.keep_last > 0, "backup.keep_last", "must be at least 1");
        faults
    }

    /// What is wrong with `store`, and with what it needs.
    fn store_fault(&self) -> Option<(&'static str, &'static str)> {
        let is_absent = |path: &PathBuf| path.as_os_str().is_empty();
        match BackupStore::parse(&self.store) {
            _ if self.store.is_empty() => None,
            None => Some(("backup.store", "is a folder, or a bucket like s3://bucket/folder")),
            Some(BackupStore::Folder(path)) if !path.is_absolute() => {
                Some(("backup.store", "must be an absolute path"))
            }
            Some(BackupStore::Bucket(..)) if self.s3_access_key.is_empty() || is_absent(&self.s3_secret_key_file) => {
                Some((
                    "backup.s3_access_key",
                    "is needed for a bucket, and backup.s3_secret_key_file with it",
                ))
            }
            Some(_) => None,
        }
    }

    fn endpoint_fault(&self) -> Option<&'static str> {
        let is_url = ["https://", "http://"]
            .iter()
            .any(|scheme| self.s3_endpoint.starts_with(scheme));
        (!self.s3_endpoint.is_empty() && !is_url).then_some("is an address like https://s3.example.com")
    }

    /// When, in minutes after midnight.
    pub fn daily(&self) -> Option<u64> {
        minutes(&self.daily)
    }

    /// What is wrong with `daily`.
    fn daily_fault(&self) -> Option<&'static str> {
        match self.daily.is_empty() {
            true => None,
            false if self.daily().is_none() => Some("is a time of day in UTC, like \"02:30\", or \"\" for none"),
            false if self.store.is_empty() => Some("needs backup.store, which says where backups are kept"),
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
    fn a_store_is_a_folder_or_a_bucket() {
        let folder = |path: &str| Some(BackupStore::Folder(path.into()));
        let bucket = |bucket: &str, folder: &str| Some(BackupStore::Bucket(bucket.into(), folder.into()));
        assert_eq!(BackupStore::parse("/mnt/backups"), folder("/mnt/backups"));
        assert_eq!(BackupStore::parse("s3://b"), bucket("b", ""));
        assert_eq!(BackupStore::parse("s3://b/portal/n1/"), bucket("b", "portal/n1"));
        for bad in ["", "s3://", "s3:///x", "ftp://host/x", "s3://b/a b"] {
            assert_eq!(BackupStore::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_endpoint_is_a_whole_address() {
        let fault = |text: &str| {
            let text = format!("[backup]\ns3_endpoint = \"{text}\"\n");
            crate::config::parse(&text, std::iter::empty()).is_err()
        };
        assert!(fault("s3.example.com") && !fault("https://s3.example.com") && !fault("http://10.0.0.9:9000"));
    }

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
