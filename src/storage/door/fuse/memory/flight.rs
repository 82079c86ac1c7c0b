//! Requests under way: where the kernel puts them, and where they wait.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::area::{Area, PAGE};
use super::turn::Turn;
use crate::storage::call::DATA_MAX;

/// Room for the largest request: a WRITE of `DATA_MAX` with its head.
pub const LANDING: usize = DATA_MAX + 2 * PAGE;
/// Room for a request without data: two names and a link's target.
const FLIGHT: usize = 2 * PAGE;
const FLIGHTS: usize = 1024;
pub const LENGTH: usize = FLIGHTS * FLIGHT;

/// Notes of requests that wait. Clones are the same.
#[derive(Clone)]
pub struct Flights(Arc<Inner>);

struct Inner {
    free: Mutex<Vec<Area>>,
    freed: Condvar,
    turn: Turn,
}

/// A request's note. One that is dropped and not struck out is left for the process that comes next.
pub struct Flight {
    area: Area,
    pool: Flights,
}

impl Flights {
    pub(super) fn new(all: &mut Area, turn: Turn) -> Self {
        Flights(Arc::new(Inner {
            free: Mutex::new(all.cut_many(FLIGHTS, FLIGHT)),
            freed: Condvar::new(),
            turn,
        }))
    }

    fn free(&self) -> MutexGuard<'_, Vec<Area>> {
        self.0.free.lock().expect("no holder of this lock panics")
    }

    /// Notes of the process before: their bytes, and the notes themselves.
    pub fn left(&self) -> Vec<(Vec<u8>, Flight)> {
        let mut free = self.free();
        let (left, unused): (Vec<_>, Vec<_>) = free.drain(..).partition(|area| noted(area.bytes()).is_some());
        *free = unused;
        let note = |area: Area| {
            let bytes = noted(area.bytes()).unwrap_or_default().to_vec();
            let flight = Flight {
                area,
                pool: self.clone(),
            };
            (bytes, flight)
        };
        left.into_iter().map(note).collect()
    }

    /// Notes a request; waits, with the whole thread, while there is no room. `None`: it is longer than any that waits.
    pub fn note(&self, request: &[u8]) -> Option<Flight> {
        if request.len() > FLIGHT {
            return None;
        }
        let mut area = self.0.turn.wait_for(&self.0.freed, self.free()).pop()?;
        let (first, rest) = request.split_at(4);
        area.put(4, rest);
        // Its length, last: from now on it counts.
        area.put(0, first);
        Some(Flight {
            area,
            pool: self.clone(),
        })
    }
}

impl Flight {
    /// It was answered.
    pub fn strike(mut self) {
        strike(&mut self.area);
        self.pool.free().push(self.area);
        self.pool.0.freed.notify_one();
    }
}

/// A request that lies here whole.
pub fn noted(bytes: &[u8]) -> Option<&[u8]> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    bytes
        .get(..usize::try_from(length).ok()?)
        .filter(|bytes| !bytes.is_empty())
}

/// It was answered, or lies elsewhere by now.
pub fn strike(area: &mut Area) {
    area.put(0, &[0; 4]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};

    fn request(number: u8) -> Vec<u8> {
        let mut bytes = vec![number; 50];
        bytes[..4].copy_from_slice(&50u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn what_was_not_struck_out_is_left_for_the_next() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let open = || {
            Flights::new(
                &mut Area::map(memory.try_clone().unwrap(), LENGTH).unwrap(),
                Turn::default(),
            )
        };
        let flights = open();
        assert!(flights.left().is_empty());
        let (first, second) = (flights.note(&request(1)).unwrap(), flights.note(&request(2)).unwrap());
        first.strike();
        drop(second);
        let (bytes, flight) = open().left().pop().unwrap();
        assert_eq!(bytes, request(2));
        flight.strike();
        assert!(open().left().is_empty());
    }

    #[test]
    fn one_that_has_no_room_waits_and_a_long_one_is_refused() {
        let memory = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        let flights = Flights::new(&mut Area::map(memory, LENGTH).unwrap(), Turn::default());
        assert!(flights.note(&[1; FLIGHT + 1]).is_none());
        let mut all: Vec<_> = (0..FLIGHTS).map(|_| flights.note(&request(1)).unwrap()).collect();
        let waiting = flights.clone();
        let waiter = std::thread::spawn(move || waiting.note(&request(2)).is_some());
        all.pop().unwrap().strike();
        assert!(waiter.join().unwrap());
    }
}
