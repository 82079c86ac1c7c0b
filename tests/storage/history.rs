//! What the clients did and saw: every call with its start, its end and its outcome, and what must not have been seen.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

/// A call, from its first sending to its answer.
#[derive(Clone, Debug)]
pub struct Call {
    pub client: String,
    /// Whose door was asked.
    pub door: usize,
    pub procedure: &'static str,
    pub target: String,
    pub start: Duration,
    pub end: Duration,
    /// How often it was sent.
    pub sent: u32,
    /// How often the door told to come later.
    pub later: u32,
    /// Of NFS; 0: done.
    pub status: u32,
}

impl Call {
    pub fn is_change(&self) -> bool {
        !matches!(self.procedure, "READ" | "LOOKUP" | "GETATTR" | "READDIR")
    }
}

pub struct History {
    origin: Instant,
    calls: Mutex<Vec<Call>>,
    violations: Mutex<Vec<String>>,
    /// Refusals for want of room.
    pub full: AtomicU64,
    /// Calls that ended with an error of input or output.
    pub failed: AtomicU64,
}

impl History {
    pub fn new() -> Self {
        History {
            origin: Instant::now(),
            calls: Mutex::default(),
            violations: Mutex::default(),
            full: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }
    }

    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    pub fn add(&self, call: Call) {
        self.lock().push(call);
    }

    pub fn lock(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap()
    }

    /// Something that must not be. Reported at the end, so that one run shows all.
    pub fn violation(&self, what: String) {
        let at = self.now().as_secs_f32();
        println!("VIOLATION at {at:.3} s: {what}");
        self.violations.lock().unwrap().push(format!("{at:.3} s: {what}"));
    }

    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    pub fn refusals(&self) -> u64 {
        self.full.load(Ordering::Relaxed)
    }

    /// Calls of which the door said that their outcome is not known.
    pub fn unknown(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Changes that were answered, of clients of these doors, within a time.
    pub fn changes(&self, doors: &[usize], from: Duration, to: Duration) -> usize {
        let is_wanted = |call: &&Call| {
            call.is_change() && call.status == 0 && doors.contains(&call.door) && call.end >= from && call.end < to
        };
        self.lock().iter().filter(is_wanted).count()
    }

    /// For each client that writes at these doors: the longest time between two answered changes that began within a time.
    pub fn stalls(&self, doors: &[usize], from: Duration, to: Duration) -> Vec<Duration> {
        let calls = self.lock();
        let mut clients: std::collections::BTreeMap<&str, (Duration, Duration)> = Default::default();
        for call in calls
            .iter()
            .filter(|call| call.is_change() && doors.contains(&call.door))
        {
            let (last, longest) = clients.entry(&call.client).or_insert((call.start, Duration::ZERO));
            // The gap begins where the fault may have made it: not before.
            let began = (*last).max(from);
            if *last < to && call.end > from {
                *longest = (*longest).max(call.end.saturating_sub(began));
            }
            *last = call.end;
        }
        let longest = clients.into_values().map(|(_, longest)| longest);
        longest.filter(|longest| !longest.is_zero()).collect()
    }

    /// One line for each call, for a look at what went wrong.
    pub fn text(&self) -> String {
        let line = |call: &Call| {
            format!(
                "{:.4} {:.4} {} {} {} sent {} later {} status {}\n",
                call.start.as_secs_f64(),
                call.end.as_secs_f64(),
                call.client,
                call.procedure,
                call.target,
                call.sent,
                call.later,
                call.status
            )
        };
        self.lock().iter().map(line).collect()
    }
}

/// Smallest, median, 99th percentile and largest, in milliseconds.
pub fn distribution(times: &[Duration]) -> String {
    let mut times: Vec<_> = times.iter().map(Duration::as_millis).collect();
    times.sort_unstable();
    let Some(last) = times.len().checked_sub(1) else {
        return "none".into();
    };
    let at = |share: f64| times[(last as f64 * share).round() as usize];
    format!("{:>5} {:>5} {:>5} {:>5}", at(0.0), at(0.5), at(0.99), at(1.0))
}
