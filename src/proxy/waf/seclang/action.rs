//! `id:1,phase:2,t:lowercase,setvar:'tx.a=1'` to typed actions.

use super::line::{split, unquote};
use super::target;
use crate::proxy::waf::macros::Text;
use crate::proxy::waf::rule::{Change, Control, Disruption, Effect, Engine, Phase, Picked, Processor};
use crate::proxy::waf::transform::Transform;
use crate::proxy::waf::variable::Variable;

/// The actions of one rule or one link. `None`: not said.
#[derive(Clone, Debug, Default)]
pub struct Actions {
    pub id: Option<u64>,
    pub phase: Option<Phase>,
    pub disruption: Option<Said>,
    pub status: Option<u16>,
    pub message: Option<Text>,
    pub data: Option<Text>,
    pub severity: Option<u8>,
    pub tags: Vec<String>,
    pub version: String,
    pub is_logged: Option<bool>,
    pub skip_after: Option<String>,
    pub is_chained: bool,
    /// Those of the default come first, unless `t:none` was said.
    pub is_bare: bool,
    pub transforms: Vec<Transform>,
    pub is_multi: bool,
    pub captures: bool,
    pub effects: Vec<Effect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// As the phase's default says.
    Block,
    Is(Disruption),
}

pub fn parse(text: &str) -> Result<Actions, String> {
    let mut actions = Actions::default();
    for part in split(text, ',').into_iter().filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once(':').unwrap_or((part, ""));
        let value = unquote(value.trim());
        let name = name.trim().to_ascii_lowercase();
        let is_known = meaning(&mut actions, &name, &value)? || behaviour(&mut actions, &name, &value)?;
        if !is_known {
            return Err(format!("no action {name}"));
        }
    }
    Ok(actions)
}

/// What a rule says of itself.
fn meaning(actions: &mut Actions, name: &str, value: &str) -> Result<bool, String> {
    match name {
        "id" => actions.id = Some(value.parse().map_err(|_| format!("an id is a number, not {value}"))?),
        "msg" => actions.message = Some(Text::parse(value)),
        "logdata" => actions.data = Some(Text::parse(value)),
        "tag" => actions.tags.push(value.to_string()),
        "ver" => actions.version = value.to_string(),
        "rev" | "maturity" | "accuracy" => {}
        "severity" => actions.severity = Some(severity(value)?),
        "log" => actions.is_logged = Some(true),
        "nolog" => actions.is_logged = Some(false),
        // What is audited, the configuration says.
        "auditlog" | "noauditlog" | "logpart" | "sanitisearg" | "sanitisematched" | "sanitisematchedbytes" => {}
        "sanitiserequestheader" | "sanitiseresponseheader" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

fn behaviour(actions: &mut Actions, name: &str, value: &str) -> Result<bool, String> {
    let is = |disruption| Some(Said::Is(disruption));
    match name {
        "phase" => {
            let phase = Phase::named(value).ok_or_else(|| format!("no phase {value}"))?;
            actions.phase = Some(phase);
        }
        "pass" => actions.disruption = is(Disruption::Pass),
        "block" => actions.disruption = Some(Said::Block),
        // A connection is not ours to drop, nor a request to redirect: both are refused.
        "deny" | "drop" | "redirect" => actions.disruption = is(Disruption::Deny),
        "allow" => {
            actions.disruption = is(match value {
                "phase" => Disruption::AllowPhase,
                "request" => Disruption::AllowRequest,
                "" => Disruption::Allow,
                _ => return Err(format!("no allow:{value}")),
            });
        }
        "status" => actions.status = Some(value.parse().map_err(|_| format!("no status {value}"))?),
        "chain" => actions.is_chained = true,
        "capture" => actions.captures = true,
        "multimatch" => actions.is_multi = true,
        "skipafter" => actions.skip_after = Some(value.to_string()),
        "t" if value.eq_ignore_ascii_case("none") => {
            actions.is_bare = true;
            actions.transforms.clear();
        }
        "t" => {
            let transform = Transform::named(value).ok_or_else(|| format!("no transformation {value}"))?;
            actions.transforms.push(transform);
        }
        "setvar" => actions.effects.push(set(value)?),
        "ctl" => actions.effects.push(Effect::Control(control(value)?)),
        // Collections live as long as the request: there is nothing to load and nothing to expire.
        "initcol" | "setuid" | "setsid" | "expirevar" | "deprecatevar" => {}
        _ => return Ok(false),
    }
    Ok(true)
}

fn severity(value: &str) -> Result<u8, String> {
    const NAMES: [&str; 8] = [
        "EMERGENCY",
        "ALERT",
        "CRITICAL",
        "ERROR",
        "WARNING",
        "NOTICE",
        "INFO",
        "DEBUG",
    ];
    let place = NAMES.iter().position(|name| name.eq_ignore_ascii_case(value));
    let number = place.map(|place| place as u8).or_else(|| value.parse().ok());
    number
        .filter(|number| *number < 8)
        .ok_or_else(|| format!("no severity {value}"))
}

/// `tx.a=1`, `tx.a=+1`, `!tx.a`, `tx.a`.
fn set(value: &str) -> Result<Effect, String> {
    let (is_unset, rest) = value.strip_prefix('!').map_or((false, value), |rest| (true, rest));
    let (name, change) = match rest.split_once('=') {
        _ if is_unset => (rest, Change::Unset),
        None => (rest, Change::Assign(Text::parse("1"))),
        Some((name, value)) => {
            let change = match value.as_bytes().first() {
                Some(b'+') => Change::Add(Text::parse(&value[1..])),
                Some(b'-') => Change::Subtract(Text::parse(&value[1..])),
                _ => Change::Assign(Text::parse(value)),
            };
            (name, change)
        }
    };
    let (collection, key) = name
        .trim()
        .split_once('.')
        .ok_or_else(|| format!("setvar:{value} names no collection"))?;
    use Variable::*;
    let variable = Variable::named(collection).map(|found| found[0]);
    let settable = |variable: &Variable| matches!(variable, Tx | Ip | Global | Session | User | Resource);
    let collection = variable
        .filter(settable)
        .ok_or_else(|| format!("setvar: no collection {collection}"))?;
    let key = Text::parse(key);
    Ok(Effect::Set {
        collection,
        key,
        change,
    })
}

fn control(value: &str) -> Result<Control, String> {
    let (name, value) = value
        .split_once('=')
        .ok_or_else(|| format!("ctl:{value} has no value"))?;
    let name = name.trim().to_ascii_lowercase();
    let with_target = |picked: fn(&str) -> Result<Picked, String>| {
        let (which, targets) = value.split_once(';').unwrap_or((value, ""));
        let targets = target::parse(targets)?;
        Ok::<_, String>(Control::RemoveTargets(picked(which)?, targets.include))
    };
    Ok(match name.as_str() {
        "ruleremovebyid" => Control::Remove(ids(value)?),
        "ruleremovebytag" => Control::Remove(tag(value)?),
        "ruleremovebymsg" => Control::Remove(message(value)?),
        "ruleremovetargetbyid" => with_target(ids)?,
        "ruleremovetargetbytag" => with_target(tag)?,
        "ruleremovetargetbymsg" => with_target(message)?,
        "ruleengine" => Control::Engine(engine(value)?),
        "requestbodyprocessor" => {
            let processor = Processor::named(value).ok_or_else(|| format!("no body processor {value}"))?;
            Control::BodyProcessor(processor)
        }
        "forcerequestbodyvariable" => Control::ForceBody(value.eq_ignore_ascii_case("on")),
        "auditengine" | "auditlogparts" | "debugloglevel" | "requestbodyaccess" | "requestbodylimit"
        | "responsebodyaccess" | "responsebodylimit" | "hashengine" | "hashenforcement" => Control::Ignored,
        _ => return Err(format!("no ctl:{name}")),
    })
}

pub fn engine(value: &str) -> Result<Engine, String> {
    match value.to_ascii_lowercase().as_str() {
        "off" => Ok(Engine::Off),
        "detectiononly" => Ok(Engine::Detect),
        "on" => Ok(Engine::Block),
        _ => Err(format!("no engine {value}: On, Off or DetectionOnly")),
    }
}

/// `1`, `1-9`, or several with blanks or commas between.
pub fn ids(text: &str) -> Result<Picked, String> {
    let mut ranges = Vec::new();
    for part in text.split([' ', ',']).filter(|part| !part.is_empty()) {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let bad = |_| format!("no rule id or range of them: {part}");
        ranges.push((low.parse().map_err(bad)?, high.parse().map_err(bad)?));
    }
    match ranges.is_empty() {
        true => Err("no rule id".to_string()),
        false => Ok(Picked::Ids(ranges)),
    }
}

fn tag(text: &str) -> Result<Picked, String> {
    Ok(Picked::Tag(text.to_string()))
}

fn message(text: &str) -> Result<Picked, String> {
    Ok(Picked::Message(text.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_typed() {
        let text = "id:7,phase:request,t:none,t:lowercase,block,msg:'a, b',setvar:'tx.s=+%{tx.c}',chain,nolog";
        let actions = parse(text).unwrap();
        assert_eq!((actions.id, actions.phase), (Some(7), Some(Phase::RequestBody)));
        assert!(actions.is_chained && actions.is_bare && actions.is_logged == Some(false));
        assert_eq!(actions.disruption, Some(Said::Block));
        assert!(matches!(
            &actions.effects[0],
            Effect::Set {
                change: Change::Add(_),
                ..
            }
        ));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for text in [
            "idd:1",
            "t:nothing",
            "ctl:x=1",
            "setvar:x",
            "setvar:args.x=1",
            "phase:9",
            "severity:9",
            "exec:/bin/sh",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ranges_of_ids() {
        assert_eq!(ids("1-3,7"), Ok(Picked::Ids(vec![(1, 3), (7, 7)])));
        assert!(ids("").is_err());
    }
}
