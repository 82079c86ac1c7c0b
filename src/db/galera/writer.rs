//! The fence at the server: it takes writes while this node holds the role, and is shut before the hold ends. Root's, by the socket.
//!
//! The door comes first, in and out: sessions of PHP begin only where the mark is (`db::module`). Then what is under way is cut,
//! and the server set to read-only; what comes from the other nodes is applied all the same. A server that hangs can do neither: it
//! acknowledges nothing meanwhile, and what it was doing the group has not agreed to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::Mutex;
use tracing::warn;

use crate::base::file::{Access, replace};
use crate::db::root::connect;

/// A server that is well answers at once.
const ANSWER: Duration = Duration::from_secs(1);
/// Shutting it takes less, unless it hangs; then it is the group's to let it go.
const CLOSE: Duration = Duration::from_millis(1300);
/// What is under way when the role goes to another node in order: a statement takes less.
const FINISH: Duration = Duration::from_millis(300);
/// Between two looks at the sessions that are being cut.
const LOOK: Duration = Duration::from_millis(20);
/// How often they are looked at.
const LOOKS: u32 = 40;

/// Not among these: our own, replication's, and the system's user that copies data to other nodes.
const SESSIONS: &str =
    "SELECT ID, COMMAND FROM information_schema.PROCESSLIST WHERE USER NOT IN ('root', 'mysql', 'system user')";

/// The way to writing here.
pub struct Gate {
    socket: PathBuf,
    /// PHP's sessions begin only where it is.
    mark: PathBuf,
    /// What is just being opened is not shut for having been left.
    turn: Mutex<()>,
}

impl Gate {
    pub fn new(socket: PathBuf, mark: PathBuf) -> Self {
        Gate {
            socket,
            mark,
            turn: Mutex::default(),
        }
    }

    /// Sets the mark when the server takes writes. Fails where it is not in the Primary component.
    pub async fn open(&self) -> anyhow::Result<Writer> {
        let _turn = self.turn.lock().await;
        let work = async {
            let mut connection = connect(&self.socket).await?;
            ensure!(
                is_ready(&mut connection).await?,
                "the database here is not in the Primary component"
            );
            connection.query_drop("SET GLOBAL read_only = OFF").await?;
            Ok(Writer { connection })
        };
        let writer = tokio::time::timeout(ANSWER, work)
            .await
            .context("the database here does not answer")??;
        replace(&self.mark, b"", Access::mode(0o644)).context("open the way to the database")?;
        Ok(writer)
    }

    /// Shuts the door, cuts the sessions, sets the server to read-only; as far as the server lets that happen in time.
    /// `is_orderly`: a statement under way may come to its end.
    pub async fn close(&self, is_orderly: bool) {
        if let Err(error) = self.shut() {
            warn!(%error, "the way to the database cannot be shut");
        }
        let ended: anyhow::Result<()> = match tokio::time::timeout(CLOSE, self.fence(is_orderly)).await {
            Ok(ended) => ended,
            Err(_) => Err(anyhow::anyhow!("the database here does not answer")),
        };
        if let Err(error) = ended {
            warn!(
                error = format!("{error:#}"),
                "the database is not set to read-only; the way to it is shut"
            );
        }
    }

    async fn fence(&self, is_orderly: bool) -> anyhow::Result<()> {
        let mut connection = connect(&self.socket).await?;
        cut(&mut connection, is_orderly).await?;
        // It waits for what commits, and pauses replication for a moment; outside of the Primary component it does nothing, without a word.
        connection
            .query_drop("SET STATEMENT max_statement_time = 1 FOR SET GLOBAL read_only = ON")
            .await?;
        ensure!(is_shut(&mut connection).await?, "the server does not take it");
        Ok(())
    }

    /// The same where nobody has opened it, and a server is there.
    pub async fn close_if_left(&self) {
        let _turn = self.turn.lock().await;
        if !self.mark.exists() && self.socket.exists() {
            self.close(false).await;
        }
    }

    /// Nobody comes in any more.
    pub fn shut(&self) -> io::Result<()> {
        match fs::remove_file(&self.mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// The server here, open for writing.
pub struct Writer {
    connection: Conn,
}

impl Writer {
    /// Whether it still is there, in the Primary component, and takes writes: a statement of an earlier end may have come to its own late.
    pub async fn is_there(&mut self) -> bool {
        let look = async {
            let is_ready = is_ready(&mut self.connection).await?;
            Ok::<_, mysql_async::Error>(is_ready && !is_shut(&mut self.connection).await?)
        };
        matches!(tokio::time::timeout(ANSWER, look).await, Ok(Ok(true)))
    }
}

async fn is_ready(connection: &mut Conn) -> Result<bool, mysql_async::Error> {
    let ready: Option<(String, String)> = connection.query_first("SHOW STATUS LIKE 'wsrep_ready'").await?;
    Ok(ready.is_some_and(|(_, value)| value == "ON"))
}

async fn is_shut(connection: &mut Conn) -> Result<bool, mysql_async::Error> {
    let is_shut: Option<bool> = connection.query_first("SELECT @@GLOBAL.read_only").await?;
    Ok(is_shut == Some(true))
}

/// The server reads its certificates anew; connections that there are go on.
pub async fn renew(socket: &Path) -> anyhow::Result<()> {
    let work = async {
        let mut connection = connect(socket).await?;
        connection
            .query_drop("SET GLOBAL wsrep_provider_options = 'socket.ssl_reload=1'")
            .await?;
        Ok(())
    };
    tokio::time::timeout(2 * ANSWER, work)
        .await
        .context("the database here does not answer")?
}

/// Returns when they are gone, or hang in what they were doing.
async fn cut(connection: &mut Conn, is_orderly: bool) -> anyhow::Result<()> {
    let patience = FINISH.as_millis().div_ceil(LOOK.as_millis());
    for look in 0..LOOKS {
        let sessions: Vec<(u64, String)> = connection.query(SESSIONS).await?;
        if sessions.is_empty() {
            return Ok(());
        }
        for (id, command) in sessions {
            let may_finish = is_orderly && u128::from(look) < patience && command == "Query";
            if !may_finish && command != "Killed" {
                // It may have ended by itself.
                let _ = connection.query_drop(format!("KILL HARD CONNECTION {id}")).await;
            }
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::FutureExt;
    use tokio::sync::mpsc;

    use super::*;

    /// As much of a server as the gate asks for.
    struct Double {
        is_read_only: AtomicBool,
        /// A statement that opens it waits for the second, after the first.
        opens: Option<(
            mpsc::UnboundedSender<()>,
            std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
        )>,
    }

    impl Double {
        fn start(self, socket: &Path) -> Arc<Self> {
            let (listener, double) = (UnixListener::bind(socket).unwrap(), Arc::new(self));
            let kept = double.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let double = kept.clone();
                    std::thread::spawn(move || double.serve(stream.unwrap()));
                }
            });
            double
        }

        /// Until the client leaves. MySQL protocol 10, without an end of rows in place of EOF.
        fn serve(&self, mut stream: UnixStream) -> Option<()> {
            let mut greeting = b"\x0a5.5.5-10.11.9-MariaDB\0\x01\0\0\0saltsalt\0".to_vec();
            // Capabilities 4.1, secure connection, plug-in; character set, status.
            greeting.extend([0x01, 0x82, 33, 2, 0, 0x08, 0, 21]);
            greeting.extend([0; 10]);
            greeting.extend(b"saltsaltsalt\0mysql_native_password\0");
            send(&mut stream, 0, &greeting)?;
            receive(&mut stream)?;
            send(&mut stream, 2, OK)?;
            loop {
                let packet = receive(&mut stream)?;
                let statement = String::from_utf8_lossy(packet.get(1..)?).into_owned();
                match statement.as_str() {
                    "SHOW STATUS LIKE 'wsrep_ready'" => rows(&mut stream, 2, &[&["wsrep_ready", "ON"]]),
                    "SELECT @@GLOBAL.read_only" => {
                        let value = u8::from(self.is_read_only.load(Ordering::SeqCst)).to_string();
                        rows(&mut stream, 1, &[&[&value]])
                    }
                    "SET GLOBAL read_only = OFF" => {
                        if let Some((reached, go_on)) = &self.opens {
                            reached.send(()).ok()?;
                            go_on.lock().unwrap().recv().ok()?;
                        }
                        self.is_read_only.store(false, Ordering::SeqCst);
                        send(&mut stream, 1, OK)
                    }
                    set if set.ends_with("SET GLOBAL read_only = ON") => {
                        self.is_read_only.store(true, Ordering::SeqCst);
                        send(&mut stream, 1, OK)
                    }
                    SESSIONS => rows(&mut stream, 2, &[]),
                    settings => {
                        let count = settings.split(',').count();
                        rows(&mut stream, count, &[&vec!["1048576"; count]])
                    }
                }?;
            }
        }
    }

    const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
    const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];

    fn send(stream: &mut UnixStream, number: u8, payload: &[u8]) -> Option<()> {
        let length = u32::try_from(payload.len()).ok()?.to_le_bytes();
        let header = [length[0], length[1], length[2], number];
        stream.write_all(&[&header, payload].concat()).ok()
    }

    fn receive(stream: &mut UnixStream) -> Option<Vec<u8>> {
        let mut header = [0; 4];
        stream.read_exact(&mut header).ok()?;
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let mut payload = vec![0; usize::try_from(length).ok()?];
        stream.read_exact(&mut payload).ok()?;
        Some(payload)
    }

    fn text(value: &str) -> Vec<u8> {
        [&[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
    }

    fn rows(stream: &mut UnixStream, columns: usize, rows: &[&[&str]]) -> Option<()> {
        let mut packets = vec![vec![u8::try_from(columns).unwrap()]];
        for _ in 0..columns {
            let names = ["def", "", "", "", "c", ""].map(text).concat();
            // UTF-8, a length, a string of variable length.
            packets.push([&names[..], &[0x0c, 33, 0, 255, 0, 0, 0, 0xfd, 0, 0, 0, 0, 0]].concat());
        }
        packets.push(EOF.to_vec());
        packets.extend(
            rows.iter()
                .map(|row| row.iter().flat_map(|value| text(value)).collect()),
        );
        packets.push(EOF.to_vec());
        let mut numbers = 1..;
        packets
            .iter()
            .try_for_each(|packet| send(stream, numbers.next()?, packet))
    }

    #[tokio::test]
    async fn who_is_set_to_read_only_is_no_writer_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let gate = Gate::new(folder.path().join("s"), folder.path().join("mark"));
        let double = Double {
            is_read_only: AtomicBool::new(true),
            opens: None,
        };
        let double = double.start(&gate.socket);
        let mut writer = gate.open().await.unwrap();
        assert!(!double.is_read_only.load(Ordering::SeqCst) && writer.is_there().await);
        double.is_read_only.store(true, Ordering::SeqCst);
        assert!(!writer.is_there().await);
    }

    #[tokio::test]
    async fn what_is_just_being_opened_is_not_shut_for_having_been_left() {
        let folder = tempfile::tempdir().unwrap();
        let gate = Gate::new(folder.path().join("s"), folder.path().join("mark"));
        let (reached, mut opens) = mpsc::unbounded_channel();
        let (go_on, waits) = std::sync::mpsc::channel();
        let double = Double {
            is_read_only: AtomicBool::new(true),
            opens: Some((reached, waits.into())),
        };
        let double = double.start(&gate.socket);
        let shut = async {
            opens.recv().await.unwrap();
            let mut shut = Box::pin(gate.close_if_left());
            assert!(shut.as_mut().now_or_never().is_none(), "it waits");
            go_on.send(()).unwrap();
            shut.await;
        };
        let (writer, ()) = tokio::join!(gate.open(), shut);
        assert!(writer.unwrap().is_there().await && gate.mark.exists());
        gate.shut().unwrap();
        gate.close_if_left().await;
        assert!(double.is_read_only.load(Ordering::SeqCst));
    }
}
