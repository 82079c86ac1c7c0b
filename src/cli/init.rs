//! `init`: makes this machine ready to be a node. Shows its plan, asks once, can be repeated.

use std::io::{BufRead, Write};

use clap::Args;

use super::require_root;
use crate::base::error::{EXIT_DEGRADED, EXIT_OK};
use crate::config::{Config, Loaded};
use crate::host::account;
use crate::host::package::{self, Family, Need};
use crate::node::prepare;
use crate::{db, php};

#[derive(Debug, Args)]
pub struct Init {
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Show the plan and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Init {
    pub async fn perform(self, loaded: Loaded) -> anyhow::Result<u8> {
        let config = loaded.config;
        let plan = Plan::make(&config).await?;
        let mut out = std::io::stdout();
        write!(out, "{}", plan.describe(&config))?;
        if self.dry_run {
            return Ok(EXIT_OK);
        }
        require_root()?;
        if !self.yes && !is_agreed()? {
            writeln!(out, "nothing was changed")?;
            return Ok(EXIT_DEGRADED);
        }
        ready(&config, &plan).await?;
        writeln!(
            out,
            "ready; next:\n  bitrix-node portal install --from DIR|ARCHIVE\n  systemctl enable --now bitrix-node"
        )?;
        Ok(EXIT_OK)
    }
}

/// What is missing.
pub struct Plan {
    family: Option<Family>,
    packages: Vec<String>,
    users: Vec<String>,
}

impl Plan {
    pub async fn make(config: &Config) -> anyhow::Result<Self> {
        let mut needs = Vec::new();
        match php::find(config) {
            Some(php) => needs.extend(package::missing_extensions(&php).await?),
            None => {
                needs.push(Need::Php);
                needs.extend(package::PHP_EXTENSIONS.map(Need::PhpExtension));
            }
        }
        if config.db.run && db::find(config).is_none() {
            needs.push(Need::MariaDb);
        }
        let family = package::family();
        let packages: Vec<String> = match family {
            Some(family) => needs.iter().map(|need| package::name(family, *need)).collect(),
            None if needs.is_empty() => Vec::new(),
            None => anyhow::bail!(
                "neither apt-get nor dnf is here: install PHP-FPM with its extensions and MariaDB by hand"
            ),
        };
        let mut users = Vec::new();
        for name in [&config.node.user, &config.portal.user] {
            if account::find(name)?.is_none() {
                users.push(name.clone());
            }
        }
        Ok(Plan {
            family,
            packages,
            users,
        })
    }

    fn describe(&self, config: &Config) -> String {
        let listed = |names: &[String]| {
            if names.is_empty() {
                "none".to_string()
            } else {
                names.join(" ")
            }
        };
        format!(
            "install packages:  {}\nmake users:        {}\ndata, secrets:     {}\nportal files:      {}\n",
            listed(&self.packages),
            listed(&self.users),
            config.node.data_dir.display(),
            config.portal_root().display(),
        )
    }
}

/// Carries the plan out.
pub async fn ready(config: &Config, plan: &Plan) -> anyhow::Result<()> {
    if let Some(family) = plan.family.filter(|_| !plan.packages.is_empty()) {
        println!("installing {} packages …", plan.packages.len());
        package::install(family, &plan.packages).await?;
    }
    for user in &plan.users {
        account::ensure(user).await?;
    }
    prepare::folders(config)?;
    prepare::node(config).await?;
    Ok(())
}

fn is_agreed() -> anyhow::Result<bool> {
    print!("go on? [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
