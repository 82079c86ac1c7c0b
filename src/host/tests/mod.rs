//! What tests of this module and of others share: programs that a test makes and starts.

use std::path::Path;

/// Makes `path` a shell script that may be started at once.
///
/// Another process writes it: what this one writes, a child that another test forks in that moment holds open for writing, and
/// until it executes its own program, execve(2) of the file fails with ETXTBSY.
pub(crate) fn script(path: &Path, body: &str) {
    #[allow(clippy::disallowed_methods)]
    let written = std::process::Command::new("/bin/sh")
        .args([
            "-c",
            r#"printf '#!/bin/sh\n%s\n' "$1" >"$2" && chmod 755 "$2""#,
            "sh",
            body,
        ])
        .arg(path)
        .status();
    assert!(written.expect("started").success(), "{}", path.display());
}
