//! Which target gets a request. Pure: the targets come in as plain values, chance as a number.
//!
//! Two targets are drawn and the less loaded one is taken: nearly as even as to look at all of them, and fronts that know the same
//! do not all run to the same one. A local target wins while it is hardly more loaded, because it saves a hop.

/// A target as the choice sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    pub is_local: bool,
    pub tier: Tier,
    /// Requests that it works on, as far as is known here.
    pub in_flight: usize,
    /// How many it can work on at a time.
    pub capacity: usize,
    /// The share of its capacity that it is trusted with, above 0: below 1 for a while after it came back.
    pub share: f64,
}

/// How much is to be hoped of a target. A lower tier is taken only when the one above is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tier {
    Ready,
    /// It works, and shall get nothing new.
    Draining,
    /// It failed lately, is silent, or is said to be unfit.
    Doubtful,
}

/// How much more loaded, in shares of a capacity, the local target may be. A hop costs a fraction of a millisecond, a page of a
/// portal fifty or more: a larger slack would leave other nodes idle for nothing.
const SLACK: f64 = 0.125;

impl Candidate {
    fn load(&self) -> f64 {
        (self.in_flight as f64 + 1.0) / (self.capacity.max(1) as f64 * self.share)
    }
}

/// The place of the chosen one; `None` without candidates.
pub fn choose(candidates: &[Candidate], random: u64) -> Option<usize> {
    let tier = best_tier(candidates)?;
    let local = candidates.iter().position(|one| one.is_local && one.tier == tier);
    if let (Tier::Doubtful, Some(local)) = (tier, local) {
        // Its failure is at least known at once.
        return Some(local);
    }
    let best = less_loaded_of_two(candidates, tier, random)?;
    let Some(local) = local else { return Some(best) };
    let load = |place: usize| candidates.get(place).map_or(f64::INFINITY, Candidate::load);
    Some(if load(local) <= load(best) + SLACK { local } else { best })
}

pub fn best_tier(candidates: &[Candidate]) -> Option<Tier> {
    candidates.iter().map(|one| one.tier).min()
}

fn less_loaded_of_two(candidates: &[Candidate], tier: Tier, random: u64) -> Option<usize> {
    let among = || (0..).zip(candidates).filter(|(_, one)| one.tier == tier);
    let count = among().count();
    let (high, low) = ((random >> 32) as usize, random as u32 as usize);
    let first = low.checked_rem(count)?;
    let (place, one) = among().nth(first)?;
    // Another one than the first, each with the same chance.
    let Some(second) = high.checked_rem(count - 1) else {
        return Some(place);
    };
    let (other, two) = among().nth(second + usize::from(second >= first))?;
    Some(if two.load() < one.load() { other } else { place })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(in_flight: usize) -> Candidate {
        Candidate {
            is_local: false,
            tier: Tier::Ready,
            in_flight,
            capacity: 8,
            share: 1.0,
        }
    }

    fn local(in_flight: usize) -> Candidate {
        Candidate {
            is_local: true,
            ..remote(in_flight)
        }
    }

    /// A sequence of numbers without order, the same each time.
    fn chances() -> impl Iterator<Item = u64> {
        (1..u64::MAX).map(|count| {
            count
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .rotate_left(29)
                .wrapping_mul(0xbf58_476d_1ce4_e5b9)
        })
    }

    /// How many of so many requests, none of which ends, each one gets.
    fn spread(mut candidates: Vec<Candidate>, requests: usize) -> Vec<usize> {
        let before: Vec<usize> = candidates.iter().map(|one| one.in_flight).collect();
        for random in chances().take(requests) {
            let chosen = choose(&candidates, random).expect("there are some");
            candidates[chosen].in_flight += 1;
        }
        candidates
            .iter()
            .zip(before)
            .map(|(one, before)| one.in_flight - before)
            .collect()
    }

    #[test]
    fn nothing_is_chosen_from_nothing_and_the_only_one_always() {
        assert_eq!(choose(&[], 7), None);
        for random in chances().take(100) {
            assert_eq!(choose(&[remote(900)], random), Some(0));
        }
    }

    #[test]
    fn local_is_preferred_while_it_is_hardly_more_loaded() {
        for random in chances().take(100) {
            assert_eq!(
                choose(&[remote(0), local(1)], random),
                Some(1),
                "a slack of an eighth of 8"
            );
            assert_eq!(choose(&[remote(0), local(2)], random), Some(0));
            assert_eq!(choose(&[remote(3), local(2), remote(2)], random), Some(1));
        }
    }

    #[test]
    fn load_is_spread_evenly_and_by_capacity() {
        let even = spread(vec![local(0), remote(0), remote(0), remote(0)], 4000);
        assert!(even.iter().all(|got| (990..=1010).contains(got)), "{even:?}");
        let large = Candidate {
            capacity: 24,
            ..remote(0)
        };
        let uneven = spread(vec![local(0), large], 4000);
        assert!((2990..=3010).contains(&uneven[1]), "{uneven:?}");
    }

    #[test]
    fn each_pair_is_drawn() {
        let loads = [remote(3), remote(2), remote(1)];
        let mut counts = [0; 3];
        for random in chances().take(9000) {
            counts[choose(&loads, random).expect("there are some")] += 1;
        }
        // The most loaded never wins; the least wins two pairs of three.
        assert_eq!(counts[0], 0);
        assert!((2700..=3300).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn one_that_came_back_is_warmed_up() {
        let cold = Candidate {
            share: 0.25,
            ..remote(0)
        };
        let got = spread(vec![cold, remote(0)], 1000);
        assert!((190..=210).contains(&got[0]), "{got:?}");
    }

    #[test]
    fn lower_tiers_serve_only_when_nothing_better_is_there() {
        let of = |tier, one| Candidate { tier, ..one };
        let (ready, draining, doubtful) = (Tier::Ready, Tier::Draining, Tier::Doubtful);
        for random in chances().take(100) {
            let all = [of(doubtful, local(0)), of(draining, local(0)), of(ready, remote(99))];
            assert_eq!(choose(&all, random), Some(2));
            assert_eq!(choose(&all[..2], random), Some(1));
            let dark = [of(doubtful, remote(0)), of(doubtful, local(99))];
            assert_eq!(choose(&dark, random), Some(1), "whose failure is known at once");
        }
    }
}
