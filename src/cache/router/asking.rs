//! What other nodes are asked for in one round: a message for each of them, all under way at once.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;

use super::order::{OnKey, Order, Work};
use super::patience::Patience;
use crate::base::BoxFuture;
use crate::cache::peer::bytes::Reader;
use crate::cache::peer::message::{self, Ask};
use crate::cache::peer::{ASK, Epoch, Space};
use crate::net::mesh::{Call, CallError, Class as Line, Mesh, Name};

/// From here on a message goes over the line for bulk, so that a client that asks for much holds up no others.
const HEAVY: usize = 64 << 10;

/// Bytes of commands in one message; one more may be added. Below the largest body of the mesh with the largest item.
const ASK_MAX: usize = 256 << 10;
/// Orders of one client that are nearly never exceeded.
const MANY: usize = 16;

/// What one node is asked for, by the orders' places.
pub struct Share {
    pub name: Name,
    /// Small, because a message of many keys has one for each.
    places: Vec<u16>,
    ask: Ask,
}

impl Share {
    /// `most`: orders that it may be asked for.
    pub fn new(name: Name, epoch: Epoch, most: usize) -> Self {
        Share {
            name,
            places: Vec::with_capacity(most.min(MANY)),
            ask: Ask::new(epoch),
        }
    }

    /// Whether the order at that place goes with it: what does not is for another round.
    pub fn add(&mut self, place: usize, space: Space, on_key: &OnKey) -> bool {
        let place = u16::try_from(place).ok().filter(|_| self.ask.size() < ASK_MAX);
        if let Some(place) = place {
            on_key.put(space, &mut self.ask);
            self.places.push(place);
        }
        place.is_some()
    }

    /// Sends it, or waits for a connection, or for room on it.
    pub fn begin(self, mesh: &Mesh, deadline: Instant) -> Asking {
        let peer = mesh.peer(&self.name);
        let line = if self.ask.size() >= HEAVY {
            Line::Bulk
        } else {
            Line::Calls
        };
        let way = match peer.begin(line, ASK, self.ask.finish()) {
            Ok(call) => Way::Begun(call),
            Err(body) => {
                let within = deadline.saturating_duration_since(Instant::now());
                Way::Waiting(Box::pin(async move { peer.call(line, ASK, body, within).await }))
            }
        };
        Asking {
            name: self.name,
            places: self.places,
            way,
        }
    }
}

/// A node that is asked.
pub struct Asking {
    name: Name,
    places: Vec<u16>,
    way: Way,
}

enum Way {
    /// What nearly all are: without a future and a timer of its own.
    Begun(Call),
    Waiting(BoxFuture<'static, Result<Bytes, CallError>>),
    Over(Option<Bytes>),
}

impl Asking {
    fn is_begun(&self) -> bool {
        matches!(self.way, Way::Begun(_))
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let result = match &mut self.way {
            Way::Begun(call) => ready!(Pin::new(call).poll(cx)),
            Way::Waiting(call) => ready!(call.as_mut().poll(cx)),
            Way::Over(_) => return Poll::Ready(()),
        };
        let told = result.inspect_err(|error| debug!(node = %self.name, %error, "an owner does not answer"));
        self.way = Way::Over(told.ok());
        Poll::Ready(())
    }

    /// Gives each order its reply, as far as there is one.
    pub fn tell(self, orders: &mut [Order]) {
        let Way::Over(Some(bytes)) = self.way else { return };
        let mut from = Reader(&bytes);
        for place in self.places {
            let Some(order) = orders.get_mut(usize::from(place)) else {
                continue;
            };
            let Work::Key(on_key) = &mut order.work else { continue };
            match message::answer(&mut from, || on_key.take_name(), &bytes) {
                Ok(reply) => order.reply = reply,
                // What follows cannot be told apart; it is asked again.
                Err(error) => {
                    debug!(%error, "an owner's answer");
                    return;
                }
            }
        }
    }
}

/// Until all have answered, or the time is up, or another table came, by which other nodes may be the ones to ask: then `true`.
pub async fn answers(
    asks: &mut [Asking],
    (patience, deadline): (&mut Patience, Instant),
    changed: &mut watch::Receiver<u64>,
) -> bool {
    let all = poll_fn(|cx| {
        let mut is_open = false;
        // The last one was sent last: replies to the others, which are likely to come before, shall wake nobody.
        for asking in asks.iter_mut().rev() {
            if !is_open || !asking.is_begun() {
                is_open |= asking.poll(cx).is_pending();
            }
        }
        match is_open {
            false => Poll::Ready(()),
            true => patience.poll_over(deadline, cx),
        }
    });
    let is_changed = tokio::select! {
        biased;
        () = all => false,
        _ = changed.changed() => true,
    };
    // Those behind one that has not answered were not looked at, and may have.
    poll_fn(|cx| {
        asks.iter_mut().for_each(|asking| _ = asking.poll(cx));
        Poll::Ready(())
    })
    .await;
    is_changed
}
