//! The tables and screens that tests make in README.md and docs/idmctl.md. With
//! `IDMCTL_WRITE_DOCS=1` they write them anew.

use std::fs;
use std::path::Path;
use std::sync::Mutex;

/// Compares a part of a page, between its marks, with the expected text.
pub fn compare(page: &str, part: &str, expected: &str) {
    // Tests of one program may write the same page.
    static WRITES: Mutex<()> = Mutex::new(());
    let _guard = WRITES.lock();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(page);
    let page = fs::read_to_string(&path).unwrap();
    let (begin, end) = (format!("<!-- {part} -->\n\n"), format!("\n<!-- end of {part} -->"));
    let (before, rest) = page.split_once(&begin).expect("the mark of the beginning");
    let (found, after) = rest.split_once(&end).expect("the mark of the end");
    if std::env::var_os("IDMCTL_WRITE_DOCS").is_some() {
        fs::write(path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
    } else {
        assert_eq!(found, expected, "run this test with IDMCTL_WRITE_DOCS=1");
    }
}
