//! How common a text is in what portals are sent, roughly: for choosing what to look for. Nothing depends on it but speed.

/// Bytes of a common value.
const LENGTH: f64 = 24.0;

/// Of common values, the share that has `text` (in lower case) somewhere; may be above one.
pub fn share(text: &[u8]) -> f64 {
    LENGTH * text.iter().map(|byte| of_byte(*byte)).product::<f64>()
}

fn of_byte(byte: u8) -> f64 {
    match byte {
        b' ' | b'e' | b'a' | b'i' | b'o' | b't' | b'n' | b'r' | b's' => 0.06,
        b'j' | b'q' | b'x' | b'z' => 0.004,
        b'a'..=b'z' => 0.025,
        b'0'..=b'9' => 0.03,
        b'.' | b'-' | b'/' | b'=' | b'_' | b':' | b'%' | b'[' | b']' | b',' | b'"' => 0.015,
        128.. => 0.02,
        _ => 0.003,
    }
}
