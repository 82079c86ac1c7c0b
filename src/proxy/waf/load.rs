//! Folders of rules to a plan: which files, in which order.
//!
//! A folder is one of the Core Rule Set (`crs-setup.conf`, `rules/`, `plugins/`), or holds `.conf` files itself. Files of all folders
//! are one set, ordered as the rule set asks for: setup, what a plugin sets, what it and the caller exclude, rules by name, what comes after.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use super::engine::Plan;
use super::seclang::{Error, Program};
use super::transform::Reading;

const SETUP: &str = "crs-setup.conf";
/// Holds all defaults; stands in where nobody has made a setup of it.
const EXAMPLE: &str = "crs-setup.conf.example";

/// Rules that do not come from a file.
pub struct Own<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Setup,
    PluginConfig,
    PluginBefore,
    Rules,
    PluginAfter,
}

/// `before`: rules between the setup and the rule set, `after`: changes of rules, behind all.
pub fn load(folders: &[PathBuf], before: &[Own], after: &[Own], reading: Reading) -> Result<Plan, Error> {
    let mut program = Program::default();
    let files = files(folders)?;
    let rules = files.partition_point(|(stage, _)| *stage < Stage::Rules);
    let (first, rest) = files.split_at(rules);
    add_files(&mut program, first)?;
    add_own(&mut program, before)?;
    add_files(&mut program, rest)?;
    add_own(&mut program, after)?;
    Ok(Plan::new(program, reading))
}

fn add_files(program: &mut Program, files: &[(Stage, PathBuf)]) -> Result<(), Error> {
    for (_, path) in files {
        let text = fs::read(path).map_err(|cause| unread(path, cause))?;
        let folder = path.parent().unwrap_or(Path::new("/"));
        program.add(&path.display().to_string(), &String::from_utf8_lossy(&text), folder)?;
    }
    Ok(())
}

fn add_own(program: &mut Program, rules: &[Own]) -> Result<(), Error> {
    let mut rules = rules.iter();
    rules.try_for_each(|own| program.add(own.name, own.text, Path::new("/nonexistent")))
}

fn files(folders: &[PathBuf]) -> Result<Vec<(Stage, PathBuf)>, Error> {
    let mut found = Vec::new();
    for folder in folders {
        for file in list(folder)? {
            found.extend(name(&file).and_then(stage).map(|stage| (stage, file)));
        }
        for part in ["rules", "plugins"]
            .map(|part| folder.join(part))
            .iter()
            .filter(|part| part.is_dir())
        {
            for file in list(part)? {
                found.extend(name(&file).and_then(stage).map(|stage| (stage, file)));
            }
        }
    }
    if found.iter().any(|(_, path)| name(path) == Some(SETUP)) {
        found.retain(|(_, path)| name(path) != Some(EXAMPLE));
    }
    found.sort_by(|(stage, path), (other_stage, other)| {
        (stage, name(path), path).cmp(&(other_stage, name(other), other))
    });
    Ok(found)
}

fn stage(name: &str) -> Option<Stage> {
    match name {
        SETUP | EXAMPLE => Some(Stage::Setup),
        _ if !name.ends_with(".conf") => None,
        _ if name.ends_with("-config.conf") => Some(Stage::PluginConfig),
        _ if name.ends_with("-before.conf") => Some(Stage::PluginBefore),
        _ if name.ends_with("-after.conf") => Some(Stage::PluginAfter),
        _ => Some(Stage::Rules),
    }
}

fn name(path: &Path) -> Option<&str> {
    path.file_name().and_then(OsStr::to_str)
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = fs::read_dir(folder).map_err(|cause| unread(folder, cause))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let paths: Result<Vec<PathBuf>, _> = paths.collect();
    let mut paths = paths.map_err(|cause| unread(folder, cause))?;
    paths.retain(|path| path.is_file());
    Ok(paths)
}

fn unread(path: &Path, cause: std::io::Error) -> Error {
    Error::Read {
        path: path.to_path_buf(),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_that_the_rule_set_asks_for() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("crs-setup.conf.example", "SecAction \"id:1\"");
        put(
            "rules/REQUEST-901.conf",
            "SecRule ARGS \"@pmFromFile words.data\" \"id:4\"",
        );
        put("rules/words.data", "# one\none\n");
        put("rules/REQUEST-900.conf.example", "SecNonsense");
        put("plugins/x-after.conf", "SecAction \"id:5\"");
        put("plugins/x-before.conf", "SecAction \"id:2\"");
        let own = [Own {
            name: "own",
            text: "SecAction \"id:3\"",
        }];
        let last = [Own {
            name: "last",
            text: "SecRuleRemoveById 5",
        }];
        let folders = [folder.path().to_path_buf()];
        let plan = load(&folders, &own, &last, Reading::Text).unwrap();
        assert_eq!(plan.rules.iter().map(|rule| rule.id).collect::<Vec<_>>(), [1, 2, 3, 4]);
        put("rules/words.data", "");
        assert!(load(&folders, &[], &[], Reading::Text).is_err());
        assert!(load(&[folder.path().join("none")], &[], &[], Reading::Text).is_err());
    }
}
