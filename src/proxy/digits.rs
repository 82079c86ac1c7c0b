//! Numbers and addresses as text, without `fmt`: every request needs some of them. Pure.

use std::fmt::Write as _;
use std::net::IpAddr;

pub fn number(out: &mut String, number: impl itoa::Integer) {
    out.push_str(itoa::Buffer::new().format(number));
}

pub fn address(out: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            number(out, first);
            for octet in rest {
                out.push('.');
                number(out, octet);
            }
        }
        // Writing to a string cannot fail.
        IpAddr::V6(address) => _ = write!(out, "{address}"),
    }
}

/// The 16 hexadecimal digits of a word.
pub fn hexadecimal(word: u64) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 16];
    for (place, digit) in digits.iter_mut().rev().enumerate() {
        *digit = DIGITS[(word >> (4 * place) & 15) as usize];
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_fmt() {
        for text in ["0.0.0.0", "10.0.200.255", "::1", "2001:db8::7"] {
            let mut out = String::from("a");
            address(&mut out, text.parse().expect("an address"));
            assert_eq!(out, format!("a{text}"));
        }
        for word in [0, 7, 0xfedc_ba98_7654_3210, u64::MAX] {
            assert_eq!(hexadecimal(word), format!("{word:016x}").as_bytes());
        }
    }
}
