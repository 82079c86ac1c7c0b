//! The real executable, run to its end.

use std::process::{Output, Stdio};

/// What a command left: exit code, standard output, standard error.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

pub const EXECUTABLE: &str = env!("CARGO_BIN_EXE_bitrix-node");

/// Runs `bitrix-node ARGUMENTS` with these variables.
pub fn bitrix_node(arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    #[allow(clippy::disallowed_methods)]
    let mut command = std::process::Command::new(EXECUTABLE);
    command
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran {
        code: status.code().unwrap_or(-1),
        out: text(stdout),
        err: text(stderr),
    }
}
