//! Programs that a test makes and starts.
//!
//! Another process writes them: what this one writes, a child that another test forks in that moment holds open for writing, and
//! until it executes its own program, execve(2) of the file fails with ETXTBSY.

use std::ffi::OsStr;
use std::path::Path;

/// Copies an executable.
pub fn copy(from: &Path, to: &Path) {
    run("cp", &[from.as_os_str(), to.as_os_str()]);
}

/// Makes `path` a program of this text.
pub fn write(path: &Path, text: &str) {
    let script = r#"printf %s "$1" >"$2" && chmod 755 "$2""#;
    let arguments = ["-c", script, "sh", text].map(OsStr::new);
    run("/bin/sh", &[&arguments[..], &[path.as_os_str()]].concat());
}

fn run(program: &str, arguments: &[&OsStr]) {
    #[allow(clippy::disallowed_methods)]
    let status = std::process::Command::new(program).args(arguments).status().unwrap();
    assert!(status.success(), "{program} {arguments:?}");
}
