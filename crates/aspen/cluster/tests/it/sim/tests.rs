//! Runs under many seeds, with trouble and without; and runs that must be found out.

use std::time::Duration;

use aspen_api::kv::Consistency;

use super::nemesis::Trouble;
use super::run::{Plan, Summary, run, run_traced};

fn passes(plan: Plan) -> Summary {
    run(plan).unwrap_or_else(|wrong| panic!("{wrong}"))
}

#[test]
fn clients_see_one_copy_while_nothing_goes_wrong() {
    net_sim::seeds!(1, |seed| {
        let summary = passes(Plan { time: Duration::from_secs(4), ..Plan::new(seed, &[]) });
        assert_eq!(summary.unanswered, 0);
        assert!(summary.answered > 200, "{summary:?}");
    });
}

macro_rules! survives {
    ($($name:ident: $trouble:ident;)*) => { $(
        #[test]
        fn $name() {
            net_sim::seeds!(1, |seed| {
                let summary = passes(Plan::new(seed, &[Trouble::$trouble]));
                assert!(summary.troubles > 0 && summary.answered > 30, "{summary:?}");
            });
        }
    )* };
}

survives! {
    clients_see_one_copy_while_nodes_crash: Crash;
    clients_see_one_copy_while_everything_loses_power: Blackout;
    clients_see_one_copy_while_nodes_restart: Restart;
    clients_see_one_copy_while_nodes_are_cut_off: Cut;
    clients_see_one_copy_while_messages_are_lost_repeated_and_overtaken: Weather;
    clients_see_one_copy_while_disks_stall: Stall;
    clients_see_one_copy_while_disks_fail: DiskError;
    clients_see_one_copy_while_disks_are_full: FullDisk;
    clients_see_one_copy_while_disks_take_no_writes: NoSpace;
    clients_see_one_copy_while_clocks_jump: Clock;
}

#[test]
fn no_client_notices_that_nodes_are_restarted_one_after_another() {
    net_sim::seeds!(4, |seed| {
        let summary = passes(Plan::new(seed, &[Trouble::Roll]));
        assert_eq!(summary.unanswered, 0);
        assert!(summary.troubles > 1 && summary.answered > 200, "{summary:?}");
    });
}

#[test]
fn repeated_requests_take_effect_once_though_log_time_jumps_and_answers_are_forgotten() {
    net_sim::seeds!(3, |seed| {
        let troubles = &[Trouble::FarClock, Trouble::FarClock, Trouble::FarClock, Trouble::Weather];
        let summary = passes(Plan::new(seed, troubles));
        assert!(summary.troubles > 0 && summary.answered > 30, "{summary:?}");
    });
}

#[test]
fn clients_see_one_copy_whatever_goes_wrong() {
    net_sim::seeds!(6, |seed| {
        let summary = passes(Plan { has_spares: seed % 2 == 0, ..Plan::new(seed, Trouble::ALL) });
        assert!(summary.troubles > 0 && summary.answered > 30, "{summary:?}");
    });
}

#[test]
fn clients_see_one_copy_while_members_change_and_leaders_are_lost() {
    net_sim::seeds!(2, |seed| {
        let troubles = &[
            Trouble::Members,
            Trouble::Members,
            Trouble::Members,
            Trouble::Members,
            Trouble::Crash,
            Trouble::Cut,
            Trouble::Isolate,
            Trouble::Restart,
        ];
        let time = Duration::from_secs(20);
        let summary = passes(Plan { has_spares: true, time, ..Plan::new(seed, troubles) });
        assert!(summary.changes > 0 && summary.answered > 30, "{summary:?}");
    });
}

/// Reads inside the lease; clocks are good, or no leader would trust its lease.
fn lease_reads(seed: u64, troubles: &'static [Trouble]) -> Plan {
    let consistency = Consistency::Lease;
    Plan { consistency, has_good_clocks: true, ..Plan::new(seed, troubles) }
}

#[test]
fn reads_inside_the_lease_see_one_copy_though_leaders_are_cut_off_and_crash() {
    net_sim::seeds!(3, |seed| {
        let plan = lease_reads(seed, &[Trouble::Isolate, Trouble::Crash]);
        let summary = passes(plan);
        assert!(summary.troubles > 0 && summary.answered > 30, "{summary:?}");
    });
}

#[test]
fn reads_inside_the_lease_see_one_copy_whatever_goes_wrong() {
    net_sim::seeds!(2, |seed| {
        let summary = passes(lease_reads(seed, Trouble::ALL));
        assert!(summary.troubles > 0 && summary.answered > 30, "{summary:?}");
    });
}

#[test]
fn a_seed_decides_every_message() {
    net_sim::seeds!(2, |seed| {
        let plan = Plan { has_spares: true, ..Plan::new(seed, Trouble::ALL) };
        let traces = [(), ()].map(|()| run_traced(plan).1);
        let [first, second] = traces.each_ref().map(|trace| trace.text());
        let differs = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "of {} lines", traces[0].total_lines());
        assert_eq!(traces[0].hash(), traces[1].hash());
    });
}

/// How many of `count` runs are found out, and by what.
fn found_out(count: u64, plan: impl Fn(u64) -> Plan) -> Vec<String> {
    (0..count).filter_map(|seed| run(plan(seed)).err()).collect()
}

#[test]
fn disks_that_lie_about_syncs_are_found_out() {
    let wrong =
        found_out(3, |seed| Plan { disks_lie: true, ..Plan::new(seed, &[Trouble::Blackout]) });
    assert!(!wrong.is_empty());
}

#[test]
fn stale_reads_are_found_out() {
    let wrong = found_out(2, |seed| Plan {
        consistency: Consistency::Stale,
        ..Plan::new(seed, &[Trouble::Cut])
    });
    assert!(wrong.iter().any(|wrong| wrong.contains("not linearizable")), "{wrong:?}");
}
