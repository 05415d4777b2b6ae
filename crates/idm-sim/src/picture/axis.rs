//! Time from left to right. Times without events take little space, however long they are.

use std::collections::BTreeSet;

/// The least width of a gap, in pixels.
const LEAST: f64 = 3.0;
/// The additional width for each tenfold of [`SHORT`], in pixels.
const TENFOLD: f64 = 13.0;
/// A gap that is hardly visible, in us.
const SHORT: f64 = 400.0;
/// The widths, in pixels, to which the axis is stretched or compressed, and the least factor.
const NARROWEST: f64 = 980.0;
const WIDEST: f64 = 1300.0;
const TIGHTEST: f64 = 0.45;
/// The length above which a gap gets a label, in us.
const LONG: u64 = 1_000_000;

/// A mapping of times, in us, to pixels.
pub(super) struct Axis {
    /// Moments with an event, each with its position.
    anchors: Vec<(u64, f64)>,
    left: f64,
}

impl Axis {
    /// An axis from `from` to `to` with its first pixel at `left`, and these moments of interest.
    pub(super) fn new(
        left: f64,
        (from, to): (u64, u64),
        moments: impl Iterator<Item = u64>,
    ) -> Axis {
        let mut times: BTreeSet<u64> = moments.filter(|t| (from..=to).contains(t)).collect();
        times.extend([from, to]);
        let mut anchors = Vec::with_capacity(times.len());
        let (mut x, mut last) = (0.0, from);
        for time in times {
            if time > last {
                x += LEAST + TENFOLD * (1.0 + (time - last) as f64 / SHORT).log10();
            }
            anchors.push((time, x));
            last = time;
        }
        let x = f64::max(x, 1.0);
        let stretch = (NARROWEST / x).max(1.0).min((WIDEST / x).max(TIGHTEST));
        for (_, x) in &mut anchors {
            *x = left + *x * stretch;
        }
        Axis { anchors, left }
    }

    /// The position of a time; times outside are at the ends.
    pub(super) fn x(&self, time: u64) -> f64 {
        let after = self.anchors.partition_point(|&(t, _)| t < time);
        match (after.checked_sub(1).map(|i| self.anchors[i]), self.anchors.get(after)) {
            (Some((t0, x0)), Some(&(t1, x1))) => {
                x0 + (x1 - x0) * (time - t0) as f64 / (t1 - t0) as f64
            }
            (None, Some(&(_, x))) => x,
            (_, None) => self.right(),
        }
    }

    /// The first pixel.
    pub(super) fn left(&self) -> f64 {
        self.left
    }

    /// The last pixel.
    pub(super) fn right(&self) -> f64 {
        self.anchors.last().map_or(self.left, |&(_, x)| x)
    }

    /// Whether a time is shown.
    pub(super) fn shows(&self, time: u64) -> bool {
        let first = self.anchors.first().is_some_and(|&(t, _)| t <= time);
        first && self.anchors.last().is_some_and(|&(t, _)| time <= t)
    }

    /// Whether a part of a period is shown; a period without an end goes on.
    pub(super) fn overlaps(&self, from: u64, to: Option<u64>) -> bool {
        let ends = self.anchors.first().zip(self.anchors.last());
        ends.is_some_and(|(first, last)| from <= last.0 && to.is_none_or(|to| to >= first.0))
    }

    /// Gaps of more than a second, each with its first and last position and its length.
    pub(super) fn gaps(&self) -> impl Iterator<Item = (f64, f64, u64)> {
        let pairs = self.anchors.windows(2);
        let gaps = pairs.map(|pair| (pair[0].1, pair[1].1, pair[1].0 - pair[0].0));
        gaps.filter(|&(_, _, long)| long >= LONG)
    }

    /// The moments that get a label: as many as have room, the important ones first.
    pub(super) fn ticks(&self, important: impl Iterator<Item = u64>) -> Vec<(u64, f64)> {
        const ROOM: f64 = 66.0;
        let important = important.filter(|&t| self.shows(t)).map(|t| (t, self.x(t)));
        let mut ticks: Vec<(u64, f64)> = Vec::new();
        for (time, x) in important.chain(self.anchors.iter().copied()) {
            if ticks.iter().all(|&(_, other)| (x - other).abs() >= ROOM) {
                ticks.push((time, x));
            }
        }
        ticks
    }
}

/// A time in the form of a label.
pub(super) fn seconds(us: u64) -> String {
    if us % 1_000_000 == 0 {
        format!("{} s", us / 1_000_000)
    } else {
        format!("{}.{:03} s", us / 1_000_000, us / 1000 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::Axis;

    #[test]
    fn a_long_time_without_events_takes_little_room() {
        let axis = Axis::new(0.0, (0, 100_000_000), [1000, 2000, 90_000_000].into_iter());
        let burst = axis.x(2000) - axis.x(1000);
        let quiet = axis.x(90_000_000) - axis.x(2000);
        assert!(quiet > burst && quiet < 12.0 * burst, "{burst} {quiet}");
    }

    #[test]
    fn what_is_later_is_further_to_the_right() {
        let axis = Axis::new(10.0, (5, 1_000_000), [7, 8, 500_000].into_iter());
        let times = [0, 5, 6, 7, 8, 9, 1000, 500_000, 700_000, 1_000_000, 2_000_000];
        for pair in times.windows(2) {
            assert!(axis.x(pair[0]) <= axis.x(pair[1]), "{pair:?}");
        }
        assert_eq!(axis.x(0), axis.left());
        assert_eq!(axis.x(2_000_000), axis.right());
    }
}
