//! Waiting for what must become true, with patience for loaded machines.

use std::fmt::Display;
use std::time::Duration;

/// A slow disk and two busy processors: MariaDB's first start has been seen to take 10 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until `look` succeeds; panics with its last error when patience ends.
pub async fn eventually<T, E: Display>(what: &str, mut look: impl AsyncFnMut() -> Result<T, E>) -> T {
    let started = tokio::time::Instant::now();
    let mut pause = tokio::time::interval(Duration::from_millis(20));
    loop {
        pause.tick().await;
        match look().await {
            Ok(value) => return value,
            Err(error) => assert!(started.elapsed() < PATIENCE, "{what}: {error}"),
        }
    }
}
