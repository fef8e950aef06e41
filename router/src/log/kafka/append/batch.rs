//! Records as the brokers store them: one batch of one partition (Kafka protocol, record batch of magic 2), written by the protocol's codec.

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::log::Topic;
use crate::log::kafka::leaders::Key;

/// What the brokers call a producer. With its place in the sequence of a partition it names a batch for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Producer {
    /// Its number.
    pub(crate) id: i64,
    /// Its epoch.
    pub(crate) epoch: i16,
}

/// The bytes of a batch that begins at this place of the producer's sequence. `now_ms`: its time, milliseconds since 1970.
pub(crate) fn batch<'a>(
    (topic, partition): Key,
    payloads: impl Iterator<Item = &'a Bytes>,
    (producer, sequence): (Producer, i32),
    now_ms: i64,
) -> Bytes {
    let key = (topic == Topic::RouterCheckpoints).then(|| Bytes::copy_from_slice(&partition.to_be_bytes())); // compacted by it
    let record = |(at, payload): (i32, &Bytes)| Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(at),
        sequence: sequence.wrapping_add(at),
        timestamp: now_ms,
        key: key.clone(),
        value: Some(payload.clone()),
        headers: IndexMap::default(),
    };
    let records: Vec<_> = (0..).zip(payloads).map(record).collect();
    let mut bytes =
        BytesMut::with_capacity(64 + records.iter().map(|one| 32 + one.value.as_ref().map_or(0, Bytes::len)).sum::<usize>());
    let options = RecordEncodeOptions { version: 2, compression: Compression::None };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).expect("sizes are bounded far below what the format can say");
    bytes.freeze()
}

/// The place in the sequence behind a batch: it goes round at 2^31, as the brokers count.
pub(super) const fn next_sequence(sequence: i32, records: usize) -> i32 {
    ((sequence as u32).wrapping_add(records as u32) & (i32::MAX as u32)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::records::RecordBatchDecoder;

    #[test]
    fn a_batch_is_read_back_as_it_was_made() {
        let payloads = [Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 100_000])];
        let producer = Producer { id: 9, epoch: 2 };
        let mut bytes = batch((Topic::RouterCheckpoints, 3), payloads.iter(), (producer, i32::MAX - 1), 1234);
        let read = RecordBatchDecoder::decode(&mut bytes.clone()).unwrap().records;
        assert_eq!(read.iter().map(|record| record.value.clone().unwrap()).collect::<Vec<_>>(), payloads);
        assert!(read.iter().all(|record| record.key.as_deref() == Some(&[0, 3]) && record.timestamp == 1234));
        let info = RecordBatchDecoder::decode_batch_info(&mut bytes).unwrap();
        assert_eq!(info.len(), 1, "one batch, also where the sequence goes round");
        assert_eq!((info[0].producer_id, info[0].producer_epoch, info[0].base_sequence), (9, 2, i32::MAX - 1));
    }

    #[test]
    fn the_sequence_goes_round_as_the_brokers_count() {
        assert_eq!(next_sequence(0, 5), 5);
        assert_eq!(next_sequence(i32::MAX, 1), 0);
        assert_eq!(next_sequence(i32::MAX - 1, 3), 1);
    }
}
