//! How long things last. Parameters, so that a busy machine can be given more; all in time since boot, on each node's own clock.

use std::time::Duration;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A node that was answered may serve so long from when it asked; a leader leads so long from what a majority has answered.
    pub lease: Duration,
    /// How often a node asks.
    pub ping: Duration,
    /// A node that answered a leader votes for no other so long: a lease, and more because clocks drift apart.
    pub promise: Duration,
    /// A leader takes a lease that it gave for over after so long: a lease, and more because clocks drift apart.
    pub grace: Duration,
    /// A process that has just started has forgotten its promises: it makes none and votes for nobody until they are over, and with them
    /// every lease that rests on them.
    pub silence: Duration,
    /// Candidates begin at different times within this.
    pub spread: Duration,
    /// Without a leader for so long, a node is alone.
    pub patience: Duration,
}

impl Timing {
    /// All from the lease. Clocks may drift apart by a sixty-fourth.
    pub fn of(lease: Duration) -> Self {
        Timing {
            lease,
            ping: lease / 5,
            promise: lease + lease / 32,
            grace: lease + lease / 32,
            silence: lease * 5,
            spread: lease / 5,
            patience: lease * 6,
        }
    }
}

impl Default for Timing {
    /// A lost node is replaced within 300 ms, and a pause of 150 ms costs nothing.
    fn default() -> Self {
        Timing::of(Duration::from_millis(200))
    }
}
