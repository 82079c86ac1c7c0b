//! `Silence`: how long a target may say nothing. One timer per connection to it, looked at only while we wait for the target.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

pub struct Silence {
    limit: Duration,
    /// Since when we wait; `None` between two waits, when the client or we are at work.
    since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    pub fn new(limit: Duration) -> Self {
        Silence {
            limit,
            since: None,
            timer: None,
        }
    }

    /// The target moved, or is not the one that we wait for.
    pub fn broken(&mut self) {
        self.since = None;
    }

    /// Ready when the target was silent for the whole limit since the last `broken`.
    /// The timer is moved only when it fires, so that a busy stream never touches it, nor does the next request.
    pub fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = *self.since.get_or_insert_with(Instant::now) + self.limit;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::poll_fn;

    #[tokio::test(start_paused = true)]
    async fn only_waiting_counts() {
        let limit = Duration::from_secs(10);
        let mut silence = Silence::new(limit);
        let once = |silence: &mut Silence| {
            let mut cx = Context::from_waker(std::task::Waker::noop());
            silence.poll_over(&mut cx).is_ready()
        };
        assert!(!once(&mut silence));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert!(!once(&mut silence));
        silence.broken();
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(!once(&mut silence), "the time before this wait is not the target's");
        let started = Instant::now();
        poll_fn(|cx| silence.poll_over(cx)).await;
        assert!(started.elapsed() >= limit);
    }
}
