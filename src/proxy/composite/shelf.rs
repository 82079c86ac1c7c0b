//! `Shelf`: asks the cache's composite door for a page. What does not answer at once has none.
//!
//! By hand, since the crate `memcache-async` does not tell the flags of a value.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::stored::{Head, Stored, head, question};

/// PHP would have the page in a few times that, so nobody waits longer.
const PATIENCE: Duration = Duration::from_millis(250);

/// A door that failed is left alone so long: requests go to PHP without a wait.
const REST: Duration = Duration::from_secs(1);

/// Connections that are kept; the cache serves each with a task of its own.
const IDLE: usize = 16;

/// Longest first line: the key, and two numbers.
const LINE: u64 = 320;

pub struct Shelf {
    pub address: SocketAddr,
    /// Bytes of the largest item.
    most: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    idle: Vec<BufStream<TcpStream>>,
    rests_until: Option<Instant>,
}

impl Shelf {
    pub fn new(address: SocketAddr, most: usize) -> Self {
        Shelf {
            address,
            most,
            state: Mutex::default(),
        }
    }

    /// The page under this key.
    pub async fn get(&self, key: &str) -> Option<Stored> {
        let question = question(key)?;
        if self.state().rests_until.is_some_and(|until| Instant::now() < until) {
            return None;
        }
        let asked = timeout(PATIENCE, self.ask(&question, key)).await;
        match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stored) => {
                self.state().rests_until = None;
                stored
            }
            Err(error) => {
                debug!(address = %self.address, %error, "the cache of stored pages does not answer");
                self.state().rests_until = Some(Instant::now() + REST);
                None
            }
        }
    }

    /// A kept connection may have been closed meanwhile: then one of its own is tried.
    async fn ask(&self, question: &[u8], key: &str) -> io::Result<Option<Stored>> {
        let kept = self.state().idle.pop();
        if let Some(connection) = kept
            && let Ok(answer) = self.exchange(connection, question, key).await
        {
            return Ok(answer);
        }
        let connection = TcpStream::connect(self.address).await?;
        connection.set_nodelay(true)?;
        self.exchange(BufStream::new(connection), question, key).await
    }

    async fn exchange(
        &self,
        mut connection: BufStream<TcpStream>,
        question: &[u8],
        key: &str,
    ) -> io::Result<Option<Stored>> {
        connection.write_all(question).await?;
        connection.flush().await?;
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let line = line(&mut connection).await?;
        let stored = match head(&line, key).ok_or_else(broken)? {
            Head::Missing => None,
            Head::Value { length, .. } if length > self.most => return Ok(None),
            Head::Value { flags, length } => {
                let mut value = vec![0; length + 2];
                connection.read_exact(&mut value).await?;
                if !value.ends_with(b"\r\n") || self::line(&mut connection).await? != "END" {
                    return Err(broken());
                }
                value.truncate(length);
                Stored::new(flags, value.into())
            }
        };
        let mut state = self.state();
        if state.idle.len() < IDLE {
            state.idle.push(connection);
        }
        Ok(stored)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line without its end.
async fn line(connection: &mut BufStream<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    connection.take(LINE).read_line(&mut line).await?;
    let line = line.strip_suffix("\r\n");
    line.map(str::to_string)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    use tokio::net::TcpListener;

    use crate::base::Scope;

    const KEY: &str = "/a/index@.html";

    /// A cache that says the same to everybody, so many times on a connection, and then closes it.
    async fn cache(answer: &'static [u8], times: usize) -> (Shelf, Scope) {
        let scope = Scope::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        scope.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                for _ in 0..times {
                    let mut question = [0; 20];
                    if stream.read_exact(&mut question).await.is_err() {
                        break;
                    }
                    assert_eq!(&question, b"get /a/index@.html\r\n");
                    stream.write_all(answer).await.expect("sent");
                }
            }
        });
        (Shelf::new(address, 100), scope)
    }

    #[tokio::test]
    async fn pages_are_found_over_kept_and_new_connections() {
        for times in [1, 2, 100] {
            let (shelf, scope) = cache(b"VALUE /a/index@.html 0 4\r\npage\r\nEND\r\n", times).await;
            for _ in 0..5 {
                let page = shelf.get(KEY).await.expect("there");
                assert_eq!((&page.bytes[..], page.is_packed), (&b"page"[..], false));
            }
            scope.stop(Duration::ZERO).await;
        }
        let (shelf, scope) = cache(b"END\r\n", 100).await;
        assert_eq!(shelf.get(KEY).await, None);
        assert!(shelf.state().rests_until.is_none(), "it answered");
        assert_eq!(shelf.state().idle.len(), 1);
        scope.stop(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn what_does_not_answer_well_has_no_page_and_is_left_alone() {
        for answer in [
            &b"SERVER_ERROR busy\r\n"[..],
            b"VALUE /b/index@.html 0 4\r\npage\r\nEND\r\n",
            b"VALUE /a/index@.html 0 4\r\npages\r\nEND\r\n",
            b"",
        ] {
            let (shelf, scope) = cache(answer, 1).await;
            assert_eq!(shelf.get(KEY).await, None);
            assert!(shelf.state().rests_until.is_some());
            scope.stop(Duration::ZERO).await;
        }
        let (shelf, scope) = cache(b"VALUE /a/index@.html 0 101\r\n", 1).await;
        assert_eq!(shelf.get(KEY).await, None, "too large");
        scope.stop(Duration::ZERO).await;
        let nobody = Shelf::new("127.0.0.1:1".parse().expect("an address"), 100);
        assert_eq!(nobody.get(KEY).await, None);
        assert!(nobody.state().rests_until.is_some());
    }
}
