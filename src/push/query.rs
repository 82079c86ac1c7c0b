//! The query of a request, as all generations of clients write it. What is not listed here is ignored: older parameters are still sent.

use super::frame::Dialect;
use super::mid::Mid;

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// `CHANNEL_ID`.
    pub channels: Option<String>,
    /// Generation 5, in place of channels.
    pub token: Option<String>,
    pub is_binary: bool,
    pub is_rpc: bool,
    /// The last message that the client has; ignored unless well formed.
    pub after: Option<Mid>,
    /// Of the body.
    pub signature: Option<String>,
    /// Asked for by clients of long ago, and since then a way into a page: refused.
    pub has_callback: bool,
}

impl Query {
    pub fn parse(text: &str) -> Self {
        let mut query = Query::default();
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            match name.as_ref() {
                "CHANNEL_ID" => query.channels = Some(value.into_owned()),
                "token" => query.token = Some(value.into_owned()),
                "binaryMode" => query.is_binary = value == "true",
                "jsonRpc" => query.is_rpc = value == "true",
                "mid" => query.after = Mid::parse(&value),
                "signature" => query.signature = Some(value.into_owned()),
                "callback" => query.has_callback = true,
                _ => {}
            }
        }
        query
    }

    pub fn dialect(&self) -> Dialect {
        match (self.is_rpc, self.is_binary) {
            (true, _) => Dialect::Rpc,
            (false, true) => Dialect::Protobuf,
            (false, false) => Dialect::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_all_generations_are_read() {
        let four = Query::parse(
            "CHANNEL_ID=ab%3Acd.ef%2Fgh&revision=19&binaryMode=true&mid=17012345670000000000000042&tag=1&time=x",
        );
        assert_eq!(four.channels.as_deref(), Some("ab:cd.ef/gh"));
        assert_eq!(four.dialect(), Dialect::Protobuf);
        assert!(four.after.is_some());
        let five = Query::parse("token=a.b-_c.d&jsonRpc=true&binaryMode=true");
        assert_eq!(
            (five.token.as_deref(), five.dialect()),
            (Some("a.b-_c.d"), Dialect::Rpc)
        );
        let three = Query::parse("CHANNEL_ID=ab&mid=17&binaryMode=1&&=&%zz&callback");
        assert_eq!(
            (three.dialect(), three.after, three.has_callback),
            (Dialect::Text, None, true)
        );
        assert_eq!(Query::parse(""), Query::default());
    }
}
