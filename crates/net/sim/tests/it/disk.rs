//! The disk: what was synced survives, what was not may survive in parts, errors come when planned.

use core::time::Duration;
use std::collections::BTreeSet;
use std::io;

use net_sim::{Disk, DiskConfig, DiskError, DiskFile, Fault, FaultKind, PPM, seeds};
use proptest::prelude::*;

fn disk(seed: u64) -> Disk {
    Disk::new(seed, DiskConfig::default())
}

fn contents(disk: &Disk, name: &str) -> Vec<u8> {
    let file = disk.open(name).unwrap();
    let mut bytes = vec![0; file.len_bytes().unwrap() as usize];
    assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
    bytes
}

/// A file whose name and contents are durable.
fn durable(disk: &Disk, name: &str, bytes: &[u8]) -> DiskFile {
    let file = disk.create(name).unwrap();
    file.append(bytes).unwrap();
    file.sync().unwrap();
    disk.sync_folder().unwrap();
    file
}

#[test]
fn reads_see_writes_at_once() {
    let disk = disk(1);
    let file = disk.create("a").unwrap();
    assert_eq!(file.append(b"hello").unwrap(), 0);
    assert_eq!(file.append(b" world").unwrap(), 5);
    file.write_at(0, b"J").unwrap();
    file.write_at(13, b"!").unwrap();
    assert_eq!(contents(&disk, "a"), b"Jello world\0\0!");
    file.set_len(5).unwrap();
    file.set_len(7).unwrap();
    assert_eq!(contents(&disk, "a"), b"Jello\0\0");
    let mut out = [9; 4];
    assert_eq!((file.read_at(5, &mut out).unwrap(), file.read_at(100, &mut out).unwrap()), (2, 0));
    assert_eq!(disk.create("a").unwrap_err(), DiskError::AlreadyExists("a".into()));
    assert_eq!(disk.open("b").unwrap_err(), DiskError::NotFound("b".into()));
    disk.rename("a", "b").unwrap();
    assert_eq!((disk.names(), contents(&disk, "b").len()), (vec!["b".to_owned()], 7));
    disk.remove("b").unwrap();
    assert!(disk.names().is_empty());
}

#[test]
fn what_was_synced_survives_every_crash() {
    seeds!(100, |seed| {
        let disk = disk(seed);
        let file = durable(&disk, "a", &[1; 2_000]);
        file.append(&[2; 2_000]).unwrap();
        disk.create("b").unwrap();
        disk.crash();
        let after = contents(&disk, "a");
        assert_eq!(after[..2_000], [1; 2_000]);
        assert!(after[2_000..].iter().all(|byte| [0, 2].contains(byte)));
        assert_eq!(file.append(b"x"), Err(DiskError::Crashed), "old handles are dead");
    });
}

#[test]
fn unsynced_writes_survive_wholly_partly_or_not_at_all() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let disk = disk(seed);
        let file = durable(&disk, "a", &[0; 4_096]);
        file.write_at(0, &[1; 4_096]).unwrap();
        disk.crash();
        let after = contents(&disk, "a");
        for sector in after.chunks(512) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "a sector is never torn");
        }
        let written = after.chunks(512).filter(|sector| sector[0] == 1).count();
        let is_prefix = after.windows(2).all(|pair| pair[0] >= pair[1]);
        outcomes.insert(match written {
            0 => "none",
            8 => "all",
            _ if is_prefix => "a prefix",
            _ => "scattered sectors",
        });
    }
    assert_eq!(outcomes.len(), 4, "only {outcomes:?}");
}

#[test]
fn a_sector_never_holds_a_later_write_without_an_earlier_one() {
    for seed in 0..300 {
        let disk = disk(seed);
        let file = durable(&disk, "a", &[0; 512]);
        for number in 1..=4u8 {
            file.write_at(u64::from(number) * 100, &[number; 100]).unwrap();
        }
        disk.crash();
        let after = contents(&disk, "a");
        let present: Vec<bool> = (1..=4).map(|number| after[number * 100] != 0).collect();
        assert!(present.windows(2).all(|pair| pair[0] || !pair[1]), "{present:?} in seed {seed}");
    }
}

#[test]
fn names_are_durable_only_after_the_folder_was_synced() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..100 {
        let disk = disk(seed);
        durable(&disk, "current", b"old");
        let next = disk.create("next").unwrap();
        next.append(b"new").unwrap();
        next.sync().unwrap();
        disk.rename("next", "current").unwrap();
        disk.crash();
        match contents(&disk, "current").as_slice() {
            b"new" => kept += 1,
            b"old" => lost += 1,
            other => panic!("a rename is all or nothing, found {other:?}"),
        }
        if disk.names().contains(&"next".to_owned()) {
            assert_eq!(contents(&disk, "next"), b"new");
        }
        durable(&disk, "proof", b"x");
        disk.remove("proof").unwrap();
        disk.sync_folder().unwrap();
        disk.crash();
        assert!(!disk.names().contains(&"proof".to_owned()));
    }
    assert!(kept > 10 && lost > 10, "{kept} renames kept, {lost} lost");
}

#[test]
fn planned_errors_hit_the_operation_they_were_planned_for() {
    let disk = disk(1);
    let file = durable(&disk, "a", b"abc");
    disk.inject(Fault { kind: FaultKind::NoSpace, after_operations: 1, is_permanent: false });
    file.append(b"d").unwrap();
    file.sync().unwrap();
    assert_eq!(file.append(b"e"), Err(DiskError::NoSpace));
    file.append(b"f").unwrap();
    assert_eq!(contents(&disk, "a"), b"abcdf", "a refused write changes nothing");

    disk.inject(Fault { kind: FaultKind::Io, after_operations: 0, is_permanent: true });
    assert_eq!(file.read_at(0, &mut [0]), Err(DiskError::Io));
    assert_eq!(file.append(b"g"), Err(DiskError::Io));
    assert_eq!(disk.create("b").unwrap_err(), DiskError::Io);
    disk.clear_faults();
    file.append(b"g").unwrap();
    let error = io::Error::from(DiskError::NoSpace);
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
}

#[test]
fn a_failed_sync_is_not_made_good_by_the_next_one() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = disk(seed);
        let file = durable(&disk, "a", &[0; 8_192]);
        file.write_at(0, &[1; 8_192]).unwrap();
        disk.inject(Fault { kind: FaultKind::Io, after_operations: 0, is_permanent: false });
        assert_eq!(file.sync(), Err(DiskError::Io));
        file.sync().unwrap();
        assert_eq!(contents(&disk, "a"), [1; 8_192], "the cache still shows the write");
        disk.crash();
        lost += usize::from(contents(&disk, "a") != [1; 8_192]);
    }
    assert!(lost > 10, "lost in {lost} of 50");
}

#[test]
fn a_full_disk_refuses_growth_and_nothing_else() {
    let disk = Disk::new(1, DiskConfig { capacity_bytes: 1_000, ..DiskConfig::default() });
    let file = durable(&disk, "a", &[1; 600]);
    let other = durable(&disk, "b", &[2; 300]);
    assert_eq!(other.append(&[2; 101]), Err(DiskError::NoSpace));
    assert_eq!(other.write_at(u64::MAX, &[2; 2]), Err(DiskError::NoSpace));
    assert_eq!(other.set_len(u64::MAX), Err(DiskError::NoSpace));
    other.append(&[2; 100]).unwrap();
    file.write_at(0, &[3; 600]).unwrap();
    disk.remove("b").unwrap();
    file.append(&[1; 400]).unwrap();
}

#[test]
fn operations_take_the_time_they_are_given() {
    let ms = Duration::from_millis(1);
    let config = DiskConfig { sync_latency: 5 * ms, latency: ms, ..DiskConfig::default() };
    let disk = Disk::new(1, config);
    let file = disk.create("a").unwrap();
    file.append(b"x").unwrap();
    file.sync().unwrap();
    assert_eq!((disk.take_spent(), disk.take_spent()), (7 * ms, Duration::ZERO));
    assert_eq!(disk.operations(), 3);
    let slow = Disk::new(1, DiskConfig { stall_ppm: PPM, stall: 100 * ms, ..config });
    slow.create("a").unwrap();
    assert_eq!(slow.take_spent(), 101 * ms);
}

#[test]
fn flipped_bits_stay_flipped() {
    let disk = disk(1);
    durable(&disk, "a", &[0; 4]);
    assert!(disk.flip_bit("a", 9) && !disk.flip_bit("a", 32) && !disk.flip_bit("b", 0));
    disk.crash();
    assert_eq!(contents(&disk, "a"), [0, 2, 0, 0]);
}

proptest! {
    #[test]
    fn equal_seeds_lose_the_same_and_syncing_everything_loses_nothing(
        seed: u64,
        writes in proptest::collection::vec((0u64..6_000, 1usize..1_500, any::<u8>()), 1..20),
        cut in 0u64..6_000,
        is_synced: bool,
    ) {
        let run = || {
            let disk = disk(seed);
            let file = durable(&disk, "a", &[0xee; 1_000]);
            for (offset, count, byte) in &writes {
                file.write_at(*offset, &vec![*byte; *count]).unwrap();
            }
            file.set_len(cut).unwrap();
            let live = contents(&disk, "a");
            if is_synced {
                file.sync().unwrap();
            }
            disk.crash();
            (live, contents(&disk, "a"))
        };
        let (live, after) = run();
        prop_assert_eq!(&after, &run().1);
        if is_synced {
            prop_assert_eq!(live, after);
        }
    }
}
