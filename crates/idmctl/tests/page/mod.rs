//! The tables in docs/idmctl.md, which tests make. With `IDMCTL_WRITE_DOCS=1` they write them anew.

use std::fs;

/// Compares a part of docs/idmctl.md, between its marks, with the expected text.
pub fn compare(part: &str, expected: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/idmctl.md");
    let page = fs::read_to_string(path).unwrap();
    let (begin, end) = (format!("<!-- {part} -->\n\n"), format!("\n<!-- end of {part} -->"));
    let (before, rest) = page.split_once(&begin).expect("the mark of the beginning");
    let (found, after) = rest.split_once(&end).expect("the mark of the end");
    if std::env::var_os("IDMCTL_WRITE_DOCS").is_some() {
        fs::write(path, format!("{before}{begin}{expected}{end}{after}")).unwrap();
    } else {
        assert_eq!(found, expected, "run this test with IDMCTL_WRITE_DOCS=1");
    }
}
