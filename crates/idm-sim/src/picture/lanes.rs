//! The drawings of one host, of one drive, and of one command.

use super::axis::Axis;
use super::svg::{Svg, width};
use super::{PAD, is_host};
use crate::ids::{DriveIx, HostIx, Ix, LockIx};
use crate::observe::{Annotation, Command, FaultSpan, Heard, Place, Recording, Tenure, Tone};
use idm_protocol::Mode;

/// The height of a row of text, in pixels.
const ROW: f64 = 15.0;
/// The height of a host's bar, and of a record's, in pixels.
const BAR: f64 = 17.0;
const RECORD: f64 = 15.0;
/// The distance from the top of a drive's lane to the marks of commands, in pixels.
pub(super) const MARK: f64 = 9.0;
/// The width of the legend, in pixels.
pub(super) const LEGEND_WIDTH: f64 = 1010.0;
/// The time within which commands of a host share one text, in us.
const BATCH: u64 = 5000;

/// The time within which the same event on several drives is noted once, in us.
const GROUP: u64 = 1_000_000;

/// A text in one of the rows above or below a bar.
struct Caption {
    x: f64,
    row: usize,
    class: String,
    text: String,
}

/// Texts in rows, without overlaps.
#[derive(Default)]
struct Rows {
    captions: Vec<Caption>,
    ends: Vec<f64>,
}

impl Rows {
    /// Puts a text at `x`, or further left so that it ends before `right`, into the first row with
    /// room.
    fn add(&mut self, x: f64, right: f64, class: String, text: String) {
        let x = x.min(right - width(&text)).max(super::GUTTER);
        let row = self.ends.iter().position(|&end| end <= x).unwrap_or(self.ends.len());
        if row == self.ends.len() {
            self.ends.push(0.0);
        }
        self.ends[row] = x + width(&text) + 8.0;
        self.captions.push(Caption { x, row, class, text });
    }

    fn height(&self) -> f64 {
        self.ends.len() as f64 * ROW
    }
}

/// A bar of a host's belief, or of its record on a drive, with the first of its names that fits.
fn bar(
    svg: &mut Svg,
    axis: &Axis,
    tenure: &Tenure,
    host: HostIx,
    (y, h): (f64, f64),
    names: &[&str],
) {
    let (x0, x1) = (axis.x(tenure.from), axis.x(tenure.to));
    if x1 <= x0 {
        return;
    }
    let i = host.get();
    let look = match (tenure.live, tenure.mode) {
        (false, _) => "over",
        (true, Mode::Shared) => "shared",
        (true, Mode::Exclusive) => "solid",
    };
    svg.rect(&format!("{look} f{i} s{i}"), (x0, y), (x1 - x0, h));
    if let Some(name) = names.iter().find(|name| width(name) + 6.0 <= x1 - x0) {
        let ink = if look == "solid" { "on" } else { "ink" };
        svg.text(ink, (x0 + 4.0, y + h - 4.0), name);
    }
}

fn band(svg: &mut Svg, axis: &Axis, fault: &FaultSpan, (top, height): (f64, f64)) {
    if axis.overlaps(fault.from, fault.to) {
        let x0 = axis.x(fault.from);
        let x1 = fault.to.map_or(axis.right(), |to| axis.x(to));
        svg.rect("fault", (x0, top), ((x1 - x0).max(2.0), height));
    }
}

/// Draws the text at the beginning of a fault's band.
fn band_text(svg: &mut Svg, axis: &Axis, fault: &FaultSpan, y: f64) {
    if axis.overlaps(fault.from, fault.to) {
        svg.text("halo bad", (axis.x(fault.from) + 3.0, y), &fault.text);
    }
}

/// The drawing of a host.
pub(super) struct HostLane<'a> {
    host: HostIx,
    name: String,
    beliefs: Vec<Tenure>,
    waits: Vec<(u64, Option<u64>)>,
    faults: Vec<&'a FaultSpan>,
    notes: Rows,
    commands: Rows,
}

impl<'a> HostLane<'a> {
    pub(super) fn new(
        recording: &'a Recording,
        lock: LockIx,
        host: HostIx,
        axis: &Axis,
    ) -> HostLane<'a> {
        let beliefs = recording.beliefs.get(&(host, lock));
        let waits = recording.waits.iter().filter(|w| w.host == host && w.lock == lock);
        HostLane {
            host,
            name: format!("{host} {}", recording.hosts[host.get()]),
            beliefs: beliefs.map_or(Vec::new(), |track| track.tenures.clone()),
            waits: waits.map(|w| (w.from, w.to)).collect(),
            faults: recording.faults.iter().filter(|f| is_host(f.place, host)).collect(),
            notes: host_notes(recording, lock, host, axis),
            commands: command_captions(recording, lock, host, axis),
        }
    }

    fn bar_top(&self) -> f64 {
        6.0 + self.notes.height().max(ROW)
    }

    /// The lower edge of the bar, where commands leave.
    pub(super) fn bar_bottom(&self) -> f64 {
        self.bar_top() + BAR
    }

    pub(super) fn height(&self) -> f64 {
        self.bar_bottom() + self.commands.height().max(ROW) + 6.0
    }

    /// Draws everything behind the commands.
    pub(super) fn draw_ground(&self, svg: &mut Svg, axis: &Axis, top: f64) {
        let y = top + self.bar_top();
        for fault in &self.faults {
            band(svg, axis, fault, (top, self.height()));
        }
        for &(from, to) in &self.waits {
            let (x0, x1) = (axis.x(from), to.map_or(axis.right(), |to| axis.x(to)));
            if x1 > x0 {
                svg.rect(
                    &format!("wait f{}", self.host.get()),
                    (x0, y + 5.0),
                    (x1 - x0, BAR - 10.0),
                );
            }
        }
        for tenure in &self.beliefs {
            let names = match (tenure.live, tenure.mode) {
                (true, Mode::Exclusive) => ["holds it, exclusive", "exclusive", "ex"],
                (true, Mode::Shared) => ["holds it, shared", "shared", "sh"],
                (false, _) => ["not safe any more", "not safe", "?"],
            };
            bar(svg, axis, tenure, self.host, (y, BAR), &names);
        }
    }

    /// Draws everything in front of the commands.
    pub(super) fn draw_texts(&self, svg: &mut Svg, axis: &Axis, top: f64) {
        let class = format!("name f{}", self.host.get());
        svg.text(&class, (PAD + 8.0, top + self.bar_bottom() - 4.0), &self.name);
        let y = top + self.bar_top();
        for fault in &self.faults {
            band_text(svg, axis, fault, y + BAR - 4.0);
        }
        for caption in &self.notes.captions {
            let row = y - 4.0 - caption.row as f64 * ROW;
            svg.text(&format!("halo {}", caption.class), (caption.x, row), &caption.text);
        }
        for caption in &self.commands.captions {
            let row = y + BAR + 12.0 + caption.row as f64 * ROW;
            svg.text(&format!("halo {}", caption.class), (caption.x, row), &caption.text);
        }
        svg.line("grid", (axis.left(), y + BAR), (axis.right(), y + BAR));
    }
}

/// The events of a host: one text for the same event on several drives.
fn host_notes(recording: &Recording, lock: LockIx, host: HostIx, axis: &Axis) -> Rows {
    let mut notes: Vec<(u64, Tone, String)> = Vec::new();
    let ours = |n: &&Annotation| is_host(n.place, host) && n.lock.is_none_or(|l| l == lock);
    for note in recording.notes.iter().filter(ours) {
        if let Some((at, tone, text)) = notes.last_mut() {
            let last = text.split(" d").next();
            let drive = note.text.rsplit_once(" d").filter(|&(stem, _)| Some(stem) == last);
            if let Some((_, drive)) = drive.filter(|_| *tone == note.tone && note.at < *at + GROUP)
            {
                text.push_str(" d");
                text.push_str(drive);
                continue;
            }
        }
        notes.push((note.at, note.tone, note.text.clone()));
    }
    let mut rows = Rows::default();
    for (at, tone, text) in notes.into_iter().filter(|&(at, ..)| axis.shows(at)) {
        let class = match tone {
            Tone::Plain => "ink",
            Tone::Good => "good",
            Tone::Bad => "bad",
        };
        rows.add(axis.x(at), axis.right(), class.to_owned(), text);
    }
    rows
}

/// The commands of a host: one text for all drives that get the same command at the same time.
fn command_captions(recording: &Recording, lock: LockIx, host: HostIx, axis: &Axis) -> Rows {
    let mut batches: Vec<(u64, &str, Vec<DriveIx>)> = Vec::new();
    let ours = |c: &&Command| c.host == host && c.lock == lock && !c.is_routine();
    for command in recording.commands.iter().filter(ours) {
        let near = |b: &&mut (u64, &str, Vec<DriveIx>)| {
            b.1 == command.verb && command.sent - b.0 <= BATCH && !b.2.contains(&command.drive)
        };
        match batches.iter_mut().rev().find(near) {
            Some(batch) => batch.2.push(command.drive),
            None => batches.push((command.sent, command.verb, vec![command.drive])),
        }
    }
    let mut rows = Rows::default();
    for (at, verb, drives) in batches {
        if axis.shows(at) {
            let names: Vec<String> = drives.iter().map(|d| d.to_string()).collect();
            let text = format!("{verb} {}", names.join(" "));
            rows.add(axis.x(at), axis.right(), "faint".to_owned(), text);
        }
    }
    rows
}

/// The drawing of a drive.
pub(super) struct DriveLane<'a> {
    drive: DriveIx,
    /// Records, each with its row.
    records: Vec<(HostIx, &'a str, usize, Tenure)>,
    rows: usize,
    faults: Vec<&'a FaultSpan>,
    texts: Rows,
}

impl<'a> DriveLane<'a> {
    pub(super) fn new(
        recording: &'a Recording,
        lock: LockIx,
        drive: DriveIx,
        axis: &Axis,
    ) -> DriveLane<'a> {
        let mut tenures: Vec<(HostIx, Tenure)> = recording
            .records
            .iter()
            .filter(|((d, l, _), _)| *d == drive && *l == lock)
            .flat_map(|((.., host), track)| track.tenures.iter().map(|&t| (*host, t)))
            .filter(|(_, t)| axis.overlaps(t.from, Some(t.to)))
            .collect();
        tenures.sort_by_key(|(host, t)| (t.from, *host));
        let mut ends: Vec<u64> = Vec::new();
        let mut records = Vec::new();
        for (host, tenure) in tenures {
            let row = ends.iter().position(|&end| end <= tenure.from).unwrap_or(ends.len());
            ends.resize(ends.len().max(row + 1), 0);
            ends[row] = tenure.to;
            records.push((host, recording.hosts[host.get()].as_str(), row, tenure));
        }
        let notes = recording.notes.iter().filter(|n| n.place == Place::Drive(drive));
        let faults = recording.faults.iter().filter(|f| f.place == Place::Drive(drive));
        let mut texts = Rows::default();
        let said = notes.map(|n| (n.at, Some(n.at), &n.text));
        let said = said.chain(faults.clone().map(|f| (f.from, f.to, &f.text)));
        for (at, _, text) in said.filter(|&(from, to, _)| axis.overlaps(from, to)) {
            texts.add(axis.x(at) + 3.0, axis.right(), "bad".to_owned(), text.clone());
        }
        let faults = faults.collect();
        DriveLane { drive, records, rows: ends.len().max(1), faults, texts }
    }

    pub(super) fn height(&self) -> f64 {
        2.0 * MARK + self.rows as f64 * (RECORD + 2.0) + self.texts.height() + 3.0
    }

    pub(super) fn draw(&self, svg: &mut Svg, axis: &Axis, top: f64) {
        let y = top + 2.0 * MARK;
        for fault in &self.faults {
            band(svg, axis, fault, (top, self.height()));
        }
        svg.text("name ink", (PAD + 8.0, y + RECORD - 4.0), &format!("drive {}", self.drive));
        for (host, name, row, tenure) in &self.records {
            let name = match (tenure.live, tenure.mode) {
                (true, Mode::Exclusive) => (*name).to_owned(),
                (true, Mode::Shared) => format!("{name}, shared"),
                (false, _) => format!("{name}: lease has run out"),
            };
            let at = y + *row as f64 * (RECORD + 2.0);
            bar(svg, axis, tenure, *host, (at, RECORD), &[&name]);
        }
    }

    /// Draws everything in front of the commands.
    pub(super) fn draw_texts(&self, svg: &mut Svg, top: f64) {
        for caption in &self.texts.captions {
            let row = top + self.height() - 5.0 - caption.row as f64 * ROW;
            svg.text(&format!("halo {}", caption.class), (caption.x, row), &caption.text);
        }
    }
}

/// A command from its host's bar to the mark of its drive, and back.
pub(super) fn draw_command(svg: &mut Svg, axis: &Axis, command: &Command, (from, to): (f64, f64)) {
    if !axis.shows(command.sent) {
        return;
    }
    let i = command.host.get();
    let end = command.executed.or(command.answered);
    let Some(end) = end.filter(|&end| axis.shows(end)) else { return };
    let (x0, x1) = (axis.x(command.sent), axis.x(end));
    if command.is_routine() {
        svg.line(&format!("ring s{i}"), (x1, to - 4.0), (x1, to + 4.0));
        return;
    }
    svg.line(&format!("way s{i}"), (x0, from), (x1, to));
    if let Some(back) = command.answered.filter(|&at| command.executed.is_some() && axis.shows(at))
    {
        if command.heard != Heard::Lost {
            svg.line(&format!("way back s{i}"), (x1, to), (axis.x(back), from));
        }
    }
    mark(svg, command, (x1, to), i);
}

/// Draws the result of a command.
fn mark(svg: &mut Svg, command: &Command, at: (f64, f64), host: usize) {
    match command.heard {
        Heard::Good => svg.circle(&format!("f{host}"), at, 4.0),
        Heard::Table => {
            svg.rect(&format!("hollow ring s{host}"), (at.0 - 3.0, at.1 - 3.0), (6.0, 6.0));
        }
        Heard::Refused => svg.circle(&format!("hollow ring s{host}"), at, 4.0),
        Heard::Lost | Heard::Error => svg.cross(at, 4.0),
        Heard::Nothing => svg.circle(&format!("ring s{host} wait f{host}"), at, 2.5),
    }
}

/// Draws the legend of the signs; returns its lower end.
pub(super) fn draw_legend(svg: &mut Svg, top: f64) -> f64 {
    let columns = [PAD, 262.0, 494.0, 770.0];
    let bars = [
        ("solid f0 s0", "believes to hold / has the record"),
        ("shared f0 s0", "the same, shared"),
        ("over f0 s0", "its lease has run out"),
        ("wait f0", "waits for the answer to a request"),
    ];
    for ((class, text), x) in bars.into_iter().zip(columns) {
        svg.rect(class, (x, top), (22.0, 11.0));
        svg.text("faint", (x + 28.0, top + 10.0), text);
    }
    let y = top + 26.0;
    let text = |svg: &mut Svg, x: f64, text: &str| svg.text("faint", (x + 28.0, y + 4.0), text);
    svg.circle("f0", (columns[0] + 10.0, y), 4.0);
    text(svg, columns[0], "the drive says GOOD");
    svg.circle("hollow ring s0", (columns[1] + 10.0, y), 4.0);
    text(svg, columns[1], "the drive refuses");
    svg.rect("hollow ring s0", (columns[2] + 7.0, y - 3.0), (6.0, 6.0));
    text(svg, columns[2], "the drive shows its table");
    svg.cross((columns[3] + 10.0, y), 4.0);
    text(svg, columns[3], "no answer, or an error");
    let y = y + 20.0;
    svg.line("ring s0", (columns[0] + 10.0, y - 4.0), (columns[0] + 10.0, y + 4.0));
    svg.text("faint", (columns[0] + 28.0, y + 4.0), "REFRESH, and GOOD");
    svg.rect("fault", (columns[1], y - 6.0), (22.0, 11.0));
    svg.text("faint", (columns[1] + 28.0, y + 4.0), "something has failed");
    let note = "Times in which nothing happens are drawn short.";
    svg.text("faint", (columns[2], y + 4.0), note);
    y + 10.0
}
