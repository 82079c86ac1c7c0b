//! One WebSocket: messages out, requests in, signs of life both ways.
//!
//! The first message goes at once; what follows within `GAP` goes together (but not in generation 5), unless it becomes much. A client
//! that takes nothing is cut off by its queue or by `PATIENCE`; one that has vanished, by the pings. Both may come back and ask for
//! what they missed.
//!
//! Most clients do nothing most of the time, and there are many: what is rare is boxed, and nothing is kept ready for it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tracing::debug;

use super::desk::Desk;
use super::frame::websocket::{self, Fault, Opcode, Said};
use super::frame::{self, Dialect};
use super::hub::Subscription;
use super::line::{Broken, Line};
use super::message::Sender;
use super::publish::By;
use super::queue::{Ended, Queue};
use super::refusal::Refusal;
use crate::base::Scope;

/// Between two frames of messages.
const GAP: Duration = Duration::from_millis(400);
/// So many messages do not wait for the gap's end: the queue is bounded.
const PRESSING: usize = 64;
/// For a client to take one frame.
const PATIENCE: Duration = Duration::from_secs(20);
/// Requests of one client within a second; further ones wait.
const REQUESTS: u32 = 50;
/// Of a server that ends (RFC 6455 §7.4.1), and of a client that ends without saying why.
const AWAY: u16 = 1001;
const NORMAL: u16 = 1000;

/// Pings that may go unanswered, and how often they are sent.
fn pulse(dialect: Dialect) -> (u32, Duration) {
    match dialect {
        // Clients give up 20 seconds after the last ping.
        Dialect::Rpc => (3, Duration::from_secs(9)),
        Dialect::Text | Dialect::Protobuf => (1, Duration::from_secs(120)),
    }
}

/// Why a connection ends.
#[derive(Debug)]
pub enum End {
    /// The client went, or was gone.
    Gone,
    /// It said so, and why.
    Closed(Option<u16>),
    /// It takes nothing, or too little.
    Slow,
    Crowded,
    Silent,
    /// This process ends.
    Drained,
    Refused(Refusal),
    Broken(Broken),
}

/// Tells the client why it may not listen.
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut line: Line<S>, refusal: Refusal) {
    line.farewell(refusal.code(), &refusal.to_string()).await;
}

/// A listening client.
pub struct Session<S> {
    line: Line<S>,
    subscription: Subscription,
    desk: Arc<Desk>,
    dialect: Dialect,
    sender: Option<Sender>,
    /// Until then messages gather.
    quiet_until: Option<Instant>,
    /// Runs while there are some.
    gathering: Option<Pin<Box<Sleep>>>,
    /// Pings since the last sign of life.
    unanswered: u32,
    pace: Pace,
}

/// Requests in the second that began then.
struct Pace {
    since: Instant,
    count: u32,
}

/// What happened next.
enum Event {
    /// Messages wait, or the queue is over.
    Waiting,
    /// They have waited long enough, or are many.
    Gathered,
    Tick,
    Said(Result<Option<Said>, Broken>),
    Drain,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Session<S> {
    pub fn new(
        line: Line<S>,
        subscription: Subscription,
        desk: Arc<Desk>,
        dialect: Dialect,
        sender: Option<Sender>,
    ) -> Self {
        Session {
            line,
            subscription,
            desk,
            dialect,
            sender,
            quiet_until: None,
            gathering: None,
            unanswered: 0,
            pace: Pace {
                since: Instant::now(),
                count: 0,
            },
        }
    }

    /// Until one side ends it, or the scope drains. `leave` is to follow.
    pub async fn run(&mut self, scope: Scope) -> End {
        let (_, period) = pulse(self.dialect);
        let mut tick = pin!(sleep(period));
        let mut draining = pin!(scope.draining());
        // Both wake this task by themselves once they have been polled. A message wakes it far more often, and shall touch only
        // what it needs: with thousands of clients all else is out of the processor's reach.
        let mut are_armed = false;
        let mut has_told = false;
        loop {
            let rare = |cx: &mut Context<'_>| {
                if (!are_armed || scope.is_draining()) && draining.as_mut().poll(cx).is_ready() {
                    return Some(Event::Drain);
                }
                if (!are_armed || tick.is_elapsed()) && tick.as_mut().poll(cx).is_ready() {
                    return Some(Event::Tick);
                }
                // Without a budget they only asked to be polled again.
                are_armed |= coop::has_budget_remaining();
                None
            };
            let event = self.next(rare, has_told).await;
            has_told = matches!(event, Event::Waiting);
            if matches!(event, Event::Tick) {
                tick.as_mut().reset(Instant::now() + period);
                are_armed = false;
            }
            if let Err(end) = self.handle(event).await {
                return end;
            }
        }
    }

    /// What happens next. A message that waits comes first, but not twice in a row (`has_told`); then what is `rare`.
    async fn next(&mut self, mut rare: impl FnMut(&mut Context<'_>) -> Option<Event>, has_told: bool) -> Event {
        let queue = self.subscription.queue();
        let is_told_first = !has_told && self.gathering.is_none();
        let mut said = pin!(self.line.next());
        let mut due = pin!(due(queue, &mut self.gathering));
        poll_fn(|cx| {
            if is_told_first && queue.is_due() {
                return Poll::Ready(Event::Waiting);
            }
            if let Some(event) = rare(cx) {
                return Poll::Ready(event);
            }
            match said.as_mut().poll(cx) {
                Poll::Ready(said) => Poll::Ready(Event::Said(said)),
                Poll::Pending => due.as_mut().poll(cx),
            }
        })
        .await
    }

    async fn handle(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Drain => Err(End::Drained),
            Event::Waiting => {
                let now = Instant::now();
                if let Some(end) = self.quiet_until.take().filter(|end| now < *end) {
                    self.gathering = Some(Box::pin(sleep_until(end)));
                    return Ok(());
                }
                self.tell(now).await
            }
            Event::Gathered => {
                self.gathering = None;
                self.tell(Instant::now()).await
            }
            Event::Tick => self.ping().await,
            Event::Said(Ok(None)) => Err(End::Gone),
            Event::Said(Err(broken)) => Err(End::Broken(broken)),
            Event::Said(Ok(Some(said))) => {
                self.unanswered = 0;
                match said {
                    Said::Pong => Ok(()),
                    said => Box::pin(self.hear(said)).await,
                }
            }
        }
    }

    /// All that waits.
    async fn tell(&mut self, now: Instant) -> Result<(), End> {
        let user = match self.dialect {
            Dialect::Rpc => self.subscription.user(),
            Dialect::Text | Dialect::Protobuf => {
                self.quiet_until = Some(now + GAP);
                None
            }
        };
        let queue = self.subscription.queue();
        if let Some(alone) = queue.try_take_alone() {
            return self.send(alone.frame(self.dialect, user).websocket()).await;
        }
        let messages = match queue.try_take() {
            Some(taken) => taken?,
            None => return Ok(()),
        };
        for frame in frame::frames(messages, self.dialect, user) {
            self.send(frame.websocket()).await?;
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), End> {
        if self.unanswered >= pulse(self.dialect).0 {
            return Err(End::Silent);
        }
        self.unanswered += 1;
        let ping = match self.dialect {
            Dialect::Rpc => websocket::frame(Opcode::Text, b"ping"),
            Dialect::Text | Dialect::Protobuf => websocket::frame(Opcode::Ping, b"ws ping"),
        };
        self.send(&ping).await
    }

    /// Something that the client says. What its generation does not send is ignored.
    async fn hear(&mut self, said: Said) -> Result<(), End> {
        match (said, self.dialect) {
            (Said::Close(code), _) => Err(End::Closed(code)),
            (Said::Ping(payload), _) => self.send(&websocket::frame(Opcode::Pong, &payload)).await,
            (Said::Binary(request), Dialect::Protobuf) => {
                self.pace.wait().await;
                let sender = self.sender.ok_or(End::Refused(Refusal::NoPublicChannel))?;
                let answer = self.desk.binary(request, By::Client(sender)).await;
                match answer.map_err(End::Refused)? {
                    Some(answer) => self.send(&websocket::frame(Opcode::Binary, &answer)).await,
                    None => Ok(()),
                }
            }
            (Said::Text(said), Dialect::Rpc) if !is_sign(&said) => {
                self.pace.wait().await;
                let sender = self.sender.ok_or(End::Refused(Refusal::CommandNotAllowed))?;
                let answer = self
                    .desk
                    .calls(&said, By::Client(sender), Some(&mut self.subscription))
                    .await;
                match answer {
                    Some(answer) => self.send(&websocket::frame(Opcode::Text, answer.as_bytes())).await,
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    async fn send(&mut self, frame: &Bytes) -> Result<(), End> {
        let sent = self.line.try_send(frame).await;
        let sent = sent.map_err(|error| End::Broken(error.into()))?;
        match sent == frame.len() {
            true => Ok(()),
            false => Box::pin(self.send_slowly(frame.slice(sent..))).await,
        }
    }

    async fn send_slowly(&mut self, rest: Bytes) -> Result<(), End> {
        tokio::select! {
            ended = self.subscription.queue().ended() => Err(ended.into()),
            sent = timeout(PATIENCE, self.line.send(&rest)) => match sent {
                Ok(sent) => sent.map_err(|error| End::Broken(error.into())),
                Err(_) => Err(End::Slow),
            },
        }
    }

    /// Says goodbye, where somebody is left to hear it.
    pub async fn leave(self, end: End) {
        let metrics = self.desk.metrics.clone();
        // Nothing more is laid in, and others see that it has gone.
        drop(self.subscription);
        let mut line = self.line;
        match end {
            End::Gone => {}
            End::Closed(code) => line.farewell(code.unwrap_or(NORMAL), "").await,
            End::Broken(Broken::Stream(error)) => debug!(%error, "a client broke off"),
            End::Broken(Broken::Fault(fault)) => {
                metrics.refused(match fault {
                    Fault::TooLarge => "too_large",
                    Fault::Protocol(_) | Fault::NotText => "frame",
                });
                line.farewell(fault.code(), &fault.to_string()).await;
            }
            // It takes nothing: words would only wait with the rest.
            End::Slow => metrics.cut("slow"),
            End::Silent => metrics.cut("silent"),
            End::Crowded => {
                metrics.cut("crowded");
                refuse(line, Refusal::TooManyConnections).await;
            }
            End::Refused(refusal) => {
                metrics.refused_with(refusal);
                refuse(line, refusal).await;
            }
            End::Drained => line.farewell(AWAY, "the server ends").await,
        }
    }
}

/// When messages are to be looked at. Cancel safe.
async fn due(queue: &Queue, gathering: &mut Option<Pin<Box<Sleep>>>) -> Event {
    match gathering {
        None => {
            queue.waits(1).await;
            Event::Waiting
        }
        Some(gap) => {
            tokio::select! {
                () = gap => {}
                () = queue.waits(PRESSING) => {}
            }
            Event::Gathered
        }
    }
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Slow => End::Slow,
            Ended::Crowded => End::Crowded,
        }
    }
}

impl Pace {
    async fn wait(&mut self) {
        let second = Duration::from_secs(1);
        if self.count == REQUESTS {
            sleep_until(self.since + second).await;
        }
        if self.since.elapsed() >= second {
            *self = Pace {
                since: Instant::now(),
                count: 0,
            };
        }
        self.count += 1;
    }
}

/// What clients of generation 5 say besides calls.
fn is_sign(said: &str) -> bool {
    said == "pong" || said == "ping" || said.starts_with("mack:")
}
