//! `storage add`, `remove` and `recover`: who is in the group.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Context;

use super::Connection;
use crate::config::Config;
use crate::storage::command::{Command, ask};

pub async fn add(config: &Config, node: String, address: &str, witness: bool) -> anyhow::Result<()> {
    let add = Command::Add {
        name: node.clone(),
        address: storage_address(address, config)?,
        witness,
    };
    command(config, &add).await?;
    writeln!(
        std::io::stdout(),
        "{node} is taken in; `bitrix-node storage status` shows when it has everything"
    )?;
    Ok(())
}

pub async fn remove(config: &Config, node: String) -> anyhow::Result<()> {
    command(config, &Command::Remove { name: node.clone() }).await?;
    writeln!(std::io::stdout(), "{node} is no member any more")?;
    Ok(())
}

pub async fn recover(config: &Config, lost: Vec<String>, accepts_loss: bool) -> anyhow::Result<()> {
    let names = lost.join(", ");
    command(config, &Command::Recover { lost, accepts_loss }).await?;
    writeln!(
        std::io::stdout(),
        "this node goes on alone in a moment. Keep {names} off until their {} is emptied: together they may still be a \
         majority of the old group.",
        config.storage().display()
    )?;
    Ok(())
}

async fn command(config: &Config, command: &Command) -> anyhow::Result<()> {
    let connection = Connection::open(config).await?;
    let done = ask(&connection.caller, command).await;
    connection.close().await;
    done
}

/// Without a port it is the same as here.
fn storage_address(text: &str, config: &Config) -> anyhow::Result<String> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address.to_string());
    }
    let ip = text
        .parse()
        .context("the address must be an IP address, or ADDRESS:PORT")?;
    let port = config.storage_mesh().map(|own| own.port());
    let port = port.context("cluster.address is not set here: this node meets no others")?;
    Ok(SocketAddr::new(ip, port).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::parse;

    #[test]
    fn an_address_without_port_gets_the_storages() {
        let text = "[cluster]\naddress = \"10.0.0.1\"\n";
        let config = parse(text, std::iter::empty()).unwrap().config;
        assert_eq!(storage_address("10.0.0.2", &config).unwrap(), "10.0.0.2:7401");
        assert_eq!(storage_address("10.0.0.2:9", &config).unwrap(), "10.0.0.2:9");
        assert_eq!(storage_address("fd00::2", &config).unwrap(), "[fd00::2]:7401");
        assert!(storage_address("node2", &config).is_err());
        let alone = parse("", std::iter::empty()).unwrap().config;
        assert!(storage_address("10.0.0.2", &alone).is_err());
    }
}
