//! Exceptions of a rule: each has a reason, and one that nothing needs is itself a violation.

use std::cell::RefCell;
use std::collections::BTreeSet;

use crate::violation::Violation;

/// The exceptions of one rule file, and which of them were needed.
pub(crate) struct Exceptions {
    file: &'static str,
    /// (what is excepted, reason)
    entries: Vec<(String, String)>,
    needed: RefCell<BTreeSet<String>>,
}

impl Exceptions {
    pub(crate) fn new(
        file: &'static str,
        entries: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let entries = entries.into_iter().collect();
        Self { file, entries, needed: RefCell::default() }
    }

    /// Whether `subject` is excepted; remembers that it was asked for.
    pub(crate) fn allow(&self, subject: &str) -> bool {
        let is_listed = self.entries.iter().any(|(listed, _)| listed == subject);
        if is_listed {
            self.needed.borrow_mut().insert(subject.to_owned());
        }
        is_listed
    }

    /// Exceptions without a reason or without a use.
    pub(crate) fn faults(&self) -> Vec<Violation> {
        let needed = self.needed.borrow();
        let mut faults = Vec::new();
        for (subject, reason) in &self.entries {
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
        let entry = |subject: &str, reason: &str| (subject.to_owned(), reason.to_owned());
        let exceptions = Exceptions::new(
            "rules",
            [entry("a", "because"), entry("b", " "), entry("c", "because")],
        );
        assert!(exceptions.allow("a") && exceptions.allow("b") && !exceptions.allow("d"));
        let found: Vec<String> = exceptions.faults().into_iter().map(|fault| fault.what).collect();
        assert_eq!(
            found,
            ["the exception for b gives no reason", "nothing needs the exception for c"]
        );
    }
}
