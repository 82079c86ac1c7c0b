//! Whether MariaDB accepts connections, seen from its greeting alone: no login, no account needed.
//! Whether a node of a Galera cluster counts, seen from its own word beside that.
//! The server counts such a visit as an aborted connection; it blocks nobody for it on a unix socket.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::recovery::status;

/// A greeting takes about 100 bytes, an error message at most 512.
const LONGEST_PACKET: usize = 4096;
/// First byte of a greeting (protocol version) and of an error packet.
const PROTOCOL_VERSION: u8 = 10;
const ERROR: u8 = 0xff;

/// Connects and reads the greeting. Errors are the server's own words or those of the connection.
/// The deadline is the caller's; dropping the future closes the connection.
pub async fn answers(socket: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket).await?;
    // MySQL protocol, "Packets": three bytes of length, one of sequence.
    let mut header = [0; 4];
    stream.read_exact(&mut header).await?;
    let length = usize::from(header[0]) | usize::from(header[1]) << 8 | usize::from(header[2]) << 16;
    if length > LONGEST_PACKET {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "this is no MariaDB greeting",
        ));
    }
    let mut packet = vec![0; length];
    stream.read_exact(&mut packet).await?;
    judge(&packet)
}

/// The same of a node of a Galera cluster: what it answers counts only while it is in the Primary component. Errors say what it does
/// instead.
pub async fn serves(socket: &Path, status: &Path) -> io::Result<()> {
    let bytes = file(status)?;
    let state = status::parse(&bytes).ok_or_else(|| io::Error::other("Galera says nothing yet"))?;
    if !state.is_serving() {
        let comment = format!("{}: {}", state.state.to_lowercase(), state.comment);
        return Err(io::Error::other(comment));
    }
    answers(socket).await
}

/// Written by the server's user into a folder of its own: no link is followed.
fn file(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NOFOLLOW | O_NONBLOCK)
        .open(path)?;
    let mut bytes = Vec::new();
    file.take(status::LONGEST as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Pure.
fn judge(packet: &[u8]) -> io::Result<()> {
    match packet.split_first() {
        Some((&PROTOCOL_VERSION, _)) => Ok(()),
        // ERR_Packet: two bytes of code, then text; before login there is no SQL state.
        Some((&ERROR, rest)) => {
            let text = String::from_utf8_lossy(rest.get(2..).unwrap_or_default());
            Err(io::Error::other(text.into_owned()))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "this is no MariaDB greeting",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    async fn told(bytes: &'static [u8]) -> io::Result<()> {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("s");
        let listener = UnixListener::bind(&path).expect("bound");
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accepted");
            stream.write_all(bytes).expect("sent");
        });
        let answer = answers(&path).await;
        server.join().expect("done");
        answer
    }

    #[tokio::test]
    async fn greeting_is_an_answer() {
        told(b"\x05\0\0\0\x0a11.4").await.expect("answers");
    }

    #[tokio::test]
    async fn refusal_is_told_in_the_servers_words() {
        let error = told(b"\x17\0\0\0\xff\x10\x04Too many connections").await;
        assert_eq!(error.expect_err("refused").to_string(), "Too many connections");
    }

    #[tokio::test]
    async fn other_protocols_and_cut_packets_are_errors() {
        for bytes in [
            &b"SSH-2.0-OpenSSH"[..],
            b"",
            b"\x05\0\0\0\x0a1",
            b"\0\0\0\0",
            b"\x01\0\0\0\x09",
        ] {
            told(bytes).await.expect_err("no greeting");
        }
    }
}
