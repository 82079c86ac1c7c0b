//! A rule about the certificates that the cluster has. Pure.

use super::{Facts, Findings};
use crate::cert::{Entry, Facts as Content, entries};

/// One that is imported is for the operator to replace: he is told so early.
const DAYS: u64 = 14;
/// A first failure mends itself, mostly.
const FAILURES: u32 = 3;

pub fn certificate(facts: &Facts<'_>, findings: &mut Findings<'_>) {
    for entry in entries(&facts.cluster.settings) {
        if let Some(failure) = entry.failure.as_ref().filter(|failure| failure.count >= FAILURES) {
            findings.warn(
                format!("no certificate comes for {}", entry.name()),
                format!("{} attempts failed; the last: {}", failure.count, failure.why),
                format!("mend what it says, then bitrix-node cert renew {}", entry.name()),
            );
        }
        ends_soon(&entry, facts.cluster.now, findings);
    }
}

fn ends_soon(entry: &Entry, now: u64, findings: &mut Findings<'_>) {
    let held = entry.certificate.as_ref();
    let Some(content) = held.and_then(|held| Content::of(&held.chain).ok()) else {
        return;
    };
    let remedy = match entry.is_imported() {
        true => "bitrix-node cert import CHAIN KEY, with its successor".to_string(),
        false => format!("bitrix-node cert renew {}", entry.name()),
    };
    // What is renewed has a third of its life left then, be it short.
    let least = match entry.is_imported() {
        true => DAYS * 24 * 3600,
        false => content.ends.saturating_sub(content.begins) / 10,
    };
    let left = content.ends.saturating_sub(now);
    if left < least {
        let evidence = match left {
            0 => "it has ended".to_string(),
            left => format!("it ends in {} d {} h", left / 86_400, left / 3600 % 24),
        };
        let cause = format!("the certificate of {} is at its end", entry.name());
        match left {
            0 => findings.fail(cause, evidence, remedy),
            _ => findings.warn(cause, evidence, remedy),
        }
    }
}
