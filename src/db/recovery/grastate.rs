//! `grastate.dat`: what the provider keeps of a node's state. No I/O.

use super::position::{Position, Uuid};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grastate {
    /// Its number is -1 while the server runs, and after it crashed.
    pub position: Position,
    /// The provider's own word. No proof: a node that was emptied has it, too.
    pub is_safe: bool,
}

/// `None`: this is no such file, or half of one.
pub fn parse(bytes: &[u8]) -> Option<Grastate> {
    let text = std::str::from_utf8(bytes).ok()?;
    let field = |name: &str| {
        let mut found = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let value = found.next()?.trim();
        // Said twice, it says nothing.
        found.next().is_none().then_some(value)
    };
    // A value at the very end may be cut; what is written whole ends its line.
    let is_whole = text.ends_with('\n') && field("version")? == "2.1";
    let is_safe = match field("safe_to_bootstrap")? {
        "0" => false,
        "1" => true,
        _ => return None,
    };
    let uuid: Uuid = field("uuid")?.parse().ok()?;
    let seqno = field("seqno")?.parse().ok()?;
    is_whole.then_some(Grastate {
        position: Position { uuid, seqno },
        is_safe,
    })
}

/// The file of a node at that position. `is_safe`: it shall begin the cluster anew.
pub fn render(position: Position, is_safe: bool) -> String {
    format!(
        "# GALERA saved state\nversion: 2.1\nuuid:    {}\nseqno:   {}\nsafe_to_bootstrap: {}\n",
        position.uuid,
        position.seqno,
        u8::from(is_safe)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CRASHED: &str = "# GALERA saved state\nversion: 2.1\nuuid:    6d6cace8-e9f2-11f1-9b62-6f11f0bb768b\nseqno:   -1\nsafe_to_bootstrap: 0\n";

    #[test]
    fn a_crashed_node_does_not_know_its_number() {
        let state = parse(CRASHED.as_bytes()).unwrap();
        assert_eq!((state.position.seqno, state.is_safe), (-1, false));
        assert!(!state.position.uuid.is_zero() && !state.position.is_known());
        let position = Position {
            seqno: 77,
            ..state.position
        };
        let safe = render(position, true);
        let state = parse(safe.as_bytes()).unwrap();
        assert_eq!((state.position.seqno, state.is_safe), (77, true));
    }

    #[test]
    fn half_a_file_and_other_bytes_are_none() {
        for end in 0..CRASHED.len() {
            assert_eq!(parse(&CRASHED.as_bytes()[..end]), None, "{end}");
        }
        for (old, new) in [
            ("2.1", "3.0"),
            ("seqno:   -1", "seqno:   x"),
            ("safe_to_bootstrap: 0", "safe_to_bootstrap: 2"),
            ("uuid:    6d", "uuid:    zz"),
            ("seqno:   -1\n", "seqno:   5\nseqno:   9\n"),
            ("#", "\u{fffd}\nuuid: x\n#"),
        ] {
            assert_eq!(parse(CRASHED.replace(old, new).as_bytes()), None, "{old} -> {new}");
        }
        assert_eq!(parse(&[0xff; 200]), None);
    }
}
