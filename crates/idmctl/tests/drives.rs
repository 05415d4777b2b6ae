//! `idmctl drives`: the obstacles to the use of drives.

mod common;

use common::{World, vg};
use idm_protocol::{Mode, ResourceId};
use idmctl::drives::{Report, report, text};
use idmctl::fleet::{Fleet, ask};
use idmctl::output::Progress;
use std::time::{Duration, Instant};

fn look(world: &World) -> Report {
    let host = world.host();
    let fleet = Fleet::of(&host);
    let asked = ask(&host.topology, &fleet.drives, world.patience, true, &mut Progress::default());
    report(&host, &fleet, &asked)
}

#[test]
fn healthy_drives_have_nothing_in_the_way() {
    let world = World::with(&["current", "rev2313", "r00d"]);
    world.start_vg("vg0", &["d0", "d1"]);
    world.peer("alpha", Duration::from_secs(30)).take(vg(), Mode::Exclusive);
    let report = look(&world);
    assert_eq!(report.obstacles, Vec::<String>::new());
    let versions: Vec<_> = report.drives.iter().map(|drive| drive.version).collect();
    assert_eq!(versions, [Some(8), Some(1), Some(1)]);
    assert_eq!(report.drives[0].vgs, ["vg0"]);
    assert_eq!(report.drives[2].vgs, Vec::<String>::new());
    let fill = report.drives[1].fill.unwrap();
    // One of 32 hosts.
    assert_eq!((fill.records, fill.mutexes, fill.hosts, fill.percent), (1, 1, 1, 3));
    let text = text(&report);
    assert!(text.contains("version 8") && text.contains("vg0 (global)"), "{text}");
}

#[test]
fn what_is_in_the_way_is_named() {
    let world = World::new(3, "current");
    world.start_vg("vg0", &["d0", "d1", "d2", "/nonexistent"]);
    world.control("power d0 off");
    world.control("fail d1 2 100 5/24/0");
    let report = look(&world);
    assert_eq!(report.drives[0].version, None);
    assert_eq!(report.drives[1].version, Some(0));
    let all = report.obstacles.join("\n");
    for part in [
        "/nonexistent: cannot be read",
        "a PV of VG vg0",
        "d0 does not answer",
        "d1 has no IDM",
        "of the 3 drives of the global lock only 1 can be used, and 2 are needed",
        "of the 4 drives of VG vg0 only 1 can be used, and 3 are needed",
        "nor kept",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
}

#[test]
fn a_path_that_hangs_is_asked_once_and_not_waited_for_again() {
    let world = World::new(1, "current");
    world.control("hang d0 on");
    let host = world.host();
    let fleet = Fleet::of(&host);
    let look = |time| ask(&host.topology, &fleet.drives, time, false, &mut Progress::default());
    let why = |time| look(time)[0].silence(&fleet.drives[0]).unwrap_or_default();
    let is_earlier =
        |why: &str| why.ends_with("d0.sock: it has not answered an earlier command yet");
    std::thread::scope(|scope| {
        // The look that may wait long for its answer is not the first one in every run.
        scope.spawn(|| while is_earlier(&why(Duration::from_secs(60))) {});
        let begin = Instant::now();
        loop {
            let why = why(Duration::from_millis(100));
            if is_earlier(&why) {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "{why}");
        }
        world.control("hang d0 off");
    });
}

#[test]
fn a_table_that_is_nearly_full_is_told() {
    let world = World::with(&["rev2313"]);
    for number in 0..110u8 {
        let mut id = [b'x'; 64];
        id[40] = number;
        let peer = world.peer("alpha", Duration::from_secs(30));
        peer.take(ResourceId::from_bytes(id), Mode::Exclusive);
    }
    let report = look(&world);
    assert_eq!(report.drives[0].fill.unwrap().percent, 85);
    assert!(report.obstacles[0].contains("85 % full"), "{:?}", report.obstacles);
}
