//! Disks without room: what is refused, and that nothing acknowledged is lost.

use std::time::Duration;

use aspen_api::ErrorCode;
use aspen_api::cluster::HealthStatus;

use super::run::in_world;
use super::world::{NODES, World};
use crate::client::{get, put};

/// Longer than the time between two looks at a disk.
const NOTICED: Duration = Duration::from_secs(6);

fn leader(world: &World) -> aspen_cluster::ClusterNode {
    world.leader().and_then(|n| world.node(n)).unwrap()
}

#[test]
fn nodes_whose_disk_is_almost_full_refuse_writes_and_serve_reads() {
    net_sim::seeds!(1, |seed| {
        in_world(
            seed,
            || World::new(seed, true, false),
            async |world| {
                world.form().await.unwrap();
                put(&leader(world), "before", "1").await.unwrap();
                NODES.iter().for_each(|n| world.fill_disk(*n, true));
                tokio::time::sleep(NOTICED).await;
                let refused = put(&leader(world), "during", "2").await.unwrap_err();
                assert_eq!(refused.code, ErrorCode::ServiceUnavailable, "{refused:?}");
                assert_eq!(get(&leader(world), "before").await.unwrap().as_deref(), Some("1"));
                assert_eq!(get(&leader(world), "during").await.unwrap(), None);
                assert_eq!(leader(world).health().status, HealthStatus::Degraded);
                NODES.iter().for_each(|n| world.fill_disk(*n, false));
                tokio::time::sleep(NOTICED).await;
                put(&leader(world), "after", "3").await.unwrap();
            },
        );
    });
}

#[test]
fn what_was_acknowledged_outlives_disks_that_take_no_more_writes() {
    net_sim::seeds!(3, |seed| {
        in_world(
            seed,
            || World::new(seed, true, false),
            async |world| {
                world.form().await.unwrap();
                let mut acknowledged = Vec::new();
                for round in 0..4 {
                    let full = world.leader().unwrap();
                    world.exhaust_disk(full, 5 * round);
                    let node = world.node(full).unwrap();
                    let mut names = (0..).map(|number| format!("{round}/{number}"));
                    let refused = loop {
                        let name = names.next().unwrap();
                        match put(&node, &name, "v").await {
                            Ok(_) => acknowledged.push(name),
                            Err(error) => break error,
                        }
                    };
                    // Followers may have the entry that the leader could not write.
                    let expected = [ErrorCode::ServiceUnavailable, ErrorCode::Timeout];
                    assert!(expected.contains(&refused.code), "{refused:?}");
                    assert!(!node.is_alive());
                    world.calm().await.unwrap();
                    world.converge().await.unwrap();
                    while world.leader().is_none() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
                assert!(!acknowledged.is_empty());
                for name in acknowledged {
                    assert_eq!(get(&leader(world), &name).await.unwrap().as_deref(), Some("v"));
                }
            },
        );
    });
}
