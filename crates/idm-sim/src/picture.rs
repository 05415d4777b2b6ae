//! Draws an observer's record: hosts and drives from top to bottom, time from left to right.

mod axis;
mod lanes;
mod svg;

use crate::ids::{HostIx, Ix, LockIx};
use crate::observe::{Command, Place, Recording};
use axis::{Axis, seconds};
use lanes::{DriveLane, HostLane};
use svg::Svg;

/// Width left of the axis for names, in pixels.
const GUTTER: f64 = 92.0;
/// Space between and around elements, in pixels.
const PAD: f64 = 10.0;

/// The part of a recording to draw.
#[derive(Clone, Debug)]
pub struct View {
    /// The title above it.
    pub title: String,
    /// The lock.
    pub lock: LockIx,
    /// The beginning, in us.
    pub from: u64,
    /// The end, in us; `None` means the end of the recording.
    pub to: Option<u64>,
}

/// Draws a part of a recording as an SVG.
pub fn draw(recording: &Recording, view: &View) -> String {
    Picture::new(recording, view).draw()
}

struct Picture<'a> {
    recording: &'a Recording,
    view: &'a View,
    axis: Axis,
    svg: Svg,
}

impl<'a> Picture<'a> {
    fn new(recording: &'a Recording, view: &'a View) -> Picture<'a> {
        let to = view.to.unwrap_or(recording.end).min(recording.end).max(view.from + 1);
        let axis = Axis::new(GUTTER, (view.from, to), moments(recording, view.lock));
        Picture { recording, view, axis, svg: Svg::default() }
    }

    fn draw(mut self) -> String {
        let hosts: Vec<HostLane> = (0..self.recording.hosts.len())
            .map(|h| HostLane::new(self.recording, self.view.lock, HostIx::new(h), &self.axis))
            .collect();
        let drives: Vec<DriveLane> = (0..self.recording.drives)
            .map(|d| DriveLane::new(self.recording, self.view.lock, Ix::new(d), &self.axis))
            .collect();
        let mut y = 2.0 * PAD + 8.0;
        self.svg.text("ink title", (PAD, y), &self.view.title);
        y += PAD + 16.0;
        let top = y;
        let mut tops = Vec::new();
        for height in hosts.iter().map(HostLane::height).chain(drives.iter().map(DriveLane::height))
        {
            self.svg.rect("lane", (PAD, y), (self.axis.right() - PAD + 6.0, height));
            tops.push(y);
            y += height + 6.0;
        }
        let bottom = y - 6.0;
        self.draw_grid(top, bottom);
        let (host_tops, drive_tops) = tops.split_at(hosts.len());
        for (lane, &top) in drives.iter().zip(drive_tops) {
            lane.draw(&mut self.svg, &self.axis, top);
        }
        for (lane, &top) in hosts.iter().zip(host_tops) {
            lane.draw_ground(&mut self.svg, &self.axis, top);
        }
        for command in self.commands() {
            let from = host_tops[command.host.get()] + hosts[command.host.get()].bar_bottom();
            let to = drive_tops[command.drive.get()] + lanes::MARK;
            lanes::draw_command(&mut self.svg, &self.axis, command, (from, to));
        }
        for (lane, &top) in hosts.iter().zip(host_tops) {
            lane.draw_texts(&mut self.svg, &self.axis, top);
        }
        for (lane, &top) in drives.iter().zip(drive_tops) {
            lane.draw_texts(&mut self.svg, top);
        }
        self.draw_violation(top, bottom);
        let height = lanes::draw_legend(&mut self.svg, bottom + 48.0);
        let text = self.recording.violation.as_ref().map_or(0.0, |(_, text)| svg::width(text));
        // The violation is in bold, after a label.
        let width = (self.axis.right() + 6.0 * PAD).max(lanes::LEGEND_WIDTH).max(1.1 * text + 90.0);
        self.svg.finish((width, height + PAD), &self.view.title)
    }

    fn commands(&self) -> impl Iterator<Item = &'a Command> + use<'a> {
        let (lock, recording) = (self.view.lock, self.recording);
        recording.commands.iter().filter(move |c| c.lock == lock)
    }

    /// Draws the moments, with their times below.
    fn draw_grid(&mut self, top: f64, bottom: f64) {
        let lock = self.view.lock;
        let notes = self.recording.notes.iter().filter(|n| n.lock.is_none_or(|l| l == lock));
        for (time, x) in self.axis.ticks(notes.map(|n| n.at)) {
            self.svg.line("grid", (x, top), (x, bottom));
            self.svg.text("faint", (x - 2.0, bottom + 15.0), &seconds(time));
        }
        let y = bottom + 22.0;
        for (x0, x1, long) in self.axis.gaps() {
            let text = format!("{:.1} s", long as f64 / 1e6);
            let room = x1 - x0 - svg::width(&text);
            if room > 0.0 {
                self.svg.line("grid", (x0 + 2.0, y), (x1 - 2.0, y));
                self.svg.text("faint", (x0 + room / 2.0, y + 12.0), &text);
            }
        }
    }

    fn draw_violation(&mut self, top: f64, bottom: f64) {
        let Some((at, text)) = &self.recording.violation else { return };
        if self.axis.shows(*at) {
            let x = self.axis.x(*at);
            self.svg.line("cross", (x, top), (x, bottom));
            self.svg.text("bad name", (PAD, top - 6.0), &format!("VIOLATION {text}"));
        }
    }
}

/// The moments of a lock's events. Routine refreshes need no space of their own.
fn moments(recording: &Recording, lock: LockIx) -> impl Iterator<Item = u64> {
    let commands = recording
        .commands
        .iter()
        .filter(move |c| c.lock == lock && !c.is_routine())
        .flat_map(|c| [Some(c.sent), c.executed, c.answered]);
    let notes = recording
        .notes
        .iter()
        .filter(move |n| n.lock.is_none_or(|l| l == lock))
        .map(|n| Some(n.at));
    let faults = recording.faults.iter().flat_map(|f| [Some(f.from), f.to]);
    let beliefs = recording.beliefs.iter().filter(move |((_, l), _)| *l == lock);
    let records = recording.records.iter().filter(move |((_, l, _), _)| *l == lock);
    let tracks = beliefs.map(|(_, track)| track).chain(records.map(|(_, track)| track));
    let tenures = tracks.flat_map(|track| &track.tenures).flat_map(|t| [Some(t.from), Some(t.to)]);
    commands.chain(notes).chain(faults).chain(tenures).flatten()
}

/// Whether a place is the host with this number.
fn is_host(place: Place, host: HostIx) -> bool {
    place == Place::Host(host)
}
