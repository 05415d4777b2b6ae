//! Properties of a SCSI logical unit that hold whatever hosts send.

use crate::scsi::*;
use idm_emulator::reservation::scsi::UnitReservations;
use proptest::prelude::*;

/// A command of PERSISTENT RESERVE OUT: nexus, action, type, keys, flags, and the nexus to which a
/// reservation is moved.
type Step = (usize, u8, u8, u64, u64, u8, usize);

fn step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![4 => Just(REGISTER), 6 => 1..8_u8, 1 => 8..32_u8];
    let kind = prop_oneof![9 => prop::sample::select(&TYPES[..]), 1 => any::<u8>()];
    let flags = prop_oneof![9 => 0..2_u8, 1 => any::<u8>()];
    (0..3_usize, action, kind, 0..4_u64, 0..4_u64, flags, 0..3_usize)
}

fn run(unit: &mut Unit, step: &Step) -> End {
    let &(number, action, kind, key, action_key, flags, to) = step;
    let list = match action {
        REGISTER_AND_MOVE => move_list(key, action_key, flags & 0x03, nexus(to)),
        _ => list(key, action_key, flags),
    };
    let cdb = reserve_out(action, kind, &list);
    end(&unit.reservations.execute(&nexus(number), &cdb, &list))
}

/// Checks that READ KEYS, READ RESERVATION and READ FULL STATUS agree.
fn check_shown(unit: &Unit) -> Result<(), TestCaseError> {
    let (keys, shown, reservation) = (unit.keys(), unit.full_status(), unit.reservation());
    prop_assert!(keys.iter().all(|&key| key != 0));
    prop_assert_eq!(&keys, &shown.iter().map(|one| one.key).collect::<Vec<_>>());
    for (at, one) in shown.iter().enumerate() {
        prop_assert!(shown[..at].iter().all(|other| other.nexus != one.nexus));
    }
    let holders: Vec<_> = shown.iter().filter(|one| one.holds).collect();
    let Some((key, kind)) = reservation else {
        prop_assert!(holders.is_empty());
        return Ok(());
    };
    prop_assert!(TYPES.contains(&kind));
    prop_assert!(holders.iter().all(|one| one.scope_and_type == kind));
    if kind >= 7 {
        prop_assert!(key == 0 && !shown.is_empty() && holders.len() == shown.len());
    } else {
        prop_assert_eq!(holders.len(), 1);
        prop_assert_eq!(holders[0].key, key);
    }
    // Holders may write, and registrants if the type is not for one holder alone.
    for number in 0..3 {
        let registered = shown.iter().find(|one| one.nexus == nexus(number));
        let may = registered.is_some_and(|one| one.holds || kind >= 5);
        prop_assert_eq!(unit.permits(number, &WRITE_10), may);
        let excludes_reads = [3, 6, 8].contains(&kind);
        prop_assert_eq!(unit.permits(number, &READ_10), may || !excludes_reads);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn whatever_is_sent(steps in prop::collection::vec(step(), 1..40)) {
        let mut unit = Unit::new();
        for step in &steps {
            let (before, generation) = (unit.reservations.clone(), unit.generation());
            let keys = unit.keys();
            let ended = run(&mut unit, step);
            check_shown(&unit)?;
            if ended != GOOD {
                prop_assert_eq!(&unit.reservations, &before, "{:?} was refused", step);
                continue;
            }
            // Counted: all changes of registrations, and a key that is registered once more.
            let is_nothing = [REGISTER, REGISTER_AND_IGNORE].contains(&step.1)
                && step.4 == 0
                && unit.keys() == keys;
            let counts = ![RESERVE, RELEASE].contains(&step.1) && !is_nothing;
            prop_assert_eq!(unit.generation(), generation + u32::from(counts), "{:?}", step);
            if !counts {
                prop_assert_eq!(unit.keys(), keys, "{:?}", step);
            }
        }
    }

    #[test]
    fn any_bytes(
        commands in prop::collection::vec(
            (
                prop::sample::select(&[0x5E_u8, 0x5F][..]),
                prop::collection::vec(any::<u8>(), 0..16),
                prop::collection::vec(any::<u8>(), 0..64),
            ),
            1..20,
        ),
    ) {
        let mut unit = UnitReservations::default();
        for (opcode, rest, data) in &commands {
            let cdb = [&[*opcode], &rest[..]].concat();
            for cdb in [&cdb[..], rest] {
                let reply = unit.execute(&nexus(0), cdb, data);
                prop_assert!([0x00, 0x02, 0x18].contains(&reply.status));
                unit.permits(&nexus(0), cdb, true);
                unit.before(&nexus(1), "port", cdb);
            }
        }
    }
}
