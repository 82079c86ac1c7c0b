//! The token that stands for channels in generation 5: a JWT (RFC 7519) signed with HS256, the one algorithm that is accepted.

use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use thiserror::Error;

use super::channel::{Id, MOST};
use super::key::Key;

/// Clocks of the node that signed and of this one may differ by so much, in seconds.
const LEEWAY: u64 = 60;
/// A hundred channels in base64, and room for the rest.
const LONGEST: usize = 8 << 10;

/// What a token says of its bearer.
#[derive(Debug, PartialEq, Eq)]
pub struct Claims {
    /// `None`: a guest.
    pub user: Option<u64>,
    pub channels: Vec<Id>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    #[error("no token of the expected form")]
    Malformed,
    #[error("signed otherwise, or not at all")]
    Algorithm,
    #[error("the signature does not hold")]
    Signature,
    #[error("expired")]
    Expired,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Body {
    /// Unix seconds.
    exp: u64,
    sub: Option<String>,
    /// Joined by commas.
    #[serde(default)]
    chan: String,
}

/// `now`: Unix seconds.
pub fn read(token: &str, key: &Key, now: u64) -> Result<Claims, Fault> {
    if token.len() > LONGEST {
        return Err(Fault::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(Fault::Malformed)?;
    let (header, body) = signed.split_once('.').ok_or(Fault::Malformed)?;
    let header: Header = decode(header)?;
    if header.alg != "HS256" {
        return Err(Fault::Algorithm);
    }
    let signature = base64(signature)?;
    if !key.has_signed_token(signed.as_bytes(), &signature) {
        return Err(Fault::Signature);
    }
    let body: Body = decode(body)?;
    if body.exp.saturating_add(LEEWAY) <= now {
        return Err(Fault::Expired);
    }
    let user = body
        .sub
        .map(|sub| sub.parse().map_err(|_| Fault::Malformed))
        .transpose()?;
    let ids = body.chan.split(',').filter(|id| !id.is_empty());
    let channels: Vec<Id> = ids
        .map(|id| Id::parse(id).ok_or(Fault::Malformed))
        .collect::<Result<_, _>>()?;
    if channels.len() > MOST || (channels.is_empty() && user.is_none()) {
        return Err(Fault::Malformed);
    }
    Ok(Claims { user, channels })
}

fn base64(text: &str) -> Result<Vec<u8>, Fault> {
    BASE64URL_NOPAD.decode(text.as_bytes()).map_err(|_| Fault::Malformed)
}

fn decode<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, Fault> {
    serde_json::from_slice(&base64(text)?).map_err(|_| Fault::Malformed)
}

#[cfg(test)]
pub fn issue(key: &Key, header: &str, body: &str) -> String {
    let encode = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let signed = format!("{}.{}", encode(header), encode(body));
    let signature = key.sign_token(&signed);
    format!("{signed}.{signature}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HS256: &str = r#"{"typ":"JWT","alg":"HS256"}"#;
    const CHANNEL: &str = "0123456789abcdef0123456789abcdef";

    fn key() -> Key {
        Key::new("bitrix-node-test-key")
    }

    fn with(body: &str) -> Result<Claims, Fault> {
        read(&issue(&key(), HS256, body), &key(), 1_000_000)
    }

    #[test]
    fn the_example_of_the_standard_verifies() {
        // RFC 7515 A.1; its key is given in base64url and is no text, so only the check of the signature is asked.
        let secret = BASE64URL_NOPAD
            .decode(b"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .expect("base64");
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = base64("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk").expect("base64");
        ring::hmac::verify(&key, signed.as_bytes(), &signature).expect("it holds");
    }

    #[test]
    fn claims_are_read() {
        let claims = with(&format!(
            r#"{{"iss":"h","iat":1,"exp":1000001,"sub":"17","chan":"{CHANNEL},{CHANNEL}"}}"#
        ));
        let claims = claims.expect("a good token");
        assert_eq!((claims.user, claims.channels.len()), (Some(17), 2));
        let guest = with(&format!(r#"{{"exp":1000001,"chan":"{CHANNEL}"}}"#)).expect("a guest's");
        assert_eq!(guest.user, None);
    }

    #[test]
    fn everything_else_is_refused() {
        assert_eq!(with(r#"{"exp":1,"sub":"1"}"#), Err(Fault::Expired));
        for body in [
            "{}",
            r#"{"sub":"1"}"#,
            r#"{"exp":2000000}"#,
            r#"{"exp":2000000,"sub":"x"}"#,
            r#"{"exp":2000000,"sub":"-1"}"#,
            r#"{"exp":2000000,"chan":"abc"}"#,
            r#"{"exp":"2000000","sub":"1"}"#,
            r#"{"exp":2000000,"sub":"1","sub":"2"}"#,
            "[]",
            "",
        ] {
            assert_eq!(with(body), Err(Fault::Malformed), "{body}");
        }
        let good = r#"{"exp":2000000,"sub":"1"}"#;
        for (header, fault) in [
            (r#"{"alg":"none"}"#, Fault::Algorithm),
            (r#"{"alg":"HS512"}"#, Fault::Algorithm),
            (r#"{"alg":"hs256"}"#, Fault::Algorithm),
            (r#"{"typ":"JWT"}"#, Fault::Malformed),
        ] {
            assert_eq!(read(&issue(&key(), header, good), &key(), 1), Err(fault), "{header}");
        }
        let token = issue(&key(), HS256, good);
        assert_eq!(read(&token, &Key::new("another"), 1), Err(Fault::Signature));
        let (unsigned, _) = token.rsplit_once('.').expect("three parts");
        assert_eq!(read(&format!("{unsigned}."), &key(), 1), Err(Fault::Signature));
        assert_eq!(read(unsigned, &key(), 1), Err(Fault::Malformed));
        for text in ["", ".", "..", "a.b.c", &"x".repeat(LONGEST + 1)] {
            assert_eq!(read(text, &key(), 1), Err(Fault::Malformed));
        }
    }
}
