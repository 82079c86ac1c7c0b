//! One WebSocket: messages out, requests in, signs of life both ways.
//!
//! The first message goes at once; what follows within `GAP` goes together (but not in generation 5). A client that takes nothing is cut
//! off by its queue or by `PATIENCE`; one that has vanished, by the pings. Both may come back and ask for what they missed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Message as WsMessage, Utf8Bytes};
use tracing::debug;

use super::desk::Desk;
use super::frame::{self, Dialect};
use super::hub::Subscription;
use super::message::{BODY_MAX, Message, Sender};
use super::publish::By;
use super::queue::Ended;
use super::refusal::Refusal;
use crate::base::Scope;

/// Between two frames of messages.
const GAP: Duration = Duration::from_millis(400);
/// For a client to take one frame.
const PATIENCE: Duration = Duration::from_secs(20);
/// For a client to hear why it is left.
const FAREWELL: Duration = Duration::from_secs(2);
/// What a client whose frame is too large may still send to reach its end.
const DISMISSAL_BYTES: u64 = 8 << 20;
/// Requests of one client within a second; further ones wait.
const REQUESTS: u32 = 50;
/// What a connection reads at once: requests are short, and there are many connections.
const READ: usize = 1 << 10;

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
enum End {
    /// The client went, or was gone.
    Gone,
    /// It takes nothing, or too little.
    Slow,
    Crowded,
    Silent,
    /// This process ends.
    Drained,
    Refused(Refusal),
    Broken(WsError),
}

/// How small frames and buffers are.
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ)
        .write_buffer_size(0)
        .max_message_size(Some(BODY_MAX))
        .max_frame_size(Some(BODY_MAX))
}

/// A stream after its handshake; `read`: what came behind the request.
pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(stream: S, read: Bytes) -> WebSocketStream<S> {
    WebSocketStream::from_partially_read(stream, read.into(), Role::Server, Some(config())).await
}

/// Tells the client why it may not listen.
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(mut socket: WebSocketStream<S>, refusal: Refusal) {
    farewell(&mut socket, CloseCode::from(refusal.code()), refusal.to_string()).await;
}

/// A listening client.
pub struct Session<S> {
    socket: WebSocketStream<S>,
    subscription: Subscription,
    desk: Arc<Desk>,
    dialect: Dialect,
    sender: Option<Sender>,
    /// Until then messages gather.
    quiet_until: Option<Instant>,
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
    Messages(Result<VecDeque<Arc<Message>>, Ended>),
    GapOver,
    Tick,
    Frame(Option<Result<WsMessage, WsError>>),
    Drain,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub fn new(
        socket: WebSocketStream<S>,
        subscription: Subscription,
        desk: Arc<Desk>,
        dialect: Dialect,
        sender: Option<Sender>,
    ) -> Self {
        Session {
            socket,
            subscription,
            desk,
            dialect,
            sender,
            quiet_until: None,
            unanswered: 0,
            pace: Pace {
                since: Instant::now(),
                count: 0,
            },
        }
    }

    /// Until one side ends it, or the scope drains.
    pub async fn run(mut self, scope: Scope) {
        let (_, period) = pulse(self.dialect);
        let mut pulse = interval_at(Instant::now() + period, period);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = loop {
            let event = self.next(&mut pulse, &scope).await;
            if let Err(end) = self.handle(event).await {
                break end;
            }
        };
        self.leave(end).await;
    }

    async fn next(&mut self, pulse: &mut Interval, scope: &Scope) -> Event {
        let quiet_until = self.quiet_until;
        let gap_over = async {
            match quiet_until {
                Some(end) => sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = scope.draining() => Event::Drain,
            messages = self.subscription.queue().take(), if quiet_until.is_none() => Event::Messages(messages),
            () = gap_over => Event::GapOver,
            _ = pulse.tick() => Event::Tick,
            frame = self.socket.next() => Event::Frame(frame),
        }
    }

    async fn handle(&mut self, event: Event) -> Result<(), End> {
        match event {
            Event::Drain => Err(End::Drained),
            Event::GapOver => {
                self.quiet_until = None;
                Ok(())
            }
            Event::Messages(Err(ended)) => Err(ended.into()),
            Event::Messages(Ok(messages)) => self.tell(messages).await,
            Event::Tick => self.ping().await,
            Event::Frame(None) => Err(End::Gone),
            Event::Frame(Some(Err(error))) => Err(End::Broken(error)),
            Event::Frame(Some(Ok(frame))) => {
                self.unanswered = 0;
                self.hear(frame).await
            }
        }
    }

    async fn tell(&mut self, messages: VecDeque<Arc<Message>>) -> Result<(), End> {
        if self.dialect != Dialect::Rpc {
            self.quiet_until = Some(Instant::now() + GAP);
        }
        for frame in frame::frames(messages, self.dialect, self.subscription.user()) {
            self.send(match self.dialect {
                Dialect::Protobuf => WsMessage::Binary(frame),
                Dialect::Text | Dialect::Rpc => WsMessage::Text(text(frame)),
            })
            .await?;
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), End> {
        if self.unanswered >= pulse(self.dialect).0 {
            return Err(End::Silent);
        }
        self.unanswered += 1;
        self.send(match self.dialect {
            Dialect::Rpc => WsMessage::Text(Utf8Bytes::from_static("ping")),
            Dialect::Text | Dialect::Protobuf => WsMessage::Ping(Bytes::from_static(b"ws ping")),
        })
        .await
    }

    /// A frame of the client. What its generation does not send is ignored.
    async fn hear(&mut self, frame: WsMessage) -> Result<(), End> {
        match (frame, self.dialect) {
            (WsMessage::Close(_), _) => Err(End::Gone),
            (WsMessage::Binary(request), Dialect::Protobuf) => {
                self.pace.wait().await;
                let sender = self.sender.ok_or(End::Refused(Refusal::NoPublicChannel))?;
                let answer = self.desk.binary(request, By::Client(sender)).await;
                match answer.map_err(End::Refused)? {
                    Some(answer) => self.send(WsMessage::Binary(answer.into())).await,
                    None => Ok(()),
                }
            }
            (WsMessage::Text(said), Dialect::Rpc) if !is_sign(&said) => {
                self.pace.wait().await;
                let sender = self.sender.ok_or(End::Refused(Refusal::CommandNotAllowed))?;
                let answer = self
                    .desk
                    .calls(&said, By::Client(sender), Some(&mut self.subscription))
                    .await;
                match answer {
                    Some(answer) => self.send(WsMessage::Text(answer.into())).await,
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    async fn send(&mut self, message: WsMessage) -> Result<(), End> {
        tokio::select! {
            ended = self.subscription.queue().ended() => Err(ended.into()),
            sent = timeout(PATIENCE, self.socket.send(message)) => match sent {
                Ok(sent) => sent.map_err(End::Broken),
                Err(_) => Err(End::Slow),
            },
        }
    }

    async fn leave(mut self, end: End) {
        let metrics = &self.desk.metrics;
        match end {
            End::Gone => drop(timeout(FAREWELL, self.socket.close(None)).await),
            End::Broken(error) => {
                debug!(%error, "a client broke off");
                if matches!(error, WsError::Capacity(_)) {
                    metrics.refused("too_large");
                    dismiss(&mut self.socket, CloseCode::Size, "too large".into()).await;
                }
            }
            End::Slow => {
                // It takes nothing: words would only wait with the rest.
                metrics.cut("slow");
            }
            End::Silent => metrics.cut("silent"),
            End::Crowded => {
                metrics.cut("crowded");
                refuse(self.socket, Refusal::TooManyConnections).await;
            }
            End::Refused(refusal) => {
                metrics.refused_with(refusal);
                refuse(self.socket, refusal).await;
            }
            End::Drained => farewell(&mut self.socket, CloseCode::Away, "the server ends".into()).await,
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

fn text(frame: Bytes) -> Utf8Bytes {
    Utf8Bytes::try_from(frame).expect("made from text")
}

/// Says why, and waits a little for the answer: closed at once, the last words could be lost on the way.
async fn farewell<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, code: CloseCode, reason: String) {
    let said = async {
        say(socket, code, reason).await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    // Whether it was heard changes nothing.
    let _ = timeout(FAREWELL, said).await;
}

/// The same to a client whose frames are not read any more: what it still sends is thrown away, so that it comes to read.
async fn dismiss<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, code: CloseCode, reason: String) {
    let said = async {
        say(socket, code, reason).await;
        let mut rest = socket.get_mut().take(DISMISSAL_BYTES);
        // Broken off or not, it is over.
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    };
    let _ = timeout(FAREWELL, said).await;
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(socket: &mut WebSocketStream<S>, code: CloseCode, reason: String) {
    let frame = CloseFrame {
        code,
        reason: reason.into(),
    };
    // Who is gone does not hear it.
    let _ = socket.close(Some(frame)).await;
}
