//! Every target on its kept inputs, and on many inputs derived from them, the same in every run.

use idm_fuzz::{TARGETS, Target};
use std::fs;
use std::path::Path;

fn kept(target: &Target) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name);
    let files = fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Changes a few bytes, cuts, repeats, or adds.
fn mutate(rng: &mut fastrand::Rng, data: &mut Vec<u8>) {
    const TELLING: [u8; 8] = [0, 1, 0x70, 0x72, 0x7F, 0x80, 0xFE, 0xFF];
    for _ in 0..rng.usize(1..8) {
        let at = rng.usize(0..=data.len());
        match rng.u8(0..6) {
            0 => data.truncate(at),
            1 => data.insert(at, rng.u8(..)),
            2 => data.extend_from_within(at..),
            3 if at < data.len() => data[at] ^= 1 << rng.u8(0..8),
            4 if at < data.len() => data[at] = TELLING[rng.usize(0..TELLING.len())],
            5 if at < data.len() => drop(data.drain(at..data.len().min(at + rng.usize(1..9)))),
            _ => {}
        }
        data.truncate(1 << 14);
    }
}

#[test]
fn nothing_that_is_read_causes_a_panic_or_passes_for_what_it_is_not() {
    for target in TARGETS {
        let kept = kept(&target);
        assert!(!kept.is_empty(), "{} has no corpus", target.name);
        kept.iter().for_each(|data| (target.check)(data));
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..target.made {
            let mut data = kept[rng.usize(0..kept.len())].clone();
            mutate(&mut rng, &mut data);
            (target.check)(&data);
        }
    }
}
