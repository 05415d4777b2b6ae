//! The page: the table, and the text around it.

/// One row.
pub struct Row {
    pub lvm: String,
    pub line: String,
    pub cause: &'static str,
    pub remedy: &'static str,
}

const HEAD: &str = "\
# Troubleshooting

This is for the administrator who has a message and wants to know what to do. Look for the message
of the lvm command in the first column, or for the line of lvmlockd's log in the second.

Errors and warnings are in the system's log (`journalctl -u lvmlockd`). `lvmlockctl --dump` has more
detail. The lines of this library begin with `idm:`; a long one is continued in the next, which
begins with `idm:`, too. In front of the text of a refused request stands the function that core
called, with its answer: `idm: lm_lock_idm lvm_vg0 VGLK ex = -218: …`.

lvm knows the numbers of other lock managers only. \"Storage errors for sanlock leases\" and
\"storage failed for sanlock leases\" are its words for drives that do not answer; sanlock has
nothing to do with it.

The table is made by `tests/troubleshooting`, which provokes each of these faults on emulated drives
and takes the line from the log. N stands for a number that is another one each time, `vg0` for the
volume group, and `/dev/d0` for a drive.
";

/// The whole page.
pub fn text(chapters: &[(&str, Vec<Row>)]) -> String {
    let mut text = HEAD.to_owned();
    for (title, rows) in chapters {
        text += &format!("\n## {title}\n\n");
        text += "| lvm says | the log says | cause | what to do |\n|---|---|---|---|\n";
        for Row { lvm, line, cause, remedy } in rows {
            let line = line.replace('|', "\\|");
            let quote = if line.contains('`') { "``" } else { "`" };
            text += &format!("| {lvm} | {quote}{line}{quote} | {cause} | {remedy} |\n");
        }
    }
    text
}
