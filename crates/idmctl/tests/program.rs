//! The program itself, on emulated drives behind sockets.

mod common;

use common::{World, idmctl, lv, output, vg};
use idm_emulator::client::Client;
use idm_protocol::reservation::ReservationType::{
    self, ExclusiveAccess, WriteExclusive, WriteExclusiveRegistrantsOnly,
};
use idm_protocol::reservation::scsi::{self as reservation, ChangeAction, ParameterList};
use idm_protocol::{Mode, ResourceId};
use idmctl::selftest::bench::is_scratch;
use idmctl::selftest::subject::KEY;
use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn scratch(world: &World) -> usize {
    world.control("table d0").lines().filter(|line| line.contains("scratch-of-idmctl")).count()
}

#[test]
fn status_is_for_people_and_for_programs() {
    let world = World::new(3, "current");
    world.peer("alpha", Duration::from_secs(30)).take(lv(), Mode::Exclusive);
    let (code, text, _) = output(&world, &["status"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("alpha") && !text.contains('\x1b'), "{text}");
    let (code, json, _) = output(&world, &["status", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(json["locks"][0]["holders"][0]["host"]["name"], "alpha");
    let vg_uuid = common::VG;
    let (_, text, _) = output(&world, &["status", "--vg", vg_uuid, "d1"]);
    assert!(text.contains("1 of 1 drives with IDM answer: d1"), "{text}");
    // It is no remark that the other drives were not read.
    assert!(text.contains("Nothing is wrong"), "{text}");
    let (code, _, error) = output(&world, &["status", "--vg", "nobody"]);
    assert_eq!(code, Some(4));
    assert!(error.contains("nobody") && error.contains("--ask-lvm"), "{error}");
}

#[test]
fn a_drive_that_hangs_is_told_in_time() {
    let world = World::new(2, "current");
    world.peer("alpha", Duration::from_secs(30)).take(vg(), Mode::Exclusive);
    world.control("hang d1 on");
    let begin = Instant::now();
    let (code, text, _) = output(&world, &["status", "--timeout", "2"]);
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(code, Some(3));
    assert!(text.contains("alpha") && text.contains("d1 does not answer"), "{text}");
    world.control("hang d0 on");
    let (_, text, _) = output(&world, &["status", "--timeout", "0.5"]);
    assert!(text.contains("0 of 2 drives") && !text.contains("has a lock"), "{text}");
    world.control("hang d0 off");
    let (code, text, _) = output(&world, &["drives", "--timeout", "2"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("d1 does not answer"), "{text}");
}

#[test]
fn what_is_asked_wrongly_is_explained() {
    let world = World::new(1, "current");
    for args in [&["selftest", "d9", "--yes"][..], &["status", "d9"]] {
        let (code, _, error) = output(&world, args);
        assert_eq!(code, Some(4));
        assert!(error.contains("d9") && error.contains("see `idmctl drives`"), "{error}");
    }
    let (code, _, error) = output(&world, &["selftest", "d0"]);
    assert_eq!(code, Some(4));
    assert!(error.contains("give --yes"), "{error}");
    assert_eq!(output(&world, &["stauts"]).0, Some(2));
}

#[test]
fn status_is_sorted_by_what_was_wanted() {
    let world = World::new(3, "current");
    world.peer("bravo", Duration::from_secs(30)).take(vg(), Mode::Exclusive);
    world.peer("alpha", Duration::from_secs(60)).take(lv(), Mode::Exclusive);
    let first = |key| {
        let (_, text, _) = output(&world, &["status", "--sort", key]);
        text.lines().nth(1).unwrap().to_owned()
    };
    assert!(first("host").contains("alpha"), "{}", first("host"));
    assert!(first("left").contains("bravo"), "{}", first("left"));
    assert!(first("age").contains("bravo"), "{}", first("age"));
    assert_eq!(output(&world, &["status", "--sort", "colour"]).0, Some(2));
}

#[test]
fn the_uuid_of_an_lv_is_not_taken_for_a_volume_groups() {
    let world = World::new(3, "current");
    let unknown = "CCCCCC-aaaa-bbbb-cccc-dddd-eeee-ffffff";
    let lv_uuid = common::LV;
    let (code, _, error) = output(&world, &["why", lv_uuid]);
    assert_eq!(code, Some(4));
    assert!(error.contains("no drive that answers knows") && error.contains("VG/UUID"), "{error}");
    world.peer("alpha", Duration::from_secs(600)).take(lv(), Mode::Exclusive);
    let lock = format!("{}/{lv_uuid}", common::VG);
    let titled = format!("the lock of LV {lock}:");
    for text in [&lock, lv_uuid, &lv_uuid.replace('-', "")] {
        let (_, answer, error) = output(&world, &["why", text]);
        assert!(answer.starts_with(&titled), "{answer}{error}");
    }
    let (_, _, error) = output(&world, &["release", lv_uuid]);
    assert!(error.contains("the lease of alpha runs"), "{error}");
    for args in [&["status", "--vg", lv_uuid][..], &["hosts", lv_uuid], &["clear", lv_uuid]] {
        let (code, _, error) = output(&world, args);
        assert_eq!(code, Some(4));
        let wanted = format!("give the volume group of the LV: {}", common::VG);
        assert!(error.contains("the uuid of an LV") && error.contains(&wanted), "{error}");
    }
    // A lock of its volume group is known.
    let (_, answer, _) = output(&world, &["why", common::VG]);
    assert!(answer.starts_with(&format!("the lock of VG {}:", common::VG)), "{answer}");
    // A volume group without a lock is no error.
    let (code, text, _) = output(&world, &["status", "--vg", unknown]);
    assert_eq!(code, Some(0));
    assert!(text.contains("No drive has a lock."), "{text}");
}

#[test]
fn lvm_that_was_asked_is_not_recommended() {
    let world = World::new(1, "current");
    for lock in ["nobody", "nobody/data"] {
        let (code, _, error) = output(&world, &["--ask-lvm=true", "why", lock]);
        assert_eq!(code, Some(4));
        assert!(error.contains("lvm knows no such volume group"), "{error}");
    }
    // The command that follows is not used as lvm.
    let (code, _, _) = output(&world, &["--ask-lvm", "why", "nobody"]);
    assert_eq!(code, Some(4));
}

#[test]
fn a_drive_is_tested_whole_beside_a_lock_that_is_in_use() {
    let world = World::new(1, "rev2313");
    world.peer("alpha", Duration::from_secs(600)).take(lv(), Mode::Exclusive);
    let before = world.control("table d0").lines().count();
    let trace = world.dir.path().join("trace");
    let trace = trace.to_str().unwrap();
    let args = ["selftest", "d0", "--yes", "--limits", "--json", "--record", trace];
    let (code, json, error) = output(&world, &args);
    assert_eq!(code, Some(0), "{error}");
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["profile"]["exact"], serde_json::json!(["rev2313"]), "{json:#}");
    assert_eq!(json["verdict"], "as-relied-on");
    assert_eq!(json["longest_read"], 1024);
    assert!(json["latencies"].as_array().unwrap().len() >= 6);
    assert_eq!(world.control("table d0").lines().count(), before);
    // Real times are not as exact as those of a model.
    let (code, text, error) = output(&world, &["replay", trace]);
    assert_eq!(code, Some(0), "{text}{error}");
    assert!(text.contains("answered in the same way by rev2313"), "{text}");
    let changed = std::fs::read_to_string(trace).unwrap().replacen("Good", "Goog", 1);
    std::fs::write(trace, changed).unwrap();
    let (code, _, error) = output(&world, &["replay", trace]);
    assert_eq!(code, Some(4));
    assert!(error.contains("it was changed"), "{error}");
}

#[test]
fn a_drive_that_is_reserved_for_others_is_not_called_broken() {
    for kind in [WriteExclusiveRegistrantsOnly, WriteExclusive, ExclusiveAccess] {
        for (profile, code) in [("current", 0), ("current+respects-reservations", 4)] {
            let world = World::new(1, profile);
            world.peer("alpha", Duration::from_secs(600)).take(lv(), Mode::Exclusive);
            world.reserve("d0", kind);
            let state =
                || (world.control("table d0").lines().count(), world.control("reservations d0"));
            let before = state();
            let (ended, json, error) = output(&world, &["selftest", "d0", "--yes", "--json"]);
            assert_eq!(ended, Some(code), "{kind:?}: {json}{error}");
            assert_eq!(state(), before, "neither locks nor reservations were touched");
            if code == 0 {
                let json: serde_json::Value = serde_json::from_str(&json).unwrap();
                assert_eq!(json["verdict"], "as-relied-on");
                assert!(json["reservation"].as_str().unwrap().contains("1 registration"));
            } else {
                assert!(
                    error.contains("reserved for others (") && error.contains("1 reg"),
                    "{error}"
                );
                assert!(error.contains("no fault of the firmware"), "{error}");
            }
        }
    }
}

#[test]
fn a_host_that_is_registered_tests_a_reserved_drive() {
    let world = World::new(1, "current+respects-reservations");
    world.reserve("d0", WriteExclusiveRegistrantsOnly);
    let mut here = Client::connect(world.server.socket("d0")).unwrap();
    let list = ParameterList { action_key: 8, ..ParameterList::default() };
    let cdb = reservation::change(ChangeAction::Register, None);
    here.execute(&cdb, &list.encode(), 0, Duration::from_secs(5)).unwrap();
    let before = world.control("reservations d0");
    let (code, text, error) = output(&world, &["selftest", "d0", "--yes"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(text.contains("does what the library relies on"), "{text}");
    assert!(text.contains("reserved (write exclusive, registrants only; 2 reg"), "{text}");
    assert_eq!(world.control("reservations d0"), before);
}

#[test]
fn a_reservation_that_comes_during_a_test_is_told_of() {
    for kind in [WriteExclusiveRegistrantsOnly, ExclusiveAccess] {
        let world = World::new(1, "current+respects-reservations");
        let mut command = idmctl(&world, &["selftest", "d0", "--yes"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        is_under_way(&world);
        world.reserve("d0", kind);
        let ended = child.wait_with_output().unwrap();
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(4), "{error}");
        assert!(error.contains("reservations of its data have changed"), "{error}");
        // The next test removes what is left.
        world.control("power-cycle d0");
        world.control("skip-time d0 60000");
        assert_eq!(output(&world, &["selftest", "d0", "--yes"]).0, Some(0));
        assert_eq!(scratch(&world), 0);
    }
}

/// The program with a second path to d0.
fn by_two_paths(world: &World, args: &[&str]) -> Command {
    let mut command = idmctl(world, args);
    let conf = world.dir.path().join("conf");
    let settings = std::fs::read_to_string(&conf).unwrap();
    let other = format!("{}#here.1", world.server.socket("d0").display());
    std::fs::write(&conf, format!("{settings}[emulator]\nother = {other:?}\n")).unwrap();
    let socket = world.server.socket("d0");
    command.args(["--second-path", socket.to_str().unwrap()]);
    command
}

const RESERVE: [&str; 4] = ["selftest", "d0", "--yes", "--reserve"];

#[test]
fn a_drive_that_may_be_reserved_gets_exactly_its_name() {
    for profile in ["current", "current+respects-reservations"] {
        let world = World::new(1, profile);
        let before = world.control("reservations d0");
        let ended = by_two_paths(&world, &RESERVE).arg("--json").output().unwrap();
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(0), "{error}");
        let json: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
        assert_eq!(json["profile"]["exact"], serde_json::json!([profile]), "{json:#}");
        assert_eq!(json["reservation"], serde_json::Value::Null);
        let after = world.control("reservations d0");
        let rest = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(rest(&after), rest(&before), "{after}");
        assert_eq!(scratch(&world), 0);
    }
}

/// A table's text without the time that is left of each lease.
fn records(table: &str) -> Vec<String> {
    let is_time = |word: &str| word.contains('.') && word.parse::<f64>().is_ok();
    let kept = |line: &str| line.split_whitespace().filter(|word| !is_time(word)).collect();
    table.lines().map(kept).collect()
}

#[test]
fn a_drive_that_somebody_may_use_is_not_reserved() {
    let refused = |world: &World, why: &str| {
        let state = || (records(&world.control("table d0")), world.control("reservations d0"));
        let before = state();
        let ended = by_two_paths(world, &RESERVE).output().unwrap();
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(4), "{error}");
        assert!(error.contains(why) && error.contains("nobody uses"), "{error}");
        assert_eq!(state(), before);
    };
    let world = World::new(1, "current");
    world.peer("alpha", Duration::from_secs(600)).take(lv(), Mode::Exclusive);
    refused(&world, "records of other hosts");
    world.control("reset d0");
    world.start_vg("vg0", &["d0"]);
    refused(&world, "a volume group");
    let world = World::new(1, "current");
    world.reserve("d0", WriteExclusiveRegistrantsOnly);
    refused(&world, "others have registered");
    // It needs a second path.
    assert_eq!(output(&world, &RESERVE).0, Some(2));
}

#[test]
fn the_reservation_of_a_test_that_was_killed_is_ended_by_the_next_one() {
    let world = World::new(1, "current+respects-reservations");
    let list = ParameterList { action_key: KEY, ..ParameterList::default() };
    let mut here = Client::connect(world.server.socket("d0")).unwrap().by_port("here.1");
    let cdb = reservation::change(ChangeAction::Register, None);
    here.execute(&cdb, &list.encode(), 0, Duration::from_secs(5)).unwrap();
    let list = ParameterList { key: KEY, ..ParameterList::default() };
    let kind = Some(ReservationType::WriteExclusiveAllRegistrants);
    let cdb = reservation::change(ChangeAction::Reserve, kind);
    here.execute(&cdb, &list.encode(), 0, Duration::from_secs(5)).unwrap();
    let (code, _, error) = output(&world, &["selftest", "d0", "--yes"]);
    assert_eq!(code, Some(4));
    assert!(error.contains("that of a selftest that was killed"), "{error}");
    let ended = by_two_paths(&world, &RESERVE).output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let (code, _, error) = output(&world, &["selftest", "d0", "--yes"]);
    assert_eq!(code, Some(0), "{error}");
}

#[test]
fn a_table_without_room_is_left_alone() {
    let world = World::new(1, "rev2313");
    let peer = world.peer("alpha", Duration::from_secs(600));
    for number in 0..120u8 {
        let mut id = [b'x'; 64];
        id[40] = number;
        peer.take(idm_protocol::ResourceId::from_bytes(id), Mode::Exclusive);
    }
    let (code, _, error) = output(&world, &["selftest", "d0", "--yes"]);
    assert_eq!(code, Some(4));
    assert!(error.contains("93 % full"), "{error}");
    assert_eq!(scratch(&world), 0);
}

fn begin(world: &World) -> Child {
    let mut command = idmctl(world, &["selftest", "d0", "--yes"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
}

/// Waits until the test has something on the drive.
fn is_under_way(world: &World) {
    let begin = Instant::now();
    while scratch(world) == 0 {
        assert!(begin.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_test_that_is_interrupted_gives_everything_back() {
    let world = World::new(1, "current");
    let mut random = fastrand::Rng::with_seed(3);
    for name in ["-INT", "-TERM", "-HUP", "-INT", "-TERM"] {
        let mut child = begin(&world);
        is_under_way(&world);
        std::thread::sleep(Duration::from_millis(random.u64(..700)));
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(4), "{name}");
        assert_eq!(scratch(&world), 0, "{name}");
    }
}

/// The mutexes of tests on the drive.
fn scratch_mutexes(world: &World) -> BTreeSet<ResourceId> {
    world.records("d0").into_iter().map(|record| record.resource).filter(is_scratch).collect()
}

/// Kills tests until one has left mutexes, and returns these.
fn left_by_a_killed_test(world: &World) -> BTreeSet<ResourceId> {
    loop {
        let mut killed = begin(world);
        is_under_way(world);
        signal(&killed, "-KILL");
        killed.wait().unwrap();
        let left = scratch_mutexes(world);
        if !left.is_empty() {
            return left;
        }
    }
}

#[test]
fn what_a_killed_test_has_left_is_removed_by_the_next_one() {
    let world = World::new(1, "current");
    let left = left_by_a_killed_test(&world);
    world.control("skip-time d0 60000");
    let mut next = begin(&world);
    let begin = Instant::now();
    while !scratch_mutexes(&world).is_disjoint(&left) {
        assert!(begin.elapsed() < Duration::from_secs(20), "{}", world.control("table d0"));
        std::thread::sleep(Duration::from_millis(2));
    }
    signal(&next, "-INT");
    assert_eq!(next.wait().unwrap().code(), Some(4));
    assert_eq!(scratch(&world), 0, "{left:?}");
}

#[test]
fn a_watch_goes_on_until_it_is_interrupted() {
    let world = World::new(1, "current");
    let mut command = idmctl(&world, &["status", "--watch", "0.1"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let looks = lines.map_while(Result::ok).filter(|line| line == "No drive has a lock.");
    assert_eq!(looks.take(3).count(), 3);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn counters_are_shown_and_their_age_is_judged() {
    let world = World::new(1, "current");
    let (code, _, error) = output(&world, &["metrics"]);
    assert_eq!(code, Some(4));
    assert!(error.contains("metrics.prom"), "{error}");
    let file = world.dir.path().join("state/metrics.prom");
    std::fs::write(&file, "lvmlockd_idm_lockspaces 2\nlvmlockd_idm_kills_total 0\n").unwrap();
    let (code, text, _) = output(&world, &["metrics"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("lockspaces") && !text.contains("kills_total"), "{text}");
    let old = std::time::SystemTime::now() - Duration::from_secs(60);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(old).unwrap();
    let (code, _, error) = output(&world, &["metrics"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("lvmlockd is dead or hangs"), "{error}");
}
