//! Whether a process is about to end: only then may its change be given up, for it never learns what became of it.

use std::fs;

/// Signals that end a process unless it says otherwise, as a mask: all but those about children, terminals, windows, urgent
/// data, and stopping and going on (signal(7)). Real-time signals too.
const DEADLY: u64 = !(1 << (17 - 1)
    | 1 << (18 - 1)
    | 1 << (19 - 1)
    | 1 << (20 - 1)
    | 1 << (21 - 1)
    | 1 << (22 - 1)
    | 1 << (23 - 1)
    | 1 << (28 - 1));

/// In the flags of a thread: it has begun to exit, and hears no signal any more (PF_EXITING).
const EXITING: u64 = 1 << 2;

/// A process that cannot be seen is gone, or hidden from us; then it is let go.
pub fn is_dying(thread: u32) -> bool {
    let read = |name: &str| fs::read_to_string(format!("/proc/{thread}/{name}"));
    match (read("status"), read("stat")) {
        (Ok(status), Ok(stat)) => has_deadly_signal(&status) || is_exiting(&stat),
        _ => true,
    }
}

/// proc_pid_stat(5): the flags are the seventh field behind the name in parentheses.
fn is_exiting(stat: &str) -> bool {
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let flags = rest
        .split_whitespace()
        .nth(6)
        .and_then(|flags| flags.parse::<u64>().ok());
    flags.is_none_or(|flags| flags & EXITING != 0)
}

fn has_deadly_signal(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
            .unwrap_or_default()
    };
    let pending = (mask("SigPnd") | mask("ShdPnd")) & !mask("SigBlk");
    pending & DEADLY & !mask("SigCgt") & !mask("SigIgn") != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(private: u64, shared: u64, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tphp\nSigPnd:\t{private:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n\
             SigCgt:\t{caught:016x}\n"
        )
    }

    const KILL: u64 = 1 << 8;
    const TERM: u64 = 1 << 14;
    const CHILD: u64 = 1 << 16;

    #[test]
    fn only_a_signal_that_ends_it_counts() {
        assert!(has_deadly_signal(&status(KILL, 0, 0, 0, 0)));
        assert!(has_deadly_signal(&status(0, TERM, 0, 0, 0)));
        assert!(!has_deadly_signal(&status(0, TERM, 0, 0, TERM)), "it has a handler");
        assert!(!has_deadly_signal(&status(0, TERM, 0, TERM, 0)));
        assert!(!has_deadly_signal(&status(0, TERM, TERM, 0, 0)));
        assert!(!has_deadly_signal(&status(CHILD, 0, 0, 0, 0)));
        assert!(!has_deadly_signal(&status(0, 0, 0, 0, 0)));
    }

    #[test]
    fn one_that_has_begun_to_exit_is_dying() {
        assert!(is_exiting("7 (a) b) D 1 7 7 0 -1 4212996 0"));
        assert!(!is_exiting("7 (a) b) D 1 7 7 0 -1 4212992 0"));
        assert!(is_exiting("cut"));
    }

    #[test]
    fn this_process_lives_and_an_absent_one_does_not() {
        assert!(!is_dying(std::process::id()));
        assert!(is_dying(u32::MAX));
    }
}
