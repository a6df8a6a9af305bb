//! Disks without room: what is refused, and that nothing acknowledged is lost.

use aspen_api::ErrorCode;
use aspen_api::cluster::HealthStatus;

use super::run::in_world;
use super::world::{NODES, World};
use crate::client::{get, put};
use crate::mesh::until;

fn leader(world: &World) -> aspen_cluster::ClusterNode {
    world.leader().and_then(|n| world.node(n)).unwrap()
}

/// Waits until every node says so of itself.
async fn all_are(world: &World, status: HealthStatus) {
    let nodes: Vec<_> = NODES.iter().filter_map(|n| world.node(*n)).collect();
    until(|| nodes.iter().all(|node| node.health().status == status).then_some(())).await;
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
                all_are(world, HealthStatus::Degraded).await;
                let refused = put(&leader(world), "during", "2").await.unwrap_err();
                assert_eq!(refused.code, ErrorCode::ServiceUnavailable, "{refused:?}");
                assert_eq!(get(&leader(world), "before").await.unwrap().as_deref(), Some("1"));
                assert_eq!(get(&leader(world), "during").await.unwrap(), None);
                NODES.iter().for_each(|n| world.fill_disk(*n, false));
                all_are(world, HealthStatus::Healthy).await;
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
                    until(|| world.leader()).await;
                }
                assert!(!acknowledged.is_empty());
                for name in acknowledged {
                    assert_eq!(get(&leader(world), &name).await.unwrap().as_deref(), Some("v"));
                }
            },
        );
    });
}
