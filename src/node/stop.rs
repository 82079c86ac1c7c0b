//! In which order children end: from the edge inward, so that nobody loses what it still needs.

use std::time::Duration;

/// Name, and how long it may take to finish what it holds before it is killed.
pub const ORDER: [(&str, Duration); 10] = [
    // No new work comes in; answers under way are finished.
    ("proxy", Duration::from_secs(30)),
    // Its clients came through the proxy; what is left are words of farewell.
    ("push", Duration::from_secs(5)),
    // Its requests came through the proxy.
    ("php-fpm", Duration::from_secs(30)),
    // Its last user has ended, and what must still be written finds its server: the storage, where it is ours.
    ("mount", Duration::from_secs(25)),
    // Nobody asks it any more.
    ("cache", Duration::from_secs(5)),
    // Other nodes' sessions end with the answers that they are for, as long as a front may take for one, or are cut: a transaction
    // without its client is taken back.
    ("db", Duration::from_secs(30)),
    // Killing a database costs a recovery at the next start.
    ("mariadb", Duration::from_secs(300)),
    // The others' databases go on without it.
    ("garbd", Duration::from_secs(5)),
    // Late, so that `status` can be asked.
    ("agent", Duration::from_secs(5)),
    // Everybody else's files. Ended cleanly, its next start need not apply its log again. The device of a FUSE mount is closed after
    // it: whoever still waits there is told so by the kernel.
    ("storage", Duration::from_secs(60)),
];

/// Time for a child that must stop now.
pub fn grace(name: &str) -> Duration {
    ORDER
        .iter()
        .find(|(known, _)| *known == name)
        .map_or(Duration::from_secs(5), |(_, grace)| *grace)
}
