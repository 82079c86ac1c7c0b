//! Error chains in one line, and the exit codes of the program.

use std::error::Error;

/// Everything is well.
pub const EXIT_OK: u8 = 0;
/// Something is degraded, or the command failed.
pub const EXIT_DEGRADED: u8 = 1;
/// The node or portal is down, or the command line was wrong.
pub const EXIT_DOWN: u8 = 2;

/// `error: cause: cause`, without repeating a cause that its parent already prints.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn chain_names_each_cause_once() {
        let error = Err::<(), _>(std::io::Error::other("disk"))
            .context("read the key")
            .expect_err("is an error");
        assert_eq!(chain(error.as_ref()), "read the key: disk");
    }
}
