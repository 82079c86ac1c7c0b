//! What the portal must know of this node: `bitrix/.settings.php` and `bitrix/php_interface/dbconn.php`.
//!
//! Agents run on page views: `BX_CRONTAB_SUPPORT` is left out, or those meant for cron would never run without one.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::base::file::{self, Access};
use crate::base::secret::Secret;
use crate::base::template::{self, render as fill};

const SETTINGS: &str = include_str!("../../assets/templates/settings.php");
/// The section of the push server, where there is one.
const PULL: &str = include_str!("../../assets/templates/settings-pull.php");
const PULL_PLACE: &str = "{{pull}}";
const DBCONN: &str = include_str!("../../assets/templates/dbconn.php");
/// In every file of ours; one without it is somebody's work and is kept.
const MARK: &str = "// Written by bitrix-node;";

/// What the files say.
pub struct Facts<'a> {
    /// By address, never "localhost", which PHP would take for its own idea of a unix socket.
    pub database_address: SocketAddr,
    pub database: &'a str,
    pub database_user: &'a str,
    pub password: &'a Secret,
    pub cache_address: SocketAddr,
    /// The same on all nodes and for the portal's life: stored data is encrypted with it.
    pub crypto_key: &'a Secret,
    pub push: Option<Push<'a>>,
    /// Empty: none in particular.
    pub domain: &'a str,
    /// The portal is reached by HTTPS alone, so that cookies never travel without it.
    pub https: bool,
    /// For uploads under way and scratch files; outside the document root, in a folder that root owns.
    pub temporary: &'a Path,
}

/// The push server, where there is one.
pub struct Push<'a> {
    /// Where it takes messages of this machine's PHP.
    pub address: SocketAddr,
    /// Signs the channels that browsers listen to; the server has it too.
    pub key: &'a Secret,
}

/// What `write` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files that now say something else, relative to the document root.
    pub changed: Vec<&'static str>,
    /// Where files were put that bitrix-node had not written.
    pub kept: Vec<PathBuf>,
}

/// `bitrix/.settings.php`. Pure.
pub fn settings(facts: &Facts) -> Result<String, template::Error> {
    let common = Common::of(facts);
    let (https, crypto_key) = (
        if facts.https { "true" } else { "false" },
        literal(facts.crypto_key.expose()),
    );
    let (cache_host, cache_port) = (
        literal(&facts.cache_address.ip().to_string()),
        facts.cache_address.port().to_string(),
    );
    let mut values = vec![
        ("https", https),
        ("crypto_key", &crypto_key),
        ("database_host", &common.host),
        ("database", &common.database),
        ("database_user", &common.user),
        ("password", &common.password),
        ("cache_host", &cache_host),
        ("cache_port", &cache_port),
    ];
    let Some(push) = &facts.push else {
        return fill(&SETTINGS.replace(PULL_PLACE, ""), &values);
    };
    let (address, key) = (literal(&format!("http://{}", push.address)), literal(push.key.expose()));
    values.extend([("push", address.as_str()), ("push_key", key.as_str())]);
    fill(&SETTINGS.replace(PULL_PLACE, PULL), &values)
}

/// `bitrix/php_interface/dbconn.php`. Pure.
pub fn dbconn(facts: &Facts) -> Result<String, template::Error> {
    let common = Common::of(facts);
    let domain = if facts.domain.is_empty() {
        "localhost"
    } else {
        facts.domain
    };
    fill(
        DBCONN,
        &[
            ("database_host", &common.host),
            ("database", &common.database),
            ("database_user", &common.user),
            ("password", &common.password),
            ("temporary", &literal(template::path(facts.temporary)?)),
            ("domain", &literal(domain)),
        ],
    )
}

/// Writes both files, readable for the portal's user alone, and makes their folders and the temporary one.
pub fn write(root: &Path, facts: &Facts, owner: (u32, u32)) -> anyhow::Result<Written> {
    let mut written = Written::default();
    let files = [
        ("bitrix/.settings.php", settings(facts)?),
        ("bitrix/php_interface/dbconn.php", dbconn(facts)?),
    ];
    file::ensure_folder(facts.temporary, Access::owned(0o700, owner.0, owner.1))
        .with_context(|| format!("make {}", facts.temporary.display()))?;
    let root = root
        .canonicalize()
        .with_context(|| format!("find {}", root.display()))?;
    for (name, text) in files {
        let path = root.join(name);
        let folder = Path::new(name).parent().context("the name has a folder")?;
        ensure_folder(&root, folder, owner).with_context(|| format!("make {}", folder.display()))?;
        let kept = keep(&path).with_context(|| format!("keep {}", path.display()))?;
        written.kept.extend(kept);
        let access = Access::owned(0o640, owner.0, owner.1);
        if file::ensure(&path, text.as_bytes(), access).with_context(|| format!("write {}", path.display()))? {
            written.changed.push(name);
        }
    }
    Ok(written)
}

/// Literals that both files share.
struct Common {
    host: String,
    database: String,
    user: String,
    password: String,
}

impl Common {
    fn of(facts: &Facts) -> Self {
        Common {
            host: literal(&facts.database_address.to_string()),
            database: literal(facts.database),
            user: literal(facts.database_user),
            password: literal(facts.password.expose()),
        }
    }
}

/// A PHP string in single quotes.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// Makes the folder for the portal's user, and refuses one that is reached through a symbolic link: the user could
/// have put it there to make root write elsewhere.
fn ensure_folder(root: &Path, folder: &Path, owner: (u32, u32)) -> anyhow::Result<()> {
    let mut path = root.to_path_buf();
    for part in folder.components() {
        path.push(part);
        match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => bail!(
                "{} is no folder of its own; replace the link by a folder",
                path.display()
            ),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                file::ensure_folder(&path, Access::owned(0o755, owner.0, owner.1))?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Moves a file aside that we did not write, and closes it to all but root.
fn keep(path: &Path) -> anyhow::Result<Option<PathBuf>> {
    match fs::read(path) {
        Ok(content) if content.windows(MARK.len()).any(|window| window == MARK.as_bytes()) => Ok(None),
        Ok(content) => {
            let old = path.with_extension("php.old");
            file::replace(&old, &content, Access::mode(0o600))?;
            Ok(Some(old))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::command::{self, Program};
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    const HOSTILE: &str = r#"'.phpinfo().'\'; ?> <?php "$x" {{domain}} \"#;

    fn me() -> (u32, u32) {
        (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw())
    }

    fn secret(text: &str) -> Secret {
        let folder = tempfile::tempdir().expect("temp dir");
        let path = folder.path().join("secret");
        fs::write(&path, text).expect("written");
        Secret::ensure(&path, Access::mode(0o600)).expect("read")
    }

    fn with_facts<T>(password: &str, test: impl AsyncFnOnce(&Facts) -> T) -> T {
        let temporary = tempfile::tempdir().expect("temp dir");
        let facts = Facts {
            database_address: "127.0.0.1:3306".parse().expect("an address"),
            database: "sitemanager",
            database_user: "bitrix",
            password: &secret(password),
            cache_address: "127.0.0.1:11211".parse().expect("an address"),
            crypto_key: &secret(HOSTILE),
            push: Some(Push {
                address: "127.0.0.1:8895".parse().expect("an address"),
                key: &secret(HOSTILE),
            }),
            domain: "portal.example",
            https: true,
            temporary: &temporary.path().join("portal-tmp"),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(test(&facts))
    }

    async fn php(arguments: &[&str]) -> String {
        let php = command::find("php").expect("PHP is installed");
        let told = Program::new(php).args(arguments).check(Duration::from_secs(30)).await;
        told.expect("PHP is content")
    }

    #[test]
    fn php_reads_back_what_was_meant() {
        with_facts(HOSTILE, async |facts| {
            let root = tempfile::tempdir().expect("temp dir");
            write(root.path(), facts, me()).expect("written");
            let file = |name| root.path().join(name).display().to_string();
            let (settings, dbconn) = (file("bitrix/.settings.php"), file("bitrix/php_interface/dbconn.php"));
            for file in [&settings, &dbconn] {
                php(&["-d", "error_reporting=-1", "-l", file]).await;
            }
            let read = php(&["-r", "echo json_encode(include $argv[1]);", &settings]).await;
            let read: serde_json::Value = serde_json::from_str(&read).expect("only JSON is printed");
            let connection = &read["connections"]["value"]["default"];
            assert_eq!(connection["password"], HOSTILE);
            assert_eq!(connection["host"], "127.0.0.1:3306");
            assert_eq!(connection["className"], r"\Bitrix\Main\DB\MysqliConnection");
            assert_eq!(read["crypto"]["value"]["crypto_key"], HOSTILE);
            assert_eq!(read["cookies"]["value"]["secure"], true);
            assert_eq!(read["cache"]["value"]["memcached"]["port"], 11211);
            let pull = &read["pull"]["value"];
            assert_eq!(pull["path_to_publish"], "http://127.0.0.1:8895/bitrix/pub/");
            assert_eq!(pull["signature_key"], HOSTILE);
            let code = "include $argv[1]; echo json_encode([$DBHost, $DBPassword, $_SERVER['SERVER_NAME']]);";
            let read = php(&["-r", code, &dbconn]).await;
            let read: Vec<String> = serde_json::from_str(&read).expect("only JSON is printed");
            assert_eq!(read, ["127.0.0.1:3306", HOSTILE, "portal.example"]);
        });
    }

    #[test]
    fn without_a_push_server_nothing_is_said_of_one() {
        with_facts("x", async |facts| {
            let alone = Facts { push: None, ..*facts };
            let root = tempfile::tempdir().expect("temp dir");
            write(root.path(), &alone, me()).expect("written");
            let file = root.path().join("bitrix/.settings.php").display().to_string();
            let read = php(&["-r", "echo json_encode(array_keys(include $argv[1]));", &file]).await;
            assert!(read.contains("\"session\"") && !read.contains("\"pull\""), "{read}");
        });
    }

    #[test]
    fn line_break_in_a_password_is_refused() {
        with_facts("a\nb", async |facts| {
            assert_eq!(dbconn(facts), Err(template::Error::Control("password".into())));
        });
    }

    #[test]
    fn second_writing_changes_nothing() {
        with_facts("x", async |facts| {
            let root = tempfile::tempdir().expect("temp dir");
            let first = write(root.path(), facts, me()).expect("written");
            assert_eq!(
                first.changed,
                ["bitrix/.settings.php", "bitrix/php_interface/dbconn.php"]
            );
            assert_eq!(write(root.path(), facts, me()).expect("written"), Written::default());
            let metadata = fs::metadata(root.path().join("bitrix/.settings.php")).expect("there");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o640);
        });
    }

    #[test]
    fn settings_of_somebody_else_are_kept() {
        with_facts("x", async |facts| {
            let root = tempfile::tempdir().expect("temp dir");
            fs::create_dir(root.path().join("bitrix")).expect("made");
            fs::write(root.path().join("bitrix/.settings.php"), "<?php // mine").expect("written");
            let kept = write(root.path(), facts, me()).expect("written").kept;
            assert_eq!(fs::read_to_string(&kept[0]).expect("kept"), "<?php // mine");
            let mode = fs::metadata(&kept[0]).expect("kept").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        });
    }

    #[test]
    fn link_in_place_of_a_folder_is_refused() {
        with_facts("x", async |facts| {
            let (root, outside) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("two"));
            symlink(outside.path(), root.path().join("bitrix")).expect("made");
            write(root.path(), facts, me()).expect_err("leads elsewhere");
            assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 0);
        });
    }
}
