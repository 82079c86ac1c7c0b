//! The firewall's rules: the folders of the configuration, and what this program knows of the portal.

use crate::config::Waf;
use crate::proxy::waf::{Error, Own, Plan, Reading, load as load_rules};

/// Between the rule set's setup and its rules, whatever these are.
const BODIES: Own = Own {
    name: "bodies-before",
    text: include_str!("../../../assets/waf/bodies-before.conf"),
};
/// The same, of the portal.
const BEFORE: Own = Own {
    name: "portal-before",
    text: include_str!("../../../assets/waf/portal-before.conf"),
};
/// Behind all rules.
const AFTER: Own = Own {
    name: "portal-after",
    text: include_str!("../../../assets/waf/portal-after.conf"),
};

/// Reads files and compiles patterns: half a second of work.
pub fn load(waf: &Waf) -> Result<Plan, Error> {
    let reading = match waf.strict {
        true => Reading::Strict,
        false => Reading::Text,
    };
    let (before, after): (&[Own], &[Own]) = match waf.portal {
        true => (&[BODIES, BEFORE], &[AFTER]),
        false => (&[BODIES], &[]),
    };
    load_rules(&waf.rules, before, after, reading)
}
