//! The one packet of the MySQL protocol that we send ourselves.

/// A connection is turned away because too many wait: the server's own code.
pub const TOO_MANY: u16 = 1040;
/// There is no server: the code that a client would give for it.
pub const NO_SERVER: u16 = 2003;

/// An error in the place of the server's greeting, as the server itself sends it when it is full (MySQL protocol, "ERR_Packet": before
/// the log-in there is no SQL state). The text must be short.
pub fn refusal(code: u16, text: &str) -> Vec<u8> {
    let length = u8::try_from(3 + text.len()).expect("our texts are short");
    // Length in three bytes, then the sequence number.
    let mut packet = vec![length, 0, 0, 0, 0xff];
    packet.extend(code.to_le_bytes());
    packet.extend(text.as_bytes());
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_a_full_server_sends() {
        assert_eq!(
            refusal(TOO_MANY, "Too many connections"),
            b"\x17\0\0\0\xff\x10\x04Too many connections"
        );
    }
}
