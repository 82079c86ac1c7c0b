//! Comparisons of texts and of numbers.

use super::bytes;

/// How a value and the argument compare; both may have any case, as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    Equal,
    Contains,
    ContainsWord,
    Begins,
    Ends,
    /// The value occurs in the argument.
    Within,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub fn holds(self, value: &[u8], argument: &[u8]) -> bool {
        match self {
            Comparison::Equal => value == argument,
            Comparison::Contains => memchr::memmem::find(value, argument).is_some(),
            Comparison::ContainsWord => bytes::has_word(value, argument),
            Comparison::Begins => value.starts_with(argument),
            Comparison::Ends => value.ends_with(argument),
            // An empty value is nowhere.
            Comparison::Within => !value.is_empty() && memchr::memmem::find(argument, value).is_some(),
        }
    }
}

impl Order {
    pub fn holds(self, value: i64, argument: i64) -> bool {
        match self {
            Order::Equal => value == argument,
            Order::Less => value < argument,
            Order::LessOrEqual => value <= argument,
            Order::Greater => value > argument,
            Order::GreaterOrEqual => value >= argument,
        }
    }
}

/// The number that a text starts with, or zero, as C's `atoi` reads it; too large is the largest.
pub fn number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (is_negative, digits) = match text.first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let size = digits.fold(0i64, |sum, digit| {
        sum.saturating_mul(10).saturating_add(i64::from(digit - b'0'))
    });
    if is_negative { -size } else { size }
}
