//! The memory log keeps the log's contract.

use router::log::contract;
use router::log::memory::MemoryLog;

#[tokio::test]
async fn contract() {
    contract::run(async || MemoryLog::new(2, 2)).await;
}
