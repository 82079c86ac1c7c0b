//! What an operator may follow: every message as the hub delivers it. Costs nothing while nobody does.

use std::sync::Arc;

use tokio::sync::broadcast::{self, Receiver, Sender};

use super::channel::Address;
use super::message::Message;

/// Messages that a follower may be behind; then it is told how many it missed.
const BEHIND: usize = 1024;

/// One message on its way.
#[derive(Debug)]
pub struct Told {
    pub message: Arc<Message>,
    pub receivers: Vec<Address>,
    /// Clients of this node whose queues it was laid into.
    pub reached: usize,
}

pub struct Tap(Sender<Arc<Told>>);

impl Default for Tap {
    fn default() -> Self {
        Tap(broadcast::channel(BEHIND).0)
    }
}

impl Tap {
    pub fn follow(&self) -> Receiver<Arc<Told>> {
        self.0.subscribe()
    }

    pub fn tell(&self, message: &Arc<Message>, receivers: &[Address], reached: usize) {
        if self.0.receiver_count() == 0 {
            return;
        }
        // Who has just left does not mind.
        let _ = self.0.send(Arc::new(Told {
            message: message.clone(),
            receivers: receivers.to_vec(),
            reached,
        }));
    }
}
