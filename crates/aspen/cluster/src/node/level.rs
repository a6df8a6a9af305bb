//! The upgrade gate: which feature level the cluster may step to, and what the present one allows.
//!
//! Members report the highest level that they understand with each answer to the leader. The leader
//! proposes the next level once every member, voter or learner, has reported one at least as high.
//! Nothing above the level that is applied is proposed, so no member meets what it cannot read.

use aspen_api::{ApiError, ErrorCode, Level};
use aspen_kv::Command;

use crate::condition::ensure;

/// `UNSUPPORTED` for a command above the `level` of the cluster.
pub(super) fn ensure_level(command: &Command, level: Level) -> Result<(), ApiError> {
    let needed = command.level();
    let is_allowed = match command {
        Command::Step { .. } => true,
        Command::Transact { .. }
        | Command::LeaseGrant { .. }
        | Command::LeaseRevoke { .. }
        | Command::LeaseKeepalive { .. }
        | Command::Compact { .. }
        | Command::Tick {} => needed <= level,
    };
    ensure(is_allowed, || {
        let text = format!("it needs feature level {needed}; the cluster is at {level}");
        ApiError::new(ErrorCode::Unsupported, text)
    })
}

/// The level that the cluster may step to from `level`: the highest that every member understands.
/// `None` while a member has not reported (`None` in `members`), and if that is no step up.
pub(super) fn next_level(
    level: Level,
    members: impl IntoIterator<Item = Option<Level>>,
) -> Option<Level> {
    let reported: Option<Vec<Level>> = members.into_iter().collect();
    reported?.into_iter().min().filter(|common| *common > level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_rises_as_far_as_all_members_understand() {
        let next = |level, members: &[Option<u32>]| {
            next_level(Level(level), members.iter().map(|top| top.map(Level))).map(|next| next.0)
        };
        for (level, members, expected) in [
            (1, &[Some(2), Some(3), Some(2)][..], Some(2)),
            (1, &[Some(3), Some(3)], Some(3)),
            (2, &[Some(2), Some(3)], None),
            (2, &[Some(1), Some(3)], None),
            (1, &[Some(3), None, Some(3)], None),
            (1, &[], None),
        ] {
            assert_eq!(next(level, members), expected, "{level} {members:?}");
        }
    }

    #[test]
    fn a_step_is_proposed_above_the_level_and_nothing_else() {
        let step = Command::Step { level: Level::TOP };
        assert_eq!(ensure_level(&step, Level(0)), Ok(()));
        let refused = ensure_level(&Command::Tick {}, Level(0)).unwrap_err();
        assert_eq!(refused.code, ErrorCode::Unsupported);
        assert_eq!(ensure_level(&Command::Tick {}, Level::FIRST), Ok(()));
    }
}
