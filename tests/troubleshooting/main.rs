//! `docs/troubleshooting.md`: each row of its table is a fault that is provoked here, with the line
//! that the log really has of it.
//!
//! After a change run
//! `UPDATE_TROUBLESHOOTING=1 cargo test --features emulator --test troubleshooting`.
#![cfg(feature = "emulator")]

mod api;
mod config;
mod core;
mod drives;
mod files;
mod kill;
mod lvm;
mod page;
mod reservations;
mod restart;
mod scene;

use page::Row;
use scene::Scene;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// A fault, and the information that an administrator needs about it.
struct Fault {
    /// The drives' firmware, a profile of the emulator's.
    firmware: &'static str,
    /// The event.
    cause: &'static str,
    /// The action of the administrator.
    remedy: &'static str,
    /// Parts of the line in the log: the lock or the volume group, the drive or the file, and the
    /// remedy.
    names: [&'static str; 3],
    /// Makes it happen.
    provoke: fn(&mut Scene),
}

/// Faults of one kind.
struct Chapter {
    title: &'static str,
    faults: &'static [Fault],
}

const CHAPTERS: &[Chapter] = &[
    drives::CHAPTER,
    kill::CHAPTER,
    reservations::CHAPTER,
    restart::CHAPTER,
    config::CHAPTER,
    files::CHAPTER,
    api::CHAPTER,
];
/// The smallest number of faults that the page must have.
const FAULTS: usize = 60;

/// The largest number of lines that are shown if none is right.
const SHOWN: usize = 20;

/// Provokes a fault. The error says what the log lacks.
fn row(fault: &Fault) -> Result<Row, String> {
    let mut scene = Scene::with_firmware(fault.firmware);
    let provoked = catch_unwind(AssertUnwindSafe(|| (fault.provoke)(&mut scene)));
    let mut lines = scene.lines();
    if provoked.is_err() {
        return Err(format!("{}: it did not happen:\n{}", fault.cause, lines.join("\n")));
    }
    let is_whole = |line: &&String| fault.names.iter().all(|name| line.contains(name));
    let Some(line) = lines.iter().find(is_whole).cloned() else {
        lines.truncate(SHOWN);
        return Err(format!(
            "{}: no line of the log names all of {:?}:\n{}",
            fault.cause,
            fault.names,
            lines.join("\n")
        ));
    };
    let (cause, remedy) = (fault.cause, fault.remedy);
    Ok(Row { lvm: scene.lvm_says(), line, cause, remedy })
}

#[test]
fn the_page_says_what_the_log_says() {
    let _etc = scene::listen();
    let (mut chapters, mut lacking) = (Vec::new(), Vec::new());
    for chapter in CHAPTERS {
        let mut rows = Vec::new();
        for fault in chapter.faults {
            match row(fault) {
                Ok(row) => rows.push(row),
                Err(why) => lacking.push(why),
            }
        }
        chapters.push((chapter.title, rows));
    }
    // The library has a panic hook that writes to the log.
    drop(std::panic::take_hook());
    assert!(lacking.is_empty(), "{} faults:\n{}", lacking.len(), lacking.join("\n\n"));
    let count: usize = chapters.iter().map(|(_, rows)| rows.len()).sum();
    assert!(count >= FAULTS, "{count} faults");
    let made = page::text(&chapters);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md");
    if std::env::var_os("UPDATE_TROUBLESHOOTING").is_some() {
        std::fs::write(&page, &made).unwrap();
    }
    let checked_in = std::fs::read_to_string(&page).unwrap();
    let differs = made.lines().zip(checked_in.lines()).find(|(made, page)| made != page);
    assert!(
        made == checked_in,
        "{} is not what the log says, run UPDATE_TROUBLESHOOTING=1 cargo test --features emulator \
         --test troubleshooting: {differs:#?}",
        page.display()
    );
}
