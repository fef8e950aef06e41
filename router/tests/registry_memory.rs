//! The memory registry keeps the registry's contract.

use router::registry::contract;
use router::registry::memory::MemoryRegistry;

#[tokio::test]
async fn contract() {
    contract::run(async || MemoryRegistry::new()).await;
}
