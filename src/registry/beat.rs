//! Heartbeats: what one says, and how those of others are judged. Pure; `hearts` reads and writes them.
//!
//! Two rules belong together. A holder of an exclusive role stops `HOLD` after it *sent* its last heartbeat that was
//! acknowledged. Others may take over after `SILENCE` in which they saw no new heartbeat *and the registry answered them*. What
//! was sent was seen later than it was sent, and `SILENCE` is longer: so the one has stopped before another starts (I7).
//! Each side uses its own clock since boot; clocks need not agree, and may run apart by a sixth.
//!
//! A judge counts from the answer that showed the last heartbeat to the *question* that still found no other: an answer may be
//! long on its way, and what the holder does meanwhile is not in it. `ANSWERED` of the silence must lie in looks that were answered:
//! after an outage of the registry everybody gets the time to be heard again. That is for peace, not for safety.
//!
//! The rules speak of one unbroken tenure. A holder that has stopped must not go on under the same epoch: a judge may have found
//! it silent just before. It claims its seat anew, against the judge's guard (`agent::role`).

use std::time::Duration;

/// Between two heartbeats of a node. Well below `HOLD`: a storage that loses a copy takes no write for two seconds or so, and the last
/// heartbeat before must not be old by then.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// A node without an acknowledged heartbeat keeps its exclusive roles so long.
const HOLD: Duration = Duration::from_secs(3);
/// A node without a new heartbeat is taken for dead after it. Service must be back within five seconds: what remains is for the look, the
/// commit and the question whether anybody has the address.
pub const SILENCE: Duration = Duration::from_millis(3600);
/// How much of it the registry must have answered.
const ANSWERED: Duration = Duration::from_secs(2);
/// What counts as answered of the time between two looks: a judge that slept must not take its own sleep for the other's silence.
const LOOK_MAX: Duration = Duration::from_millis(1500);

/// Which heartbeat: it counts up within a boot of the module that sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Beat {
    pub boot: u64,
    pub count: u64,
    /// What the node is fit for; bits that `cluster::Fit` names.
    pub fit: u32,
}

/// Version of the format.
const FORMAT: &str = "2";
/// All are of one length, so that each one covers the one before.
pub const LENGTH: usize = 1 + 1 + 16 + 1 + 20 + 1 + 8 + 1;

impl Beat {
    pub fn encode(self) -> String {
        format!("{FORMAT} {:016x} {:020} {:08x}\n", self.boot, self.count, self.fit)
    }

    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes.get(..LENGTH)?).ok()?;
        let mut fields = text.strip_suffix('\n')?.split(' ');
        let (format, boot, count, fit) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let beat = Beat {
            boot: u64::from_str_radix(boot, 16).ok()?,
            count: count.parse().ok()?,
            fit: u32::from_str_radix(fit, 16).ok()?,
        };
        (format == FORMAT && fields.next().is_none() && beat.encode() == text).then_some(beat)
    }
}

/// What this node knows of another one's heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pulse {
    last: Option<Beat>,
    /// When the answer came that showed the last heartbeat first, or that there was none yet.
    since: Option<Duration>,
    /// Silence until the last question that was answered.
    silent: Duration,
    /// As much of it as the registry answered.
    answered: Duration,
    looked: Option<Duration>,
}

impl Pulse {
    /// The registry answered: this is the other's heartbeat, if it has one. When it was asked and when it answered: since our boot.
    pub fn saw(&mut self, beat: Option<Beat>, asked: Duration, answered: Duration) {
        let is_new = self.since.is_none() || (beat.is_some() && beat != self.last);
        if is_new {
            self.last = beat;
            self.since = Some(answered);
            self.silent = Duration::ZERO;
            self.answered = Duration::ZERO;
            self.looked = Some(answered);
            return;
        }
        let passed = |since: Option<Duration>| since.map_or(Duration::ZERO, |since| asked.saturating_sub(since));
        self.silent = passed(self.since);
        self.answered += passed(self.looked).min(LOOK_MAX);
        self.looked = Some(asked.max(self.looked.unwrap_or_default()));
    }

    /// The registry did not answer: until it does, nobody can be heard.
    pub fn saw_nothing(&mut self) {
        self.looked = None;
    }

    /// What the other one said last that it is fit for.
    pub fn fit(&self) -> u32 {
        self.last.map_or(0, |beat| beat.fit)
    }

    pub fn silent(&self) -> Duration {
        self.silent
    }

    /// Others may take what it holds.
    pub fn is_silent(&self) -> bool {
        self.silent >= SILENCE && self.answered >= ANSWERED
    }
}

/// Until when a node may act in its exclusive roles. `sent`: when a heartbeat was sent that was acknowledged.
pub fn holds_until(sent: Duration) -> Duration {
    sent.saturating_add(HOLD)
}

/// Whether this node may still act in its exclusive roles. `sent`: when its last acknowledged heartbeat was sent.
/// Both times since boot, a machine's sleep included.
pub fn may_hold(sent: Option<Duration>, now: Duration) -> bool {
    sent.is_some_and(|sent| now < holds_until(sent))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn beat(count: u64) -> Option<Beat> {
        Some(Beat {
            boot: 7,
            count,
            ..Beat::default()
        })
    }

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_beat_is_read_as_it_was_written() {
        for beat in [
            Beat::default(),
            Beat {
                boot: u64::MAX,
                count: u64::MAX,
                fit: u32::MAX,
            },
        ] {
            let text = beat.encode();
            assert_eq!(text.len(), LENGTH);
            assert_eq!(Beat::parse(text.as_bytes()), Some(beat));
            for end in 0..LENGTH {
                assert_eq!(Beat::parse(&text.as_bytes()[..end]), None);
            }
        }
        for bad in [
            "1 0000000000000007 00000000000000000001 00000000\n",
            "2 000000000000000g 00000000000000000001 00000000\n",
            "2 0000000000000007 00000000000000000001 0000000g\n",
        ] {
            assert_eq!(Beat::parse(bad.as_bytes()), None);
        }
    }

    /// A look that takes no time.
    fn saw(pulse: &mut Pulse, beat: Option<Beat>, now: f64) {
        pulse.saw(beat, seconds(now), seconds(now));
    }

    #[test]
    fn a_counter_that_stands_still_is_silent_after_a_while() {
        let mut pulse = Pulse::default();
        saw(&mut pulse, beat(1), 100.0);
        for step in 1..=3 {
            saw(&mut pulse, beat(1), 100.0 + f64::from(step));
            assert!(!pulse.is_silent());
        }
        saw(&mut pulse, beat(1), 104.0);
        assert!(pulse.is_silent());
        saw(&mut pulse, beat(2), 105.0);
        assert!(!pulse.is_silent());
    }

    #[test]
    fn a_node_that_never_beat_is_silent_too() {
        let mut pulse = Pulse::default();
        for step in 0..=4 {
            saw(&mut pulse, None, f64::from(step));
        }
        assert!(pulse.is_silent());
    }

    #[test]
    fn after_an_outage_and_after_the_judges_own_sleep_everybody_may_be_heard_first() {
        let mut pulse = Pulse::default();
        saw(&mut pulse, beat(1), 0.0);
        pulse.saw_nothing();
        saw(&mut pulse, beat(1), 60.0);
        assert!(!pulse.is_silent());
        saw(&mut pulse, beat(1), 600.0);
        assert!(!pulse.is_silent());
        saw(&mut pulse, beat(1), 601.0);
        assert!(pulse.is_silent());
    }

    #[test]
    fn an_answer_that_was_long_on_its_way_is_no_silence() {
        let mut pulse = Pulse::default();
        pulse.saw(beat(1), seconds(0.0), seconds(1.0));
        pulse.saw(beat(1), seconds(2.0), seconds(3.0));
        pulse.saw(beat(1), seconds(4.5), seconds(9.0));
        assert_eq!(pulse.silent(), seconds(3.5));
        assert!(!pulse.is_silent());
    }

    #[test]
    fn another_boot_is_a_sign_of_life() {
        let mut pulse = Pulse::default();
        saw(&mut pulse, beat(9), 0.0);
        saw(&mut pulse, beat(9), 1.0);
        let reborn = Beat {
            boot: 8,
            count: 1,
            ..Beat::default()
        };
        saw(&mut pulse, Some(reborn), 2.0);
        assert_eq!(pulse.silent(), Duration::ZERO);
    }

    proptest! {
        /// A node beats, then no more. Whenever its judge finds it silent, it has stopped by its own rule.
        #[test]
        fn the_holder_stops_before_another_starts(
            beats in prop::collection::vec((0.5_f64..2.0, 0.0_f64..0.9), 1..20),
            looks in prop::collection::vec((0.01_f64..3.0, 0.0_f64..1.5, 0.0_f64..1.0, prop::bool::ANY), 1..60),
            offset in 0.0_f64..1000.0,
        ) {
            // When each heartbeat was sent, and when it could be seen.
            let (mut sent, mut history) = (0.0, Vec::new());
            for (pause, delay) in beats {
                sent += pause;
                history.push((sent, sent + delay));
            }
            let (mut now, mut pulse) = (0.0, Pulse::default());
            for (pause, takes, share, is_answered) in looks {
                let asked = now + pause;
                now = asked + takes;
                if !is_answered {
                    pulse.saw_nothing();
                    continue;
                }
                // Somewhere on the way it is read. The judge's clock has another zero.
                let read = asked + takes * share;
                let seen = history.iter().filter(|(_, seen)| *seen <= read).count();
                pulse.saw(beat(seen as u64), seconds(asked + offset), seconds(now + offset));
                if pulse.is_silent() {
                    // Acknowledged only when it can be seen.
                    let acknowledged = history.iter().filter(|(_, seen)| *seen <= read).map(|(sent, _)| *sent).next_back();
                    prop_assert!(!may_hold(acknowledged.map(seconds), seconds(read)), "{read}");
                }
            }
        }
    }
}
