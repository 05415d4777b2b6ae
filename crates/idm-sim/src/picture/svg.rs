//! An SVG without external parts: shapes, texts, and colours for light and dark backgrounds.

use core::fmt::{Display, Write};

/// Colours of hosts, also for their expired bars, on light and on dark ground.
const HOSTS: [(&str, &str); 8] = [
    ("#1f6feb", "#58a6ff"),
    ("#c2570c", "#f0883e"),
    ("#1a7f37", "#56d364"),
    ("#8250df", "#bc8cff"),
    ("#0e7490", "#39c5cf"),
    ("#a40e6a", "#f778ba"),
    ("#7d6608", "#d4b106"),
    ("#57606a", "#b1bac4"),
];

/// Colours of everything else: class, property, light, dark.
const INKS: [(&str, &str, &str, &str); 12] = [
    ("ground", "fill", "#ffffff", "#0d1117"),
    ("lane", "fill", "#f3f5f8", "#161b22"),
    ("ink", "fill", "#1f2328", "#e6edf3"),
    ("faint", "fill", "#59636e", "#9198a1"),
    ("good", "fill", "#116329", "#56d364"),
    ("bad", "fill", "#b3141e", "#ff7b72"),
    ("grid", "stroke", "#d1d9e0", "#30363d"),
    ("cross", "stroke", "#b3141e", "#ff7b72"),
    ("fault", "fill", "#d1242f", "#f85149"),
    ("hollow", "fill", "#ffffff", "#0d1117"),
    ("halo", "stroke", "#f3f5f8", "#161b22"),
    ("on", "fill", "#ffffff", "#0d1117"),
];

/// The average width of a letter, in pixels, at most.
const LETTER: f64 = 6.6;

/// The width of a text, in pixels.
pub(super) fn width(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

/// An SVG under construction.
#[derive(Default)]
pub(super) struct Svg {
    body: String,
}

impl Svg {
    /// A rectangle.
    pub(super) fn rect(&mut self, class: &str, (x, y): (f64, f64), (w, h): (f64, f64)) {
        self.add(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{w:.1}" height="{h:.1}"/>"#
        ));
    }

    /// A line.
    pub(super) fn line(&mut self, class: &str, (x0, y0): (f64, f64), (x1, y1): (f64, f64)) {
        self.add(format_args!(
            r#"<line class="{class}" x1="{x0:.1}" y1="{y0:.1}" x2="{x1:.1}" y2="{y1:.1}"/>"#
        ));
    }

    /// A circle.
    pub(super) fn circle(&mut self, class: &str, (x, y): (f64, f64), r: f64) {
        self.add(format_args!(r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="{r:.1}"/>"#));
    }

    /// A cross.
    pub(super) fn cross(&mut self, (x, y): (f64, f64), r: f64) {
        self.line("cross", (x - r, y - r), (x + r, y + r));
        self.line("cross", (x - r, y + r), (x + r, y - r));
    }

    /// A text whose left end is at `x`.
    pub(super) fn text(&mut self, class: &str, (x, y): (f64, f64), text: &str) {
        let text = escape(text);
        self.add(format_args!(r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{text}</text>"#));
    }

    fn add(&mut self, element: impl Display) {
        // Writing into a string does not fail.
        let _ = writeln!(self.body, "{element}");
    }

    /// The whole document.
    pub(super) fn finish(self, (w, h): (f64, f64), title: &str) -> String {
        let title = escape(title);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w:.0}\" height=\"{h:.0}\" \
             viewBox=\"0 0 {w:.0} {h:.0}\" role=\"img\">\n<title>{title}</title>\n{}{}{}</svg>\n",
            style(),
            "<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n",
            self.body
        )
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The style sheet, and the hatches for expired locks and for faults.
fn style() -> String {
    let mut css = String::from(
        "text{font:11.5px system-ui,'DejaVu Sans',Verdana,sans-serif}\n\
         .halo{paint-order:stroke;stroke-width:3px;stroke-linejoin:round}\n\
         .title{font-size:15px;font-weight:600}.name{font-weight:600}\n\
         .grid{stroke-width:1}.cross{stroke-width:2}\n\
         .way{stroke-width:1.2;stroke-opacity:.75}.back{stroke-dasharray:2 3;stroke-opacity:.6}\n\
         .over{fill-opacity:.15;stroke-dasharray:3 2}.shared{fill-opacity:.45}\n\
         .fault{fill-opacity:.13}.wait{fill-opacity:.25}.ring{stroke-width:1.6}\n",
    );
    for dark in [false, true] {
        if dark {
            css.push_str("@media(prefers-color-scheme:dark){\n");
        }
        for (class, property, light, night) in INKS {
            let colour = if dark { night } else { light };
            let _ = writeln!(css, ".{class}{{{property}:{colour}}}");
        }
        for (h, (light, night)) in HOSTS.iter().enumerate() {
            let colour = if dark { night } else { light };
            let _ = writeln!(css, ".f{h}{{fill:{colour}}}.s{h}{{stroke:{colour}}}");
        }
        if dark {
            css.push_str("}\n");
        }
    }
    format!("<style>\n{css}</style>\n")
}
