//! All names that a server has items under, by `lru_crawler metadump hash`.
//!
//! The walk goes over the hash table, in which an item stays where it is; over the lists of what was used last an item may move past
//! it. While the table grows there is no walk at all, though one is answered: so its size is looked at before and after.
//! What is stored meanwhile may be missing: whoever walks hears of changes another way.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::name::{Name, Tag};
use super::wire;

/// Longest line: a name in percent, and some numbers.
const LINE_MAX: u64 = 2048;
/// A server that says nothing for so long does not walk. Its crawler sleeps now and then.
const SILENCE: Duration = Duration::from_secs(3);
/// The crawler is one for all; the server sends it round by itself, too.
const BUSY: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(20);

pub type Pleases<'a> = &'a (dyn Fn(&Name) -> bool + Send + Sync);

/// Size of the hash table, which does not grow now.
type Table = Option<String>;

struct Walk {
    stream: BufReader<TcpStream>,
    line: Vec<u8>,
}

/// The names of a session that please, each once.
pub async fn names(address: SocketAddr, tag: Tag, pleases: Pleases<'_>) -> io::Result<Vec<Name>> {
    let mut walk = Walk {
        stream: BufReader::new(TcpStream::connect(address).await?),
        line: Vec::new(),
    };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = walk.table().await?;
        if before.is_some()
            && let Some(names) = walk.round(tag, pleases).await?
            && walk.table().await? == before
        {
            return Ok(names);
        }
        if Instant::now() >= deadline {
            return Err(ErrorKind::TimedOut.into());
        }
        sleep(BUSY).await;
    }
}

impl Walk {
    async fn table(&mut self) -> io::Result<Table> {
        self.say(b"stats\r\n").await?;
        let (mut is_growing, mut size) = (false, None);
        loop {
            match self.hear().await? {
                b"END" => return Ok(size.filter(|_| !is_growing)),
                line if line == b"STAT hash_is_expanding 1" => is_growing = true,
                line => {
                    let found = line.strip_prefix(b"STAT hash_power_level ");
                    size = found.map(|found| String::from_utf8_lossy(found).into_owned()).or(size);
                }
            }
        }
    }

    /// `None`: the crawler is on its way for somebody else.
    async fn round(&mut self, tag: Tag, pleases: Pleases<'_>) -> io::Result<Option<Vec<Name>>> {
        self.say(b"lru_crawler metadump hash\r\n").await?;
        let mut names = Vec::new();
        loop {
            match self.hear().await? {
                b"END" => return Ok(Some(names)),
                line if line.starts_with(b"BUSY") => return Ok(None),
                line if line.starts_with(b"key=") => names.extend(wire::listed(line, tag).filter(pleases)),
                _ => return Err(ErrorKind::InvalidData.into()),
            }
        }
    }

    async fn say(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(request).await
    }

    /// The next line without its end.
    async fn hear(&mut self) -> io::Result<&[u8]> {
        self.line.clear();
        let mut limited = (&mut self.stream).take(LINE_MAX);
        let read = limited.read_until(b'\n', &mut self.line);
        timeout(SILENCE, read).await.map_err(|_| ErrorKind::TimedOut)??;
        let line = self.line.strip_suffix(b"\n").ok_or(ErrorKind::UnexpectedEof)?;
        Ok(line.strip_suffix(b"\r").unwrap_or(line))
    }
}
