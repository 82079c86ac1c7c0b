//! A reader looks for the next request a while before it sleeps: a program that asks for one thing after another (open, lock, unlock,
//! close) asks again sooner than the machine wakes a thread, most of all a virtual one. Only as long as that comes true.

use std::thread::available_parallelism;
use std::time::{Duration, Instant};

/// How long it looks.
const LONGEST: Duration = Duration::from_micros(50);
/// How often in vain, one after another, until it sleeps at once.
const PATIENCE: u32 = 16;

pub struct Spin {
    /// So often it may be in vain.
    left: u32,
    patience: u32,
}

impl Spin {
    /// With one processor nobody could ask while it looks.
    pub fn new() -> Self {
        let has_others = available_parallelism().is_ok_and(|processors| processors.get() > 1);
        Spin {
            left: 0,
            patience: if has_others { PATIENCE } else { 0 },
        }
    }

    /// Looks for a while, if that is worth it.
    pub fn look(&mut self, is_there: impl Fn() -> bool) {
        if self.left == 0 {
            return;
        }
        let started = Instant::now();
        while !is_there() {
            if started.elapsed() > LONGEST {
                self.left -= 1;
                return;
            }
            std::hint::spin_loop();
        }
        self.left = self.patience;
    }

    /// It slept so long.
    pub fn slept(&mut self, time: Duration) {
        if time < LONGEST {
            self.left = self.patience;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn it_looks_only_while_requests_come_soon() {
        let mut spin = Spin { left: 0, patience: 2 };
        let looked = Cell::new(0);
        let vain = || {
            looked.set(looked.get() + 1);
            false
        };
        spin.look(vain);
        assert_eq!(looked.take(), 0, "nothing has come soon yet");
        spin.slept(LONGEST * 2);
        spin.look(vain);
        assert_eq!(looked.take(), 0);
        spin.slept(LONGEST / 2);
        spin.look(vain);
        assert!(looked.take() > 0);
        spin.look(|| true);
        spin.look(vain);
        spin.look(vain);
        assert!(looked.take() > 1, "what came soon counts anew");
        spin.look(vain);
        assert_eq!(looked.take(), 0);
    }
}
