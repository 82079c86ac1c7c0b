//! Where a subscriber begins: by the newest id that it has, and by how far the hub is. Pure.

use super::log::Log;
use crate::push::mid::Mid;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// It is told what was delivered after this, if that was asked for.
    pub replay: Option<Mid>,
    /// And live nothing up to this.
    pub floor: Mid,
    /// The hub is behind: whether what it has is right shows when it has caught up.
    pub is_open: bool,
}

/// `after`: what the subscriber has. `is_current`: the hub has all that was acknowledged.
pub fn start(log: &Log, after: Option<Mid>, is_current: bool) -> Start {
    let delivered = log.delivered();
    let Some(after) = after else {
        return Start {
            replay: None,
            floor: delivered,
            is_open: false,
        };
    };
    // What was delivered anywhere is here, if the hub is current, though it may not have heard that it may be delivered.
    let is_unknown = after > log.position();
    match is_unknown && is_current {
        // All hubs that knew it are gone, and their clocks were ahead: whatever is here came later.
        true => Start {
            replay: Some(Mid::default()),
            floor: delivered,
            is_open: false,
        },
        false => Start {
            replay: Some(after),
            floor: after.max(delivered),
            is_open: is_unknown,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::push::history::History;
    use crate::push::mid::{Era, Mids};
    use crate::push::order::log::Portion;
    use std::time::Duration;

    #[test]
    fn an_unknown_cursor_waits_for_a_hub_that_is_behind_and_means_nothing_to_one_that_is_not() {
        let mut mids = Mids::of(Era::at(Duration::from_secs(5)), Duration::ZERO);
        let mut log = Log::new(History::new(1 << 20));
        let (older, delivered) = (mids.take(), mids.take());
        log.start(delivered);
        let (near, upto, later) = (mids.take(), mids.take(), mids.take());
        log.lay(Portion {
            after: delivered,
            upto,
            entries: Vec::new(),
        });
        let begin = |replay, floor, is_open| Start { replay, floor, is_open };
        for is_current in [true, false] {
            assert_eq!(start(&log, None, is_current), begin(None, delivered, false));
            assert_eq!(
                start(&log, Some(older), is_current),
                begin(Some(older), delivered, false)
            );
            assert_eq!(start(&log, Some(near), is_current), begin(Some(near), near, false));
        }
        assert_eq!(start(&log, Some(later), false), begin(Some(later), later, true));
        assert_eq!(
            start(&log, Some(later), true),
            begin(Some(Mid::default()), delivered, false)
        );
    }
}
