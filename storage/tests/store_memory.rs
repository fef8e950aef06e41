//! The memory store keeps the store's contract.

use std::sync::Arc;

use storage::store::contract;
use storage::store::memory::MemoryStore;

#[tokio::test]
async fn contract() {
    contract::run(async || Arc::new(MemoryStore::new())).await;
    contract::run_receipts(async || Arc::new(MemoryStore::new())).await;
    contract::run_behind_a_log(async || Arc::new(MemoryStore::new())).await;
}
