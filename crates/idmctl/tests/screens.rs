//! The screens in README.md and docs/idmctl.md, which these tests make. With `IDMCTL_WRITE_DOCS=1`
//! they write them anew.

mod common;
mod page;

use common::{LV, VG, World, lv, members};
use idm_protocol::{HostId, Mode, Record, ResourceId, Value};
use idmctl::fleet::{Asked, Fleet, PathAnswer};
use idmctl::host::Host;
use idmctl::repair::{plan_release, text as repair_text};
use idmctl::status;
use idmctl::view::{Maker, View};
use idmctl::why::explain;
use lvmlockd_idm::state::host_id;
use std::fs;
use std::time::Duration;

const LEASE: Duration = Duration::from_secs(60);
/// The time of all screens, in ms since 1970.
const NOW_MS: u64 = 1_800_000_000_000;
/// The longest line of a screen, without its indentation.
const WIDTH: usize = 96;

/// Alice and Bob have VG vg with LV data; the program runs on bob.
fn world() -> World {
    let mut world = World::new(3, "current");
    world.this_host = HostId::new([1; 16], "bob");
    let id = host_id::format(&host_id::boot_id().unwrap(), world.this_host);
    fs::write(host_id::file(&world.dir.path().join("state")), id).unwrap();
    world.start_vg("vg", &["d0", "d1", "d2"]);
    fs::create_dir(&world.places.backups).unwrap();
    let backup = format!(
        "vg {{\n\tid = \"{VG}\"\n\tlogical_volumes {{\n\t\tdata {{\n\t\t\tid = \"{LV}\"\n\t\t}}\n\
         \t}}\n}}\n"
    );
    fs::write(world.places.backups.join("vg"), backup).unwrap();
    world.peer("bob", LEASE).named_as(world.this_host).take(members(), Mode::Shared);
    world.peer("alice", LEASE).take(members(), Mode::Shared);
    world
}

/// The drives' answers, with records whose last refresh is `age` ms ago.
fn asked(world: &World, host: &Host, age: impl Fn(&Record) -> u64) -> (Fleet, Vec<Asked>) {
    let (fleet, mut asked) = world.ask(host);
    for answer in asked.iter_mut().flat_map(|it| it.paths.values_mut()) {
        let PathAnswer::Table { records, .. } = answer else { panic!("{answer:?}") };
        for record in records {
            record.modified_ms = NOW_MS - age(record);
        }
    }
    (fleet, asked)
}

fn view(world: &World, age: impl Fn(&Record) -> u64) -> View {
    let host = world.host();
    let (fleet, asked) = asked(world, &host, age);
    Maker::new(&host, &fleet, &asked, NOW_MS).view(|_| true)
}

/// A screen with usual names of drives, indented as a block.
fn screen(command: &str, text: &str) -> String {
    let text = anstream::adapter::strip_str(text).to_string();
    let text = text.replace("d0", "/dev/sdb").replace("d1", "/dev/sdc").replace("d2", "/dev/sdd");
    let mut screen = format!("    # idmctl {command}\n");
    for line in text.lines() {
        let mut rest = line.to_owned();
        while rest.len() > WIDTH {
            let end = rest[..=WIDTH].rfind(' ').unwrap_or(WIDTH);
            screen.push_str(&format!("    {}\n", &rest[..end]));
            let indent = if line.starts_with("* ") { "  " } else { "" };
            rest = format!("{indent}{}", rest[end..].trim_start());
        }
        screen.push_str(format!("    {rest}").trim_end());
        screen.push('\n');
    }
    screen
}

#[test]
fn the_holders_of_locks() {
    let world = world();
    world.peer("alice", LEASE).take(lv(), Mode::Exclusive);
    let published = Value::new((NOW_MS - 5200) * 1000 * 2);
    world.peer("alice", LEASE).take(ResourceId::GLOBAL, Mode::Exclusive).release(published);
    let view = view(&world, |record| if record.resource == lv() { 1200 } else { 2400 });
    let text = status::text(&view, NOW_MS);
    page::compare("README.md", "screen of status", &screen("status", &text));
}

#[test]
fn the_holders_after_a_death() {
    let world = world();
    for name in &world.names {
        world.control(&format!("skip-time {name} 60000"));
        let records = world.records(name);
        let own = records.into_iter().find(|it| it.host == world.this_host).unwrap();
        world.refresh(name, own);
    }
    world.peer("bob", LEASE).named_as(world.this_host).take(lv(), Mode::Exclusive);
    world.note_lock(&lv());
    let view = view(&world, |record| match record.resource == lv() {
        true => 0,
        false if record.host == world.this_host => 2200,
        false => 61_800,
    });
    let text = status::text(&view, NOW_MS);
    page::compare("docs/idmctl.md", "screen of status", &screen("status", &text));
}

#[test]
fn the_reason_of_a_refusal() {
    let world = world();
    world.peer("alice", LEASE).take(lv(), Mode::Exclusive);
    let host = world.host();
    let (fleet, asked) = asked(&world, &host, |_| 3100);
    let answer = explain(&host, &fleet, &asked, lv(), NOW_MS);
    let text = format!("{}: {}\n", answer.lock, answer.text());
    page::compare("docs/idmctl.md", "screen of why", &screen("why vg/data", &text));
}

#[test]
fn the_dry_run_of_a_repair() {
    let world = world();
    world.peer("alice", LEASE).take(lv(), Mode::Exclusive);
    for name in &world.names {
        world.control(&format!("skip-time {name} 60000"));
    }
    let mut view = view(&world, |_| 61_800);
    view.locks.retain(|lock| lock.is(&lv()));
    let plan = plan_release(&world.host(), &view, lv(), "vg/data").unwrap();
    let text = screen("release vg/data", &repair_text(&plan));
    page::compare("docs/idmctl.md", "screen of release", &text);
}
