//! How long a client waits. Its timer stays set from one wait to the next and is moved when it rings too early: setting one costs more
//! than asking another node.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep, sleep_until};

/// One client's.
#[derive(Default)]
pub struct Patience {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    /// Ready at `deadline`, or later.
    pub fn poll_over(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_wait_ends_at_its_own_time() {
        let mut patience = Patience::default();
        let start = Instant::now();
        // Later than the one before, with the timer still set; earlier; and after it has rung.
        for (at, end) in [(0, 900), (300, 1500), (1500, 1600), (1700, 1750)] {
            let (at, end) = (Duration::from_millis(at), Duration::from_millis(end));
            tokio::time::sleep_until(start + at).await;
            poll_fn(|cx| patience.poll_over(start + end, cx)).await;
            let over = start.elapsed();
            assert!(
                over >= end && over < end + Duration::from_millis(5),
                "{over:?} instead of {end:?}"
            );
        }
    }
}
