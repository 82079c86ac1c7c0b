//! What moves the bytes of one connection to an upstream: whoever waits for its answer, or a task of its own.
//!
//! hyper's connection is a future beside the request's. As a task it costs each request several switches between the two: for the head, the
//! answer and each piece of its body. A request without a body has no use for that: nothing is to be sent while nobody looks.
//! The two futures also wake each other; inside one task that would only poll it again, so a `Bell` keeps it back.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Waker};

use futures_util::task::{ArcWake, AtomicWaker, waker_ref};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::body::Upload;
use crate::base::Scope;

/// How often the connection is moved before the other tasks get their turn.
const TURNS: usize = 8;

/// Moves only when it is driven, or once it was let go.
pub struct Motor {
    /// `None`: it runs by itself, or the connection is over.
    connection: Option<Box<dyn Drive>>,
    bell: Arc<Bell>,
}

trait Drive: Future<Output = hyper::Result<()>> + Send + Unpin {
    fn run(self: Box<Self>, scope: &Scope);
}

impl<S> Drive for http1::Connection<TokioIo<S>, Upload>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    fn run(self: Box<Self>, scope: &Scope) {
        scope.spawn(self.with_upgrades());
    }
}

impl Motor {
    pub fn new<S>(connection: http1::Connection<TokioIo<S>, Upload>) -> Motor
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Motor {
            connection: Some(Box::new(connection)),
            bell: Arc::default(),
        }
    }

    /// Polls what depends on the connection, and moves that until it has nothing more to do. Its errors reach whoever waits for an answer.
    pub fn drive<T>(&mut self, cx: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        for _ in 0..TURNS {
            if self.connection.is_none() {
                return poll(cx);
            }
            // Whatever it waits for, the connection brings it.
            let mut deaf = Context::from_waker(Waker::noop());
            let polled = poll(&mut deaf);
            if polled.is_ready() {
                return polled;
            }
            self.turn();
            let polled = poll(&mut deaf);
            if polled.is_ready() || (self.connection.is_some() && self.bell.listen(cx.waker())) {
                return polled;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Moves what can be moved now.
    pub fn turn(&mut self) {
        self.bell.mute();
        let waker = waker_ref(&self.bell);
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(&mut Context::from_waker(&waker)).is_ready()
        {
            self.connection = None;
        }
    }

    /// Moves by itself from now on.
    pub fn let_go(&mut self, scope: &Scope) {
        if let Some(connection) = self.connection.take() {
            connection.run(scope);
        }
    }
}

/// Passes on what wakes a connection, except while whoever drives it is at work and will see it.
#[derive(Default)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

const MUTED: u8 = 0;
/// While it was muted.
const RUNG: u8 = 1;
const HEARD: u8 = 2;

impl Bell {
    fn mute(&self) {
        self.state.store(MUTED, Ordering::SeqCst);
    }

    /// From now on the task is woken. `false`: there is something to be seen already.
    fn listen(&self, task: &Waker) -> bool {
        self.task.register(task);
        let silent = self
            .state
            .compare_exchange(MUTED, HEARD, Ordering::SeqCst, Ordering::SeqCst);
        silent.is_ok()
    }
}

impl ArcWake for Bell {
    fn wake_by_ref(bell: &Arc<Self>) {
        let muted = bell
            .state
            .compare_exchange(MUTED, RUNG, Ordering::SeqCst, Ordering::SeqCst);
        if muted == Err(HEARD) {
            bell.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::AtomicUsize;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl ArcWake for Count {
        fn wake_by_ref(count: &Arc<Self>) {
            count.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_bell_rings_for_whoever_listens_and_loses_nothing() {
        let (bell, count) = (Arc::<Bell>::default(), Arc::<Count>::default());
        let task = waker_ref(&count);
        let rings = || count.0.load(Ordering::SeqCst);
        bell.mute();
        ArcWake::wake_by_ref(&bell);
        assert_eq!(rings(), 0, "whoever is at work looks by itself");
        assert!(!bell.listen(&task), "and does not rest before it has looked");
        bell.mute();
        assert!(bell.listen(&task));
        ArcWake::wake_by_ref(&bell);
        assert_eq!(rings(), 1);
        bell.mute();
        ArcWake::wake_by_ref(&bell);
        assert_eq!(rings(), 1);
    }
}
