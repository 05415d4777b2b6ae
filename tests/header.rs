//! `include/lvmlockd_idm.h` matches `src/entry.rs`.
//!
//! After a change run `UPDATE_HEADER=1 cargo test --test header`.

use std::path::Path;

fn generated() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let mut text = Vec::new();
    cbindgen::Builder::new()
        .with_src(root.join("src/entry.rs"))
        .with_config(config)
        .generate()
        .unwrap()
        .write(&mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn header_is_up_to_date() {
    let header = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/lvmlockd_idm.h");
    let generated = generated();
    if std::env::var_os("UPDATE_HEADER").is_some() {
        std::fs::write(&header, &generated).unwrap();
    }
    let checked_in = std::fs::read_to_string(&header).unwrap();
    assert!(
        checked_in == generated,
        "{} is not what src/entry.rs says; run UPDATE_HEADER=1 cargo test --test header",
        header.display()
    );
}
