//! A client's request body on its way to a target: counted, timed, and its failures told apart.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use super::error::{Error, Kind};
use super::exchange::Body;
use super::framing::Refusal;
use super::http3::Upload;

/// What went wrong with the body, if anything: a target sees its own failure only, and would blame itself.
pub type Fault = Arc<OnceLock<Kind>>;

/// A body as it comes from the client.
pub enum Inflow {
    /// By HTTP/1 or 2.
    Hyper(Incoming),
    Http3(Box<Upload>),
}

struct RequestBody {
    incoming: Inflow,
    left: u64,
    /// HTTP/2 and 3 only: on HTTP/1 the guard looks at the clock.
    silence: Option<Silence>,
    fault: Fault,
}

struct Silence {
    longest: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
}

/// Bounds a body to `most` bytes. `silence`: how long it may pause; `None` where somebody else sees to that.
/// A body whose announced length is beyond `most` is refused before it is read.
pub fn limited(incoming: Inflow, most: u64, silence: Option<Duration>, fault: &Fault) -> Result<Body, Error> {
    if incoming.is_end_stream() {
        return Ok(Empty::new().map_err(|never| match never {}).boxed_unsync());
    }
    if incoming.size_hint().lower() > most {
        return Err(too_large());
    }
    let body = RequestBody {
        incoming,
        left: most,
        silence: silence.map(|longest| Silence { longest, sleep: None }),
        fault: fault.clone(),
    };
    Ok(body.boxed_unsync())
}

impl HttpBody for Inflow {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Inflow::Hyper(incoming) => Pin::new(incoming).poll_frame(cx).map_err(|error| cause(&error)),
            Inflow::Http3(upload) => Pin::new(upload).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Inflow::Hyper(incoming) => incoming.is_end_stream(),
            Inflow::Http3(upload) => upload.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Inflow::Hyper(incoming) => incoming.size_hint(),
            Inflow::Http3(upload) => upload.size_hint(),
        }
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let me = self.get_mut();
        loop {
            let frame = match Pin::new(&mut me.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => return me.wait(cx),
            };
            me.reset();
            let Some(frame) = frame else {
                return Poll::Ready(None);
            };
            match frame.and_then(|frame| me.count(frame)) {
                Ok(frame) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
                // Trailers end here: no target reads them.
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(me.fail(error)))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl RequestBody {
    fn count(&mut self, frame: Frame<Bytes>) -> Result<Frame<Bytes>, Error> {
        let size = frame.data_ref().map_or(0, Bytes::len) as u64;
        self.left = self.left.checked_sub(size).ok_or_else(too_large)?;
        Ok(frame)
    }

    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let Some(silence) = &mut self.silence else {
            return Poll::Pending;
        };
        let longest = silence.longest;
        let sleep = silence
            .sleep
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + longest)));
        ready!(sleep.as_mut().poll(cx));
        let error = Error::new(Kind::Slow, "a body that does not go on");
        Poll::Ready(Some(Err(self.fail(error))))
    }

    fn reset(&mut self) {
        if let Some(silence) = &mut self.silence {
            silence.sleep = None;
        }
    }

    fn fail(&self, error: Error) -> Error {
        // The first failure is the cause of later ones.
        let _ = self.fault.set(error.kind);
        error
    }
}

fn too_large() -> Error {
    Error::new(Kind::TooLarge, "a body beyond proxy.max_body_size")
}

/// What the guard said of the body, or that the client is gone.
fn cause(error: &hyper::Error) -> Error {
    let mut source = error.source();
    while let Some(inner) = source {
        let refusal = inner
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<Refusal>());
        if let Some(refusal) = refusal {
            return Error::new(refusal.kind, refusal.why);
        }
        source = inner.source();
    }
    Error::new(Kind::ClientGone, format!("the client stopped sending: {error}"))
}
