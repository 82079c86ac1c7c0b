//! What every simulation by seed needs: the seeds to run, and numbers that come from one.

use std::io::Write;
use std::ops::Range;
use std::time::Duration;

/// SplitMix64: the same numbers from the same seed, everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    pub fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }

    pub fn is_one_of(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    /// Up to that long.
    pub fn time(&mut self, most: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(most.as_micros()).unwrap() + 1))
    }
}

/// The seeds that `SEED` or `SEEDS` names, as `7` or `100..200`; by itself the first few.
#[allow(clippy::disallowed_methods)]
pub fn seeds(few: u64) -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a seed is a number");
    match (std::env::var("SEED"), std::env::var("SEEDS")) {
        (Ok(seed), _) if !seed.is_empty() => number(&seed)..number(&seed) + 1,
        (_, Ok(seeds)) if !seeds.is_empty() => {
            let (first, end) = seeds.split_once("..").expect("seeds are a range");
            number(first)..number(end)
        }
        _ => 1..few + 1,
    }
}

/// A line of a run, past the harness.
pub fn say(what: std::fmt::Arguments<'_>) {
    std::io::stderr().write_fmt(what).unwrap();
}
