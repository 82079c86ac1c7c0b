//! Which thread reads the device. Were it several, the kernel would wake another one for each request; so the others wait here, until
//! the one that reads must wait for room.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};

/// Clones are the same.
#[derive(Clone, Default)]
pub struct Turn(Arc<Inner>);

#[derive(Default)]
struct Inner {
    reader: Mutex<Option<ThreadId>>,
    is_free: Condvar,
}

/// This thread reads in its turn; when this is dropped, another one can.
pub struct Reading(Turn);

impl Turn {
    fn reader(&self) -> MutexGuard<'_, Option<ThreadId>> {
        self.0.reader.lock().expect("no holder of this lock panics")
    }

    pub fn join(&self) -> Reading {
        Reading(self.clone())
    }

    /// Another one reads, if it was this thread that did.
    fn pass(&self) {
        let mut reader = self.reader();
        if *reader == Some(thread::current().id()) {
            *reader = None;
            self.0.is_free.notify_one();
        }
    }

    /// Waits until there is something; meanwhile another thread reads.
    pub fn wait_for<'a, T>(&self, freed: &Condvar, free: MutexGuard<'a, Vec<T>>) -> MutexGuard<'a, Vec<T>> {
        if free.is_empty() {
            self.pass();
        }
        let free = freed.wait_while(free, |free| free.is_empty());
        free.expect("no holder of this lock panics")
    }
}

impl Reading {
    /// Waits until no other thread reads.
    pub fn take(&self) {
        let me = thread::current().id();
        let reader = self.0.reader();
        let is_another = |reader: &mut Option<ThreadId>| reader.is_some_and(|reader| reader != me);
        let reader = self.0.0.is_free.wait_while(reader, is_another);
        *reader.expect("no holder of this lock panics") = Some(me);
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.pass();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn another_reads_while_one_waits_for_room_and_when_it_ends() {
        let turn = Turn::default();
        let (room, freed) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Condvar::new()));
        let (tell, told) = channel();
        let reading = turn.join();
        reading.take();
        reading.take();
        let second = thread::spawn({
            let (turn, tell) = (turn.clone(), tell.clone());
            move || {
                let reading = turn.join();
                reading.take();
                tell.send("second").unwrap();
            }
        });
        assert!(told.try_recv().is_err());
        let filler = thread::spawn({
            let (room, freed) = (room.clone(), freed.clone());
            move || {
                // There is room when the second has read.
                assert_eq!(told.recv(), Ok("second"));
                room.lock().unwrap().push(7);
                freed.notify_one();
            }
        });
        assert_eq!(turn.wait_for(&freed, room.lock().unwrap()).pop(), Some(7));
        second.join().unwrap();
        filler.join().unwrap();
        // It ended.
        reading.take();
    }
}
