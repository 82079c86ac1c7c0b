//! `wsrep_status_file`: what the provider says of its state while the server runs, also before that takes connections. No I/O.

use serde::Deserialize;

/// Its notes of errors and warnings are bounded by the provider.
pub const LONGEST: usize = 256 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// As the provider writes it: `SYNCED`, `JOINING`, `DONOR`, `DISCONNECTED`.
    pub state: String,
    pub comment: String,
}

impl Status {
    /// It is in the Primary component and up to date: what it answers counts. Also while it gives its data to another one, which
    /// takes nothing from it by way of `mariabackup`.
    pub fn is_serving(&self) -> bool {
        matches!(self.state.as_str(), "SYNCED" | "DONOR")
    }
}

#[derive(Deserialize)]
struct File {
    status: Body,
}

#[derive(Deserialize)]
struct Body {
    state: String,
    comment: String,
}

/// `None`: it is just being written, or it is something else.
pub fn parse(bytes: &[u8]) -> Option<Status> {
    let file: File = serde_json::from_slice(bytes.get(..bytes.len().min(LONGEST))?).ok()?;
    let line = |text: String| {
        text.chars()
            .filter(|character| !character.is_control())
            .take(80)
            .collect()
    };
    Some(Status {
        state: line(file.status.state),
        comment: line(file.status.comment),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
	"date": "2026-11-26 23:38:09.245",
	"timestamp": 1795736289.24523115,
	"errors": [ ],
	"warnings": [ { "timestamp": 1795736288.00000000, "msg": "WSREP: '\/tmp\/grastate.dat'" } ],
	"events": [ ],
	"status": {
		"state": "JOINING",
		"comment": "Receiving SST",
		"progress": { "from": -1, "to": -1, "total": -1, "done": -1, "indefinite": -1 }
	}
}"#;

    #[test]
    fn a_joiner_is_not_synced() {
        let status = parse(FILE.as_bytes()).unwrap();
        assert_eq!((status.state.as_str(), status.is_serving()), ("JOINING", false));
        assert_eq!(status.comment, "Receiving SST");
        assert!(
            parse(FILE.replace("JOINING", "SYNCED").as_bytes())
                .unwrap()
                .is_serving()
        );
    }

    #[test]
    fn half_a_file_is_none_and_a_terminal_gets_no_orders() {
        for end in 0..FILE.len() {
            assert_eq!(parse(&FILE.as_bytes()[..end]), None, "{end}");
        }
        let status = parse(FILE.replace("Receiving", "\\u001b[2J").as_bytes()).unwrap();
        assert_eq!(status.comment, "[2J SST");
    }
}
