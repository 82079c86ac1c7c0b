//! What `mariadbd --wsrep-recover` writes to its log: the position that is in the data themselves. No I/O.

use super::position::Position;

const MARK: &str = "WSREP: Recovered position: ";

/// `None`: it did not come to that.
pub fn parse(log: &str) -> Option<Position> {
    let mut found = log.lines().filter_map(|line| Some(line.split_once(MARK)?.1.trim()));
    // The last word counts; with a domain behind it (`UUID:SEQNO,0-1-2`) the first part is ours.
    let last = found.next_back()?;
    last.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-11-26 23:41:10 0 [Note] Starting MariaDB 10.11.19\n\
        2026-11-26 23:41:11 0 [Note] WSREP: Recovered position: 6d6cace8-e9f2-11f1-9b62-6f11f0bb768b:63\nWarning: Memory not freed: 280\n";

    #[test]
    fn the_position_is_found_among_other_lines() {
        let position = parse(LOG).unwrap();
        assert_eq!(position.seqno, 63);
        assert_eq!(parse(&LOG.replace(":63", ":64,0-1-9")).unwrap().seqno, 64);
        let twice = format!("{LOG}{}", LOG.replace(":63", ":65"));
        assert_eq!(parse(&twice).unwrap().seqno, 65);
    }

    #[test]
    fn a_recovery_that_failed_has_none() {
        for bad in [
            "",
            "[ERROR] Aborting",
            MARK,
            &LOG.replace(":63", ":x"),
            &LOG.replace("6d6c", ""),
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
