//! The feed socket: reports in, one JSON line each. Only root and the module user may open it.

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio_util::codec::{FramedRead, FramedWrite, LinesCodec};
use tracing::debug;

use super::board::Board;
use super::report::Report;
use crate::base::Scope;
use crate::base::backoff::Backoff;
use crate::net::serve::serve;

/// One report with a module's whole metrics text; beyond it the sender is cut.
const LONGEST_REPORT: usize = 1 << 20;
/// The supervisor and seven modules, twice over for successors that overlap.
const SENDERS: usize = 32;
/// Delay until the first new attempt to reach the agent, and the longest.
const RETRY: (std::time::Duration, std::time::Duration) =
    (std::time::Duration::from_millis(100), std::time::Duration::from_secs(1));

/// Takes reports onto the board until the scope drains.
pub fn listen(listener: StdListener, board: Arc<Board>, scope: Scope) -> io::Result<()> {
    let listener = UnixListener::from_std(listener)?;
    let permits = Arc::new(Semaphore::new(SENDERS));
    let connections = scope.clone();
    scope.spawn(serve(listener, permits, connections.clone(), move |stream, _| {
        receive(stream, board.clone(), connections.clone())
    }));
    Ok(())
}

async fn receive(stream: UnixStream, board: Arc<Board>, scope: Scope) {
    let mut lines = FramedRead::new(stream, LinesCodec::new_with_max_length(LONGEST_REPORT));
    loop {
        let line = tokio::select! {
            () = scope.draining() => return,
            line = lines.next() => line,
        };
        let Some(Ok(line)) = line else { return };
        match serde_json::from_str(&line) {
            Ok(report) => board.post(report),
            Err(error) => {
                debug!(%error, "unreadable report");
                return;
            }
        }
    }
}

/// Sends each new report to the agent until the scope drains; connects again when the agent was replaced.
pub async fn send(socket: &Path, mut reports: watch::Receiver<Report>, scope: &Scope) {
    let mut retry = Backoff::new(RETRY.0, RETRY.1);
    while !scope.is_draining() {
        if let Ok(stream) = UnixStream::connect(socket).await {
            retry.reset();
            let mut lines = FramedWrite::new(stream, LinesCodec::new());
            loop {
                let line = serde_json::to_string(&*reports.borrow_and_update()).expect("reports are plain data");
                if lines.send(line).await.is_err() {
                    break;
                }
                tokio::select! {
                    () = scope.draining() => return,
                    changed = reports.changed() => if changed.is_err() { return },
                }
            }
        }
        tokio::select! {
            () = scope.draining() => return,
            () = tokio::time::sleep(retry.delay()) => {}
        }
    }
}
