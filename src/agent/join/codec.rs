//! The words of a join: the token as an admin pastes it, the one request and the one answer, each JSON behind its length in four
//! bytes. JSON, for they are few and grow with the versions; a field that a reader does not know means nothing to it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::host::verb::Secrets;
use crate::net::mesh::Fingerprint;

/// A request with its certificate request is under 1 KiB.
pub const REQUEST_MAX: usize = 16 << 10;
/// Certificates, keys, and all settings.
pub const ANSWER_MAX: usize = 512 << 10;

const PREFIX: &str = "bxn1";
/// Bytes of a secret and of its hash.
const SECRET: usize = 32;
/// Of a token's id.
const ID_MAX: usize = 32;

#[derive(Debug, Error)]
pub enum Error {
    #[error(
        "this is no token; it reads {PREFIX}.FINGERPRINT.ID.SECRET, copy the whole line that `bitrix-node token create` printed"
    )]
    Token,
    #[error("a message of {0} bytes, which is too long")]
    TooLong(usize),
    #[error("the message cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// The right to join once, and by whom to know the cluster. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    pub authority: Fingerprint,
    pub id: String,
    /// 64 hexadecimal digits.
    pub secret: String,
}

impl Token {
    /// A fresh one for the cluster of that authority.
    pub fn generate(authority: Fingerprint) -> Result<Self, getrandom::Error> {
        let (mut id, mut secret) = ([0; 4], [0; SECRET]);
        getrandom::fill(&mut id)?;
        getrandom::fill(&mut secret)?;
        Ok(Token {
            authority,
            id: HEXLOWER.encode(&id),
            secret: HEXLOWER.encode(&secret),
        })
    }

    /// What the registry keeps of it.
    pub fn hash(&self) -> [u8; 32] {
        // Of no other form than `from_str` and `generate` make.
        digest(&HEXLOWER.decode(self.secret.as_bytes()).unwrap_or_default())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Token({})", self.id)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{PREFIX}.{}.{}.{}", self.authority, self.id, self.secret)
    }
}

impl FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.trim().split('.').collect();
        let [PREFIX, authority, id, secret] = parts[..] else {
            return Err(Error::Token);
        };
        let is_id = (1..=ID_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let is_secret = HEXLOWER_PERMISSIVE
            .decode(secret.as_bytes())
            .is_ok_and(|secret| secret.len() == SECRET);
        if !is_id || !is_secret {
            return Err(Error::Token);
        }
        Ok(Token {
            authority: authority.parse().map_err(|_| Error::Token)?,
            id: id.to_string(),
            secret: secret.to_ascii_lowercase(),
        })
    }
}

/// What a machine asks.
#[derive(Clone, Serialize, Deserialize)]
pub struct Request {
    /// Of the token.
    pub id: String,
    pub secret: String,
    /// The name that it wants, and where its agent will listen.
    pub node: String,
    pub address: String,
    /// Request for a certificate (PKCS #10, DER) in hexadecimal digits.
    pub request: String,
    /// Of its bitrix-node.
    pub version: String,
}

/// What it is told.
#[derive(Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "lowercase")]
pub enum Answer {
    Welcome(Box<Welcome>),
    Refused { why: String },
}

/// All that a node needs to be one. `Debug` is missing on purpose.
#[derive(Serialize, Deserialize)]
pub struct Welcome {
    /// PEM.
    pub certificate: String,
    /// PEM of the authority's certificate.
    pub authority: String,
    pub secrets: Secrets,
    /// Of the cluster.
    pub settings: BTreeMap<String, String>,
    /// Name and address of each node.
    pub members: Vec<(String, String)>,
}

/// With its length before it.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let body = serde_json::to_vec(message).expect("plain structs always serialise");
    let length = u32::try_from(body.len()).expect("far below 4 GiB");
    [&length.to_be_bytes()[..], &body].concat()
}

/// The length of what follows, at most `most`.
pub fn length(head: [u8; 4], most: usize) -> Result<usize, Error> {
    let length = usize::try_from(u32::from_be_bytes(head)).unwrap_or(usize::MAX);
    if length > most {
        return Err(Error::TooLong(length));
    }
    Ok(length)
}

pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    Ok(serde_json::from_slice(body)?)
}

/// SHA-256.
pub fn digest(bytes: &[u8]) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::generate("ab".repeat(32).parse().unwrap()).unwrap()
    }

    #[test]
    fn a_token_survives_its_text_and_shows_no_secret() {
        let token = token();
        let text = token.to_string();
        assert_eq!(format!(" {text}\n").parse::<Token>().unwrap(), token);
        assert_eq!(
            text.to_uppercase()
                .replace("BXN1", "bxn1")
                .parse::<Token>()
                .unwrap()
                .hash(),
            token.hash()
        );
        assert!(!format!("{token:?}").contains(&token.secret));
        assert_ne!(self::token().secret, token.secret);
    }

    #[test]
    fn a_text_that_was_cut_is_no_token() {
        let text = token().to_string();
        for cut in 0..text.len() {
            assert!(text[..cut].parse::<Token>().is_err(), "{cut}");
        }
        for bad in [
            "ä",
            "bxn1....",
            &text.replace("bxn1", "bxn2"),
            &format!("{text}.x"),
            &format!("{text}0"),
        ] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }

    #[test]
    fn messages_survive_the_wire_and_hostile_lengths_are_refused() {
        let refused = encode(&Answer::Refused { why: "no".into() });
        let (head, body) = refused.split_at(4);
        assert_eq!(length(head.try_into().unwrap(), ANSWER_MAX).unwrap(), body.len());
        assert!(matches!(decode::<Answer>(body).unwrap(), Answer::Refused { why } if why == "no"));
        assert!(matches!(length([0xff; 4], REQUEST_MAX), Err(Error::TooLong(_))));
        for cut in 0..body.len() {
            assert!(decode::<Answer>(&body[..cut]).is_err());
        }
    }
}
