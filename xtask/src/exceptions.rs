//! Exceptions of a rule: each has a reason, and one that nothing needs is itself a violation.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde::Deserialize;

use crate::violation::Violation;

/// An `[[exception]]` of a rule file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exception {
    /// What is excepted, as the rule names it.
    pub(crate) what: String,
    /// Why.
    pub(crate) reason: String,
}

/// The exceptions of one rule file, and which of them were needed.
pub(crate) struct Exceptions<'a> {
    file: &'static str,
    entries: &'a [Exception],
    needed: RefCell<BTreeSet<String>>,
}

impl<'a> Exceptions<'a> {
    pub(crate) fn new(file: &'static str, entries: &'a [Exception]) -> Self {
        Self { file, entries, needed: RefCell::default() }
    }

    /// Whether `subject` is excepted; remembers that it was asked for.
    pub(crate) fn allow(&self, subject: &str) -> bool {
        let is_listed = self.entries.iter().any(|entry| entry.what == subject);
        if is_listed {
            self.needed.borrow_mut().insert(subject.to_owned());
        }
        is_listed
    }

    /// Exceptions without a reason or without a use.
    pub(crate) fn faults(&self) -> Vec<Violation> {
        let needed = self.needed.borrow();
        let mut faults = Vec::new();
        for Exception { what: subject, reason } in self.entries {
            if reason.trim().is_empty() {
                let what = format!("the exception for {subject} gives no reason");
                faults.push(Violation::new(self.file, what, "say why it is needed"));
            }
            if !needed.contains(subject) {
                let what = format!("nothing needs the exception for {subject}");
                faults.push(Violation::new(self.file, what, "remove it"));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_and_unreasoned_exceptions_are_found() {
        let entry =
            |what: &str, reason: &str| Exception { what: what.into(), reason: reason.into() };
        let entries = [entry("a", "because"), entry("b", " "), entry("c", "because")];
        let exceptions = Exceptions::new("rules", &entries);
        assert!(exceptions.allow("a") && exceptions.allow("b") && !exceptions.allow("d"));
        let found: Vec<String> = exceptions.faults().into_iter().map(|fault| fault.what).collect();
        assert_eq!(
            found,
            ["the exception for b gives no reason", "nothing needs the exception for c"]
        );
    }
}
