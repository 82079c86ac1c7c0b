//! A look at an executable before it takes our place: it is run once, and must say who it is and that it takes this configuration.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::host::command::Program;
use crate::node::reexec::{FORMAT, OLDEST};

/// The hidden verb of this executable.
pub const VERB: &str = "upgrade-probe";
const NAME: &str = "bitrix-node";
/// It reads a file and prints a line; a busy machine may take seconds to start it.
const DEADLINE: Duration = Duration::from_secs(20);

/// What an executable says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    pub name: String,
    pub version: String,
    /// The first and the last format of an estate that it goes on with.
    pub estate: (u32, u32),
}

/// This executable's own word, as a line.
pub fn introduce() -> String {
    let own = Introduction {
        name: NAME.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        estate: (OLDEST, FORMAT),
    };
    serde_json::to_string(&own).expect("plain data")
}

/// Errors say why it must not take our place.
pub async fn probe(executable: &Path, config: &Path) -> Result<Introduction, String> {
    let program = Program::new(executable).arg(VERB).arg("--config").arg(config);
    let said = program.check(DEADLINE).await.map_err(|error| error.to_string())?;
    judge(&said, FORMAT).map_err(|why| format!("{}: {why}", executable.display()))
}

/// `format`: of the estate that it would get.
fn judge(said: &str, format: u32) -> Result<Introduction, String> {
    let said: Introduction = serde_json::from_str(said.trim()).map_err(|_| "it is not a bitrix-node".to_owned())?;
    if said.name != NAME {
        return Err(format!("it is {}, not {NAME}", said.name));
    }
    let (oldest, newest) = said.estate;
    match (oldest..=newest).contains(&format) {
        true => Ok(said),
        false => Err(format!(
            "version {} cannot go on with what this version leaves it; stop the node, install it, and start the node",
            said.version
        )),
    }
}

/// Whether a version comes before another one, by its numbers.
pub fn is_older(version: &str, than: &str) -> bool {
    let numbers = |version: &str| -> Vec<u64> {
        let parts = version.split(['.', '-', '+']);
        parts.map_while(|part| part.parse().ok()).collect()
    };
    numbers(version) < numbers(than)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(is_older("0.9.0", "0.10.0") && is_older("1.0", "1.0.1"));
        assert!(!is_older("0.1.0", "0.1.0") && !is_older("2.0.0", "1.9.9"));
    }

    #[test]
    fn only_who_can_go_on_is_let_in() {
        assert_eq!(
            judge(&introduce(), FORMAT).expect("our own").version,
            env!("CARGO_PKG_VERSION")
        );
        assert!(
            judge("bash 5.2", FORMAT)
                .expect_err("another program")
                .contains("not a bitrix-node")
        );
        assert!(judge("", FORMAT).is_err());
        let other = introduce().replace(NAME, "other");
        assert_eq!(
            judge(&other, FORMAT).expect_err("another name"),
            "it is other, not bitrix-node"
        );
        assert!(
            judge(&introduce(), FORMAT + 1)
                .expect_err("too new for it")
                .contains("stop the node")
        );
    }
}
