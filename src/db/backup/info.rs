//! What mariadb-backup says of a copy, in the file `xtrabackup_info` or, from MariaDB 11.1 on, `mariadb_backup_info`. Pure.

/// Its names, by version.
pub const FILES: [&str; 2] = ["xtrabackup_info", "mariadb_backup_info"];

/// The moment of a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    pub server: String,
    /// File, offset and GTID; `None`: the server writes no binary log.
    pub position: Option<(String, u64, String)>,
}

pub fn parse(text: &str) -> Option<Info> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(" = "));
        lines
            .find(|(name, _)| name.trim() == key)
            .map(|(_, value)| value.trim())
    };
    Some(Info {
        server: value("server_version")?.to_owned(),
        position: value("binlog_pos").and_then(position),
    })
}

/// `filename 'binlog.000002', position '852', GTID of the last change '0-1-3'`
fn position(text: &str) -> Option<(String, u64, String)> {
    let after = |key: &str| {
        let (_, rest) = text.split_once(key)?;
        rest.trim_start()
            .strip_prefix('\'')?
            .split_once('\'')
            .map(|(value, _)| value)
    };
    let file = after("filename").filter(|file| !file.is_empty())?;
    let gtid = after("GTID of the last change").unwrap_or_default();
    Some((file.to_owned(), after("position")?.parse().ok()?, gtid.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "uuid = 2af8e2ae\nname = \ntool_name = mariadb-backup\nserver_version = 10.11.19-MariaDB-log\n\
        binlog_pos = filename 'binlog.000001', position '852', GTID of the last change '0-1-3'\ninnodb_from_lsn = 0\n";

    #[test]
    fn the_place_in_the_binary_log_is_found() {
        let info = parse(TEXT).unwrap();
        assert_eq!(info.server, "10.11.19-MariaDB-log");
        assert_eq!(info.position, Some(("binlog.000001".into(), 852, "0-1-3".into())));
    }

    #[test]
    fn a_server_without_one_has_no_place() {
        for line in [
            "",
            "binlog_pos = ",
            "binlog_pos = filename '', position '0'",
            "binlog_pos = filename 'a.1'",
        ] {
            let text = format!("server_version = 11.4\n{line}\n");
            assert_eq!(parse(&text).unwrap().position, None, "{line}");
        }
        assert_eq!(parse("half a fi"), None);
    }
}
