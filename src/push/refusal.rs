//! Why a client is refused: the protocol's own codes. On a WebSocket they close it, over HTTP they are the first word of the body.

use http::StatusCode;
use thiserror::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[error("{}: {}", self.code(), self.text())]
pub enum Refusal {
    /// Also for a token that does not hold: clients ask the portal for fresh channels then.
    WrongChannel,
    NoPublicChannel,
    WrongData,
    CommandNotAllowed,
    TooManyMessages,
    NoChannels,
    TooManyChannels,
    InvalidChannel,
    PrivateReceiver,
    WrongSignature,
    Empty,
    WrongBodySignature,
    TooManyConnections,
    BadJson,
    /// No hub orders messages just now. WebSocket's own code for it.
    Unavailable,
}

impl Refusal {
    pub fn code(self) -> u16 {
        self.parts().0
    }

    pub fn text(self) -> &'static str {
        self.parts().1
    }

    /// For counters: a word of ours, nothing of the client's.
    pub fn name(self) -> &'static str {
        self.parts().2
    }

    pub fn status(self) -> StatusCode {
        match self {
            Refusal::TooManyConnections => StatusCode::TOO_MANY_REQUESTS,
            Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    fn parts(self) -> (u16, &'static str, &'static str) {
        match self {
            Refusal::WrongChannel => (4010, "Wrong Channel Id.", "wrong_channel"),
            Refusal::NoPublicChannel => (4012, "Public Channel Id is Required.", "no_public_channel"),
            Refusal::WrongData => (4013, "Wrong Request Data.", "wrong_data"),
            Refusal::CommandNotAllowed => (4014, "Request command is not allowed.", "command_not_allowed"),
            Refusal::TooManyMessages => (4016, "Too many messages in the request.", "too_many_messages"),
            Refusal::NoChannels => (4017, "No channels found.", "no_channels"),
            Refusal::TooManyChannels => (4018, "Too many channels in the request.", "too_many_channels"),
            Refusal::InvalidChannel => (4019, "Invalid channel id.", "invalid_channel"),
            Refusal::PrivateReceiver => (4020, "Private channel is not allowed.", "private_receiver"),
            Refusal::WrongSignature => (4021, "Channel has an invalid signature.", "wrong_signature"),
            Refusal::Empty => (4022, "Empty request.", "empty"),
            Refusal::WrongBodySignature => (4026, "Wrong request signature.", "wrong_body_signature"),
            Refusal::TooManyConnections => (4029, "Too many connections", "too_many_connections"),
            Refusal::BadJson => (4032, "Bad JSON", "bad_json"),
            Refusal::Unavailable => (1013, "Try again later.", "unavailable"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_comes_first() {
        assert_eq!(Refusal::WrongChannel.to_string(), "4010: Wrong Channel Id.");
        assert_eq!(Refusal::WrongChannel.status(), 400);
        assert_eq!(Refusal::TooManyConnections.status(), 429);
    }
}
