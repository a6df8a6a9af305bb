//! Whether the history of one key could have happened to a single copy of it.
//!
//! The search is Wing and Gong's ("Testing and Verifying Concurrent Objects", 1993) in Lowe's
//! just-in-time order ("Testing for linearizability", 2017): events are taken in their order, and
//! operations take effect only when an answer demands one of them. What is kept is the set of
//! configurations that explain all answers so far: the key's value, which unanswered operations
//! have taken effect, and which of those will be answered later.
//!
//! Operations that are never answered stay candidates to the end of the history. Of two
//! configurations that differ only in these, the one that has used fewer can do all that the other
//! can, so only the smallest sets are kept. And one of them takes effect only while someone pending
//! needs what it leaves behind. Without these two, each lost answer would double the work.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::history::{Action, Operation, Outcome, Value};

/// Configurations looked at for one answer before the search gives up.
const MAX_CONFIGURATIONS: usize = 50_000;

/// Why a history is not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// No order of effects explains this answer after all those before it.
    NotLinearizable { operation: usize, report: String },
    /// Too many orders to try; says nothing about the history.
    GaveUp { operation: usize, pending: usize },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLinearizable { report, .. } => write!(f, "not linearizable: {report}"),
            Self::GaveUp { operation, pending } => write!(
                f,
                "undecided: more than {MAX_CONFIGURATIONS} orders at operation {operation} with \
                 {pending} operations pending; use fewer clients or shorter runs for each key"
            ),
        }
    }
}

type State = Option<Value>;

/// What the key holds after `action`, if `outcome` can be told of it then.
fn step(state: State, action: Action, outcome: Option<Outcome>) -> Option<State> {
    let (next, told) = match action {
        Action::Read => (state, Outcome::Read(state)),
        Action::Write(value) => (Some(value), Outcome::Written),
        Action::Cas { expected, new } if expected == state => (Some(new), Outcome::Swapped),
        Action::Cas { .. } => (state, Outcome::Mismatch(state)),
        Action::Delete => (None, Outcome::Deleted(state.is_some())),
    };
    outcome.is_none_or(|outcome| outcome == told).then_some(next)
}

/// What pending operations need the key to hold, so that they can take effect as they were told.
#[derive(Default)]
struct Demand {
    states: BTreeSet<State>,
    any_value: bool,
}

impl Demand {
    fn of(operations: &[Operation], pending: &BTreeSet<usize>) -> Self {
        let mut demand = Self::default();
        for operation in pending.iter().map(|index| &operations[*index]) {
            let outcome = operation.answer.map(|(_, outcome)| outcome);
            match (operation.action, outcome) {
                (_, Some(Outcome::Read(state) | Outcome::Mismatch(state))) => {
                    demand.states.insert(state);
                }
                (_, Some(Outcome::Deleted(false))) => {
                    demand.states.insert(None);
                }
                (_, Some(Outcome::Deleted(true))) => demand.any_value = true,
                // An unanswered swap changes something only if it finds this.
                (Action::Cas { expected, .. }, _) => {
                    demand.states.insert(expected);
                }
                (Action::Read | Action::Write(_) | Action::Delete, _) => {}
            }
        }
        demand
    }

    fn wants(&self, state: State) -> bool {
        self.states.contains(&state) || self.any_value && state.is_some()
    }
}

/// One explanation of all answers so far.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Configuration {
    state: State,
    /// Operations that have taken effect and are answered later.
    early: BTreeSet<usize>,
    /// Operations that have taken effect and are never answered.
    silent: BTreeSet<usize>,
}

/// Configurations of which none can do less than another that differs in silent ones alone.
#[derive(Default)]
struct Antichain(BTreeMap<(State, BTreeSet<usize>), Vec<BTreeSet<usize>>>, usize);

impl Antichain {
    /// Whether `new` can do something that nothing seen before can.
    fn admit(&mut self, new: &Configuration) -> bool {
        let sets = self.0.entry((new.state, new.early.clone())).or_default();
        if sets.iter().any(|set| set.is_subset(&new.silent)) {
            return false;
        }
        sets.retain(|set| !new.silent.is_subset(set));
        sets.push(new.silent.clone());
        self.1 += 1;
        true
    }

    fn into_configurations(self) -> Vec<Configuration> {
        let expand = |((state, early), sets): ((State, BTreeSet<usize>), Vec<_>)| {
            sets.into_iter().map(move |silent| Configuration {
                state,
                early: early.clone(),
                silent,
            })
        };
        self.0.into_iter().flat_map(expand).collect()
    }
}

/// Accepts the operations of one key that was absent at first, or says what is wrong with them.
pub(crate) fn check(operations: &[Operation]) -> Result<(), Violation> {
    let mut events: Vec<(u64, usize, bool)> = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        // Without an answer, a read says nothing.
        if operation.answer.is_some() || operation.action != Action::Read {
            events.push((operation.invoked, index, false));
        }
        if let Some((at, _)) = operation.answer {
            events.push((at, index, true));
        }
    }
    events.sort_unstable();
    let start = Configuration { state: None, early: BTreeSet::new(), silent: BTreeSet::new() };
    let mut configurations = vec![start];
    let mut pending = BTreeSet::new();
    for (_, index, is_answer) in events {
        if !is_answer {
            pending.insert(index);
            continue;
        }
        let explained = explain(operations, &pending, &configurations, index)?;
        if explained.is_empty() {
            let report = report(operations, &pending, &configurations, index);
            return Err(Violation::NotLinearizable { operation: index, report });
        }
        configurations = explained;
        pending.remove(&index);
    }
    Ok(())
}

/// All configurations after the answer of `index`.
fn explain(
    operations: &[Operation],
    pending: &BTreeSet<usize>,
    before: &[Configuration],
    index: usize,
) -> Result<Vec<Configuration>, Violation> {
    let (mut seen, mut explained) = (Antichain::default(), Antichain::default());
    let demand = Demand::of(operations, pending);
    // Those with fewer effects come first, so that others are seen to be no better.
    let mut open: VecDeque<_> = before.to_vec().into();
    while let Some(mut configuration) = open.pop_front() {
        if configuration.early.remove(&index) {
            explained.admit(&configuration);
            continue;
        }
        if !seen.admit(&configuration) {
            continue;
        }
        if seen.1 > MAX_CONFIGURATIONS {
            return Err(Violation::GaveUp { operation: index, pending: pending.len() });
        }
        let is_used =
            |i: &&usize| configuration.early.contains(i) || configuration.silent.contains(i);
        for &next in pending.iter().filter(|i| !is_used(i)) {
            let operation = &operations[next];
            let outcome = operation.answer.map(|(_, outcome)| outcome);
            let Some(state) = step(configuration.state, operation.action, outcome) else {
                continue;
            };
            let mut after = Configuration { state, ..configuration.clone() };
            if outcome.is_some() {
                after.early.insert(next);
            } else if state == configuration.state || !demand.wants(state) {
                // The same as never, or as later.
                continue;
            } else {
                after.silent.insert(next);
            }
            open.push_back(after);
        }
    }
    Ok(explained.into_configurations())
}

fn report(
    operations: &[Operation],
    pending: &BTreeSet<usize>,
    before: &[Configuration],
    index: usize,
) -> String {
    use fmt::Write;
    let states: BTreeSet<_> = before.iter().map(|c| c.state).collect();
    let mut text = format!(
        "nothing explains what client {} was told: {:?}\nbefore it the key held one of \
         {states:?}; pending then:",
        operations[index].client, operations[index]
    );
    for other in pending.iter().filter(|other| **other != index) {
        let _ = write!(text, "\n  {:?}", operations[*other]);
    }
    text.push_str("\nlast answered before it:");
    let answered_at = |op: &Operation| op.answer.map(|(at, _)| at);
    let mut earlier: Vec<_> = operations
        .iter()
        .filter(|op| op.answer.is_some() && answered_at(op) < answered_at(&operations[index]))
        .collect();
    earlier.sort_by_key(|op| answered_at(op));
    for op in earlier.iter().rev().take(8).rev() {
        let _ = write!(text, "\n  {op:?}");
    }
    text
}
