//! The PROXY protocol, versions 1 and 2: what a proxy says of its client before the client's first byte. The forms are `ppp`'s to
//! read; here is how much is read, which must be no byte too many: what follows may be a TLS handshake.

use std::io;
use std::net::SocketAddr;

use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The shortest preface of either version: `PROXY UNKNOWN\r\n`.
const SHORTEST: usize = 15;

/// The longest line of version 1 (PROXY protocol §2.1).
const LONGEST_LINE: usize = 107;

/// Fixed part of version 2, with the length of the rest at its end (§2.2).
const FIXED: usize = 16;

/// Addresses and notes of version 2. The format has up to 64 KiB; what proxies send is some hundred bytes.
const LONGEST_REST: usize = 4 << 10;

/// Reads the preface. `None`: the proxy connects for itself, or does not know for whom. The caller bounds the time.
/// An error leaves the stream somewhere within it.
pub async fn receive<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Option<SocketAddr>> {
    let mut bytes = vec![0; SHORTEST];
    stream.read_exact(&mut bytes).await?;
    if bytes.starts_with(v2::PROTOCOL_PREFIX) {
        bytes.push(stream.read_u8().await?);
        let rest = bytes.get(FIXED - 2..).and_then(|length| length.try_into().ok());
        let rest = usize::from(u16::from_be_bytes(rest.unwrap_or_default()));
        if rest > LONGEST_REST {
            return Err(invalid("a preface that is too long"));
        }
        bytes.resize(FIXED + rest, 0);
        stream.read_exact(bytes.get_mut(FIXED..).unwrap_or_default()).await?;
    } else if bytes.starts_with(v1::PROTOCOL_PREFIX.as_bytes()) {
        // One by one, because its end is known only when it is there; once a connection.
        while !bytes.ends_with(b"\r\n") {
            if bytes.len() >= LONGEST_LINE {
                return Err(invalid("a preface that is too long"));
            }
            bytes.push(stream.read_u8().await?);
        }
    } else {
        return Err(invalid("something else than a preface"));
    }
    client(&bytes)
}

/// The client that a whole preface names.
fn client(bytes: &[u8]) -> io::Result<Option<SocketAddr>> {
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(all) => Some((all.source_address, all.source_port).into()),
            v1::Addresses::Tcp6(all) => Some((all.source_address, all.source_port).into()),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) if header.command == v2::Command::Local => Ok(None),
        HeaderResult::V2(Ok(header)) => match (header.protocol, header.addresses) {
            (v2::Protocol::Stream, v2::Addresses::IPv4(all)) => Ok(Some((all.source_address, all.source_port).into())),
            (v2::Protocol::Stream, v2::Addresses::IPv6(all)) => Ok(Some((all.source_address, all.source_port).into())),
            (_, v2::Addresses::Unspecified) => Ok(None),
            _ => Err(invalid("a preface for something else than TCP")),
        },
        HeaderResult::V1(Err(error)) => Err(invalid(error)),
        HeaderResult::V2(Err(error)) => Err(invalid(error)),
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Version 2: command, family and protocol, the rest.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [v2::PROTOCOL_PREFIX, &[command, family], &length, rest].concat()
    }

    const TCP4: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0x30, 0x39, 0x01, 0xbb];

    /// What is found, and what is left for the client.
    async fn read(bytes: &[u8]) -> (Result<Option<String>, ()>, Vec<u8>) {
        let mut rest = bytes;
        let found = receive(&mut rest).await;
        let found = found
            .map(|found| found.map(|client| client.to_string()))
            .map_err(|_| ());
        (found, rest.to_vec())
    }

    #[tokio::test]
    async fn both_versions_name_the_client_and_take_nothing_else() {
        let tcp6 = [
            &[0x20, 1, 0xd, 0xb8][..],
            &[0; 11],
            &[7],
            &[0; 16],
            &[0x30, 0x39, 1, 0xbb],
        ]
        .concat();
        let noted = [&TCP4[..], &[0x01, 0, 2, b'h', b'2']].concat();
        for (bytes, client) in [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n".to_vec(),
                Some("192.0.2.7:12345"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::1 12345 443\r\n".to_vec(),
                Some("[2001:db8::7]:12345"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN what ever\r\n".to_vec(), None),
            (binary(0x21, 0x11, &TCP4), Some("192.0.2.7:12345")),
            (binary(0x21, 0x11, &noted), Some("192.0.2.7:12345")),
            (binary(0x21, 0x21, &tcp6), Some("[2001:db8::7]:12345")),
            (binary(0x20, 0x11, &TCP4), None),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x21, 0x00, &[]), None),
        ] {
            let (found, rest) = read(&[&bytes[..], b"\x16\x03\x01 and on"].concat()).await;
            assert_eq!(found, Ok(client.map(str::to_string)), "{bytes:?}");
            assert_eq!(rest, b"\x16\x03\x01 and on", "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let long = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200], b"\r\n".to_vec()].concat();
        for bytes in [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and on and on".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 12345\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.777 10.0.0.1 12345 443\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443".to_vec(),
            b"PROXY TCP9 192.0.2.7 10.0.0.1 12345 443\r\n".to_vec(),
            long,
            binary(0x31, 0x11, &TCP4),
            binary(0x21, 0x12, &TCP4),
            binary(0x21, 0x11, &TCP4[..8]),
            binary(0x21, 0x31, &[0; 216]),
            binary(0x21, 0x11, &[0; LONGEST_REST + 1]),
        ] {
            assert_eq!(read(&bytes).await.0, Err(()), "{:?}", String::from_utf8_lossy(&bytes));
        }
    }

    #[tokio::test]
    async fn a_preface_cut_anywhere_is_no_preface() {
        for whole in [
            b"PROXY TCP4 192.0.2.7 10.0.0.1 12345 443\r\n".to_vec(),
            binary(0x21, 0x11, &TCP4),
        ] {
            for end in 0..whole.len() {
                assert_eq!(read(&whole[..end]).await.0, Err(()), "{end} of {whole:?}");
            }
        }
    }
}
