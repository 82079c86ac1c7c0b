//! Directives that change rules already read: removals and updates of targets.

use super::{Program, action, target};
use crate::proxy::waf::rule::Picked;

impl Program {
    pub(super) fn remove_ids(&mut self, ids: &str) -> Result<(), String> {
        self.remove(&action::ids(ids)?);
        Ok(())
    }

    pub(super) fn remove_tag(&mut self, tag: &str) -> Result<(), String> {
        self.remove(&Picked::Tag(tag.to_string()));
        Ok(())
    }

    pub(super) fn remove_message(&mut self, message: &str) -> Result<(), String> {
        self.remove(&Picked::Message(message.to_string()));
        Ok(())
    }

    pub(super) fn update_ids(&mut self, ids: &str, targets: &str) -> Result<(), String> {
        self.update(&action::ids(ids)?, targets)
    }

    pub(super) fn update_tag(&mut self, tag: &str, targets: &str) -> Result<(), String> {
        self.update(&Picked::Tag(tag.to_string()), targets)
    }

    pub(super) fn update_message(&mut self, message: &str, targets: &str) -> Result<(), String> {
        self.update(&Picked::Message(message.to_string()), targets)
    }

    fn remove(&mut self, picked: &Picked) {
        let mut place = 0;
        let mut removed = Vec::new();
        self.rules.retain(|rule| {
            let is_kept = !picked.picks(rule);
            if !is_kept {
                removed.push(place);
            }
            place += 1;
            is_kept
        });
        for (_, marker) in &mut self.markers {
            *marker -= removed.iter().filter(|place| **place < *marker).count();
        }
    }

    /// The head of a chain is what is meant.
    fn update(&mut self, picked: &Picked, targets: &str) -> Result<(), String> {
        let targets = target::parse(targets)?;
        for rule in self.rules.iter_mut().filter(|rule| picked.picks(rule)) {
            if let Some(link) = rule.links.first_mut() {
                link.targets.add(targets.clone());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn markers_keep_their_place_when_rules_go() {
        let text = "SecAction \"id:1,tag:'x'\"\nSecAction \"id:2\"\nSecMarker A\nSecAction \"id:3,tag:'x'\"\nSecMarker B\nSecRuleRemoveByTag x\nSecRuleUpdateTargetById 2-5 \"!ARGS:a\"";
        let mut program = Program::default();
        program.add("x", text, Path::new("/nowhere")).unwrap();
        assert_eq!(program.rules.iter().map(|rule| rule.id).collect::<Vec<_>>(), [2]);
        assert_eq!(program.markers, [("A".to_string(), 1), ("B".to_string(), 1)]);
        assert_eq!(program.rules[0].links[0].targets.exclude.len(), 2);
    }
}
