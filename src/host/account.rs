//! System accounts, read from /etc/passwd and /etc/group themselves: a static executable has no NSS.

use std::io;
use std::time::Duration;

use super::command::{self, Program};

const USERADD: Duration = Duration::from_secs(30);

/// A user with its primary group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    pub gid: u32,
}

/// Finds a user by name; `None` when there is no such user.
pub fn find(name: &str) -> io::Result<Option<Account>> {
    find_in(&std::fs::read_to_string("/etc/passwd")?, name)
}

/// The user that must exist, or an error that says how to make it.
pub fn require(name: &str) -> io::Result<Account> {
    find(name)?.ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("there is no system user \"{name}\"; `bitrix-node init` makes it"),
        )
    })
}

/// Makes a system user with a group of its own, without a home and without a login, unless it is there.
pub async fn ensure(name: &str) -> io::Result<Account> {
    if let Some(account) = find(name)? {
        return Ok(account);
    }
    let useradd = command::find("useradd").ok_or_else(|| io::Error::other("useradd is not installed"))?;
    Program::new(useradd)
        .args([
            "--system",
            "--user-group",
            "--no-create-home",
            "--home-dir",
            "/",
            "--shell",
            "/usr/sbin/nologin",
            "--",
            name,
        ])
        .check(USERADD)
        .await?;
    require(name)
}

/// The user with exactly these ids, made or changed to them; an error says who has them. Files on other machines are its own by
/// number. What it owns here already is not handed over: for a machine on which it has done nothing yet.
pub async fn ensure_ids(name: &str, uid: u32, gid: u32) -> io::Result<Account> {
    let account = ensure(name).await?;
    let tool = |name: &str| {
        let found = command::find(name).map(Program::new);
        found.ok_or_else(|| io::Error::other(format!("{name} is not installed")))
    };
    if account.gid != gid {
        let arguments = ["--gid", &gid.to_string(), "--", name];
        tool("groupmod")?.args(arguments).check(USERADD).await?;
    }
    if account.uid != uid || account.gid != gid {
        let arguments = ["--uid", &uid.to_string(), "--gid", &gid.to_string(), "--", name];
        tool("usermod")?.args(arguments).check(USERADD).await?;
    }
    require(name)
}

/// passwd(5): name:password:uid:gid:gecos:home:shell.
fn find_in(passwd: &str, name: &str) -> io::Result<Option<Account>> {
    let Some(line) = passwd.lines().find(|line| line.split(':').next() == Some(name)) else {
        return Ok(None);
    };
    let fields: Vec<&str> = line.split(':').collect();
    let id = |index: usize| fields.get(index).and_then(|field| field.parse().ok());
    match (id(2), id(3)) {
        (Some(uid), Some(gid)) => Ok(Some(Account {
            name: name.to_string(),
            uid,
            gid,
        })),
        _ => Err(io::Error::other(format!("the line of {name} in /etc/passwd is broken"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_whole_name() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbitrix-node:x:998:997::/:/usr/sbin/nologin\nbroken:x\n";
        let found = find_in(passwd, "bitrix-node").expect("readable");
        assert_eq!(
            found,
            Some(Account {
                name: "bitrix-node".into(),
                uid: 998,
                gid: 997
            })
        );
        assert_eq!(find_in(passwd, "bitrix").expect("readable"), None);
        assert!(find_in(passwd, "broken").is_err());
    }
}
