//! What a directory, or the way to it, has against a request.

use instant_acme::{Error as Cause, Problem};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Error {
    pub kind: Kind,
    pub text: String,
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The same again, at once: it wants another nonce (RFC 8555 §6.5).
    Again,
    /// The same again, later: it is not reached, or is ill.
    Unreachable,
    /// Much later.
    Limited,
    /// It does not know the account; another one is needed.
    NoAccount,
    /// This order is over.
    Refused,
}

impl Error {
    pub fn refused(text: impl Into<String>) -> Self {
        Error {
            kind: Kind::Refused,
            text: text.into(),
        }
    }

    pub fn unreachable(error: impl std::fmt::Display) -> Self {
        Error {
            kind: Kind::Unreachable,
            text: error.to_string(),
        }
    }
}

impl From<Cause> for Error {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Api(problem) => Error {
                kind: kind(&problem),
                text: text(&problem),
            },
            other => Error::unreachable(other),
        }
    }
}

/// Says what could not be done.
pub fn during(what: &str) -> impl FnOnce(Cause) -> Error {
    move |cause| {
        let error = Error::from(cause);
        Error {
            text: format!("{what}: {}", error.text),
            ..error
        }
    }
}

/// By its type (RFC 8555 §6.7).
fn kind(problem: &Problem) -> Kind {
    let name = problem.r#type.as_deref().unwrap_or_default();
    match name.strip_prefix("urn:ietf:params:acme:error:").unwrap_or_default() {
        "badNonce" => Kind::Again,
        "rateLimited" => Kind::Limited,
        "accountDoesNotExist" => Kind::NoAccount,
        "serverInternal" => Kind::Unreachable,
        _ if problem.status.is_some_and(|status| status >= 500) => Kind::Unreachable,
        _ => Kind::Refused,
    }
}

/// What it says, with what it says of each name.
pub fn text(problem: &Problem) -> String {
    let name = problem.r#type.as_deref().unwrap_or_default();
    let name = name.rsplit(':').next().unwrap_or_default();
    let parts = problem.subproblems.iter().map(ToString::to_string);
    let detail = problem.detail.clone().unwrap_or_default();
    let all: Vec<String> = std::iter::once(detail)
        .chain(parts)
        .filter(|part| !part.is_empty())
        .collect();
    match all.is_empty() {
        true => name.to_string(),
        false => format!("{name}: {}", all.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_told_apart_by_their_type() {
        let of = |json: &str| Error::from(Cause::Api(serde_json::from_str(json).unwrap()));
        let limited = of(r#"{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many","status":429}"#);
        assert_eq!(
            (limited.kind, limited.text.as_str()),
            (Kind::Limited, "rateLimited: too many")
        );
        let again = of(r#"{"type":"urn:ietf:params:acme:error:badNonce","status":400}"#);
        assert_eq!((again.kind, again.text.as_str()), (Kind::Again, "badNonce"));
        let gone = of(r#"{"type":"urn:ietf:params:acme:error:accountDoesNotExist","status":400}"#);
        assert_eq!(gone.kind, Kind::NoAccount);
        assert_eq!(of(r#"{"status":503,"detail":"maintenance"}"#).kind, Kind::Unreachable);
        let refused = of(
            r#"{"type":"urn:ietf:params:acme:error:rejectedIdentifier","status":400,"detail":"no",
            "subproblems":[{"type":"x","detail":"policy","identifier":{"type":"dns","value":"a.example"}}]}"#,
        );
        assert_eq!(refused.kind, Kind::Refused);
        assert!(
            refused.text.contains("a.example") && refused.text.contains("policy"),
            "{}",
            refused.text
        );
        assert_eq!(Error::from(Cause::Timeout(None)).kind, Kind::Unreachable);
    }
}
