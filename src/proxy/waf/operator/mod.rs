//! Operators: what a rule asks of a value. Typed at load, run on bytes.

mod bytes;
mod compare;
mod inject;
mod pattern;
mod phrase;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use ipnet::IpNet;

pub use bytes::ByteSet;
pub use compare::number;
use compare::{Comparison, Order};
pub use pattern::{Made, Pattern};
pub use phrase::Phrases;

use super::macros::Text;

#[derive(Clone, Debug)]
pub enum Operator {
    Pattern(Arc<Pattern>),
    /// A pattern with macros in it.
    Made(Arc<Made>),
    Phrases(Arc<Phrases>),
    Compare(Comparison, Text),
    Number(Order, Text),
    Address(Vec<IpNet>),
    /// A byte outside of the set.
    OutsideOf(Box<ByteSet>),
    BrokenUtf8,
    BrokenUrlEncoding,
    Sqli,
    Xss,
    Always,
    Never,
}

/// Parts of a value that a match names: the whole first.
pub type Captures = Vec<Vec<u8>>;

/// `folder`: where files that the argument names lie.
pub fn parse(name: &str, argument: &str, folder: &Path) -> Result<Operator, String> {
    use Comparison::*;
    let text = || Text::parse(argument);
    Ok(match name.to_ascii_lowercase().as_str() {
        "rx" | "rxglobal" if Text::parse(argument).constant().is_none() => {
            Operator::Made(Arc::new(Made::new(argument)))
        }
        "rx" | "rxglobal" => Operator::Pattern(Arc::new(Pattern::parse(argument)?)),
        "pm" => Operator::Phrases(Arc::new(Phrases::listed(argument)?)),
        "pmf" | "pmfromfile" => Operator::Phrases(Arc::new(Phrases::read(argument, folder)?)),
        "streq" => Operator::Compare(Equal, text()),
        "contains" | "strmatch" => Operator::Compare(Contains, text()),
        "containsword" => Operator::Compare(ContainsWord, text()),
        "beginswith" => Operator::Compare(Begins, text()),
        "endswith" => Operator::Compare(Ends, text()),
        "within" => Operator::Compare(Within, text()),
        "eq" => Operator::Number(Order::Equal, text()),
        "lt" => Operator::Number(Order::Less, text()),
        "le" => Operator::Number(Order::LessOrEqual, text()),
        "gt" => Operator::Number(Order::Greater, text()),
        "ge" => Operator::Number(Order::GreaterOrEqual, text()),
        "ipmatch" => Operator::Address(addresses(argument)?),
        "ipmatchf" | "ipmatchfromfile" => Operator::Address(addresses(&phrase::lines(argument, folder)?.join(","))?),
        "validatebyterange" => Operator::OutsideOf(Box::new(ByteSet::parse(argument)?)),
        "validateutf8encoding" => Operator::BrokenUtf8,
        "validateurlencoding" => Operator::BrokenUrlEncoding,
        "detectsqli" => Operator::Sqli,
        "detectxss" => Operator::Xss,
        "unconditionalmatch" => Operator::Always,
        // Lists over DNS and databases of places: a front asks nobody while a client waits. They never match.
        "nomatch" | "rbl" | "geolookup" => Operator::Never,
        _ => return Err(format!("no operator @{name}")),
    })
}

impl Operator {
    /// Whether it holds for a value. `expand` makes the argument of texts with macros; `captures` is filled when it is wanted.
    pub fn holds(&self, value: &[u8], expand: impl FnOnce(&Text) -> Vec<u8>, captures: Option<&mut Captures>) -> bool {
        match self {
            Operator::Pattern(pattern) => pattern.holds(value, captures),
            Operator::Made(made) => made.holds(value, expand, captures),
            Operator::Phrases(phrases) => phrases.holds(value, captures),
            Operator::Compare(comparison, text) => match text.constant() {
                Some(argument) => comparison.holds(value, argument),
                None => comparison.holds(value, &expand(text)),
            },
            Operator::Number(order, text) => match text.constant() {
                Some(argument) => order.holds(number(value), number(argument)),
                None => order.holds(number(value), number(&expand(text))),
            },
            Operator::Address(networks) => is_in(networks, value),
            Operator::OutsideOf(set) => value.iter().any(|byte| !set.has(*byte)),
            Operator::BrokenUtf8 => std::str::from_utf8(value).is_err(),
            Operator::BrokenUrlEncoding => bytes::has_broken_escape(value),
            Operator::Sqli => inject::is_sqli(value, captures),
            Operator::Xss => inject::is_xss(value, captures),
            Operator::Always => true,
            Operator::Never => false,
        }
    }
}

fn addresses(text: &str) -> Result<Vec<IpNet>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let network = |part: &str| match part.parse::<IpNet>() {
        Ok(network) => Ok(network),
        Err(_) => {
            let address = part
                .parse::<IpAddr>()
                .map_err(|_| format!("no address or network: {part}"));
            address.map(IpNet::from)
        }
    };
    parts.map(network).collect()
}

fn is_in(networks: &[IpNet], value: &[u8]) -> bool {
    let address = std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse::<IpAddr>().ok());
    address.is_some_and(|address| networks.iter().any(|network| network.contains(&address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(name: &str, argument: &str, value: &str) -> bool {
        let operator = parse(name, argument, Path::new("/nowhere")).unwrap();
        operator.holds(value.as_bytes(), |_| Vec::new(), None)
    }

    #[test]
    fn operators_hold_as_their_names_say() {
        let table = [
            ("rx", "^a.c$", "a\nc", true),
            ("rx", "(?i)ABC", "xabcx", true),
            ("rx", "^%{tx.none}a$", "a", true),
            ("pm", "one two", "xTWOx", true),
            ("pm", "one two", "three", false),
            ("streq", "a", "a", true),
            ("within", "GET POST", "POST", true),
            ("within", "GET POST", "PUT", false),
            ("containsWord", "cat", "a cat.", true),
            ("containsWord", "cat", "concat", false),
            ("eq", "5", " 5x", true),
            ("ge", "-1", "0", true),
            ("gt", "9223372036854775807", "99999999999999999999", false),
            ("ipMatch", "10.0.0.0/8,::1", "10.1.2.3", true),
            ("ipMatch", "10.0.0.0/8,::1", "11.1.2.3", false),
            ("validateByteRange", "32-126", "a\tb", true),
            ("validateByteRange", "32-126,9", "a\tb", false),
            ("validateUrlEncoding", "", "%4", true),
            ("validateUrlEncoding", "", "%41", false),
            ("detectSQLi", "", "1' OR '1'='1", true),
            ("detectSQLi", "", "договор", false),
            ("detectXSS", "", "<script>alert(1)</script>", true),
            ("detectXSS", "", "a plain text", false),
        ];
        for (name, argument, value, expected) in table {
            assert_eq!(
                holds(name, argument, value),
                expected,
                "@{name} {argument} on {value:?}"
            );
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for (name, argument) in [
            ("nope", ""),
            ("rx", "("),
            ("ipMatch", "x"),
            ("validateByteRange", "300"),
            ("pmf", "none.data"),
        ] {
            assert!(
                parse(name, argument, Path::new("/nowhere")).is_err(),
                "@{name} {argument}"
            );
        }
    }
}
