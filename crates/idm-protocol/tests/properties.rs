//! Properties for all bytes.

use idm_protocol::{
    Class, HostId, RECORD_LEN, Record, ResourceId, State, Value, ValueUpdate, parse_table, scsi,
};
use proptest::prelude::*;

fn record() -> impl Strategy<Value = Record> {
    let numbers = (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>());
    let value = (any::<u8>(), 0..=Value::MAX.get());
    // proptest supports arrays of up to 32 elements.
    let half = any::<[u8; 32]>;
    (numbers, value, half(), half(), half(), half(), half()).prop_map(
        |((state, modified_ms, countdown_ms, class), (update, value), a, b, c, d, host)| Record {
            state: State::from_wire(state),
            modified_ms,
            countdown_ms,
            class: Class::from_wire(class),
            value_update: ValueUpdate::from_wire(update),
            value: Value::new(value).unwrap(),
            resource: ResourceId::from_bytes(joined(a, b)),
            metadata: joined(c, d),
            host: HostId::from_bytes(host),
        },
    )
}

fn joined(a: [u8; 32], b: [u8; 32]) -> [u8; 64] {
    core::array::from_fn(|i| if i < 32 { a[i] } else { b[i - 32] })
}

proptest! {
    #[test]
    fn records_survive_the_wire(record in record()) {
        prop_assert_eq!(Record::decode(&record.encode()), record);
    }

    /// Every number has one meaning, so decoding loses only bytes without a meaning.
    #[test]
    fn blocks_survive_decoding(bytes in prop::collection::vec(any::<u8>(), RECORD_LEN)) {
        let mut block = [0; RECORD_LEN];
        block.copy_from_slice(&bytes);
        let again = Record::decode(&block).encode();
        block[0x28..0x40].fill(0);
        block[0xE0..].fill(0);
        prop_assert_eq!(again, block);
    }

    #[test]
    fn any_bytes_are_a_table(bytes in prop::collection::vec(any::<u8>(), 0..4 * RECORD_LEN)) {
        prop_assert!(parse_table(&bytes).len() <= bytes.len() / RECORD_LEN);
    }

    #[test]
    fn any_bytes_are_sense_data(
        status: u8,
        code in prop_oneof![0x70..=0x73_u8, any::<u8>()],
        rest in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let bytes: Vec<u8> = [vec![code], rest].concat();
        let _ = scsi::decode_status(status, &bytes);
        let _ = scsi::decode_status(scsi::status::CHECK_CONDITION, &bytes);
        let _ = scsi::version(&bytes);
        let _ = idm_protocol::record_count(&bytes);
    }

    #[test]
    fn any_text_is_a_uuid_or_an_error(text in ".{0,40}") {
        let _ = ResourceId::lv(&text, &text);
    }

    #[test]
    fn ids_can_be_printed(bytes: [u8; 32]) {
        let _ = HostId::from_bytes(bytes).to_string();
        let _ = ResourceId::from_bytes(joined(bytes, bytes)).to_string();
    }
}
